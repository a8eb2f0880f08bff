"""The yardstick: a Starlette route that gives bytes from Redis as they are, and nothing else. Run by `serving_load`."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, Python looks for modules beside it only
    sys.path.insert(0, str(ROOT))

import uvicorn  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import Response  # noqa: E402
from starlette.routing import Route  # noqa: E402

from serving.cache import open_redis  # noqa: E402

PREFIX = "bench:bare:"
"""Before the path in the key under which Redis has the bytes that it gives."""


def app(redis_url: str) -> Starlette:
    """One route, for any path; no checks, no limits, no counting, no logs."""
    client = open_redis(redis_url)

    async def give(request: Request) -> Response:
        return Response(await client.get(PREFIX + request.url.path), media_type="application/json")

    return Starlette(routes=[Route("/api/v1/farms/{external_farm_id}/{what:path}", give)])


def main() -> None:
    """Serve at a socket that is given, with the server and the settings of Swath's own workers."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    config = uvicorn.Config(
        app(os.environ["SWATH_REDIS_URL"]),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        h11_max_incomplete_event_size=32_768,
        ws="none",
    )
    server = uvicorn.Server(config)
    threading.Thread(target=_follow_parent, args=(server,), daemon=True).start()
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve(sockets=[listener]))


def _follow_parent(server: uvicorn.Server) -> None:
    while os.read(0, 1):
        pass
    server.should_exit = True


if __name__ == "__main__":
    main()
