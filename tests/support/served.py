"""`swath serve` in a process of its own, with workers and a metrics page, as an operator starts it."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.api_workers import SECRET
from tests.support.archives import ROOT
from tests.support.figures import Figures, figures

_STARTED_WITHIN_S = 60
_LINES = (re.compile(rb"serves http://([\d.]+):(\d+)"), re.compile(rb"metrics at http://([\d.]+):(\d+)/metrics"))

Address = tuple[str, int]


@dataclass(frozen=True)
class Served:
    """A running `swath serve`."""

    process: subprocess.Popen[bytes]
    api: Address
    metrics: Address | None
    log: Path

    def ask(self, path: str, *, method: str = "GET", **headers: str) -> int:
        """The status of one request, on a connection of its own, so that any worker may take it."""
        return _exchange(self.api, path, method, headers)[0]

    def page(self, **headers: str) -> bytes:
        """The metrics page."""
        assert self.metrics is not None
        status, body = _exchange(self.metrics, "/metrics", "GET", headers)
        assert status == 200, body
        return body

    def figures(self) -> Figures:
        """What the metrics page tells."""
        return figures(self.page())

    @property
    def workers(self) -> list[psutil.Process]:
        """Processes of its workers."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):  # it has just ended
                if "serving" in child.cmdline():
                    found.append(child)
        return found


def _exchange(address: Address, path: str, method: str, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*address, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, headers={name.replace("_", "-"): told for name, told in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read()


@contextlib.contextmanager
def served(folder: Path, *, workers: int, **settings: str) -> Iterator[Served]:
    """Run it until the end of the block, on free ports; its log lies in the folder."""
    own = {"SWATH_METRICS_PORT": "0", "SWATH_SECRET_KEY": SECRET, "SWATH_HOME": str(folder / "home")}
    log = folder / "serve.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.cli", "serve", "--port", "0", "--workers", str(workers)],
            env={**os.environ, **own, **settings},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    try:
        has_page = settings.get("SWATH_METRICS", "listener") == "listener"
        addresses = _told(process, log, _LINES if has_page else _LINES[:1])
        running = Served(process, addresses[0], addresses[1] if has_page else None, log)
        _wait_for_workers(running, workers if has_page else 1)
        yield running
    finally:
        process.terminate()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def _wait_for_workers(running: Served, count: int) -> None:
    deadline = time.monotonic() + _STARTED_WITHIN_S
    while running.ask("/healthz") != 200 or (running.metrics and _telling(running.figures()) < count):
        assert time.monotonic() < deadline, running.log.read_text(encoding="utf-8")
        time.sleep(0.05)


def _telling(page: Figures) -> int:
    """How many workers have told their standing."""
    return sum(name == "swath_worker_silent_seconds" for name, _ in page)


def _told(process: subprocess.Popen[bytes], log: Path, wanted: tuple[re.Pattern[bytes], ...]) -> list[Address]:
    """The addresses that it tells, once it has told all of them."""
    assert process.stdout is not None
    said, deadline = b"", time.monotonic() + _STARTED_WITHIN_S
    while True:
        found = [pattern.search(said) for pattern in wanted]
        if all(found):
            return [(match[1].decode(), int(match[2])) for match in found if match]
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(process.stdout.fileno(), 4096) if ready else b""
        assert chunk, f"not started: {said.decode()} {log.read_text(encoding='utf-8')}"
        said += chunk
