"""Runs whose process is gone, but of which Prefect believes that they go on, are told to have crashed.

Prefect's own heartbeats and automation miss some of them. Ours is found out from the run's own note in Postgres: see
`models.runs`. Doing it twice, or twice at once, changes nothing more.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import structlog
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, TaskRunFilter, TaskRunFilterState
from prefect.client.schemas.filters import TaskRunFilterStateType as StateTypes
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.runtime import flow_run
from prefect.states import Crashed
from sqlalchemy import Engine

from infra.leases import is_dead, run_lease
from models.runs import Run, end_run, unended_runs

log = structlog.get_logger(__name__)

TASKS_AT_ONCE = 200
MAX_TASKS = 20_000
"""Of one flow run; a run has as many open as it works at, so this is never reached."""


@contextlib.contextmanager
def at_work(engine: Engine) -> Iterator[uuid.UUID]:
    """Have the flow run of this process be known to live for the time of the block, and give its id in our ledger.

    First of all, runs that died before it are told to have crashed, so that whatever runs next cleans up.
    """
    flow_run_id = flow_run.id
    known_as = uuid.UUID(flow_run_id) if flow_run_id else None
    with run_lease(engine, kind=flow_run.flow_name or "by hand", flow_run_id=known_as) as run_id:
        reconcile_runs(engine)
        yield run_id


def reconcile_runs(engine: Engine) -> list[Run]:
    """Mark every run that died as crashed, in Prefect and in our own ledger, and return those found dead.

    Where Prefect's server does not answer, its runs are left for the next time.
    """
    with engine.connect() as connection:
        dead = [run for run in unended_runs(connection) if is_dead(run)]
    found = []
    for run in dead:
        try:
            if run.flow_run_id is not None:
                with get_client(sync_client=True) as client:
                    _crash(client, run.flow_run_id, run)
        except (httpx.HTTPError, PrefectException) as error:
            log.warning("dead run not told to Prefect; the next run tries again", run=run.kind, error=str(error))
            continue
        with engine.begin() as connection:
            if end_run(connection, run.id, outcome="died"):
                log.warning("a run was found dead", run=run.kind, pid=run.pid, started_at=str(run.started_at))
                found.append(run)
    return found


def _crash(client: SyncPrefectClient, flow_run_id: uuid.UUID, run: Run) -> None:
    """Have Prefect know that the flow run and its tasks go on no more; nothing when it has ended for Prefect."""
    try:
        state = client.read_flow_run(flow_run_id).state
    except ObjectNotFound:  # Prefect's database was lost or cleaned
        return
    if state is not None and state.is_final():
        return
    machine = run.host.partition("/")[0]
    said: State[Any] = Crashed(
        message=f"its process {run.pid} on {machine} is gone; the next run takes up what it left"
    )
    open_tasks = TaskRunFilter(
        state=TaskRunFilterState(type=StateTypes(any_=[StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED]))
    )
    own = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    for _ in range(MAX_TASKS // TASKS_AT_ONCE):
        tasks = client.read_task_runs(flow_run_filter=own, task_run_filter=open_tasks, limit=TASKS_AT_ONCE)
        for task in tasks:
            client.set_task_run_state(task.id, said, force=True)
        if len(tasks) < TASKS_AT_ONCE:
            break
    client.set_flow_run_state(flow_run_id, said, force=True)
