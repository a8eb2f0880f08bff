"""A listener for the metrics page alone, on threads of a process that does little else: no worker can delay it."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import structlog

from serving.exposition import CONTENT_TYPE
from serving.metrics import PATH, Page, may_read

log = structlog.get_logger(__name__)

MOST_AT_ONCE = 16
"""Connections; more are closed at once."""

PATIENCE_S = 3.0
"""For a caller to say what they want, and to take it."""

_PLAIN = "text/plain; charset=utf-8"


@contextlib.contextmanager
def metrics_listener(listener: socket.socket, page: Page, *, token: str | None) -> Iterator[None]:
    """Answer at a socket for the time of the block.

    Args:
        listener: listening; closed at the end.
        page: what is told.
        token: what callers must present as `Authorization: Bearer`; None: nothing.
    """
    server = _Server(listener, page, token)
    thread = threading.Thread(target=server.serve_forever, name="metrics", kwargs={"poll_interval": 0.2}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        listener.close()


class _Server(socketserver.ThreadingMixIn, socketserver.BaseServer):
    """A thread for each connection: measured on two busy cores, a new one is run sooner than one that waits."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, page: Page, token: str | None) -> None:
        super().__init__(listener.getsockname(), _Handler)
        self.page = page
        self.token = token
        self._listener = listener
        self._places = threading.BoundedSemaphore(MOST_AT_ONCE)

    def fileno(self) -> int:
        return self._listener.fileno()

    def get_request(self) -> tuple[socket.socket, Any]:
        return self._listener.accept()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def shutdown_request(self, request: Any) -> None:
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_WR)
        request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # a caller that goes away in the middle is nothing to tell of
            log.error("metrics not told", exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    """One request; the connection is closed after it."""

    server_version = "swath"
    sys_version = ""
    timeout = PATIENCE_S
    wbufsize = -1  # head and body leave together

    server: _Server

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != PATH:
            self._answer(404, b"only /metrics is here\n", _PLAIN)
        elif not may_read(self.headers.get("authorization"), self.server.token):
            self._answer(401, b"metrics are for who has their token\n", _PLAIN)
        else:
            self._answer(200, self.server.page.text(), CONTENT_TYPE)

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.send_header("cache-control", "no-store")
        self.send_header("x-content-type-options", "nosniff")
        self.send_header("connection", "close")
        if status == 401:
            self.send_header("www-authenticate", "Bearer")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Asked every few seconds: not worth a line."""
