"""The API over real HTTP: workers of their own on stores of their own, clients with keys, and a Prefect that counts."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from sqlalchemy import Engine

from models.clients import create_client
from models.keys import master_keys
from tests.support.api_workers import SECRET
from tests.support.archives import ROOT


@dataclass(frozen=True)
class Api:
    """A worker that serves."""

    url: str
    process: subprocess.Popen[bytes]

    def client(self, key: str | None = None, **headers: str) -> httpx.Client:
        """A client that presents an API key."""
        given = {**({"x-api-key": key} if key else {}), **headers}
        return httpx.Client(base_url=self.url, headers=given, trust_env=False, timeout=30)


@contextlib.contextmanager
def serving(
    database_url: str,
    redis_url: str,
    *,
    settings: Mapping[str, str] | None = None,
    listener: socket.socket | None = None,
) -> Iterator[Api]:
    """Run one worker until the end of the block, on a free port or on a socket that it shares with others."""
    own = listener or socket.create_server(("127.0.0.1", 0), backlog=1024)
    # The Prefect server of other tests is nobody to ask for a first look at the farms of these.
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API_")}
    environment = {
        **others,
        "SWATH_DATABASE_URL": database_url,
        "SWATH_REDIS_URL": redis_url,
        "SWATH_SECRET_KEY": SECRET,
        "SWATH_LOG_LEVEL": "WARNING",
        **(settings or {}),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "serving", str(own.fileno())],
        stdin=subprocess.PIPE,
        env=environment,
        pass_fds=[own.fileno()],
        cwd=ROOT,
    )
    api = Api(f"http://127.0.0.1:{own.getsockname()[1]}", process)
    try:
        _wait(api)
        yield api
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.terminate()
        process.wait(20)
        if listener is None:
            own.close()


def _wait(api: Api) -> None:
    deadline = time.monotonic() + 60
    with httpx.Client(trust_env=False, timeout=60) as client:
        while True:
            assert api.process.poll() is None, "the worker ended"
            with contextlib.suppress(httpx.TransportError):
                if client.get(f"{api.url}/healthz").status_code == 200:
                    return
            assert time.monotonic() < deadline
            time.sleep(0.02)


def key_of(engine: Engine, name: str, *scopes: str) -> str:
    """Make a client with these scopes, `read` and `farms:write` if none are named, and return its API key."""
    with engine.begin() as connection:
        [key] = create_client(connection, name, scopes=scopes or ("read", "farms:write"), masters=master_keys(SECRET))
    return key.secret


@dataclass
class CountingPrefect:
    """Stands in for Prefect's API: knows one deployment, and notes the runs that are asked for."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of all requests for a run."""
    runs: dict[str, uuid.UUID] = field(default_factory=dict)
    """Runs by idempotency key."""
    ended: set[uuid.UUID] = field(default_factory=set)
    is_down: bool = False


@contextlib.contextmanager
def counting_prefect() -> Iterator[CountingPrefect]:
    """Run one until the end of the block."""
    state, lock = CountingPrefect(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path.startswith("/api/flow_runs/"):
                run = uuid.UUID(self.path.rpartition("/")[2])
                self._answer({"id": str(run), "state": {"type": "COMPLETED" if run in state.ended else "RUNNING"}})
            else:
                self._answer({"id": str(uuid.UUID(int=7))})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                state.asked.append(body)
                run = state.runs.setdefault(body["idempotency_key"], uuid.uuid4())
            self._answer({"id": str(run)})

        def _answer(self, body: Any) -> None:
            told = json.dumps(body).encode()
            self.send_response(503 if state.is_down else 200)
            self.send_header("content-length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/api"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
