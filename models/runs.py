"""Who is at work: every run notes itself, holds a lock for as long as it lives, and says now and then that it does.

The lock is one of Postgres's own, held by a session: it is gone with the process, however that ends, and no clock has
a say in it. It is also gone when Postgres restarts, so only a run that has fallen silent as well is taken for dead.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass

from sqlalchemy import Connection, text

BEAT_S = 20.0
"""Seconds between two signs of life."""

SILENT_AFTER = dt.timedelta(minutes=3)
"""Without a sign of life for so long, and without its lock, a run of another machine is dead."""

REMEMBERED = dt.timedelta(days=90)
"""Runs that ended so long ago are forgotten."""

_LOCK_SEED = 0x5357_4154_4804
"""Part of the keys of the Postgres advisory locks of runs ("SWATH", 4). Never reuse it."""

_KEY = f"hashtextextended(CAST({{id}} AS text), {_LOCK_SEED})"

_HELD = """
(SELECT (l.classid::bigint << 32) | l.objid::bigint FROM pg_locks AS l
 WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
     AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
"""

LIVING = f"SELECT r.id FROM runs AS r WHERE r.ended_at IS NULL AND {_KEY.format(id='r.id')} IN {_HELD}"  # noqa: S608
"""A query for the ids of runs that hold their lock right now; it reads no clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run of any kind, as it noted itself."""

    id: uuid.UUID
    kind: str
    """What it does, e.g. `daily-ndvi`."""
    flow_run_id: uuid.UUID | None
    """As Prefect knows it; None outside of Prefect."""
    host: str
    """Machine and process space: process ids mean something within one only."""
    pid: int
    process: str
    """Tells the process from a later one with the same id."""
    started_at: dt.datetime
    ended_at: dt.datetime | None = None
    outcome: str | None = None
    """`ended`, `broken` (by an error or a signal) or `died` (found dead); None while it lives."""
    is_silent: bool = False
    """Not ended, without its lock, and without a sign of life for `SILENT_AFTER`."""


def begin_run(
    connection: Connection,
    run_id: uuid.UUID,
    *,
    kind: str,
    flow_run_id: uuid.UUID | None,
    host: str,
    pid: int,
    process: str,
) -> None:
    """Note a run, and forget those that ended long ago."""
    connection.execute(text("DELETE FROM runs WHERE ended_at < now() - CAST(:age AS interval)"), {"age": REMEMBERED})
    given = {"id": run_id, "kind": kind, "flow_run_id": flow_run_id, "host": host, "pid": pid, "process": process}
    connection.execute(text(_BEGIN), given)


_BEGIN = """
INSERT INTO runs (id, kind, flow_run_id, host, pid, process)
VALUES (:id, :kind, :flow_run_id, :host, :pid, :process)
"""


def hold_lock(connection: Connection, run_id: uuid.UUID) -> bool:
    """Take the lock of a run for as long as this connection lives; False when another connection has it."""
    query = text(f"SELECT pg_try_advisory_lock({_KEY.format(id=':id')})")
    return bool(connection.execute(query, {"id": str(run_id)}).scalar_one())


def beat(connection: Connection, run_id: uuid.UUID) -> bool:
    """Give a sign of life; False when the run was ended by somebody else, who took it for dead."""
    query = text("UPDATE runs SET beat_at = now() WHERE id = :id AND ended_at IS NULL")
    return connection.execute(query, {"id": run_id}).rowcount == 1


def end_run(connection: Connection, run_id: uuid.UUID, *, outcome: str) -> bool:
    """Note how a run ended; False when that is noted already."""
    query = text("UPDATE runs SET ended_at = now(), outcome = :outcome WHERE id = :id AND ended_at IS NULL")
    return connection.execute(query, {"id": run_id, "outcome": outcome}).rowcount == 1


def unended_runs(connection: Connection) -> list[Run]:
    """Return the runs that have not ended, the oldest first."""
    return _runs(connection, "WHERE ended_at IS NULL ORDER BY started_at, id")


def recent_runs(connection: Connection, *, limit: int) -> list[Run]:
    """Return the runs that began last, the newest first."""
    return _runs(connection, "ORDER BY started_at DESC, id LIMIT :limit", limit=limit)


def _runs(connection: Connection, which: str, **values: object) -> list[Run]:
    rows = connection.execute(text(_RUNS + which), {"silent": SILENT_AFTER, **values}).mappings()
    return [Run(**{**row, "started_at": _utc(row["started_at"]), "ended_at": _utc(row["ended_at"])}) for row in rows]


def _utc(instant: dt.datetime | None) -> dt.datetime | None:
    return None if instant is None else instant.astimezone(dt.UTC)


_RUNS = f"""
SELECT id, kind, flow_run_id, host, pid, process, started_at, ended_at, outcome,
       ended_at IS NULL AND beat_at < now() - CAST(:silent AS interval) AND id NOT IN ({LIVING}) AS is_silent
FROM runs
"""  # noqa: S608
