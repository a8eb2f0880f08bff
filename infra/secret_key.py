"""The master secret: given by the environment, or made once and kept in the home."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from infra.local.home import open_home
from infra.settings import Settings
from models.errors import ServerTrouble
from models.keys import MasterKeys, master_keys


def load_master_keys(settings: Settings) -> MasterKeys:
    """Return the master secrets: those of `SWATH_SECRET_KEY`, else the one in the home, made if there is none yet.

    Raises:
        BadInput: what `SWATH_SECRET_KEY` says cannot be used.
        ServerTrouble: the one in the home cannot be read or made.
    """
    if settings.secret_key is not None:
        return master_keys(settings.secret_key.get_secret_value())
    file = open_home(settings.home).private_folder("keys") / "master"
    try:
        if not file.exists():
            _make(file)
        return master_keys(file.read_text(encoding="ascii"))
    except OSError as error:
        raise ServerTrouble(f"the secret key cannot be kept in {file}: {error}; set SWATH_SECRET_KEY") from error


def _make(file: Path) -> None:
    """Write a new secret; of several processes that do so at once, one wins and none reads half a file."""
    draft = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as opened:
            opened.write(secrets.token_urlsafe(48))
            opened.flush()
            os.fsync(opened.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink()
