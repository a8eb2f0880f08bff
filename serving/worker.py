"""One worker, on a socket that it is given.

Not uvicorn's own workers: these load the program that started them once more, and with it the raster stack.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import threading

import uvicorn

from infra.settings import load_settings
from models.errors import BadInput
from serving.app import app_from_environment
from serving.sheets import Sheets

GRACE_S = 8
"""How long requests at hand may take after a signal."""

HEADER_BYTES = 32_768


def main() -> None:
    """Serve until SIGTERM, or until whoever started this is gone."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    sheets, worker = (Sheets.given(int(sys.argv[2])), int(sys.argv[3])) if len(sys.argv) > 2 else (None, 0)
    try:
        app = app_from_environment(sheets, worker=worker)
    except BadInput as error:
        sys.exit(f"swath: {error}")
    config = uvicorn.Config(
        app,
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=load_settings().serve_trusted_proxies,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=HEADER_BYTES,
        ws="none",
    )
    server = uvicorn.Server(config)
    gc.freeze()  # what has been made so far is there for good: no need to look at it again and again
    gc.enable()
    threading.Thread(target=_follow_parent, args=(server,), name="parent", daemon=True).start()
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve(sockets=[listener]))


def _follow_parent(server: uvicorn.Server) -> None:
    """Stop when standard input ends: the other end of it is held by the parent, however that ends."""
    while os.read(0, 1):
        pass
    server.should_exit = True
