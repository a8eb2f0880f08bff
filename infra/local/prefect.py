"""Prefect's API server as a child process, on the same Postgres as everything else.

It listens on loopback TCP, which every user of the machine can reach, and whoever may write to Prefect can have
programs run. So it asks for a password, made once for each home.

A first start takes about 10 s (Prefect's migrations), later ones about 5 s, nearly all of it spent importing Prefect.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import structlog
from psycopg import sql
from sqlalchemy.engine import URL, make_url

from infra.local.home import open_home
from infra.local.processes import tail
from infra.local.sharing import alone
from models.errors import ServerTrouble

log = structlog.get_logger(__name__)

DATABASE = "prefect"
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 15.0
MAX_LOG_BYTES = 10_000_000

_PROGRAM = Path(__file__).with_name("prefect_child.py")
# What asyncpg takes from the environment, because SQLAlchemy cannot pass it in an address.
_TLS_FILES = {"sslrootcert": "PGSSLROOTCERT", "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefectServer:
    """A running embedded Prefect API server."""

    api_url: str
    auth: str = field(repr=False)
    """User and password as `user:password`, for Prefect's client and for the login of its UI."""

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which Prefect's client finds this server and may use it; the second is a secret."""
        return {"PREFECT_API_URL": self.api_url, "PREFECT_API_AUTH_STRING": self.auth}


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefectProgram:
    """How to run the server, any number of times one after the other: its socket stays bound in between."""

    server: PrefectServer
    command: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)
    """All of it; nothing else of ours is for the server."""
    folder: Path
    listener: socket.socket


@contextlib.contextmanager
def prefect_program(database_url: str, home: Path, *, services: bool = True, port: int = 0) -> Iterator[PrefectProgram]:
    """Bind the socket of Prefect's server, see that there is a database for it, and say how to run it.

    Args: as `local_prefect`.

    Raises:
        ServerTrouble: when the port or the database cannot be used.
    """
    folder = open_home(home).private_folder("prefect")
    url = make_url(database_url)
    _create_database(url)
    with _listener(port) as listener:
        server = PrefectServer(api_url=f"http://127.0.0.1:{listener.getsockname()[1]}/api", auth=_auth(folder / "auth"))
        yield PrefectProgram(
            server=server,
            command=(sys.executable, "-P", str(_PROGRAM), str(listener.fileno()), "all" if services else "api"),
            environment=_environment(url, folder, server),
            folder=folder,
            listener=listener,
        )


@contextlib.contextmanager
def starting_alone(home: Path) -> Iterator[None]:
    """Hold while a server starts: two must not migrate one database together."""
    with alone("prefect", locks=open_home(home).private_folder("locks"), timeout_s=START_TIMEOUT_S):
        yield


@contextlib.contextmanager
def local_prefect(database_url: str, home: Path, *, services: bool = True, port: int = 0) -> Iterator[PrefectServer]:
    """Run Prefect's API server until the end of the block; it ends with this process, however that ends.

    Args:
        database_url: Postgres; the database `prefect` beside the one it names is used, and created if absent.
        home: folder of the embedded servers, made if absent.
        services: True also runs the scheduler, the other background services and the UI; False the API alone, with
            the recording of runs and events, which stops faster.
        port: on 127.0.0.1; 0 takes a free one.

    Raises:
        ServerTrouble: when the server cannot be run; with the end of its log.
    """
    with prefect_program(database_url, home, services=services, port=port) as program:
        log_file = program.folder / "server.log"
        with log_file.open("ab") as said, starting_alone(home):
            if said.tell() > MAX_LOG_BYTES:
                said.truncate(0)
            child = subprocess.Popen(
                program.command,
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=program.folder,
                env=program.environment,
                pass_fds=[program.listener.fileno()],
                start_new_session=True,
            )
            try:
                program.listener.close()
                _wait_until_healthy(child, program.server, said=log_file)
            except BaseException:
                _stop(child)
                raise
    try:
        yield program.server
    finally:
        _stop(child)


def _listener(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise ServerTrouble(f"Prefect's server cannot listen on 127.0.0.1:{port}: {error}") from error


def _create_database(url: URL) -> None:
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        with psycopg.connect(address, autocommit=True, connect_timeout=10) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                return
            with contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    except psycopg.errors.InsufficientPrivilege as error:
        raise ServerTrouble(
            f"role {url.username} may not create the database {DATABASE!r} that Prefect's server needs: "
            "create it for that role, or set PREFECT_API_URL to a server that runs elsewhere"
        ) from error
    except psycopg.Error as error:
        raise ServerTrouble(f"the database of Prefect's server cannot be reached: {error}") from error


def _environment(url: URL, folder: Path, server: PrefectServer) -> dict[str, str]:
    """Our environment without what tells a client where to go, without our own settings, and with the server's."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SWATH_", "PREFECT_API_", "PREFECT_PROFILE"))
    }
    origin = server.api_url.removesuffix("/api")
    tls_files = {name: str(url.query[option]) for option, name in _TLS_FILES.items() if option in url.query}
    return (
        kept
        | tls_files
        | {
            "PREFECT_HOME": str(folder),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": _asyncpg_address(url),
            "PREFECT_SERVER_API_AUTH_STRING": server.auth,
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origin,
            "PREFECT_SERVER_UI_API_URL": server.api_url,
            "PREFECT_UI_URL": origin,
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(folder / "ui"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            # Who holds a place of a limited deployment, in files: kept in memory, as by default, that is forgotten when
            # the server is started again, and Prefect then ends the runs that hold one, minutes later and half done.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "DO_NOT_TRACK": "1",
        }
    )


def _asyncpg_address(url: URL) -> str:
    query = {name: value for name, value in url.query.items() if name in {"host", "port"}}
    if "sslmode" in url.query:
        query["ssl"] = url.query["sslmode"]
    address = url.set(drivername="postgresql+asyncpg", database=DATABASE, query=query)
    return address.render_as_string(hide_password=False)


def _auth(file: Path) -> str:
    """Return the password of this home's Prefect server, made at the first call."""
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as opened:
            opened.write(f"swath:{secrets.token_urlsafe(24)}")
    return file.read_text(encoding="ascii").strip()


def _wait_until_healthy(child: subprocess.Popen[bytes], server: PrefectServer, *, said: Path) -> None:
    started_at = time.monotonic()
    with httpx.Client(trust_env=False, timeout=5) as client:
        while child.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if client.get(f"{server.api_url}/health").status_code == httpx.codes.OK:
                    log.info("started Prefect", url=server.api_url, seconds=round(time.monotonic() - started_at, 2))
                    return
            if time.monotonic() - started_at > START_TIMEOUT_S:
                raise ServerTrouble(f"Prefect's server does not answer on {server.api_url}:\n{tail(said)}")
            time.sleep(0.05)
    raise ServerTrouble(f"Prefect's server ended with exit code {child.returncode}:\n{tail(said)}")


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Close the child's standard input, which tells it to stop, and see that it does."""
    if child.stdin is not None:
        child.stdin.close()
    try:
        child.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        log.warning("Prefect's server is slow to stop and is killed", pid=child.pid)
        child.kill()
        child.wait()
