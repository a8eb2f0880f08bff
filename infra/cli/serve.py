"""`swath serve`: the API, with as many workers as asked for, on servers of our own where no others are named."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Annotated

import structlog
import typer

from infra.cli.serve_metrics import metrics
from infra.local import local_servers
from infra.settings import Settings, load_settings
from models.errors import ServerTrouble
from models.schema import upgrade
from serving.sheets import Sheets

log = structlog.get_logger(__name__)

BACKLOG = 2_048
STOP_S = 9.0
"""How long workers may take to finish what they are at; then they are ended."""

SHORT_LIVED_S = 5.0
"""A worker that ends sooner could not start: trying again at once would not help."""

PATIENCE = 5
"""Short-lived workers, one after the other, until we give up."""


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: SWATH_SERVE_HOST.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one. Default: SWATH_SERVE_PORT.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Processes. Default: SWATH_SERVE_WORKERS.")
    ] = None,
) -> None:
    """Serve the API until Ctrl-C. With no stores named in the environment, Swath's own are started."""
    settings = load_settings()
    chosen = settings.serve_port if port is None else port
    with local_servers(settings) as addresses, _listener(host or settings.serve_host, chosen) as listener:
        upgrade(addresses.database_url)
        stores = {"SWATH_DATABASE_URL": addresses.database_url, "SWATH_REDIS_URL": addresses.redis_url}
        count = workers or settings.serve_workers
        typer.echo(f"swath serves {_address(listener)} with {count} worker{'s' if count > 1 else ''}; Ctrl-C stops it")
        sys.stdout.flush()
        environment = _environment(settings, stores)
        # Being told to stop is how a server ends, and no failure.
        with (
            _ended_by_being_told(),
            Sheets.shared(count) as sheets,
            Workers(listener, count=count, environment=environment, sheets=sheets) as crew,
            metrics(settings, addresses, sheets, tell=_say),
        ):
            crew.keep()
    typer.echo("swath has stopped serving")


def _say(line: str) -> None:
    typer.echo(line)
    sys.stdout.flush()


def _ended_by_being_told() -> contextlib.suppress:
    return contextlib.suppress(KeyboardInterrupt, SystemExit)


def _listener(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ServerTrouble(f"cannot listen on {host}:{port}: {error.strerror}; choose another by --port") from error


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _environment(settings: Settings, stores: Mapping[str, str]) -> dict[str, str]:
    # A person at a terminal sees warnings; a service that names a level gets that.
    level = settings.log_level if "log_level" in settings.model_fields_set else "WARNING"
    return {**os.environ, **stores, "SWATH_LOG_LEVEL": level}


class Workers:
    """Worker processes on one socket: one that ends is replaced, and all are stopped at the end of the block."""

    def __init__(self, listener: socket.socket, *, count: int, environment: Mapping[str, str], sheets: Sheets) -> None:
        self._listener = listener
        self._sheets = sheets
        self._environment = dict(environment)
        self._count = count
        self._running: dict[int, tuple[subprocess.Popen[bytes], float]] = {}
        self._short_lived = 0

    def __enter__(self) -> Workers:
        """Start all of them."""
        for place in range(self._count):
            self._start(place)
        return self

    def __exit__(self, *_problem: object) -> None:
        """Let them finish what they are at, and end those that do not."""
        for process, _ in self._running.values():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for process, _started_at in self._running.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("worker is slow to stop and is ended", pid=process.pid)
                process.kill()
                process.wait()

    def keep(self) -> None:
        """Replace workers that end, until interrupted.

        Raises:
            ServerTrouble: they cannot start.
        """
        while True:
            time.sleep(0.2)
            for place, (process, started_at) in list(self._running.items()):
                if process.poll() is None:
                    continue
                is_short = time.monotonic() - started_at < SHORT_LIVED_S
                self._short_lived = self._short_lived + 1 if is_short else 0
                log.error("worker ended and is replaced", pid=process.pid, exit_code=process.returncode)
                if self._short_lived >= PATIENCE:
                    raise ServerTrouble(
                        f"workers do not start (exit code {process.returncode}); what they said is above"
                    )
                self._start(place)

    def _start(self, place: int) -> None:
        assert self._sheets.descriptor is not None
        shared = (self._listener.fileno(), self._sheets.descriptor)
        process = subprocess.Popen(
            [sys.executable, "-m", "serving", *map(str, shared), str(place)],
            stdin=subprocess.PIPE,
            env=self._environment,
            pass_fds=shared,
            start_new_session=True,
        )
        self._running[place] = (process, time.monotonic())
