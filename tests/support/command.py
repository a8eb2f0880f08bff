"""The command line as a user runs it: in a process of its own."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.archives import ROOT


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

    def ok(self, *arguments: str | Path) -> Done:
        """Run it, and see that it ends well."""
        done = self(*arguments)
        assert done.code == 0, f"exit code {done.code}\n{done.out}\n{done.err}"
        return done

    def rows(self, file: Path) -> list[dict[str, str]]:
        """Export all observations as CSV and read them."""
        self.ok("export", "ndvi", "--format", "csv", "-o", file)
        return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))
