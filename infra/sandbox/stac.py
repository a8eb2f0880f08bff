"""A real STAC API server over a file of items: `rustac serve`, on loopback, for as long as we live."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import httpx

from models.errors import ServerTrouble

# The server becomes the process that was started (exec); beside it waits a shell on the other end of a pipe that we
# hold. When we close the pipe, or die in any way, the shell ends its own process group, which nobody else can join.
_LIVE_AND_DIE_WITH_PARENT = (
    'exec 3<&0; { read -r _ <&3; kill -s TERM 0; } >/dev/null 2>&1 & exec 3<&-; exec "$@" </dev/null'
)


@contextlib.contextmanager
def serve_items(items_file: Path, *, start_timeout_s: float = 20) -> Iterator[str]:
    """Serve the items of a GeoJSON feature collection as a STAC API, and yield its address.

    The server holds the items in memory and listens on a free port of 127.0.0.1. It is gone when the context ends,
    and also when this process is killed.

    Raises:
        ServerTrouble: the server did not start; the message ends with what it wrote.
    """
    with tempfile.TemporaryFile() as log:
        for _ in range(3):  # another process may take the port between our look and the server's start
            port = _free_port()
            process = _start(items_file, port, log)
            try:
                if _is_ready(process, port, deadline=time.monotonic() + start_timeout_s):
                    yield f"http://127.0.0.1:{port}"
                    return
            finally:
                _stop(process)
        log.seek(0)
        said = log.read()[-2000:].decode(errors="replace").strip()
    raise ServerTrouble(f"the STAC server did not start over {items_file}: {said or 'it said nothing'}")


def _program() -> str:
    beside_python = Path(sysconfig.get_path("scripts")) / "rustac"
    found = str(beside_python) if beside_python.is_file() else shutil.which("rustac")
    if found is None:
        raise ServerTrouble("the program `rustac` is not installed; it comes with the Python package of that name")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _start(items_file: Path, port: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    serve = [_program(), "serve", "--addr", f"127.0.0.1:{port}", "--create-collections", str(items_file)]
    return subprocess.Popen(
        ["/bin/sh", "-c", _LIVE_AND_DIE_WITH_PARENT, "sh", *serve],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def _is_ready(process: subprocess.Popen[bytes], port: int, *, deadline: float) -> bool:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=1, trust_env=False) as client:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if client.get("/").status_code == httpx.codes.OK and process.poll() is None:
                    return True
            except httpx.TransportError:
                pass
            time.sleep(0.02)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
