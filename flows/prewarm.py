"""Weather kept ready: hours of all farms' cells asked for when there is a new model run, and Redis written in time."""

from __future__ import annotations

import datetime as dt
import textwrap
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
import redis
import structlog
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from prefect.utilities.annotations import quote
from sqlalchemy.exc import SQLAlchemyError

from flows.counting import counted
from flows.reconcile import at_work
from infra.settings import load_settings
from infra.telemetry import ensure_logs
from models.errors import UpstreamError, UpstreamExhausted
from models.weather import Cell, Grain, Source
from models.weather_bodies import HOURLY_DAYS
from models.weather_cells import cells_of_active_farms
from models.weather_fresh import cells_without_hours
from tasks.weather.model_runs import ModelRun, newest_run
from tasks.weather.open_meteo_requests import MAX_WEIGHT, Endpoint, requests_for
from tasks.weather.polite import PoliteClient
from tasks.weather_bench import WeatherBench, manners, open_meteo_hosts, open_weather_bench
from tasks.weather_due import WeatherWork, assign_missing_cells
from tasks.weather_publish import publish_weather
from tasks.weather_steps import BatchReport, fetch_weather

log = structlog.get_logger(__name__)

LONGEST_RUN = dt.timedelta(minutes=40)
"""No wait for an allowance goes beyond this: a run that is still there when the next one is due keeps it from starting,
and what Redis has would expire."""
CELLS_AT_ONCE = 100
"""Of one request: some 26,000 readings, which are saved in about a second."""
SPARE_DAYS = 1
"""Asked for ahead of what is told, so that midnight shortens nothing while the run is the same; up to two weeks in all
cost the same."""
PROBLEM_CHARACTERS = 300

Fetch = Callable[[WeatherWork], BatchReport]
"""Asks for one batch of cells and saves it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrewarmSummary:
    """How a run came out."""

    cells: int
    """Of active farms."""
    run: ModelRun | None
    """The newest model run, where the service tells it."""
    batches: tuple[BatchReport, ...] = ()
    published: int = 0
    """Bodies written to Redis."""
    problems: tuple[str, ...] = field(default=())
    """Why Redis may not have all it should."""

    @property
    def asked(self) -> int:
        """Cells asked for, because there may be something new."""
        return sum(batch.cells for batch in self.batches)

    @property
    def failed(self) -> int:
        """Cells asked for and not told: readers have what was known before, with its age."""
        return sum(batch.failed for batch in self.batches)

    def as_state(self) -> State[Any]:
        """The state in which a flow run with this summary ends: Failed over any loss."""
        run = f"run of {self.run.initialised_at:%Y-%m-%d %H:%M}" if self.run else "run not known"
        words = [f"{self.cells} cells, {run}: {self.asked - self.failed} refreshed, {self.published} bodies written"]
        if self.failed:
            words.append(f"{self.failed} not told, last known served: {self._why()}")
        words += self.problems
        state = Failed if self.failed or self.problems else Completed
        return state(message="; ".join(words), data=self)

    def _why(self) -> str:
        reasons = dict.fromkeys(batch.problem for batch in self.batches if batch.problem)
        return textwrap.shorten("; ".join(reasons), PROBLEM_CHARACTERS)


def _name() -> str:
    return f"weather at {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC"


@flow(name="prewarm-weather", flow_run_name=_name, persist_result=False)
def prewarm() -> State[Any]:
    """Keep current, hourly and daily weather of all active farms ready in Redis, written over before it expires.

    What is stored is written first, whatever becomes of the rest; then Open-Meteo is asked for the hours of cells that
    have not been told the newest model run.
    """
    settings = load_settings()
    ensure_logs(settings)
    patience = _Patience(time.monotonic() + LONGEST_RUN.total_seconds())
    with (
        open_weather_bench(settings, is_live=True, sleep=patience) as bench,
        at_work(bench.stores.engine),
        counted(bench.stores.redis) as outcome,
    ):
        state = warm(bench, lambda work: _as_task_run(bench, work), sleep=patience).as_state()
        outcome.is_failure = state.is_failed()
    return state


def _as_task_run(bench: WeatherBench, work: WeatherWork) -> BatchReport:
    step = fetch_weather.with_options(task_run_name=f"hourly {work.label}")
    state = step(bench, quote(work), return_state=True)
    found = state.result(raise_on_failure=False)
    if isinstance(found, BatchReport):
        return found
    # An error that nobody foresaw, or the database: the cells are as they were.
    log.error("hours not fetched", batch=work.label, error=str(found))
    problem = textwrap.shorten(state.message or str(found), PROBLEM_CHARACTERS)
    return BatchReport.of_failure(work, problem)


class _Patience:
    """Waits, but not beyond a moment."""

    def __init__(self, until: float) -> None:
        self._until = until

    def __call__(self, seconds: float) -> None:
        """Wait.

        Raises:
            UpstreamExhausted: it would take too long.
        """
        if time.monotonic() + seconds > self._until:
            at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
            raise UpstreamExhausted(Source.OPEN_METEO.value, "the wait is longer than this run may take", until=at)
        time.sleep(seconds)


def warm(bench: WeatherBench, fetch: Fetch, *, sleep: Callable[[float], None] = time.sleep) -> PrewarmSummary:
    """Write what is stored to Redis, then fetch the hours that are new, batch by batch, each written when it is there.

    Args:
        bench: what the run shares.
        fetch: asks for a batch and saves it.
        sleep: how to wait for another try of asking for the newest run.
    """
    assign_missing_cells(bench)
    redis_writer = _Writer(bench)
    redis_writer.write(None)
    with bench.stores.engine.connect() as connection:
        cells = list(cells_of_active_farms(connection, Source.OPEN_METEO))
    run = _newest_run(bench, sleep) if cells else None
    batches = []
    for work in _due(bench, cells, run):
        batch = fetch(work)
        batches.append(batch)
        if batch.failed < batch.cells:
            redis_writer.write({cell.key for cell in work.cells})
    redis_writer.make_good()
    return PrewarmSummary(
        cells=len(cells),
        run=run,
        batches=tuple(batches),
        published=redis_writer.written,
        problems=tuple(redis_writer.problems),
    )


class _Writer:
    """Writes weather to Redis, and what it could not write once more at the end."""

    def __init__(self, bench: WeatherBench) -> None:
        self._bench = bench
        self.written = 0
        self.problems: list[str] = []

    def write(self, cell_keys: Collection[str] | None) -> None:
        """Write the weather of places with any of these cells, or of all."""
        try:
            self.written += publish_weather(self._bench.stores, now=self._bench.now(), cell_keys=cell_keys)
        except (redis.RedisError, SQLAlchemyError, psycopg.Error) as error:
            log.warning("weather not published", error=str(error))
            self.problems.append(f"weather not published: {textwrap.shorten(str(error), PROBLEM_CHARACTERS)}")

    def make_good(self) -> None:
        """Where something was not written, write all; only what then fails counts."""
        if self.problems:
            self.problems = []
            self.write(None)


def _newest_run(bench: WeatherBench, sleep: Callable[[float], None]) -> ModelRun | None:
    settings = bench.settings
    with PoliteClient(Source.OPEN_METEO.value, manners(settings), now=bench.now, sleep=sleep) as client:
        try:
            return newest_run(client, open_meteo_hosts(settings), settings.open_meteo_forecast_model, now=bench.now)
        except UpstreamError as error:
            log.warning("model run not known", error=str(error))
            return None


def _due(bench: WeatherBench, cells: Sequence[Cell], run: ModelRun | None) -> list[WeatherWork]:
    """Requests for the cells that have not been told the newest run."""
    now = bench.now().astimezone(dt.UTC)
    settings = bench.settings
    with bench.stores.engine.connect() as connection:
        due = cells_without_hours(
            connection,
            [cell.key for cell in cells],
            model=settings.open_meteo_forecast_model,
            hour=now.replace(minute=0, second=0, microsecond=0),
            told_since=_told_since(run, now, max_age=dt.timedelta(hours=settings.forecast_max_age_h)),
        )
    behind, ahead = HOURLY_DAYS
    requests = requests_for(
        [cell for cell in cells if cell.key in due],
        endpoint=Endpoint.FORECAST,
        grains=[Grain.HOURLY],
        first_day=now.date() - dt.timedelta(days=behind),
        last_day=now.date() + dt.timedelta(days=ahead + SPARE_DAYS),
        model=settings.open_meteo_forecast_model,
        max_weight=min(MAX_WEIGHT, bench.limits.heaviest(is_live=bench.is_live)),
        max_locations=CELLS_AT_ONCE,
    )
    log.info("hours due", cells=len(due), requests=len(requests), run=str(run.initialised_at) if run else None)
    service = f"{Source.OPEN_METEO}:{Endpoint.FORECAST}"
    return [WeatherWork(source=Source.OPEN_METEO, service=service, requests=(each,)) for each in requests]


def _told_since(run: ModelRun | None, now: dt.datetime, *, max_age: dt.timedelta) -> dt.datetime:
    """From when on a stored forecast is new enough."""
    if run is None or run.available_at > now:
        return now - max_age
    if run.settled_at > now:
        # Soon all servers answer from it. Until then only cells of which nothing is stored are worth a request.
        return _LONG_AGO
    return run.settled_at


_LONG_AGO = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
