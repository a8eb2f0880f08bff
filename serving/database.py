"""Postgres as the app uses it: a small pool, short waits, and left alone while it does not answer."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import psycopg
import structlog
from psycopg.rows import AsyncRowFactory, DictRow, Row, dict_row, tuple_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from models.errors import BadInput
from serving.breaker import Breaker
from serving.patience import Patience
from serving.trace import note_time

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT_S = 2
POOL_TIMEOUT_S = 2.0
"""Longest wait for a free connection."""

STATEMENT_TIMEOUT_MS = 5_000

READ_DEADLINE_S = 3.0
"""Longest wait for a read, for its connection included: a server that hangs says nothing at all."""

WRITE_DEADLINE_S = 30.0

CANCEL_TIMEOUT_S = 0.3
"""How long Postgres is asked to leave a query whose deadline is over; psycopg waits ten seconds if it hangs."""

MOST_WAITING = 500
"""Requests that may wait for a connection; beyond, the answer is 503 at once."""

Connection = psycopg.AsyncConnection[DictRow]
Pool = AsyncConnectionPool[Connection]


class DatabaseAway(Exception):
    """Postgres did not answer, or is left alone because it did not."""


class Database:
    """A pool of connections to Postgres behind a breaker; rows are dictionaries."""

    def __init__(self, pool: Pool, breaker: Breaker) -> None:
        self.pool = pool
        self.breaker = breaker

    async def rows(self, query: str, values: Mapping[str, Any] | None = None) -> list[DictRow]:
        """Return all rows of one query that changes nothing; asked again once where an old connection was broken.

        Args:
            query: SQL.
            values: of its parameters.

        Raises:
            DatabaseAway: Postgres did not answer in time, or is left alone at the moment.
        """
        return await self._read(query, values, dict_row, is_binary=False)

    async def tuples(self, query: str, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Return rows without names, numbers not by way of text; otherwise as `rows`. Half the work for hundreds."""
        return await self._read(query, values, tuple_row, is_binary=True)

    async def _read(
        self, query: str, values: Mapping[str, Any] | None, shape: AsyncRowFactory[Row], *, is_binary: bool
    ) -> list[Row]:
        for is_last in (False, True):
            try:
                async with self._lent(is_again=is_last, deadline_s=READ_DEADLINE_S) as connection:
                    cursor = connection.cursor(row_factory=shape, binary=is_binary)
                    await cursor.execute(query.encode(), values)
                    return await cursor.fetchall()
            except _Broken:
                continue
        raise AssertionError("unreachable")

    async def row(self, query: str, values: Mapping[str, Any] | None = None) -> DictRow | None:
        """Return the first row of one query that changes nothing, or None; otherwise as `rows`."""
        found = await self.rows(query, values)
        return found[0] if found else None

    @contextlib.asynccontextmanager
    async def transaction(self, *, deadline_s: float = WRITE_DEADLINE_S) -> AsyncIterator[Connection]:
        """Lend a connection in a transaction, committed at the end of the block and rolled back over an error.

        Raises:
            DatabaseAway: Postgres did not answer in time, or is left alone at the moment. The transaction may have
                been committed if the connection broke at its very end.
        """
        async with self._lent(is_again=True, deadline_s=deadline_s) as connection, connection.transaction():
            yield connection

    @contextlib.asynccontextmanager
    async def _lent(self, *, is_again: bool, deadline_s: float) -> AsyncIterator[Connection]:
        if not self.breaker.may_try():
            raise DatabaseAway("left alone")
        started_at = time.perf_counter()
        lent: Connection | None = None
        try:
            with Patience(deadline_s):
                async with self.pool.connection() as lent:
                    yield lent
        except (TimeoutError, PoolTimeout, PoolClosed, TooManyRequests) as error:
            self._note(error)
            raise DatabaseAway(str(error)) from error
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            if not _is_away(error):
                raise
            if lent is not None and lent.closed and not is_again:
                raise _Broken from error
            self._note(error)
            raise DatabaseAway(str(error)) from error
        finally:
            note_time("db", time.perf_counter() - started_at)
        if self.breaker.is_open:
            log.info("Postgres answers again")
        self.breaker.succeeded()

    def _note(self, error: Exception) -> None:
        was_open = self.breaker.is_open
        self.breaker.failed()
        if self.breaker.is_open and not was_open:
            log.warning("Postgres is left alone for a moment", error=str(error))


class _Impatient(psycopg.AsyncConnection[DictRow]):
    """A connection that is given up when not even the request to leave a query is heard."""

    async def cancel_safe(self, *, timeout: float = CANCEL_TIMEOUT_S) -> None:
        """Ask Postgres to leave the query that is under way; if it does not hear that, close the connection."""
        try:
            await super().cancel_safe(timeout=min(timeout, CANCEL_TIMEOUT_S))
        except psycopg.errors.CancellationTimeout:
            self.pgconn.finish()
            raise


class _Broken(Exception):
    """The connection that was lent had been broken; another may work."""


def _is_away(error: psycopg.Error) -> bool:
    """Whether it is the server that cannot work, and not this one statement that cannot."""
    state = error.sqlstate
    return state is None or state.startswith(("08", "53", "57", "58")) or state == "25006"


_SCHEME = re.compile(r"^postgres(?:ql)?(?:\+\w+)?://")


def make_pool(url: str, *, size: int) -> Pool:
    """A pool for the Postgres at this address, not opened yet.

    Raises:
        BadInput: the address is not one of Postgres.
    """
    if not _SCHEME.match(url):
        raise BadInput("SWATH_DATABASE_URL", "not a Postgres address", allowed="postgresql://…")
    return AsyncConnectionPool(
        _SCHEME.sub("postgresql://", url),
        min_size=min(2, size),
        max_size=size,
        max_waiting=MOST_WAITING,
        timeout=POOL_TIMEOUT_S,
        reconnect_timeout=10,
        open=False,
        name="serving",
        connection_class=_Impatient,
        kwargs={
            "autocommit": True,  # a read costs one exchange, not three
            "row_factory": dict_row,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "swath-serving",
            "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c timezone=UTC "
            f"-c idle_in_transaction_session_timeout={2 * STATEMENT_TIMEOUT_MS}",
        },
    )
