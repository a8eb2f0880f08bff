"""The thin layer of Prefect tasks: policy in the decorator, work in the functions below it.

A task run is a scene with all its farms, never one farm: Prefect costs tens of milliseconds a task run.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
import structlog
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from infra.settings import Settings
from infra.work_figures import counted_task
from models.domain import Farm, FarmFailure, Scene, SceneAnswer, SceneWork, Status
from models.errors import SceneIncomplete, ServerTrouble, SwathError, UpstreamError
from models.farms import farms_by_id
from models.ledger import begin_work, finish_work, record_scenes, work_lock
from models.observations import observed_status, save_observations
from models.readmodel import catch_up, publish, read_models
from models.searches import note_answer, note_no_answer
from tasks.bench import Bench, Progress, search_scenes
from tasks.imagery.boxes import Box
from tasks.imagery.catalogs import Catalog
from tasks.observe import INDEX, observe

log = structlog.get_logger(__name__)

POLL_S = 0.5
"""Between two looks whether another process has let go of a scene."""


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
    """Another process is at this scene right now; nothing is known of its farms yet."""
    outlook: str | None = None
    """After a failure, in words: when later runs try again, or that they do not."""


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="search {name}")
def search_catalog(
    bench: Bench, catalog: Catalog, boxes: Sequence[Box], days: tuple[dt.date, dt.date], name: str
) -> CatalogReport:
    """Ask one catalog for the scenes over the boxes and note them in the ledger."""
    del name
    with counted_task(bench.stores.redis, "search-catalog"):
        return find_scenes(bench, catalog, boxes, days)


def find_scenes(bench: Bench, catalog: Catalog, boxes: Sequence[Box], days: tuple[dt.date, dt.date]) -> CatalogReport:
    """Search, read items into scenes, and record all of them, usable or not."""
    scenes, skipped = search_scenes(bench.settings, catalog, boxes, days)
    with bench.stores.engine.begin() as connection:
        record_scenes(connection, scenes, skipped)
        note_answer(connection, catalog.name, days, scenes=len(scenes), now=dt.datetime.now(dt.UTC))
    reasons = Counter(each.reason for each in skipped)
    log.info("catalog searched", catalog=catalog.name, boxes=len(boxes), scenes=len(scenes), skipped=len(skipped))
    return CatalogReport(catalog=catalog.name, scenes=len(scenes), skipped=dict(reasons))


def note_unanswered(bench: Bench, catalog: Catalog, problem: str) -> None:
    """Note in the ledger that a catalog could not be searched."""
    try:
        with bench.stores.engine.begin() as connection:
            note_no_answer(connection, catalog.name, problem=problem, now=dt.datetime.now(dt.UTC))
    except SQLAlchemyError as error:  # the run ends Failed for the catalog anyway, and says why
        log.error("failed search not noted in the ledger", catalog=catalog.name, error=str(error))


def is_worth_another_try(_task: Any, _run: Any, state: Any) -> bool:
    """Prefect asks this before a retry: only what may pass by itself is tried again."""
    error = state.data
    if isinstance(error, OperationalError | PoolTimeout):
        return True
    return isinstance(error, SwathError) and error.is_retryable


# No tags: before each run of a task that has one, Prefect's server is asked for a place under that tag's limit, whether
# there is a limit or not. That was 8 % of a small scene's time.
@task(
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=is_worth_another_try,
    retry_jitter_factor=0.5,
)
def observe_scene(bench: Bench, work: SceneWork, wait_s: float = 0) -> SceneReport:
    """Observe the farms of a scene and save what was found; raises while farms are left that could not be answered."""
    with counted_task(bench.stores.redis, "observe-scene"):
        return observe_and_save(bench, work, wait_s=wait_s)


def scene_options(settings: Settings, work: SceneWork) -> dict[str, Any]:
    """Options of the task run `observe_scene` that depend on the settings and on the scene."""
    return {
        "task_run_name": work.label,
        "retries": settings.scene_retries,
        "retry_delay_seconds": exponential_backoff(backoff_factor=settings.scene_retry_delay_s),
    }


def observe_and_save(bench: Bench, work: SceneWork, *, wait_s: float = 0) -> SceneReport:
    """Observe the farms of a scene that are not answered yet, save, publish, and note in the ledger how it came out.

    Args:
        bench: what the run shares.
        work: the scene.
        wait_s: how long to wait for another process that is at this scene; what it answered is not read again.

    Raises:
        SceneIncomplete: some farms could not be answered; what was found of the others is saved.
    """
    progress = bench.progress(work)
    with _in_hand(bench, work, wait_s=wait_s) as is_ours:
        progress.is_elsewhere = not is_ours
        if not is_ours:
            log.info("scene is in another process's hands", scene=work.label)
            return report(bench, work)
        answer = _answer(bench, work, progress)
        _save(bench, work, progress, answer)
    if progress.failures:
        problem = _problem(progress)
        raise SceneIncomplete(
            f"{work.label}, of which {len(progress.failures)} not answered: {problem}",
            failed=len(progress.failures),
            is_retryable=any(failure.is_retryable for failure in progress.failures.values()),
        )
    return report(bench, work)


@contextlib.contextmanager
def _in_hand(bench: Bench, work: SceneWork, *, wait_s: float) -> Iterator[bool]:
    """Give True while no other process is at this scene, and False when one still is after the wait."""
    deadline = time.monotonic() + wait_s
    while True:
        with work_lock(bench.stores.engine, work.pass_id, work.tile_set) as is_ours:
            if is_ours or time.monotonic() >= deadline:
                yield is_ours
                return
        time.sleep(POLL_S)


def _answer(bench: Bench, work: SceneWork, progress: Progress) -> SceneAnswer:
    left = [farm_id for farm_id in work.farm_ids if farm_id not in progress.answered]
    with bench.stores.engine.begin() as connection:
        farms = _not_answered_since(bench, connection, work, farms_by_id(connection, left), progress)
        if not farms:  # deactivated or deleted since they were planned, or answered by another process
            return SceneAnswer(observations=(), failures=())
        begin_work(connection, work, index=INDEX, mask_policy=bench.settings.mask_policy.name)
    try:
        return observe(work, farms, method=bench.method, cache=bench.cache)
    except UpstreamError as error:
        unread = tuple((each.catalog, each.item_id) for each in work.scenes if error.url in _addresses(each))
        failures = tuple(
            FarmFailure(farm_id=farm.id, problem=str(error), is_retryable=error.is_retryable, unread=unread)
            for farm in farms
        )
        return SceneAnswer(observations=(), failures=failures)
    except ServerTrouble as error:  # the cluster's: no fault of the scene's files
        log.warning("scene not read", scene=work.label, error=str(error))
        lost = (FarmFailure(farm_id=each.id, problem=str(error), is_retryable=error.is_retryable) for each in farms)
        return SceneAnswer(observations=(), failures=tuple(lost))


def _addresses(scene: Scene) -> tuple[str, ...]:
    return (scene.red.href, scene.nir.href, scene.scl.href)


def _not_answered_since(
    bench: Bench, connection: Connection, work: SceneWork, farms: Sequence[Farm], progress: Progress
) -> list[Farm]:
    """Leave out farms that another process answered from these very scenes after they were planned here."""
    policy = bench.settings.mask_policy.name
    asked = [farm.id for farm in farms if not bench.is_again and (work.pass_id, farm.id) not in bench.asked_again]
    found = observed_status(connection, work.pass_id, asked, inputs=work.inputs, index=INDEX, mask_policy=policy)
    done = {farm.id: found[key] for farm in farms if (key := (farm.id, farm.boundary_version)) in found}
    progress.answered.update(done)
    return [farm for farm in farms if farm.id not in done]


def _save(bench: Bench, work: SceneWork, progress: Progress, answer: SceneAnswer) -> None:
    """Store the answers and the state of the work in one transaction, then let readers see them."""
    after = Progress(
        answered=progress.answered | {each.farm_id: each.status for each in answer.observations},
        failures={failure.farm_id: failure for failure in answer.failures},
    )
    with bench.stores.engine.begin() as connection:
        saved = save_observations(connection, answer.observations)
        _note_outcome(bench, connection, work, after)
    # Only now: a transaction that failed has answered nobody, and the next try asks for these farms again.
    progress.answered, progress.failures = after.answered, after.failures
    progress.saved += saved.inserted + saved.replaced
    progress.warnings = answer.warnings
    publish_farms(bench, saved.changed_farm_ids)
    log.info("scene observed", scene=work.label, **_counts(progress), failed=len(progress.failures))


def _note_outcome(bench: Bench, connection: Connection, work: SceneWork, progress: Progress) -> None:
    counts = _counts(progress)
    failures = progress.failures.values()
    finish_work(
        connection,
        work,
        index=INDEX,
        mask_policy=bench.settings.mask_policy.name,
        observed=counts.pop(Status.OBSERVED, 0),
        not_observed=counts,
        failed_farm_ids=sorted(progress.failures),
        problem=_problem(progress),
        is_retryable=any(each.is_retryable for each in failures) if failures else None,
    )


def fail_unanswered(bench: Bench, work: SceneWork, *, problem: str) -> bool:
    """Note the farms of a scene of which nothing is known as failed, also in the ledger; False when there are none."""
    progress = bench.progress(work)
    unanswered = set(work.farm_ids) - set(progress.answered) - set(progress.failures)
    if not unanswered:
        return False
    progress.fail(unanswered, problem=problem)
    if not progress.is_elsewhere:
        try:
            with bench.stores.engine.begin() as connection:
                _note_outcome(bench, connection, work, progress)
        except SQLAlchemyError as error:
            log.error("failure not noted in the ledger", scene=work.label, error=str(error))
    progress.is_elsewhere = False
    return True


def publish_farms(bench: Bench, farm_ids: Sequence[int]) -> None:
    """Bring the read models of these farms up to date in Redis; losing Redis costs speed, not an answer."""
    if not farm_ids:
        return
    try:
        with bench.stores.engine.connect() as connection:
            models = list(read_models(connection, farm_ids, mask_policy=bench.settings.mask_policy.name))
        publish(bench.stores.redis, models)
    except (redis.RedisError, OperationalError) as error:
        log.warning("read models not published", farms=len(farm_ids), error=str(error))


def publish_the_rest(bench: Bench) -> None:
    """Let Redis catch up with what it missed, in this run or before; it may have been away or have lost everything."""
    try:
        with bench.stores.engine.connect() as connection:
            written = catch_up(connection, bench.stores.redis, mask_policy=bench.settings.mask_policy.name)
    except (redis.RedisError, SQLAlchemyError) as error:
        log.warning("Redis is not complete; the next run tries again", error=str(error))
        return
    log.info("read models complete", written=written)


def report(bench: Bench, work: SceneWork) -> SceneReport:
    """How the farms of a scene came out so far; farms nothing is known of count as failed."""
    progress = bench.progress(work)
    counts = _counts(progress)
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
        is_elsewhere=progress.is_elsewhere,
        outlook=progress.outlook,
    )


def _counts(progress: Progress) -> dict[str, int]:
    return {str(status): number for status, number in sorted(Counter(progress.answered.values()).items())}


def _problem(progress: Progress) -> str | None:
    reasons = Counter(failure.problem for failure in progress.failures.values())
    return "; ".join(f"{number} x {problem}" for problem, number in reasons.most_common(3)) or None
