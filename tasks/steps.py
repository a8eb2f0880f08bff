"""The thin layer of Prefect tasks: policy in the decorator, work in the functions below it.

A task run is a scene with all its farms, never one farm: Prefect costs tens of milliseconds a task run.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import redis
import structlog
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff
from sqlalchemy.exc import OperationalError

from infra.dask import Compute, dask_compute
from infra.settings import Settings
from infra.stores import Stores, open_stores
from models.domain import FarmFailure, Scene, SceneAnswer, SceneWork, SkippedItem, Status
from models.errors import SceneIncomplete, SwathError, UpstreamError
from models.farms import farms_by_id
from models.ledger import begin_work, finish_work, record_scenes, work_lock
from models.observations import save_observations
from models.readmodel import catch_up, publish, read_models
from tasks.imagery.boxes import Box
from tasks.imagery.catalogs import Catalog
from tasks.imagery.reader import HttpLimits
from tasks.imagery.scenes import scene_from
from tasks.imagery.search import SearchOptions, search_items
from tasks.indices.footprints import FootprintCache
from tasks.observe import INDEX, Method, observe

log = structlog.get_logger(__name__)

SOFTWARE_VERSION = version("swath")


@dataclass(slots=True)
class Progress:
    """How far one scene has come in this run; a further try asks only for what is not answered."""

    answered: dict[int, Status] = field(default_factory=dict)
    failures: dict[int, FarmFailure] = field(default_factory=dict)
    saved: int = 0
    warnings: tuple[str, ...] = ()
    is_elsewhere: bool = False

    def fail(self, farm_ids: Iterable[int], *, problem: str) -> None:
        """Note farms of which nothing else is known as failed."""
        for farm_id in farm_ids:
            self.failures[farm_id] = FarmFailure(farm_id=farm_id, problem=problem, is_retryable=False)


class Bench:
    """What the steps of one run share: settings, connections, Dask, footprints made so far, progress by scene.

    Not a dataclass: Prefect walks through dataclasses among a task's arguments.
    """

    def __init__(self, settings: Settings, stores: Stores, compute: Compute) -> None:
        self.settings = settings
        self.stores = stores
        self.compute = compute
        self.cache = FootprintCache()
        self._progress: dict[tuple[str, str], Progress] = {}

    def progress(self, work: SceneWork) -> Progress:
        """How far this scene has come."""
        return self._progress.setdefault((work.pass_id, work.tile_set), Progress())

    @property
    def method(self) -> Method:
        """How scenes are observed in this run."""
        return Method(
            policy=self.settings.mask_policy,
            software_version=SOFTWARE_VERSION,
            compute=self.compute,
            inner_margin_m=self.settings.inner_margin_m,
            min_inner_pixels=self.settings.min_inner_pixels,
            http=http_limits(self.settings),
        )


@contextlib.contextmanager
def open_bench(settings: Settings) -> Iterator[Bench]:
    """Open the stores and Dask for one run."""
    with open_stores(settings) as stores, dask_compute(settings) as compute:
        yield Bench(settings, stores, compute)


def http_limits(settings: Settings) -> HttpLimits:
    """Patience with file servers, from the settings."""
    return HttpLimits(
        timeout_s=settings.http_timeout_s,
        connect_timeout_s=settings.http_connect_timeout_s,
        retries=settings.http_retries,
        retry_delay_s=settings.http_retry_delay_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogReport:
    """What one catalog gave for one search."""

    catalog: str
    scenes: int
    skipped: Mapping[str, int]
    """Items that cannot be used, by reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneReport:
    """How the farms of one scene came out; every farm asked for is in one of the counts."""

    tile_set: str
    day: dt.date
    catalog: str
    farms: int
    observed: int
    not_observed: Mapping[str, int]
    failed: int
    saved: int
    """Observations that are new or differ from what was stored."""
    problem: str | None
    warnings: tuple[str, ...]
    is_elsewhere: bool
    """Another process is at this scene right now; its farms are counted there."""


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="search {name}")
def search_catalog(
    bench: Bench, catalog: Catalog, boxes: Sequence[Box], days: tuple[dt.date, dt.date], name: str
) -> CatalogReport:
    """Ask one catalog for the scenes over the boxes and note them in the ledger."""
    del name
    return find_scenes(bench, catalog, boxes, days)


def find_scenes(bench: Bench, catalog: Catalog, boxes: Sequence[Box], days: tuple[dt.date, dt.date]) -> CatalogReport:
    """Search, read items into scenes, and record all of them, usable or not."""
    settings = bench.settings
    options = SearchOptions(
        connect_timeout_s=settings.http_connect_timeout_s,
        read_timeout_s=settings.http_timeout_s,
        retries=settings.http_retries,
        retry_delay_s=settings.http_retry_delay_s,
    )
    found = [scene_from(item, catalog) for item in search_items(catalog, boxes, *days, options=options)]
    scenes = [each for each in found if isinstance(each, Scene) and days[0] <= each.day <= days[1]]
    skipped = [each for each in found if isinstance(each, SkippedItem)]
    with bench.stores.engine.begin() as connection:
        record_scenes(connection, scenes, skipped)
    reasons = Counter(each.reason for each in skipped)
    log.info("catalog searched", catalog=catalog.name, boxes=len(boxes), scenes=len(scenes), skipped=len(skipped))
    return CatalogReport(catalog=catalog.name, scenes=len(scenes), skipped=dict(reasons))


def is_worth_another_try(_task: Any, _run: Any, state: Any) -> bool:
    """Prefect asks this before a retry: only what may pass by itself is tried again."""
    error = state.data
    return isinstance(error, OperationalError) or (isinstance(error, SwathError) and error.is_retryable)


@task(
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=is_worth_another_try,
    retry_jitter_factor=0.5,
    tags=["imagery"],
)
def observe_scene(bench: Bench, work: SceneWork) -> SceneReport:
    """Observe the farms of a scene and save what was found; raises while farms are left that could not be answered."""
    return observe_and_save(bench, work)


def scene_options(settings: Settings, work: SceneWork) -> dict[str, Any]:
    """Options of the task run `observe_scene` that depend on the settings and on the scene."""
    return {
        "task_run_name": work.label,
        "retries": settings.scene_retries,
        "retry_delay_seconds": exponential_backoff(backoff_factor=settings.scene_retry_delay_s),
    }


def observe_and_save(bench: Bench, work: SceneWork) -> SceneReport:
    """Observe the farms of a scene that are not answered yet, save, publish, and note in the ledger how it came out.

    Raises:
        SceneIncomplete: some farms could not be answered; what was found of the others is saved.
    """
    progress = bench.progress(work)
    with work_lock(bench.stores.engine, work.pass_id, work.tile_set) as is_ours:
        progress.is_elsewhere = not is_ours
        if not is_ours:
            log.info("scene is in another process's hands", scene=work.label)
            return report(bench, work)
        answer = _answer(bench, work, progress)
        _save(bench, work, progress, answer)
    if progress.failures:
        problem = _problem(progress)
        raise SceneIncomplete(
            f"{work.label}: {len(progress.failures)} farms not answered: {problem}",
            failed=len(progress.failures),
            is_retryable=any(failure.is_retryable for failure in progress.failures.values()),
        )
    return report(bench, work)


def _answer(bench: Bench, work: SceneWork, progress: Progress) -> SceneAnswer:
    left = [farm_id for farm_id in work.farm_ids if farm_id not in progress.answered]
    policy = bench.settings.mask_policy.name
    with bench.stores.engine.begin() as connection:
        begin_work(connection, work, index=INDEX, mask_policy=policy)
        farms = farms_by_id(connection, left)
    if not farms:  # deactivated or deleted since they were planned
        return SceneAnswer(observations=(), failures=())
    try:
        return observe(work, farms, method=bench.method, cache=bench.cache)
    except UpstreamError as error:
        failures = tuple(
            FarmFailure(farm_id=farm.id, problem=str(error), is_retryable=error.is_retryable) for farm in farms
        )
        return SceneAnswer(observations=(), failures=failures)


def _save(bench: Bench, work: SceneWork, progress: Progress, answer: SceneAnswer) -> None:
    """Store the answers and the state of the work in one transaction, then let readers see them."""
    policy = bench.settings.mask_policy.name
    with bench.stores.engine.begin() as connection:
        saved = save_observations(connection, answer.observations)
        progress.answered.update((each.farm_id, each.status) for each in answer.observations)
        progress.failures = {failure.farm_id: failure for failure in answer.failures}
        progress.saved += saved.inserted + saved.replaced
        progress.warnings = answer.warnings
        counts = _counts(progress)
        finish_work(
            connection,
            work,
            index=INDEX,
            mask_policy=policy,
            observed=counts.pop(Status.OBSERVED, 0),
            not_observed=counts,
            failed_farm_ids=sorted(progress.failures),
            problem=_problem(progress),
            is_retryable=any(each.is_retryable for each in progress.failures.values()) if progress.failures else None,
        )
    publish_farms(bench, saved.changed_farm_ids)
    log.info("scene observed", scene=work.label, **_counts(progress), failed=len(progress.failures))


def publish_farms(bench: Bench, farm_ids: Sequence[int]) -> None:
    """Bring the read models of these farms up to date in Redis; losing Redis costs speed, not an answer."""
    if not farm_ids:
        return
    with bench.stores.engine.connect() as connection:
        models = list(read_models(connection, farm_ids, mask_policy=bench.settings.mask_policy.name))
    try:
        publish(bench.stores.redis, models)
    except redis.RedisError as error:
        log.warning("read models not published", farms=len(farm_ids), error=str(error))


def publish_the_rest(bench: Bench) -> None:
    """Let Redis catch up with what it missed, in this run or before; it may have been away or have lost everything."""
    try:
        with bench.stores.engine.connect() as connection:
            written = catch_up(connection, bench.stores.redis, mask_policy=bench.settings.mask_policy.name)
    except redis.RedisError as error:
        log.warning("Redis is not complete; the next run tries again", error=str(error))
        return
    log.info("read models complete", written=written)


def report(bench: Bench, work: SceneWork) -> SceneReport:
    """How the farms of a scene came out so far; farms nothing is known of count as failed."""
    progress = bench.progress(work)
    counts = _counts(progress)
    answered = sum(counts.values())
    return SceneReport(
        tile_set=work.tile_set,
        day=work.day,
        catalog=work.scenes[0].catalog,
        farms=len(work.farm_ids),
        observed=counts.pop(Status.OBSERVED, 0),
        not_observed=counts,
        failed=0 if progress.is_elsewhere else len(progress.failures),
        saved=progress.saved,
        problem=_problem(progress),
        warnings=progress.warnings,
        is_elsewhere=progress.is_elsewhere and not answered,
    )


def _counts(progress: Progress) -> dict[str, int]:
    return {str(status): number for status, number in sorted(Counter(progress.answered.values()).items())}


def _problem(progress: Progress) -> str | None:
    reasons = Counter(failure.problem for failure in progress.failures.values())
    return "; ".join(f"{number} x {problem}" for problem, number in reasons.most_common(3)) or None
