"""Run an application on loopback in a thread of this process, for as long as a context lasts."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from models.errors import ServerTrouble


@contextlib.contextmanager
def serve_app(app: ASGIApp, *, name: str, start_timeout_s: float = 10) -> Iterator[str]:
    """Serve an application on a free port of 127.0.0.1, and yield its address.

    It runs in a thread, so it ends with this process whatever happens.

    Args:
        app: The application.
        name: What it is called in errors and thread lists, such as `sandbox's file server`.
        start_timeout_s: Longest wait for its start, and for its end.

    Raises:
        ServerTrouble: the server did not start.
    """
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
        thread = threading.Thread(target=server.run, args=([listener],), name=name, daemon=True)
        thread.start()
        try:
            _wait_until_started(server, thread, name, deadline=time.monotonic() + start_timeout_s)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=start_timeout_s)


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread, name: str, *, deadline: float) -> None:
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise ServerTrouble(f"the {name} did not start")
        time.sleep(0.005)
