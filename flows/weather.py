"""Weather of every farm: what runs in which order."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import structlog
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, as_completed
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from flows.artifacts import leave_artifact
from flows.counting import counted
from flows.going_on import YEAR, BackfillCancelled, Then, going_on
from flows.reconcile import at_work
from flows.run_names import Parameters, named, of_asked, of_last_days
from flows.wanted import wanted_farms
from infra.settings import load_settings
from infra.telemetry import ensure_logs
from models.days import FIRST_ANALYSIS, pieces_newest_first
from models.errors import BadInput, UpstreamExhausted
from models.farms import count_farms
from models.ledger import work_lock
from models.selection import selected_ids
from models.weather import Source
from models.weather_missing import DaySpan
from tasks.weather_bench import Asked, WeatherBench, open_weather_bench
from tasks.weather_due import WeatherWork, assign_missing_cells, due_of_days, due_today
from tasks.weather_steps import BatchReport, fetch_weather, publish_changed

log = structlog.get_logger(__name__)

MAX_LOOKBACK_DAYS = 366
ARTIFACT_ROWS = 500
PROBLEM_CHARACTERS = 300
"""Of an error that nobody foresaw; the log has all of it."""
NAMED_PROBLEMS = 3
POLL_S = 1.0
"""Between two looks whether another backfill is done with a year."""

Watch = Callable[[BatchReport, int, int], None]
"""Told of every finished batch: its report, batches done, batches known of so far."""

_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextlib.contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Have every finished batch of runs in this block told to `watch`."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeatherSummary:
    """How a run came out."""

    start: dt.date
    end: dt.date
    """Last day of the past that was asked for; forecasts reach further."""
    farms: int
    batches: tuple[BatchReport, ...] = ()
    asked: dict[Source, Asked] = field(default_factory=dict)
    not_asked: dict[str, str] = field(default_factory=dict)
    """Services of which days were due that were not asked for any more, with the reason."""

    @property
    def inserted(self) -> int:
        """Readings, of one cell and day each, that are new."""
        return sum(batch.inserted for batch in self.batches)

    @property
    def replaced(self) -> int:
        """Readings that differ from what was stored."""
        return sum(batch.replaced for batch in self.batches)

    @property
    def failed(self) -> int:
        """Cells of batches that were not told; what is missing is asked for again at the next run."""
        return sum(batch.failed for batch in self.batches)

    @property
    def is_loss(self) -> bool:
        """Whether anything that was due is missing."""
        return self.failed > 0 or bool(self.not_asked)

    @property
    def problems(self) -> list[str]:
        """What went wrong, each problem once."""
        found = {batch.problem: None for batch in self.batches if batch.problem is not None}
        return [*found, *(f"{service}: {reason}" for service, reason in self.not_asked.items())]

    def as_state(self) -> State[Any]:
        """The state in which a flow run with this summary ends: Failed over any loss."""
        words = [f"{len(self.batches)} batches, {self.inserted} readings new, {self.replaced} replaced"]
        words += [f"{self.failed} cells failed"] if self.failed else []
        message = "; ".join([", ".join(words), *self.problems[:NAMED_PROBLEMS]])
        return Failed(message=message, data=self) if self.is_loss else Completed(message=message, data=self)


def _daily_name(given: Parameters) -> str:
    back = given.get("lookback_days")
    if back is None:
        try:
            back = load_settings().weather_lookback_days
        except BadInput:  # the run itself says which setting is wrong
            return "weather"
    return of_last_days("weather", back, dt.datetime.now(dt.UTC).date(), most=MAX_LOOKBACK_DAYS)


@flow(name="daily-weather", flow_run_name=named(_daily_name), persist_result=False)
def daily_weather(lookback_days: int | None = None) -> State[Any]:
    """Bring the weather of every farm up to date from both sources: the last days, those ahead, and what was replaced.

    Args:
        lookback_days: how far back to fill days that are missing; SWATH_WEATHER_LOOKBACK_DAYS when not given.
    """
    settings = load_settings()
    back = settings.weather_lookback_days if lookback_days is None else lookback_days
    if not 0 <= back <= MAX_LOOKBACK_DAYS:
        raise BadInput("lookback_days", f"{back} is out of range", allowed=f"0 to {MAX_LOOKBACK_DAYS}")
    ensure_logs(settings)
    with (
        open_weather_bench(settings) as bench,
        at_work(bench.stores.engine),
        counted(bench.stores.redis) as outcome,
    ):
        today = bench.now().date()
        assign_missing_cells(bench)
        run = _Run(bench)
        run.wave(due_today(bench, lookback_days=back))
        summary = run.finish(DaySpan(today - dt.timedelta(days=back), today), farm_ids=None)
        outcome.is_failure = summary.is_loss
    _leave_artifact(summary)
    return summary.as_state()


@flow(name="backfill-weather", flow_run_name=named(lambda given: of_asked("weather", given)), persist_result=False)
def backfill_weather(
    start: dt.date,
    end: dt.date,
    farms: list[uuid.UUID] | None = None,
    bbox: list[float] | None = None,
    then: Then | None = None,
) -> State[Any]:
    """Fill the weather of the past from both sources, newest year first, after live work; only what is missing.

    May be killed at any moment and started again: every batch is saved whole or not at all.

    Args:
        start: first UTC day.
        end: last UTC day, included.
        farms: `external_farm_id` of the farms; all active ones when not given.
        bbox: only farms that touch this box of west, south, east, north in degrees.
        then: go on with older days in further runs, a year each, and when the day's allowance is used up with the same
            ones on the next day; for long backfills, given by `swath backfill`.
    """
    try:
        with going_on(then, start, step=YEAR) as onward:
            summary, onward.may_go_on_at = _fill(start, end, farms=farms, bbox=bbox)
    except BackfillCancelled as reason:
        return Cancelled(message=str(reason))
    _leave_artifact(summary)
    return summary.as_state()


def _fill(
    start: dt.date, end: dt.date, *, farms: Sequence[uuid.UUID] | None, bbox: Sequence[float] | None
) -> tuple[WeatherSummary, dt.datetime | None]:
    """Fill these days, and tell when it may go on where the day's allowance was used up."""
    if start > end:
        raise BadInput("start", f"{start} is after the end, {end}")
    if start < FIRST_ANALYSIS:
        raise BadInput("start", f"{start} is too early", allowed=f"from {FIRST_ANALYSIS} on")
    settings = load_settings()
    ensure_logs(settings)
    with (
        open_weather_bench(settings, is_live=False) as bench,
        at_work(bench.stores.engine),
        counted(bench.stores.redis) as outcome,
    ):
        span = DaySpan(start, min(end, bench.now().date()))
        if span.last < start:
            raise BadInput("start", f"{start} is ahead", allowed=f"to {span.last}; forecasts come with the daily run")
        assign_missing_cells(bench)
        farm_ids = _farm_ids(bench, farms, bbox)
        run = _Run(bench)
        for year in pieces_newest_first(span, YEAR):
            with _alone(bench, year):
                run.wave(due_of_days(bench, year, farm_ids=farm_ids))
        summary = run.finish(span, farm_ids=farm_ids)
        outcome.is_failure = summary.is_loss
        exhausted = [bench.closed(source, source.value) for source in Source]
    return summary, max((each.until for each in exhausted if isinstance(each, UpstreamExhausted)), default=None)


@contextlib.contextmanager
def _alone(bench: WeatherBench, days: DaySpan) -> Iterator[None]:
    """Be the only backfill at this year: of two, the second finds what the first has fetched, and asks for the rest."""
    for turn in itertools.count():
        with work_lock(bench.stores.engine, "backfill-weather", str(days.last.year)) as is_ours:
            if is_ours:
                yield
                return
        if turn == 0:
            log.info("another backfill is at this year; waiting", year=days.last.year)
        time.sleep(POLL_S)


def _farm_ids(
    bench: WeatherBench, external_ids: Sequence[uuid.UUID] | None, bbox: Sequence[float] | None
) -> list[int] | None:
    if external_ids is None and bbox is None:
        return None
    with bench.stores.engine.connect() as connection:
        selection, _ = wanted_farms(connection, external_ids, bbox)
        return selected_ids(connection, selection)


class _Run:
    """One run: its waves of batches, and how they came out."""

    def __init__(self, bench: WeatherBench) -> None:
        self._bench = bench
        self._batches: list[BatchReport] = []
        self._not_asked: dict[str, str] = {}
        self._known = 0

    def wave(self, works: Sequence[WeatherWork]) -> None:
        """Do these batches, both sources side by side; a batch that fails does not stop the others."""
        due = [work for work in works if self._is_worth_asking(work)]
        self._known += len(due)
        log.info("planned", batches=len(due))
        if not due:
            return
        watch = _watch.get()
        with contextlib.ExitStack() as stack:
            running: dict[PrefectFuture[Any], WeatherWork] = {}
            for source in Source:
                # One source that waits for its allowance does not keep the other from working.
                threads: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=self._workers(source))
                runner = stack.enter_context(threads)
                own = (work for work in due if work.source is source)
                running |= {_submit(runner, self._bench, work): work for work in own}
            for future in as_completed(list(running)):
                report = _report(running[future], future)
                self._batches.append(report)
                if watch is not None:
                    watch(report, len(self._batches), self._known)

    def _workers(self, source: Source) -> int:
        """Batches of a source in hand at the same time."""
        if source is Source.NASA_POWER:
            return self._bench.settings.nasa_power_at_once
        # Of two batches, one is saved while the other is asked for; live ones keep their order, forecasts first.
        return 1 if self._bench.is_live else 2

    def _is_worth_asking(self, work: WeatherWork) -> bool:
        reason = self._bench.closed(work.source, work.service)
        if reason is not None:
            self._not_asked.setdefault(work.service, str(reason))
        return reason is None

    def finish(self, days: DaySpan, *, farm_ids: Sequence[int] | None) -> WeatherSummary:
        """Let readers see what changed, and tell how the run came out."""
        publish_changed(self._bench, self._batches)
        with self._bench.stores.engine.connect() as connection:
            farms = count_farms(connection) if farm_ids is None else len(farm_ids)
        return WeatherSummary(
            start=days.first,
            end=days.last,
            farms=farms,
            batches=tuple(self._batches),
            asked=self._bench.asked,
            not_asked=self._not_asked,
        )


def _submit(runner: ThreadPoolTaskRunner[Any], bench: WeatherBench, work: WeatherWork) -> PrefectFuture[Any]:
    step = fetch_weather.with_options(task_run_name=work.label)
    return runner.submit(step, parameters={"bench": bench, "work": quote(work)})


def _report(work: WeatherWork, future: PrefectFuture[Any]) -> BatchReport:
    """What came of a batch; after an error that nobody foresaw, none of its cells was told."""
    future.wait()  # asked for its state before, it reads what Prefect's server has recorded so far
    found: object = future.result(raise_on_failure=False)
    if isinstance(found, BatchReport):
        return found
    problem = textwrap.shorten(future.state.message or future.state.name or "crashed", PROBLEM_CHARACTERS)
    log.error("batch failed", batch=work.label, error=problem, exc_info=isinstance(found, Exception) and found)
    return BatchReport.of_failure(work, problem)


def _leave_artifact(summary: WeatherSummary) -> None:
    """Leave in the Prefect UI what a person wants to know of the run."""
    lines = [
        f"## Weather {summary.start} to {summary.end}",
        f"{summary.farms:,} farms, {len(summary.batches):,} batches: {summary.inserted:,} readings new, "
        f"{summary.replaced:,} replaced, {summary.failed:,} cells failed.",
    ]
    for source, asked in summary.asked.items():
        lines.append(f"- {source}: {asked.requests:,} requests, {asked.weight:,.1f} weighted calls")
    lines += [f"- **{_plain(problem)}**" for problem in summary.problems[:ARTIFACT_ROWS]]
    if summary.batches:
        lines += ["", "| source | days | cells | new | replaced | unchanged | implausible | untold | failed |"]
        lines += ["| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    ranked = sorted(summary.batches, key=lambda batch: (-batch.failed, -batch.days.last.toordinal(), batch.label))
    for batch in itertools.islice(ranked, ARTIFACT_ROWS):
        numbers = (
            *(batch.cells, batch.inserted, batch.replaced, batch.unchanged),
            *(batch.implausible, batch.untold, batch.failed),
        )
        days = f"{batch.days.first} to {batch.days.last}"
        lines.append("| " + " | ".join([batch.service.replace(":", " "), days, *map(str, numbers)]) + " |")
    if len(ranked) > ARTIFACT_ROWS:
        lines.append(f"\nand {len(ranked) - ARTIFACT_ROWS:,} more batches")
    leave_artifact(lines, key="weather-summary", description="Cells by source and outcome")


def _plain(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
