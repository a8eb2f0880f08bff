"""How the embedded Postgres is set up; written anew at every start, so an upgrade of Swath brings its own settings.

What an operator changes by `ALTER SYSTEM` lies in the data directory, is kept, and has the last word.
"""

from __future__ import annotations

import os
import pwd
import shlex
import signal
from collections.abc import Iterable
from pathlib import Path

from models.errors import ServerTrouble

FAST_SHUTDOWN = signal.SIGINT
IMMEDIATE_SHUTDOWN = signal.SIGQUIT

# The built-in collation provider sorts the same on every C library: no index breaks when the system is upgraded.
INITDB_OPTIONS = (
    "--username=postgres",
    "--auth=peer",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--data-checksums",
    "--no-instructions",
)

_ROLES = ("postgres", "swath")


def write(folder: Path, *, socket_folder: Path, users: Iterable[str], durable: bool) -> None:
    """Write `postgresql.conf`, `pg_hba.conf` and `pg_ident.conf` into a folder of ours.

    Args:
        folder: where; not writable by the server.
        socket_folder: where the server puts its socket.
        users: operating-system users who may be the roles `swath` and `postgres`.
        durable: whether commits survive a power loss.
    """
    settings = _settings(folder, socket_folder) | ({} if durable else _UNSAFE)
    _replace(folder / "postgresql.conf", "".join(f"{name} = {value}\n" for name, value in settings.items()))
    _replace(folder / "pg_hba.conf", "local all all peer map=swath\n")
    lines = [f'swath "{_plain(user)}" {role}\n' for user in sorted(users) for role in _ROLES]
    _replace(folder / "pg_ident.conf", "".join(lines))


def quoted(path: Path) -> str:
    """Quote a path for the shell that pg_ctl hands its options to."""
    return shlex.quote(str(path))


def own_name() -> str:
    """Return the name of the user who runs this process."""
    return pwd.getpwuid(os.geteuid()).pw_name


_UNSAFE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def _settings(folder: Path, socket_folder: Path) -> dict[str, str]:
    return {
        "data_directory": _literal(folder / "data"),
        "hba_file": _literal(folder / "pg_hba.conf"),
        "ident_file": _literal(folder / "pg_ident.conf"),
        "listen_addresses": "''",
        "port": "5432",
        "unix_socket_directories": _literal(_one_folder(socket_folder)),
        "unix_socket_permissions": "0700",
        "max_connections": "100",
        "shared_buffers": "128MB",
        "jit": "off",
        "timezone": "'UTC'",
        "log_timezone": "'UTC'",
        "lc_messages": "'C'",
        "default_text_search_config": "'pg_catalog.simple'",
        # One file for each day of the week, overwritten a week later: the log cannot fill the disk.
        "logging_collector": "on",
        "log_directory": _literal(folder / "log"),
        "log_filename": "'postgres-%a.log'",
        "log_rotation_age": "1d",
        "log_rotation_size": "0",
        "log_truncate_on_rotation": "on",
        "log_line_prefix": "'%m [%p] %q%u@%d '",
    }


def _literal(path: Path) -> str:
    if "\n" in str(path):
        raise ServerTrouble(f"SWATH_HOME holds a line break: {str(path)!r}")
    return "'" + str(path).replace("\\", "\\\\").replace("'", "''") + "'"


def _one_folder(path: Path) -> Path:
    if "," in str(path) or '"' in str(path):
        raise ServerTrouble(f"SWATH_HOME must not hold a comma or a quotation mark: {path}")
    return path


def _plain(user: str) -> str:
    if '"' in user or "\n" in user or user.startswith("/"):
        raise ServerTrouble(f"Postgres cannot be told of a user named {user!r}")
    return user


def _replace(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o644)
    new.replace(file)
