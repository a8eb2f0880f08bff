"""A static file server on loopback that honours byte ranges, as an object store does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from infra.sandbox.serving import serve_app


@contextlib.contextmanager
def serve_files(folder: Path, *, start_timeout_s: float = 10) -> Iterator[str]:
    """Serve the files below a folder, for reading, on a free port of 127.0.0.1, and yield the folder's address.

    Single and multiple ranges, HEAD and 416 are answered as RFC 9110 has them; links that lead out of the folder are
    not followed, and folders are not listed. It runs in a thread, so it ends with this process whatever happens.

    Raises:
        ServerTrouble: the server did not start.
    """
    app = Starlette(routes=[Mount("/", StaticFiles(directory=folder))])
    with serve_app(app, name="sandbox's file server", start_timeout_s=start_timeout_s) as url:
        yield url
