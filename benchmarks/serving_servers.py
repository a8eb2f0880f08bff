"""The other processes of the serving benchmark: workers, the yardstick, and a Prefect that counts and can stall."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

from benchmarks.serving_data import SECRET

ROOT = Path(__file__).resolve().parents[1]
START_S = 60
UNLIMITED = "10000000"
"""Requests a minute: the limit is counted, and never reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Where the servers are that workers need."""

    database_url: str
    redis_url: str
    prefect_url: str

    @property
    def environment(self) -> dict[str, str]:
        """Of a worker: nothing of who runs this, but the way to programs."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SWATH_", "PREFECT_"))}
        return kept | {
            "SWATH_DATABASE_URL": self.database_url,
            "SWATH_REDIS_URL": self.redis_url,
            "PREFECT_API_URL": self.prefect_url,
            "SWATH_SECRET_KEY": SECRET,
            "SWATH_LIMIT_API_KEY_PER_MINUTE": UNLIMITED,
            "SWATH_METRICS_PORT": "0",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A running server."""

    url: str
    metrics_url: str | None
    pids: tuple[int, ...]
    """Of its workers."""

    def rss_mb(self) -> float:
        """Memory of the largest worker."""
        return max(psutil.Process(pid).memory_info().rss for pid in self.pids) / 1e6


@contextlib.contextmanager
def swath_serve(stores: Stores, *, workers: int) -> Iterator[Served]:
    """Run `swath serve` as an operator does, on a free port."""
    command = [sys.executable, "-m", "infra.cli", "serve", "--port", "0", "--workers", str(workers)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=stores.environment, cwd=ROOT
    ) as process:
        try:
            url, metrics_url = _said(process, r"swath serves (\S+)"), _said(process, r"metrics at (\S+)")
            wait_for(url, "/healthz")
            children = psutil.Process(process.pid).children()
            pids = tuple(child.pid for child in children if "serving" in child.cmdline())
            yield Served(url=url, metrics_url=metrics_url, pids=pids)
        finally:
            process.terminate()
            process.wait(timeout=30)


def _said(process: subprocess.Popen[str], pattern: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(pattern, line)
        if found is not None:
            return found[1]
    raise RuntimeError(f"swath serve ended with {process.wait()}")


@contextlib.contextmanager
def alone(stores: Stores, *program: str) -> Iterator[Served]:
    """Run one process that serves at a socket it is given; nothing is waited for."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        process = subprocess.Popen(
            [sys.executable, *program, str(listener.fileno())],
            stdin=subprocess.PIPE,
            env=stores.environment | {"SWATH_LOG_LEVEL": "WARNING"},
            pass_fds=[listener.fileno()],
            cwd=ROOT,
        )
        try:
            yield Served(url=f"http://127.0.0.1:{listener.getsockname()[1]}", metrics_url=None, pids=(process.pid,))
        finally:
            process.terminate()
            process.communicate(timeout=30)


def ask(url: str, path: str, *, key: str = "", body: Any = None) -> tuple[int, bytes]:
    """Ask for one thing; give status and body."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=START_S)
    with contextlib.closing(connection):
        headers = {"x-api-key": key} if key else {}
        if body is None:
            connection.request("GET", path, headers=headers)
        else:
            given = json.dumps(body).encode()
            connection.request("POST", path, given, {**headers, "content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()


def wait_for(url: str, path: str, *, key: str = "") -> None:
    """Wait until this is answered well.

    Raises:
        RuntimeError: it is not.
    """
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if ask(url, path, key=key)[0] == 200:
                return
        time.sleep(0.005)
    raise RuntimeError(f"{url}{path} did not answer within {START_S} s")


@dataclass(slots=True)
class Prefect:
    """What the stand-in for Prefect's API heard."""

    url: str = ""
    runs: list[str] = field(default_factory=list)
    """Idempotency keys of all runs asked for, in order."""
    answers: threading.Event = field(default_factory=threading.Event)
    """Unset while it says nothing at all."""
    waiting: int = 0
    """Requests that were kept waiting."""


@contextlib.contextmanager
def prefect() -> Iterator[Prefect]:
    """Run a stand-in that knows one deployment, counts the runs asked for, and stalls when told to."""
    heard = Prefect()
    heard.answers.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer({"id": str(uuid.UUID(int=7)), "state": {"type": "COMPLETED"}})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            heard.runs.append(asked["idempotency_key"])
            self._answer({"id": str(uuid.uuid4())})

        def _answer(self, told: Mapping[str, Any]) -> None:
            heard.waiting += not heard.answers.is_set()
            heard.answers.wait(START_S)
            body = json.dumps(told).encode()
            with contextlib.suppress(OSError):
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        heard.url = f"http://127.0.0.1:{server.server_port}/api"
        try:
            yield heard
        finally:
            heard.answers.set()
            server.shutdown()
