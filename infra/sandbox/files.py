"""A static file server on loopback that honours byte ranges, as an object store does."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from models.errors import ServerTrouble


@contextlib.contextmanager
def serve_files(folder: Path, *, start_timeout_s: float = 10) -> Iterator[str]:
    """Serve the files below a folder, for reading, on a free port of 127.0.0.1, and yield the folder's address.

    Single and multiple ranges, HEAD and 416 are answered as RFC 9110 has them; links that lead out of the folder are
    not followed, and folders are not listed. It runs in a thread, so it ends with this process whatever happens.

    Raises:
        ServerTrouble: the server did not start.
    """
    app = Starlette(routes=[Mount("/", StaticFiles(directory=folder))])
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="critical",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    # Named as TCP, or asyncio does not switch Nagle's algorithm off and each answer waits 40 ms for an acknowledgement.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name="sandbox-files", daemon=True)
        thread.start()
        try:
            _wait_until_started(server, thread, deadline=time.monotonic() + start_timeout_s)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=start_timeout_s)


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread, *, deadline: float) -> None:
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise ServerTrouble("the sandbox's file server did not start")
        time.sleep(0.005)
