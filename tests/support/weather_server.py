"""A weather service on loopback that replays answers and fails as it is told.

Replies are scripted in order: each request takes the next one, and the last one stays. A reply may also be a function
of the request, to answer as the service would.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request as it came in."""

    method: str
    path: str
    query: Mapping[str, str]
    """Of the address."""
    form: Mapping[str, str]
    """Of the body."""
    headers: Mapping[str, str]
    """Names in lower case."""
    connection: int
    """Port of the client: requests with the same one share a connection."""
    target_bytes: int
    """Length of path and query."""

    @property
    def parameters(self) -> dict[str, str]:
        """Those of the address and of the body together."""
        return {**self.query, **self.form}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer, whole or broken."""

    body: bytes = b"{}"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    send_fraction: float = 1
    """Share of the body that is sent before the connection closes, or stalls; all headers promise the whole."""
    stall_s: float = 0
    """Silence after that share."""
    delay_s: float = 0
    """Silence before the answer."""


def json_reply(document: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """An answer with a JSON document."""
    return Reply(
        body=json.dumps(document, ensure_ascii=False).encode(),
        status=status,
        headers={"Content-Type": "application/json; charset=utf-8", **(headers or {})},
    )


def html_reply(status: int = 200) -> Reply:
    """A page of a gateway in front of the service."""
    page = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"
    return Reply(body=page, status=status, headers={"Content-Type": "text/html"})


Scripted = Reply | Callable[[Received], Reply]


class WeatherServer:
    """A running server: its address, what it received, and what it says next."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.most_at_once = 0
        """The largest number of requests that were in the works at the same time."""
        self.closing = threading.Event()
        self._script: list[Scripted] = [Reply(status=500, body=b"nothing was scripted")]
        self._in_flight = 0
        self._lock = threading.Lock()
        self._http = _Http(self)

    @property
    def url(self) -> str:
        """Address without a path."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def script(self, *replies: Scripted) -> None:
        """Say these in turn from now on, the last one for ever."""
        with self._lock:
            self._script = list(replies)

    @contextlib.contextmanager
    def answering(self, request: Received) -> Iterator[Reply]:
        """Note a request and choose its answer."""
        with self._lock:
            self.received.append(request)
            self._in_flight += 1
            self.most_at_once = max(self.most_at_once, self._in_flight)
            scripted = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        try:
            yield scripted if isinstance(scripted, Reply) else scripted(request)
        finally:
            with self._lock:
                self._in_flight -= 1

    def run(self) -> None:
        """Serve until `close`."""
        self._http.serve_forever(poll_interval=0.02)

    def close(self) -> None:
        """End all answers and wait for their threads."""
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()


@contextlib.contextmanager
def weather_server() -> Iterator[WeatherServer]:
    """Serve on a free port of loopback until the context ends. Close clients first: open connections are waited for."""
    server = WeatherServer()
    thread = threading.Thread(target=server.run, name="weather-server")
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


class _Http(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for the threads of all connections
    request_queue_size = 128

    def __init__(self, weather: WeatherServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.weather = weather


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5  # an idle connection ends, so that closing never waits for long
    disable_nagle_algorithm = True
    server: _Http

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Received(
            method=self.command,
            path=parts.path,
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            form=dict(parse_qsl(body.decode(), keep_blank_values=True)),
            headers={name.lower(): value for name, value in self.headers.items()},
            connection=self.client_address[1],
            target_bytes=len(self.path),
        )
        with self.server.weather.answering(request) as reply, contextlib.suppress(ConnectionError):
            self._send(reply)

    def _send(self, reply: Reply) -> None:
        self._silence(reply.delay_s)
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body[: round(len(reply.body) * reply.send_fraction)])
        self.wfile.flush()
        if reply.send_fraction < 1:
            self._silence(reply.stall_s)
            self.close_connection = True

    def _silence(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.server.weather.closing.is_set():
            time.sleep(0.01)
