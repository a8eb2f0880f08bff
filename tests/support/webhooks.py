"""A receiver of webhooks on loopback, that keeps what it is told."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson


@dataclass
class Receiver:
    """What was posted to an address."""

    url: str
    bodies: list[Any] = field(default_factory=list)
    """As JSON."""

    def told(self, matches: Callable[[Any], bool], *, within_s: float) -> Any:
        """The first body that matches, as soon as it is there; None when it does not come."""
        deadline = time.monotonic() + within_s
        while True:
            found = next((body for body in list(self.bodies) if matches(body)), None)
            if found is not None or time.monotonic() > deadline:
                return found
            time.sleep(0.05)


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    """Receive posts of JSON until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            inbox.bodies.append(orjson.loads(body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    inbox = Receiver(f"http://127.0.0.1:{server.server_port}/alerts?token=secret")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield inbox
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
