"""The command line as a user runs it: in a process of its own."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.archives import ROOT

# Many commands in one process: each takes a second or more to start, nearly all of it for imports.
_ONE_AFTER_THE_OTHER = """
import contextlib, gc, io, json, os, sys
gc.set_threshold(50_000, 20, 20)
from infra.cli import main

calls, ends, environment = json.load(sys.stdin), [], dict(os.environ)
for more, words in calls:
    os.environ.clear()
    os.environ.update(environment | more)
    sys.argv = ["swath", *words]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    ends.append([code, out.getvalue(), err.getvalue()])
json.dump(ends, sys.stdout)
"""

Call = tuple[dict[str, str], Sequence[str | Path]]
"""Further environment, and arguments."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """What it printed, read as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Swath:
    """`swath` with its environment."""

    environment: dict[str, str]

    def __call__(self, *arguments: str | Path, timeout_s: float = 150) -> Done:
        """Run it to its end."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("swath")), *map(str, arguments)],
            env=os.environ | self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def each(self, calls: Sequence[Call], *, timeout_s: float = 150) -> list[Done]:
        """Run one after the other in one process, as if each were run alone."""
        done = subprocess.run(
            [sys.executable, "-c", _ONE_AFTER_THE_OTHER],
            env=os.environ | self.environment,
            cwd=ROOT,
            input=json.dumps([[more, list(map(str, words))] for more, words in calls]),
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert done.returncode == 0, done.stderr
        return [Done(*end) for end in json.loads(done.stdout)]

    def ok(self, *arguments: str | Path) -> Done:
        """Run it, and see that it ends well."""
        done = self(*arguments)
        assert done.code == 0, f"exit code {done.code}\n{done.out}\n{done.err}"
        return done

    def all_ok(self, *commands: Sequence[str | Path]) -> list[Done]:
        """Run one after the other in one process, and see that each ends well."""
        ends = self.each([({}, words) for words in commands])
        for words, done in zip(commands, ends, strict=True):
            assert done.code == 0, f"{words}: exit code {done.code}\n{done.out}\n{done.err}"
        return ends


def export_to(file: Path) -> list[str | Path]:
    """The command that exports all observations as CSV."""
    return ["export", "ndvi", "--format", "csv", "-o", file]


def rows_of(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))


def heed_interrupts() -> None:
    """For `preexec_fn`: a child of a process in the background starts with Ctrl-C ignored; a user's does not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def processes_of(home: Path) -> list[str]:
    """Living processes that were started for this home or work in it."""
    found = []
    for process in psutil.process_iter():
        try:
            line, folder = " ".join(process.cmdline()), process.cwd()
        except psutil.Error:
            continue
        if str(home) in line or folder.startswith(str(home)):
            found.append(line)
    return found
