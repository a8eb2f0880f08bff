"""Flow runs whose process went away with us: handed back, so that the next worker goes on with them.

Nothing is done twice: what a run finished is in the ledger, and what it had in hand is still planned there.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import uuid
from collections.abc import Collection
from typing import Any

import httpx
import psutil
from sqlalchemy.exc import SQLAlchemyError

from infra.stores import postgres_engine
from models.errors import ServerTrouble
from models.runs import end_run, unended_runs

MARK = "SWATH_UP"
"""Variable in the environment of all that we start, and all that is started by it: the home it belongs to."""
FLOW_RUN = "PREFECT__FLOW_RUN_ID"
"""Variable by which a worker tells a process which flow run it is."""
WORKER = "prefect.worker.name"
"""Label by which Prefect tells who ran a flow run."""
MAX_STARTS = 5
"""A run that was interrupted this often is given up: it may be what brings the machine down."""
PAGE = 200


def hand_back(
    api_url: str,
    auth: str | None,
    *,
    database_url: str,
    workers: Collection[str],
    has_no_others: bool,
    living: Collection[str] = (),
    pools: Collection[str] | None = None,
) -> list[str]:
    """Schedule the runs that these workers left unfinished anew, at once, and return their names.

    Args:
        api_url: of Prefect's server.
        auth: its user and password, as `user:password`.
        database_url: where runs note themselves; that they ended is noted first, so that nobody finds them dead.
        workers: names of workers of which none runs any more.
        has_no_others: whether nobody else's workers take runs from that server: then a run that was only just taken,
            and not yet marked with a worker, is one of theirs.
        living: flow runs whose processes go on without their worker: left to themselves.
        pools: work pools from which these workers take runs; None for all.

    Raises:
        ServerTrouble: a server does not answer.
    """
    with _client(api_url, auth) as client:
        try:
            found = [run for run in _unfinished(client) if _was_ours(run, workers, has_no_others=has_no_others)]
            dead = [run for run in found if run["id"] not in living]
            left = [run for run in dead if pools is None or run.get("work_pool_name") in pools]
            _note_ends(database_url, {uuid.UUID(run["id"]) for run in left})
            for run in left:
                body = {"state": _state_for(run), "force": True}
                client.post(f"flow_runs/{run['id']}/set_state", json=body).raise_for_status()
        except (httpx.HTTPError, SQLAlchemyError) as error:
            raise ServerTrouble(f"unfinished runs could not be handed back to Prefect: {error}") from error
    return [run["name"] for run in left]


def _was_ours(run: dict[str, Any], workers: Collection[str], *, has_no_others: bool) -> bool:
    worker = (run.get("labels") or {}).get(WORKER)
    return worker in workers or (worker is None and has_no_others and bool(run.get("work_pool_name")))


def _note_ends(database_url: str, flow_runs: Collection[uuid.UUID]) -> None:
    if not flow_runs:
        return
    engine = postgres_engine(database_url, pool_size=1)
    try:
        with engine.begin() as connection:
            for run in unended_runs(connection):
                if run.flow_run_id in flow_runs:
                    end_run(connection, run.id, outcome="broken")
    finally:
        engine.dispose()


def end_leftovers(mark: str, *, timeout_s: float) -> int:
    """End every process that we started, or that was started by one of those, and still lives; return how many."""
    found = [process for process in psutil.process_iter() if _is_ours(process, mark)]
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(found, timeout=timeout_s)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
    return len(found)


def living_runs(mark: str) -> set[str]:
    """Flow runs that have a living process of ours, whether or not the worker that began it lives."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ()
            if environment.get(MARK) == mark and FLOW_RUN in environment:
                found.add(environment[FLOW_RUN])
    return found


def _is_ours(process: psutil.Process, mark: str) -> bool:
    if process.pid == os.getpid():
        return False
    with contextlib.suppress(psutil.Error, OSError):
        return bool(process.environ().get(MARK) == mark)
    return False


def _client(api_url: str, auth: str | None) -> httpx.Client:
    user, _, password = (auth or "").partition(":")
    return httpx.Client(
        base_url=api_url.rstrip("/") + "/", auth=(user, password) if auth else None, trust_env=False, timeout=15
    )


def _unfinished(client: httpx.Client) -> list[dict[str, Any]]:
    kinds = {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}
    found: list[dict[str, Any]] = []
    while True:
        answer = client.post("flow_runs/filter", json={"flow_runs": kinds, "limit": PAGE, "offset": len(found)})
        answer.raise_for_status()
        page = answer.json()
        found += page
        if len(page) < PAGE:
            return found


def _state_for(run: dict[str, Any]) -> dict[str, Any]:
    if run["state_type"] == "CANCELLING":
        return {"type": "CANCELLED", "name": "Cancelled", "message": "Swath was stopped while it was being cancelled."}
    if run["run_count"] >= MAX_STARTS:
        return {"type": "CRASHED", "name": "Crashed", "message": f"Interrupted {run['run_count']} times; given up."}
    return {
        "type": "SCHEDULED",
        "name": "AwaitingRetry",
        "message": "Swath was stopped; this run goes on where it was at the next start.",
        "state_details": {"scheduled_time": dt.datetime.now(dt.UTC).isoformat()},
    }
