"""A file server that counts what it sends, in a process of its own: what is measured shares no interpreter with it.

It answers GET and HEAD with byte ranges on connections that stay open, sends files straight from the kernel's cache,
and waits before each answer if told to. Standard library alone, so that it starts at once.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_REQUEST = re.compile(rb"(GET|HEAD|POST) /(\S*) HTTP/1\.1\r\n")
_RANGE = re.compile(rb"\r\nrange: *bytes=(\d+)-(\d*)\r\n", re.IGNORECASE)
_CONTROL = "-/"
_LONGEST_HEADER = 16_384


@dataclass(frozen=True, slots=True)
class Counts:
    """What was asked for and sent since the last reset, control requests left out."""

    requests: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Counter:
    """A running server as its clients see it."""

    port: int

    @property
    def url(self) -> str:
        """Address of the folder, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def reset(self, *, delay_ms: float = 0) -> None:
        """Set the counts to nothing, and the delay before each answer from now on."""
        self._control(f"reset?{delay_ms:g}")

    def counts(self) -> Counts:
        """The counts since the last reset."""
        return Counts(**json.loads(self._control("counts")))

    def _control(self, what: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("POST", f"/{_CONTROL}{what}")
            return connection.getresponse().read()


@contextlib.contextmanager
def counting_server(folder: Path) -> Iterator[Counter]:
    """Serve the files in `folder` from another process on a free port of loopback until the context ends."""
    command = [sys.executable, str(Path(__file__).resolve()), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Counter(int(process.stdout.readline()))
        finally:
            process.stdin.close()  # the server ends when its parent does, however that comes
            process.wait(timeout=10)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, folder: Path) -> None:
        self.files = {file.name: file for file in folder.iterdir() if file.is_file()}
        self.lock = threading.Lock()
        self.requests = 0
        self.bytes = 0
        self.delay_s = 0.0
        super().__init__(("127.0.0.1", 0), _Connection)

    def control(self, what: str) -> bytes:
        name, _, delay_ms = what.partition("?")
        with self.lock:
            if name == "reset":
                self.requests, self.bytes, self.delay_s = 0, 0, float(delay_ms or 0) / 1000
            return json.dumps({"requests": self.requests, "bytes": self.bytes}).encode()

    def count(self, sent: int) -> None:
        with self.lock:
            self.requests += 1
            self.bytes += sent


class _Connection(socketserver.BaseRequestHandler):
    request: socket.socket
    server: _Server

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        waiting = b""
        while True:
            while b"\r\n\r\n" not in waiting:
                if len(waiting) > _LONGEST_HEADER or not (more := self._receive()):
                    return
                waiting += more
            head, _, waiting = waiting.partition(b"\r\n\r\n")
            if not self._answer(head + b"\r\n"):
                return

    def _receive(self) -> bytes:
        try:
            return self.request.recv(65_536)
        except OSError:
            return b""

    def _answer(self, head: bytes) -> bool:
        """Answer one request; False when the connection is not to be used again."""
        asked = _REQUEST.match(head)
        if asked is None:
            return False
        method, name = asked[1].decode(), asked[2].decode()
        if name.startswith(_CONTROL):
            return self._send("200 OK", self.server.control(name.removeprefix(_CONTROL)))
        if self.server.delay_s:
            time.sleep(self.server.delay_s)
        file = self.server.files.get(name)
        if file is None:
            self.server.count(0)
            return self._send("404 Not Found", b"")
        return self._send_file(method, file, _RANGE.search(head))

    def _send(self, status: str, body: bytes) -> bool:
        try:
            self.request.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        except OSError:
            return False
        return True

    def _send_file(self, method: str, path: Path, ranged: re.Match[bytes] | None) -> bool:
        size = path.stat().st_size
        first, last, status, extra = 0, size - 1, "200 OK", ""
        if ranged is not None:
            first, last = int(ranged[1]), min(int(ranged[2] or size - 1), size - 1)
            if first > last:
                self.server.count(0)
                return self._send("416 Range Not Satisfiable", b"")
            status, extra = "206 Partial Content", f"Content-Range: bytes {first}-{last}/{size}\r\n"
        length = last + 1 - first
        self.server.count(0 if method == "HEAD" else length)
        header = f"HTTP/1.1 {status}\r\nAccept-Ranges: bytes\r\n{extra}Content-Length: {length}\r\n\r\n".encode()
        try:
            self.request.sendall(header, 0 if method == "HEAD" else socket.MSG_MORE)
            if method != "HEAD":
                self._send_part(path, first, length)
        except OSError:
            return False
        return True

    def _send_part(self, path: Path, first: int, length: int) -> None:
        with path.open("rb") as file:
            while length:
                sent = os.sendfile(self.request.fileno(), file.fileno(), first, length)
                first, length = first + sent, length - sent


def main() -> None:
    """Serve one folder until standard input closes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    with _Server(parser.parse_args().folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_address[1], flush=True)
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main()
