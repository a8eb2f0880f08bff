"""The folder in which the embedded servers live: who owns what, and which layout it has.

    <home>/format      version of this layout
    <home>/locks/      who uses which server (ours, 0700)
    <home>/keys/       the master secret, where the environment names none (ours, 0700)
    <home>/run/        sockets (the servers' user, 0700)
    <home>/postgres/   configuration, `data/` and `log/`
    <home>/valkey/     snapshot and log
    <home>/prefect/    Prefect's own files (ours, 0700)
    <home>/servers/    copies of server programs that the servers' user could not reach where they are installed

Postgres refuses to run as root, so root runs the servers as an unprivileged user: `swath`, `postgres` or `nobody`,
the first that exists. Only the folders that a server must write belong to that user.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from models.errors import DataDirectoryTooNew, ServerTrouble

LAYOUT_VERSION = 1
SERVER_USERS = ("swath", "postgres", "nobody")

# A Unix socket address holds 108 bytes with its closing zero on Linux and 104 on macOS.
MAX_SOCKET_PATH_BYTES = 100
_LONGEST_SOCKET_NAME = ".s.PGSQL.5432.lock"

# TMPDIR is not asked: processes that share one home must agree on the folder, and it may itself be too long.
_SHORT_FOLDER = Path("/tmp")  # noqa: S108


@dataclass(frozen=True, slots=True)
class Account:
    """The operating-system user as whom the servers run."""

    name: str
    uid: int
    gid: int

    @property
    def is_us(self) -> bool:
        """True when the servers run as the user who runs this process."""
        return self.uid == os.geteuid()


@dataclass(frozen=True, slots=True)
class Home:
    """An opened home: an existing folder of a known layout that the servers' user can reach."""

    path: Path
    account: Account

    def private_folder(self, name: str) -> Path:
        """Return a folder in the home that belongs to us alone, made if absent."""
        return _made(self.path / name, owner=None, mode=0o700)

    def passable_folder(self, name: str) -> Path:
        """Return a folder of ours that the servers' user may enter but not change, made if absent."""
        return _made(self.path / name, owner=None, mode=0o755)

    def server_folder(self, name: str) -> Path:
        """Return a folder in the home that belongs to the servers' user alone, made if absent."""
        return _made(self.path / name, owner=self.account, mode=0o700)

    def socket_folder(self) -> Path:
        """Return the private folder for sockets: in the home, or in a short place when the home's path is too long.

        Raises:
            ServerTrouble: when somebody else owns the folder of that name.
        """
        inside = self.path / "run"
        folder = _made(inside, owner=self.account, mode=0o700)
        if len(os.fsencode(inside / _LONGEST_SOCKET_NAME)) <= MAX_SOCKET_PATH_BYTES:
            return folder
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        folder = _made(_SHORT_FOLDER / f"swath-{self.account.uid}-{digest}", owner=self.account, mode=0o700)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != self.account.uid or found.st_mode & 0o077:
            raise ServerTrouble(
                f"{folder} should be a private folder of {self.account.name}, and is not: remove it, "
                f"or set SWATH_HOME to a shorter path than {self.path}"
            )
        return folder


def open_home(path: Path) -> Home:
    """Make the home if it is absent, and check its layout, its owner and that the servers' user can reach it.

    Raises:
        DataDirectoryTooNew: when a newer Swath laid out the folder.
        ServerTrouble: when it belongs to somebody else or cannot be reached; says which folder and what to do.
    """
    path = Path(os.path.realpath(path.expanduser()))
    try:
        _make_with_parents(path)
        _check_owner(path)
        account = _account_for(path)
        _check_reachable(path, account)
        _check_layout(path)
    except OSError as error:
        raise ServerTrouble(f"{path} cannot be used as SWATH_HOME: {error}") from error
    return Home(path=path, account=account)


@contextlib.contextmanager
def temporary_home() -> Iterator[Path]:
    """Give an empty home that the servers' user can reach, and remove it at the end.

    Folders made by `tempfile` can be entered by their owner alone, so root's would be refused by `open_home`.
    """
    parent = _SHORT_FOLDER if os.geteuid() == 0 else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="swath-home-", dir=parent))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def blocked_at(path: Path, account: Account) -> Path | None:
    """Return the first part of a path that the account cannot enter (or, at its end, read), or None.

    Goes by owner, group and mode; supplementary groups do not count because the servers run without them.
    """
    for part in [*reversed(path.parents), path]:
        found = part.stat()
        shift = 6 if found.st_uid == account.uid else 3 if found.st_gid == account.gid else 0
        needed = stat.S_IXOTH if part.is_dir() else stat.S_IROTH
        if account.uid != 0 and not (found.st_mode >> shift) & needed:
            return part
    return None


def _account_for(path: Path) -> Account:
    if os.geteuid() != 0:
        return _account(os.geteuid())
    with contextlib.suppress(FileNotFoundError):
        if (owner := (path / "run").lstat().st_uid) != 0:
            return _account(owner)
    for name in SERVER_USERS:
        with contextlib.suppress(KeyError):
            return _account(pwd.getpwnam(name).pw_uid)
    raise ServerTrouble(
        "Postgres does not run as root, and none of the users "
        f"{', '.join(SERVER_USERS)} exists: add one (useradd --system swath) or run as a normal user"
    )


def _account(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise ServerTrouble(
            f"user id {uid} has no name on this system, which Postgres needs to know who connects: "
            "add it to /etc/passwd, or set SWATH_DATABASE_URL and SWATH_REDIS_URL"
        ) from None
    return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


def _make_with_parents(path: Path) -> None:
    """Make missing folders passable whatever the umask; folders that exist keep their mode."""
    for part in [*reversed(path.parents), path]:
        try:
            part.mkdir()
        except FileExistsError:
            continue
        part.chmod(0o755)


def _check_owner(path: Path) -> None:
    owner = path.stat().st_uid
    if not path.is_dir():
        raise ServerTrouble(f"SWATH_HOME is not a folder: {path}")
    if owner != os.geteuid():
        raise ServerTrouble(
            f"{path} belongs to user id {owner} and this process runs as {os.geteuid()}: "
            "run as its owner, or set SWATH_HOME to another folder"
        )


def _check_reachable(path: Path, account: Account) -> None:
    blocked = blocked_at(path, account)
    if blocked is not None:
        raise ServerTrouble(
            f"the servers run as user {account.name}, who cannot enter {blocked}: set SWATH_HOME to a folder that "
            f"others may pass through, for example /var/lib/swath, or run Swath as a normal user"
        )


def _check_layout(path: Path) -> None:
    marker = path / "format"
    try:
        text = marker.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        marker.write_text(f"{LAYOUT_VERSION}\n", encoding="ascii")
        marker.chmod(0o644)
        return
    if not text.isdecimal():
        raise ServerTrouble(f"{marker} should hold the version of the layout and holds {text[:40]!r}")
    if int(text) > LAYOUT_VERSION:
        raise DataDirectoryTooNew(
            f"{path} has layout {text}, made by a newer Swath; this one knows layout {LAYOUT_VERSION}: "
            "upgrade Swath, or set SWATH_HOME to another folder"
        )


def _made(folder: Path, *, owner: Account | None, mode: int) -> Path:
    """Make one folder with exactly this mode and owner; an existing one is left as it is."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return folder
    if owner is not None and not owner.is_us:
        os.chown(folder, owner.uid, owner.gid)
    folder.chmod(mode)
    return folder
