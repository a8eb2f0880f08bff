"""Connections to the stores: Postgres, which is the truth, and Redis, which may be lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool
from sqlalchemy import Engine, create_engine, make_url

from infra.local import local_servers
from infra.redis_address import SentinelAddress, ServerAddress, redis_address
from infra.settings import Settings
from models.errors import BadInput, ServerTrouble
from models.schema import upgrade


@dataclass(frozen=True, slots=True)
class Stores:
    """Open connections of one process."""

    engine: Engine
    redis: redis.Redis
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)


@contextmanager
def open_stores(settings: Settings) -> Iterator[Stores]:
    """Connect to the stores that the settings name, starting embedded servers for those they do not.

    The schema is brought up to date first. Redis is connected to when it is first used.

    Raises:
        BadInput: a URL is not one of Postgres or Redis.
        ServerTrouble: an embedded server does not start, or the database does not answer.
    """
    with local_servers(settings) as addresses:
        engine = postgres_engine(addresses.database_url, pool_size=settings.scenes_at_once + 3)
        client = redis_client(addresses.redis_url)
        try:
            _bring_up_to_date(addresses.database_url, is_named=settings.database_url is not None)
            yield Stores(engine, client, addresses.database_url, addresses.redis_url)
        finally:
            client.close()
            engine.dispose()


def _bring_up_to_date(database_url: str, *, is_named: bool) -> None:
    try:
        upgrade(database_url)
    except ServerTrouble as error:
        if not is_named:
            raise
        raise ServerTrouble(f"SWATH_DATABASE_URL: {error}") from error


def postgres_engine(url: str, *, pool_size: int) -> Engine:
    """An engine over psycopg 3, whatever driver name the URL carries."""
    try:
        address = make_url(url)
    except Exception as error:
        raise BadInput("SWATH_DATABASE_URL", "not a database address", allowed="postgresql://…") from error
    if not address.drivername.startswith("postgres"):
        raise BadInput("SWATH_DATABASE_URL", f"is for {address.drivername}", allowed="postgresql://…")
    return create_engine(
        address.set(drivername="postgresql+psycopg"), pool_size=pool_size, max_overflow=5, pool_pre_ping=True
    )


def redis_client(url: str) -> redis.Redis:
    """A client with short timeouts and no retries of its own: a failover must not add up to a standstill.

    Measured: with retries and backoff inside the pool a Sentinel failover stood still for 44 s, without for 2.4 s.

    Raises:
        BadInput: it is no address of Redis.
    """
    address = redis_address(url)
    options: dict[str, Any] = {"socket_connect_timeout": 0.5, "socket_timeout": 1, "retry": Retry(NoBackoff(), 0)}
    if isinstance(address, ServerAddress):
        return redis.Redis.from_url(address.url, **options)
    return _PrimaryClient(address, options)


class _PrimaryClient(redis.Redis):
    """A client of the primary that Sentinels name, asked anew whenever a connection is opened."""

    def __init__(self, address: SentinelAddress, options: dict[str, Any]) -> None:
        of_sentinels = {**options, **address.sentinel_options, "socket_timeout": 0.5}
        self._sentinel = Sentinel(  # type: ignore[no-untyped-call]
            address.sentinels, sentinel_kwargs=of_sentinels
        )
        pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
            address.name, self._sentinel, **address.server_options, **options
        )
        super().__init__(connection_pool=pool)
        self.auto_close_connection_pool = True

    def close(self) -> None:
        """Close the connections, those to Sentinels included."""
        super().close()
        self._sentinel.close()
