"""Housekeeping: what a person would otherwise have to remember."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import Any

import httpx
import redis
import structlog
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.states import Completed, Failed

from flows.counting import counted
from flows.reconcile import at_work
from infra.settings import Settings, load_settings
from infra.stores import Stores, open_stores
from infra.telemetry import ensure_logs
from models.readmodel import catch_up
from models.upkeep import forget_forecasts, partitions_ahead, refresh_statistics

log = structlog.get_logger(__name__)

TAG = "swath"
"""Runs of our own deployments carry it; those of other people on the same Prefect server do not."""
RUNS_AT_ONCE = 200
MAX_RUNS = 20_000
"""Deleted in one night at most: ever more often would keep a server from its work."""


def _name() -> str:
    return f"housekeeping of {dt.datetime.now(dt.UTC):%Y-%m-%d}"


@flow(name="maintenance", flow_run_name=_name, persist_result=False)
def maintenance() -> State[Any]:
    """Keep the stores and Prefect's history fit; what cannot be done now is done the next night, and said."""
    settings = load_settings()
    ensure_logs(settings)
    now = dt.datetime.now(dt.UTC)
    done: list[str] = []
    problems: list[str] = []
    with open_stores(settings) as stores, at_work(stores.engine), counted(stores.redis) as outcome:
        done += _keep_database(stores, settings, now=now)
        try:
            with stores.engine.connect() as connection:
                written = catch_up(connection, stores.redis, mask_policy=settings.mask_policy.name)
            done.append(f"{written:,} farms published to Redis")
        except redis.RedisError as error:
            problems.append(f"Redis: {error}")
        try:
            deleted = forget_runs(before=now - dt.timedelta(days=settings.keep_runs_days))
            done.append(f"{deleted:,} old flow runs deleted")
        except (httpx.HTTPError, PrefectException) as error:
            problems.append(f"Prefect's history: {error}")
        outcome.is_failure = bool(problems)
    log.info("maintenance done", done=done, problems=problems)
    message = ", ".join(done + problems)
    return Failed(message=message) if problems else Completed(message=message)


def _keep_database(stores: Stores, settings: Settings, *, now: dt.datetime) -> list[str]:
    with stores.engine.begin() as connection:
        partitions_ahead(connection, today=now.date())
    oldest = now.date() - dt.timedelta(days=settings.keep_forecasts_days)
    with stores.engine.begin() as connection:
        forgotten = forget_forecasts(connection, before=oldest)
    with stores.engine.begin() as connection:
        refresh_statistics(connection)
    return ["partitions and statistics up to date", f"{forgotten:,} old forecasts deleted"]


def forget_runs(*, before: dt.datetime) -> int:
    """Delete our flow runs that ended before an instant from Prefect, and return how many.

    Raises:
        httpx.HTTPError: Prefect's server does not answer; those deleted so far are gone.
    """
    ended = FlowRunFilter(
        end_time=FlowRunFilterEndTime(before_=before, is_null_=False), tags=FlowRunFilterTags(all_=[TAG])
    )
    total = 0
    with get_client(sync_client=True) as client:
        while total < MAX_RUNS and (found := client.read_flow_runs(flow_run_filter=ended, limit=RUNS_AT_ONCE)):
            for run in found:
                with contextlib.suppress(ObjectNotFound):  # gone with the run that it was part of
                    client.delete_flow_run(run.id)
            total += len(found)
    return total
