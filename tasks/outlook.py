"""What is to become of a scene that failed: it rests, is read from another catalog, or is given up."""

from __future__ import annotations

import datetime as dt

import structlog
from sqlalchemy.exc import SQLAlchemyError

from models.domain import SceneWork
from models.retries import Patience, Verdict, note_failed_run
from tasks.bench import Bench, catalogs_of
from tasks.observe import INDEX

log = structlog.get_logger(__name__)


def look_ahead(bench: Bench, work: SceneWork) -> None:
    """After the last try of this run, note what is to become of a scene in which farms failed, if any did."""
    progress = bench.progress(work)
    if not progress.failures:
        return
    settings = bench.settings
    try:
        with bench.stores.engine.begin() as connection:
            verdict = note_failed_run(
                connection,
                work,
                unread={item for failure in progress.failures.values() for item in failure.unread},
                catalogs=[catalog.name for catalog in catalogs_of(settings)],
                now=dt.datetime.now(dt.UTC),
                patience=Patience(runs=settings.scene_runs, first_rest=dt.timedelta(seconds=settings.scene_rest_s)),
                index=INDEX,
                mask_policy=settings.mask_policy.name,
            )
    except SQLAlchemyError as error:  # the next run tries again
        log.error("failed run not noted in the ledger", scene=work.label, error=str(error))
        return
    progress.outlook = _outlook(verdict)
    log.warning("scene put off", scene=work.label, runs=verdict.failed_runs, outlook=progress.outlook)


def _outlook(verdict: Verdict) -> str:
    if verdict.replaced:
        names = ", ".join(f"{item_id} of {catalog}" for catalog, item_id in verdict.replaced)
        return f"given up {names}: read from elsewhere next time"
    if verdict.is_given_up:
        return f"given up after {verdict.failed_runs} runs"
    return f"to be tried again from {verdict.not_before:%Y-%m-%d %H:%M} UTC"
