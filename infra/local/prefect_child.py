"""The program in which Prefect's API server runs, on a socket that the parent has bound.

Run as a file, with `python -P prefect_child.py FD MODE`. It ends when its standard input is closed, which the kernel
does when the parent dies, however it dies; so no server is left behind.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading

GRACE_S = 8


def main() -> None:
    """Serve until the parent closes our standard input."""
    threading.Thread(target=_stop_with_the_parent, daemon=True).start()

    gc.disable()  # a fifth of the time that these imports take; nothing of them is ever given back
    import uvicorn
    from prefect.server.api.server import create_app

    gc.freeze()
    gc.enable()

    descriptor, mode = sys.argv[1:]
    listener = socket.socket(fileno=int(descriptor))
    config = uvicorn.Config(
        create_app(ephemeral=mode == "api", final=True),
        lifespan="on",
        log_level="warning",
        timeout_graceful_shutdown=2,
    )
    uvicorn.Server(config).run(sockets=[listener])


def _stop_with_the_parent() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    # A shutdown that hangs must not outlive the parent either.
    threading.Event().wait(GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    main()
