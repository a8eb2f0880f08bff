"""Finding the Prefect server of a `swath up` that runs on a home."""

from __future__ import annotations

import contextlib
import datetime as dt
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import psutil

from infra.up.one import Note

CLOCKS_DIFFER_S = 2.0


def prefect_of_up(home: Path) -> dict[str, str]:
    """The variables by which Prefect's client finds the server of a running `swath up`; none where none runs."""
    try:
        note = Note(**orjson.loads((home / "up" / "running.json").read_bytes()))
        begun = dt.datetime.fromisoformat(note.started_at).timestamp()
        # A process that is younger than the note has the number of one that was killed.
        if psutil.Process(note.pid).create_time() > begun + CLOCKS_DIFFER_S:
            return {}
    except (OSError, ValueError, TypeError, psutil.Error):
        return {}
    environment = {"PREFECT_API_URL": f"{note.ui_url}/api"}
    if urlsplit(note.ui_url).hostname == "127.0.0.1":  # the password is for our own server alone
        with contextlib.suppress(OSError):
            environment["PREFECT_API_AUTH_STRING"] = (home / "prefect" / "auth").read_text(encoding="ascii").strip()
    return environment
