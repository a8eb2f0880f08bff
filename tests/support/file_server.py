"""A file server on loopback that counts what it sends and fails as it is told.

It answers GET and HEAD with byte ranges and keeps connections open, as an object store does. Faults are scripted by
path and attempt: `server.fail("*/B04.tif", status=503, times=2)`.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.support.faults import Fault, Kind, Script

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it was answered."""

    method: str
    path: str
    range: str | None
    status: int
    body_bytes: int
    fault: Kind | None


class FileServer(Script):
    """A running server over one folder: its address, its counts, and the faults it is told to make."""

    def __init__(self, folder: Path, *, delay_s: float) -> None:
        super().__init__()
        self.folder = folder.resolve()
        self.delay_s = delay_s
        """Added before each answer; may be changed while the server runs."""
        self.most_at_once = 0
        """The largest number of requests that were in the works at the same time."""
        self.closing = threading.Event()
        self._log: list[Request] = []
        self._in_flight = 0
        self._lock = threading.Lock()
        self._http = _Http(self)

    @property
    def url(self) -> str:
        """Address of the folder, without a slash at the end."""
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def log(self) -> tuple[Request, ...]:
        """All requests so far, in the order in which their answers ended."""
        with self._lock:
            return tuple(self._log)

    @property
    def requests(self) -> int:
        """How many requests were answered."""
        return len(self.log)

    @property
    def bytes_sent(self) -> int:
        """Bytes of bodies sent, headers not counted."""
        return sum(request.body_bytes for request in self.log)

    def requests_for(self, part: str) -> int:
        """How many requests there were for paths that contain `part`."""
        return sum(part in request.path for request in self.log)

    def bytes_for(self, part: str) -> int:
        """Bytes of bodies sent for paths that contain `part`."""
        return sum(request.body_bytes for request in self.log if part in request.path)

    def forget(self) -> None:
        """Set the counts back to nothing; the faults stay."""
        with self._lock:
            self._log.clear()
            self.most_at_once = 0

    @contextlib.contextmanager
    def in_flight(self) -> Iterator[None]:
        """Count a request as in the works."""
        with self._lock:
            self._in_flight += 1
            self.most_at_once = max(self.most_at_once, self._in_flight)
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1

    def note(self, request: Request) -> None:
        """Remember an answered request."""
        with self._lock:
            self._log.append(request)

    def run(self) -> None:
        """Serve until `close`."""
        self._http.serve_forever(poll_interval=0.02)

    def close(self) -> None:
        """End all connections and wait for their threads."""
        self.closing.set()
        self._http.shutdown()
        self._http.hang_up()
        self._http.server_close()


@contextlib.contextmanager
def file_server(folder: Path, *, delay_s: float = 0) -> Iterator[FileServer]:
    """Serve the files below `folder` on a free port of loopback until the context ends."""
    server = FileServer(folder, delay_s=delay_s)
    thread = threading.Thread(target=server.run, name="file-server")
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


class _Http(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for the threads of all connections
    request_queue_size = 256

    def __init__(self, files: FileServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
            super().shutdown_request(request)

    def hang_up(self) -> None:
        with self._open_lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and a small body leave in one packet
    server: _Http

    def do_GET(self) -> None:
        with self.server.files.in_flight():
            self._answer()

    do_HEAD = do_GET

    def _answer(self) -> None:
        files = self.server.files
        path = unquote(urlsplit(self.path).path)
        fault = files.next_fault(path)
        if files.delay_s:
            files.closing.wait(files.delay_s)
        if fault is not None and fault.kind is Kind.STATUS:
            headers = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
            self._send(fault.status, b"this failure was asked for\n", headers, "text/plain", fault)
            return
        if fault is not None and fault.kind is Kind.REPLACE:
            self._send(200, fault.body, {}, fault.content_type, fault)
            return
        file = self._file(path)
        if file is None:
            self._send(404, b"no such file\n", {}, "text/plain", fault)
            return
        size = file.stat().st_size
        if fault is not None and fault.kind is Kind.SHORTEN:
            size = int(size * fault.keep_fraction)
        self._send_range(file, size, fault)

    def _file(self, path: str) -> Path | None:
        folder = self.server.files.folder
        file = (folder / path.lstrip("/")).resolve()
        return file if file.is_relative_to(folder) and file.is_file() else None

    def _send_range(self, file: Path, size: int, fault: Fault | None) -> None:
        headers = {"Accept-Ranges": "bytes"}
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        if asked is None or asked[0] == "bytes=-":
            self._send(200, _part(file, 0, size), headers, "application/octet-stream", fault)
            return
        if asked[1]:
            first, last = int(asked[1]), min(int(asked[2] or size - 1), size - 1)
        else:
            first, last = max(size - int(asked[2]), 0), size - 1
        if first > last:
            self._send(416, b"", {"Content-Range": f"bytes */{size}"}, "text/plain", fault)
            return
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        self._send(206, _part(file, first, last + 1), headers, "application/octet-stream", fault)

    def _send(self, status: int, body: bytes, headers: dict[str, str], content_type: str, fault: Fault | None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        broken = fault if fault is not None and fault.kind in (Kind.CUT, Kind.STALL) else None
        sent = body if broken is None else body[: int(len(body) * broken.keep_fraction)]
        if self.command == "HEAD":
            sent = b""
        self._note(status, len(sent), fault)
        self.wfile.write(sent)
        self.wfile.flush()
        if broken is not None:
            self.close_connection = True
            if broken.kind is Kind.STALL:
                self._hang(broken)

    def _note(self, status: int, body_bytes: int, fault: Fault | None) -> None:
        request = Request(
            method=self.command,
            path=unquote(urlsplit(self.path).path),
            range=self.headers.get("Range"),
            status=status,
            body_bytes=body_bytes,
            fault=None if fault is None else fault.kind,
        )
        self.server.files.note(request)

    def _hang(self, fault: Fault) -> None:
        """Send nothing more until the client gives up, the fault heals, the server closes or the limit is reached."""
        files = self.server.files
        deadline = time.monotonic() + fault.limit_s
        while time.monotonic() < deadline and files.has(fault) and not files.closing.is_set():
            if select.select([self.connection], [], [], 0.02)[0]:
                return

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: requests are counted instead."""


def _part(file: Path, start: int, stop: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(stop - start)
