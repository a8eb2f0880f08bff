"""Python programs in processes of their own, to be talked to, killed, or run as somebody else."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from infra.local.home import Account, blocked_at
from tests.support.archives import ROOT


class Program:
    """A running Python program that says lines and may be told to go on or be killed."""

    def __init__(self, code: str, *arguments: str | Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def says(self, word: str) -> bool:
        """Wait until it says this line, whatever it says before; False when it ended without."""
        assert self._process.stdout is not None
        return any(line.strip() == word for line in self._process.stdout)

    def go_on(self) -> None:
        """Send it an empty line."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def finish(self) -> int:
        """Wait for its end and return its exit code."""
        return self._process.wait(timeout=60)

    def kill(self) -> None:
        """Kill it without warning (SIGKILL)."""
        self._process.kill()
        self._process.wait(timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def run_as_nobody(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a Python program as the user `nobody`, with this environment's packages; needs root.

    Skips the test where no Python of this version, or not the packages, can be reached by that user.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    entry = pwd.getpwnam("nobody")
    account = Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)
    packages = [ROOT, *(Path(part) for part in sys.path if part.endswith("site-packages"))]
    python = _python_for(account)
    hidden = [part for part in packages if blocked_at(part.resolve(), account)]
    if python is None or hidden:
        pytest.skip(f"user nobody cannot reach {'this version of Python' if python is None else hidden[0]}")
    return subprocess.run(
        [python, "-c", code, *map(str, arguments)],
        check=False,
        cwd="/",
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": os.pathsep.join(map(str, packages)),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )


def _python_for(account: Account) -> Path | None:
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [Path(sys.executable), *(Path(folder) / name for folder in ("/usr/local/bin", "/usr/bin", "/bin"))]
    for candidate in candidates:
        if candidate.exists() and blocked_at(candidate.resolve(), account) is None:
            return candidate
    return None
