"""NDVI of every farm: what runs in which order."""

from __future__ import annotations

import contextlib
import datetime as dt
import textwrap
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import structlog
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, as_completed
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from flows.artifacts import leave_artifact
from flows.counting import counted
from flows.going_on import MONTH, BackfillCancelled, Then, going_on
from flows.missing import tell_of_missing
from flows.reconcile import at_work
from flows.run_names import Parameters, named, of_asked, of_last_days
from flows.wanted import wanted_farms
from infra.dask import dashboard_of
from infra.settings import load_settings
from infra.telemetry import ensure_logs
from models.domain import SceneWork
from models.errors import BadInput, SwathError
from models.selection import Selection
from tasks.bench import Bench, catalogs_of, open_bench
from tasks.completeness import Completeness, first_day_to_ask, look_for_gaps
from tasks.due import boxes_to_search, find_due
from tasks.imagery.catalogs import Catalog
from tasks.outlook import look_ahead
from tasks.steps import (
    CatalogReport,
    SceneReport,
    fail_unanswered,
    note_unanswered,
    observe_scene,
    publish_the_rest,
    report,
    scene_options,
    search_catalog,
)

log = structlog.get_logger(__name__)

MAX_LOOKBACK_DAYS = 400
LOOKBACK_DAYS = 10
ARTIFACT_ROWS = 500
"""Scenes listed in the artifact; the ledger has them all."""
PROBLEM_CHARACTERS = 300
"""Of an error that nobody foresaw; the log has all of it."""
NAMED_SCENES = 3
"""Scenes with failures that the message of a run's state names."""
LONGEST_WAIT_S = 900.0
"""For another process that is at a scene of ours when all others are done."""

Watch = Callable[[SceneReport, int, int], None]
"""Told of every finished scene: its report, scenes done, scenes in all."""

_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextlib.contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Have every finished scene of runs in this block told to `watch`."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """How a run came out."""

    start: dt.date
    end: dt.date
    farms: int
    scenes: tuple[SceneReport, ...] = ()
    catalogs: tuple[CatalogReport, ...] = ()
    catalog_problems: dict[str, str] = field(default_factory=dict)
    """Catalogs that could not be searched, with the reason: passes that only they have are missing."""
    completeness: Completeness = field(default_factory=Completeness)
    """Passes that should have been and are in no catalog. Nobody here can fill them, so they are no loss of the run."""

    @property
    def observed(self) -> int:
        """Farm observations with a value."""
        return sum(scene.observed for scene in self.scenes)

    @property
    def not_observed(self) -> dict[str, int]:
        """Farm observations without a value, by reason."""
        total: Counter[str] = Counter()
        for scene in self.scenes:
            total.update(scene.not_observed)
        return dict(sorted(total.items()))

    @property
    def failed(self) -> int:
        """Farm observations that an upstream failed us in; they are tried again at the next run."""
        return sum(scene.failed for scene in self.scenes)

    @property
    def is_loss(self) -> bool:
        """Whether anything that was due is missing."""
        return self.failed > 0 or bool(self.catalog_problems)

    def as_state(self) -> State[Any]:
        """The state in which a flow run with this summary ends: Failed over any loss."""
        words = [f"{len(self.scenes)} scenes, {self.observed} observed"]
        words += [f"{number} {reason}" for reason, number in self.not_observed.items()]
        words += [f"{self.failed} failed"] if self.failed else []
        missing = self.completeness.missing
        words += [f"{missing} {'pass' if missing == 1 else 'passes'} missing in all catalogs"] if missing else []
        message = "; ".join([", ".join(words), *self._losses()])
        return Failed(message=message, data=self) if self.is_loss else Completed(message=message, data=self)

    def _losses(self) -> Iterator[str]:
        for name, problem in self.catalog_problems.items():
            yield f"catalog {name} could not be searched: {problem}"
        broken = [scene for scene in self.scenes if scene.failed]
        for scene in broken[:NAMED_SCENES]:
            yield f"{scene.tile_set} {scene.day}: {scene.problem}"
        if len(broken) > NAMED_SCENES:
            yield f"and {len(broken) - NAMED_SCENES} more scenes"


def newest_day() -> dt.date:
    """Today under the sun: half a day ahead of UTC it is already tomorrow for the farms furthest east."""
    return (dt.datetime.now(dt.UTC) + dt.timedelta(hours=12)).date()


def _daily_name(given: Parameters) -> str:
    back = given.get("lookback_days", LOOKBACK_DAYS)
    return of_last_days("NDVI", back, newest_day(), most=MAX_LOOKBACK_DAYS)


@flow(name="daily-ndvi", flow_run_name=named(_daily_name), persist_result=False)
def daily_ndvi(lookback_days: int = LOOKBACK_DAYS) -> State[Any]:
    """Observe every farm in every pass of the last days that has no up-to-date observation yet.

    Args:
        lookback_days: how far back to look for passes that were missed, came late or were reprocessed.
    """
    if not 0 <= lookback_days <= MAX_LOOKBACK_DAYS:
        raise BadInput("lookback_days", f"{lookback_days} is out of range", allowed=f"0 to {MAX_LOOKBACK_DAYS}")
    end = newest_day()
    return _run(end - dt.timedelta(days=lookback_days), end, is_asked_for=False)


@flow(name="ndvi-days", flow_run_name=named(lambda given: of_asked("NDVI", given)), persist_result=False)
def ndvi_days(
    start: dt.date,
    end: dt.date,
    farms: list[uuid.UUID] | None = None,
    again: bool = False,
    bbox: list[float] | None = None,
    then: Then | None = None,
) -> State[Any]:
    """Observe farms in every pass from one day to another, also in scenes that rest after failures or were given up.

    Args:
        start: first local solar day.
        end: last local solar day, included.
        farms: `external_farm_id` of the farms; all active ones when not given.
        again: also where an observation from the same scenes exists, for example after a change of settings.
        bbox: only farms that touch this box of west, south, east, north in degrees.
        then: go on with older days in further runs, a month each; for long backfills, given by `swath backfill`.
    """
    try:
        with going_on(then, start, step=MONTH):
            return _run(start, end, farms=farms, bbox=bbox, again=again, is_asked_for=True)
    except BackfillCancelled as reason:
        return Cancelled(message=str(reason))


def _run(
    start: dt.date,
    end: dt.date,
    *,
    farms: Sequence[uuid.UUID] | None = None,
    bbox: Sequence[float] | None = None,
    again: bool = False,
    is_asked_for: bool,
) -> State[Any]:
    if start > end:
        raise BadInput("start", f"{start} is after the end, {end}")
    settings = load_settings()
    ensure_logs(settings)
    is_for_some = farms is not None or bbox is not None
    options = {"is_again": again, "is_for_some": is_for_some, "is_asked_for": is_asked_for}
    with (
        open_bench(settings, **options) as bench,
        at_work(bench.stores.engine) as bench.run_id,
        counted(bench.stores.redis) as outcome,
    ):
        dashboard = dashboard_of(bench.compute)
        if dashboard is not None:
            get_run_logger().info("Blocks are read on a Dask cluster: %s", dashboard)
        if not is_asked_for:
            start = first_day_to_ask(bench, start, now=dt.datetime.now(dt.UTC))
        with bench.stores.engine.connect() as connection:
            selection, count = wanted_farms(connection, farms, bbox)
        summary = _observe_days(bench, start, end, selection, farms=count)
        publish_the_rest(bench)
        outcome.is_failure = summary.is_loss
    _leave_artifact(summary, dashboard=dashboard)
    tell_of_missing(summary.completeness.told)
    return summary.as_state()


def _observe_days(bench: Bench, start: dt.date, end: dt.date, selection: Selection, *, farms: int) -> RunSummary:
    catalogs = catalogs_of(bench.settings)
    if not farms:
        return RunSummary(start=start, end=end, farms=0)
    found, problems = _search(bench, catalogs, selection, (start, end))
    works = find_due(bench, catalogs, selection, (start, end))
    scenes = tuple(_observe_all(bench, works))
    # A catalog that did not answer may have what seems to be missing; of some farms one cannot tell for a tile.
    can_tell = not problems and not bench.is_for_some
    completeness = look_for_gaps(bench, (start, end), now=dt.datetime.now(dt.UTC)) if can_tell else Completeness()
    return RunSummary(
        start=start,
        end=end,
        farms=farms,
        scenes=scenes,
        catalogs=tuple(found),
        catalog_problems=problems,
        completeness=completeness,
    )


def _search(
    bench: Bench, catalogs: Sequence[Catalog], selection: Selection, days: tuple[dt.date, dt.date]
) -> tuple[list[CatalogReport], dict[str, str]]:
    """Search every catalog; one that fails does not stop the others."""
    boxes = boxes_to_search(bench, selection)
    found, problems = [], {}
    for catalog in catalogs:
        try:
            found.append(search_catalog(bench, catalog, boxes, days, catalog.name))
        except SwathError as error:
            log.error("catalog not searched", catalog=catalog.name, error=str(error))
            problems[catalog.name] = str(error)
            note_unanswered(bench, catalog, str(error))
    return found, problems


def _observe_all(bench: Bench, works: Sequence[SceneWork]) -> Iterator[SceneReport]:
    """Observe scenes, some at a time; a scene that fails does not stop the others.

    Scenes that another process is at come last, when it has most likely answered their farms.
    """
    watch = _watch.get()
    done, due = 0, list(works)
    threads: ThreadPoolTaskRunner[SceneReport] = ThreadPoolTaskRunner(max_workers=bench.settings.scenes_at_once)
    with threads as runner:
        for wait_s in (0.0, LONGEST_WAIT_S):
            running = {_submit(runner, bench, work, wait_s=wait_s): work for work in due}
            due = []
            for future in as_completed(list(running)):
                work = running[future]
                scene = _report(bench, work, future, is_last_try=wait_s > 0)
                if scene.is_elsewhere:
                    due.append(work)
                    continue
                done += 1
                if watch is not None:
                    watch(scene, done, len(works))
                yield scene
                bench.forget(work)


def _submit(
    runner: ThreadPoolTaskRunner[SceneReport], bench: Bench, work: SceneWork, *, wait_s: float
) -> PrefectFuture[SceneReport]:
    step = observe_scene.with_options(**scene_options(bench.settings, work))
    return runner.submit(step, parameters={"bench": bench, "work": quote(work), "wait_s": wait_s})


def _report(bench: Bench, work: SceneWork, future: PrefectFuture[SceneReport], *, is_last_try: bool) -> SceneReport:
    """What came of a scene; an error that nobody foresaw counts for every farm that has no answer."""
    future.wait()  # asked for its state before, it reads what Prefect's server has recorded so far
    state = future.state
    problem = None
    is_elsewhere = bench.progress(work).is_elsewhere
    if not state.is_completed():
        problem = textwrap.shorten(state.message or state.name or "crashed", PROBLEM_CHARACTERS)
    elif is_last_try and is_elsewhere:
        problem = f"another process has had this scene in its hands for more than {LONGEST_WAIT_S:.0f} s"
    if problem is not None and fail_unanswered(bench, work, problem=problem):
        cause: object = future.result(raise_on_failure=False)
        log.error("scene failed", scene=work.label, error=problem, exc_info=isinstance(cause, Exception) and cause)
    if not is_elsewhere:
        look_ahead(bench, work)
    return report(bench, work)


def _leave_artifact(summary: RunSummary, *, dashboard: str | None) -> None:
    """Leave in the Prefect UI what a person wants to know of the run."""
    lines = [
        f"## NDVI {summary.start} to {summary.end}",
        f"{summary.farms:,} farms, {len(summary.scenes):,} scenes: {summary.observed:,} observed, "
        + "".join(f"{number:,} {reason}, " for reason, number in summary.not_observed.items())
        + f"{summary.failed:,} failed.",
    ]
    if dashboard is not None:
        lines.append(f"- blocks were read on a [Dask cluster]({dashboard})")
    for name, problem in summary.catalog_problems.items():
        lines.append(f"- **catalog {name} could not be searched**: {problem}")
    told = summary.completeness.told[:ARTIFACT_ROWS]
    lines += [f"- **in no catalog**: {gap.tile} {gap.day} by {gap.platform}, {gap.farms:,} farms" for gap in told]
    for catalog in summary.catalogs:
        lines += [f"- {catalog.catalog}: {number} items skipped: {why}" for why, number in catalog.skipped.items()]
    if summary.scenes:
        lines += ["", "| day | tile | catalog | farms | observed | cloud | outside | nodata | failed | problem |"]
        lines += ["| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"]
    ranked = sorted(summary.scenes, key=lambda scene: (-scene.failed, -scene.day.toordinal(), scene.tile_set))
    for scene in ranked[:ARTIFACT_ROWS]:
        numbers = [
            scene.farms,
            scene.observed,
            *(scene.not_observed.get(why, 0) for why in ("cloud", "outside", "nodata")),
        ]
        cells = [str(scene.day), scene.tile_set, scene.catalog, *map(str, numbers), str(scene.failed), _remark(scene)]
        lines.append("| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in cells) + " |")
    if len(ranked) > ARTIFACT_ROWS:
        lines.append(f"\nand {len(ranked) - ARTIFACT_ROWS:,} more scenes; `swath status` has the figures")
    leave_artifact(lines, key="ndvi-summary", description="Farms by scene and outcome")


def _remark(scene: SceneReport) -> str:
    return "; ".join(word for word in (scene.problem, scene.outlook, *scene.warnings) if word)
