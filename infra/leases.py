"""A run's sign of life, and how to tell a dead run from one that is only quiet."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from models.runs import BEAT_S, Run, beat, begin_run, end_run, hold_lock

log = structlog.get_logger(__name__)

LET_GO_S = 5.0
"""Longest wait for a sign of life that is under way when a run ends."""


@contextlib.contextmanager
def run_lease(
    engine: Engine, *, kind: str, flow_run_id: uuid.UUID | None = None, beat_s: float = BEAT_S
) -> Iterator[uuid.UUID]:
    """Note a run for the time of the block, and give its id.

    A thread with a connection of its own holds the run's lock and gives signs of life; when Postgres was away it
    connects again. Not for use through a pooler that shares sessions between transactions.

    Args:
        engine: where the run is noted.
        kind: what it does, e.g. `daily-ndvi`.
        flow_run_id: as Prefect knows it.
        beat_s: seconds between two signs of life.
    """
    run_id = uuid.uuid4()
    heart = _Heart(engine, run_id, beat_s)
    with engine.begin() as connection:
        begin_run(
            connection,
            run_id,
            kind=kind,
            flow_run_id=flow_run_id,
            host=this_host(),
            pid=os.getpid(),
            process=process_mark(os.getpid()) or "",
        )
    outcome = "broken"
    with heart:
        try:
            yield run_id
            outcome = "ended"
        finally:
            try:
                with engine.begin() as connection:
                    end_run(connection, run_id, outcome=outcome)
            except SQLAlchemyError as error:  # the lock goes with us, so the next run finds us gone
                log.warning("end of the run not noted", run=str(run_id), error=str(error))


class _Heart:
    """The thread that holds the lock and gives signs of life."""

    def __init__(self, engine: Engine, run_id: uuid.UUID, beat_s: float) -> None:
        self._engine = engine
        self._run_id = run_id
        self._beat_s = beat_s
        self._stop = threading.Event()
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._beat_on, name="run-lease", daemon=True)

    def __enter__(self) -> None:
        self._beat()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(LET_GO_S)
        if not self._thread.is_alive():  # else it waits for a Postgres that hangs, and ends with the process
            self._let_go()

    def _beat_on(self) -> None:
        while not self._stop.wait(self._beat_s):
            self._beat()

    def _beat(self) -> None:
        try:
            if self._connection is None:
                self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                hold_lock(self._connection, self._run_id)
            beat(self._connection, self._run_id)
        except SQLAlchemyError as error:
            log.warning("no sign of life; trying again", run=str(self._run_id), error=str(error))
            self._let_go()

    def _let_go(self) -> None:
        """Close the session itself, and the lock with it: a pool would keep both."""
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._connection.invalidate()
            with contextlib.suppress(SQLAlchemyError):
                self._connection.close()
            self._connection = None


def is_dead(run: Run) -> bool:
    """Whether the process of a run that has not ended is gone.

    On its own machine that is asked of the system, and certain. From elsewhere it is what has lost its lock and has
    given no sign of life for minutes.
    """
    if run.ended_at is not None:
        return False
    if run.host == this_host():
        return process_mark(run.pid) != run.process
    return run.is_silent


def this_host() -> str:
    """A name for this machine since it was started and, within containers, for this process space."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return "/".join(parts)


def process_mark(pid: int) -> str | None:
    """What tells a living process from a later one of the same id; None when there is none, or only its remains.

    On Linux it is when the process began, in ticks since the machine did: a clock that jumps does not change it.
    """
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if after_name[0] in "ZX" else after_name[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (OSError, IndexError):
        return None
    try:
        return f"{psutil.Process(pid).create_time():.0f}"
    except psutil.Error:
        return None
