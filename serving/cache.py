"""Redis as the app uses it: short waits, no tries of its own, and left alone while it does not answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio as redis
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from infra.redis_address import SentinelAddress, redis_address
from serving.breaker import Breaker
from serving.patience import Patience
from serving.sentinels import sentinel_pool
from serving.trace import note_time

log = structlog.get_logger(__name__)

ANSWER_TIMEOUT_S = 0.5
"""Longest wait for a whole exchange, connecting included. A healthy Redis answers in one millisecond."""

AT_ONCE = 10
"""Exchanges of one worker at the same time. Others wait for their turn before the clock starts: were all of a burst
begun at once, our own queue would be taken for a Redis that does not answer."""


class CacheAway(Exception):
    """Redis did not answer, or is left alone because it did not."""


class Cache:
    """Redis behind a breaker."""

    def __init__(self, client: redis.Redis, breaker: Breaker) -> None:
        self.client = client
        self.breaker = breaker
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def ask(self, exchange: Callable[[redis.Redis], Awaitable[Any]]) -> Any:
        """Return what one exchange with Redis gave.

        Raises:
            CacheAway: it did not answer in time, or is left alone at the moment.
        """
        if self.breaker.is_resting:
            raise CacheAway("left alone")
        async with self._turns:
            return await self._asked(exchange)

    async def _asked(self, exchange: Callable[[redis.Redis], Awaitable[Any]]) -> Any:
        if not self.breaker.may_try():
            raise CacheAway("left alone")
        started_at = time.perf_counter()
        try:
            with Patience(ANSWER_TIMEOUT_S):
                answer = await exchange(self.client)
        except ResponseError as error:
            if not _is_away(error):
                raise
            self._note(error)
            raise CacheAway(str(error)) from error
        except (RedisError, OSError, TimeoutError) as error:
            self._note(error)
            raise CacheAway(str(error)) from error
        finally:
            note_time("redis", time.perf_counter() - started_at)
        if self.breaker.is_open:
            log.info("Redis answers again")
        self.breaker.succeeded()
        return answer

    def _note(self, error: Exception) -> None:
        was_open = self.breaker.is_open
        self.breaker.failed()
        if self.breaker.is_open and not was_open:
            log.warning("Redis is left alone for a moment", error=str(error) or type(error).__name__)


def _is_away(error: ResponseError) -> bool:
    """Whether the server says that it cannot work: still loading, a replica after a failover, out of memory."""
    return str(error).startswith(
        ("LOADING", "MASTERDOWN", "READONLY", "OOM", "MISCONF", "NOREPLICAS", "BUSY", "UNKILLABLE")
    )


def open_redis(url: str) -> redis.Redis:
    """A client of the Redis at this address, connected when first used.

    Raises:
        BadInput: it is no address of Redis.
    """
    address = redis_address(url)
    # No timeouts of the client's own, which cost time in each exchange: `Cache` has one for the whole.
    options: dict[str, Any] = {
        "protocol": 2,
        "max_connections": 2 * AT_ONCE,
        "socket_timeout": None,
        "socket_connect_timeout": None,
        "retry": Retry(NoBackoff(), 0),
        "driver_info": None,
    }
    if isinstance(address, SentinelAddress):
        return redis.Redis.from_pool(sentinel_pool(address, **options))
    return redis.Redis.from_pool(redis.ConnectionPool.from_url(address.url, **options))
