"""Several processes use one embedded server: the first starts it, the last to leave stops it.

Every user holds a shared lock on `<name>.users` for as long as it lives; starting and stopping happen under the
exclusive lock `<name>.start`. The kernel lets go of both when a process dies, however it dies: a server whose users
were all killed goes on running, the next user finds it, and stops it at its own end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from models.errors import ServerTrouble

T = TypeVar("T")

_POLL_S = 0.02


@contextlib.contextmanager
def shared(
    name: str,
    *,
    locks: Path,
    ensure: Callable[[], T],
    stop: Callable[[], None],
    timeout_s: float,
) -> Iterator[T]:
    """Join the users of a server, and leave them at the end.

    Args:
        name: of the server, names the lock files.
        locks: folder of the lock files, ours alone.
        ensure: finds the running server or starts it; called while nobody else starts or stops it.
        stop: stops the server if it runs; called when we are the last user, nobody else starting or stopping it.
        timeout_s: longest wait for another process that is starting or stopping the server.

    Raises:
        ServerTrouble: when the wait is over.
    """
    with _lock_file(locks / f"{name}.users") as users:
        joined = False
        try:
            with alone(name, locks=locks, timeout_s=timeout_s):
                fcntl.flock(users, fcntl.LOCK_SH)
                joined = True
                server = ensure()
            yield server
        finally:
            if joined:
                with alone(name, locks=locks, timeout_s=timeout_s):
                    if _is_last(users):
                        stop()


@contextlib.contextmanager
def alone(name: str, *, locks: Path, timeout_s: float) -> Iterator[None]:
    """Hold the exclusive lock of a server; while it is held nobody else starts or stops that server.

    Raises:
        ServerTrouble: when another process holds it for longer than the timeout.
    """
    with _lock_file(locks / f"{name}.start") as lock:
        deadline = time.monotonic() + timeout_s
        while not _locked(lock):
            if time.monotonic() > deadline:
                raise ServerTrouble(
                    f"another process has been starting or stopping the embedded {name} server for {timeout_s:.0f} s "
                    f"(it holds {locks / name}.start)"
                )
            time.sleep(_POLL_S)
        yield


def _is_last(users: int) -> bool:
    # A failed upgrade gives up the shared lock, which is right: either way we are leaving.
    return _locked(users)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
