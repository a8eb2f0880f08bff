"""One `swath up` for each home, and a note of where it is for whoever asks."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from infra.local.home import open_home
from models.errors import ServerTrouble


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Where a running `swath up` is found."""

    pid: int
    started_at: str
    api_url: str
    ui_url: str


class AlreadyRunning(ServerTrouble):
    """Another `swath up` runs on this home."""


@contextlib.contextmanager
def only_one(home: Path) -> Iterator[Path]:
    """Be the only `swath up` of a home, and give the file for its note; the kernel lets go when we die.

    Raises:
        AlreadyRunning: one is running; says which and where.
        ServerTrouble: the home cannot be used.
    """
    folder = open_home(home).private_folder("up")
    file = folder / "running.json"
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(_about(file, home)) from None
        file.unlink(missing_ok=True)  # of one that was killed
        yield file
        file.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def write_note(file: Path, *, api_url: str, ui_url: str) -> None:
    """Tell where we are, in one step."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    note = Note(pid=os.getpid(), started_at=now, api_url=api_url, ui_url=ui_url)
    draft = file.with_suffix(".new")
    draft.write_bytes(orjson.dumps(asdict(note)))
    draft.replace(file)


def _about(file: Path, home: Path) -> str:
    try:
        note = Note(**orjson.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return f"swath up is already starting on {home}"
    return (
        f"swath up is already running on {home}: process {note.pid} since {note.started_at}, "
        f"API at {note.api_url}, Prefect at {note.ui_url}"
    )
