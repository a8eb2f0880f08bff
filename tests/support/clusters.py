"""A real Dask cluster of processes, started as machines of a cluster are: told where the scheduler is, and no more."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from distributed import Client

from tests.support.archives import ROOT

READY_WITHIN_S = 60
THREADS = 2
"""Of each worker."""
ENVIRONMENT = ("PATH", "HOME", "LANG", "TMPDIR", "no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY", "https_proxy")


@dataclass
class DaskProcesses:
    """A scheduler and workers, to be killed one by one."""

    folder: Path
    workers_at_start: int = 2
    tls: tuple[Path, Path, Path] | None = None
    """Authority's certificate, certificate and key."""
    scheduler: subprocess.Popen[bytes] = field(init=False)
    workers: dict[str, subprocess.Popen[bytes]] = field(init=False, default_factory=dict)
    """By name."""
    address: str = field(init=False)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as until_ready:
            until_ready.callback(self.end)
            self.start_scheduler()
            for number in range(self.workers_at_start):
                self.start_worker(f"worker-{number}")
            until_ready.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def start_scheduler(self, port: int = 0) -> None:
        """Start the scheduler and wait until it listens."""
        file = self.folder / f"scheduler-{time.monotonic_ns()}"
        protocol = "tls" if self.tls else "tcp"
        place = ["--host", "127.0.0.1", "--port", str(port), "--protocol", protocol, "--scheduler-file", str(file)]
        self.scheduler = self._start("scheduler", *place, "--dashboard-address", "127.0.0.1:0")
        deadline = time.monotonic() + READY_WITHIN_S
        while '"address"' not in (file.read_text() if file.exists() else ""):
            assert self.scheduler.poll() is None, "the scheduler has ended"
            assert time.monotonic() < deadline, "the scheduler does not start"
            time.sleep(0.05)
        [self.address] = [part for part in file.read_text().split('"') if part.startswith(f"{protocol}://127.0.0.1:")][
            :1
        ]

    def start_worker(self, name: str) -> None:
        """Start a worker, which ends when it finds no scheduler."""
        options = ["--name", name, "--nthreads", str(THREADS), "--nworkers", "1", "--host", "127.0.0.1", "--no-nanny"]
        self.workers[name] = self._start(
            "worker", self.address, *options, "--no-dashboard", "--death-timeout", "30", "--local-directory",
            str(self.folder),
        )  # fmt: skip

    def kill_a_busy_worker(self) -> threading.Thread:
        """Kill (SIGKILL) the first worker that has blocks in the works; the thread ends when it is done."""

        def watch() -> None:
            with Client(self.address, set_as_default=False) as client:
                deadline = time.monotonic() + READY_WITHIN_S
                while time.monotonic() < deadline:
                    names = {address: str(each["name"]) for address, each in _workers(client).items()}
                    busy = [
                        names[address] for address, keys in client.processing().items() if keys and address in names
                    ]
                    if busy:
                        worker = self.workers.pop(busy[0])
                        worker.kill()
                        worker.wait()
                        return
                    time.sleep(0.01)

        thread = threading.Thread(target=watch)
        thread.start()
        return thread

    def end(self) -> None:
        """Kill what is left of it."""
        for process in [*self.workers.values(), self.scheduler]:
            process.kill()
            process.wait()

    def _start(self, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        options: list[str] = []
        if self.tls:
            authority, certificate, key = map(str, self.tls)
            options = ["--tls-ca-file", authority, "--tls-cert", certificate, "--tls-key", key]
        command = [sys.executable, "-m", "dask", what, *arguments, *options]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)


def _workers(client: Client) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = client.scheduler_info(n_workers=-1)["workers"]
    return found


@contextlib.contextmanager
def dask_processes(folder: Path, *, workers: int = 2) -> Iterator[DaskProcesses]:
    """A scheduler and workers that run until the end."""
    with DaskProcesses(folder, workers) as running:
        yield running
