"""What Redis does not have, read from Postgres once, however many processes ask for it at the same time."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from serving.cache import Cache, CacheAway
from serving.counts import Counts
from serving.flights import Flights
from serving.gate import Fetch
from serving.reading import LOCK_MS, LOOK_AGAIN_S

T = TypeVar("T")


class SharedReads(Generic[T]):
    """Reads of one kind."""

    def __init__(self, cache: Cache, counts: Counts) -> None:
        self._cache = cache
        self._counts = counts
        self._flights: Flights[T] = Flights()

    async def once(
        self,
        key: str,
        *,
        fetch: Fetch,
        parse: Callable[[Any], T],
        read: Callable[[], Awaitable[T]],
        is_cache_away: bool,
    ) -> T:
        """Return what `read` gives, or what another one who reads the same puts into Redis meanwhile.

        Args:
            key: what names the thing that is read.
            fetch: how it is looked for in Redis: gives something that counts as false to Lua where it is not there.
            parse: makes the thing of what `fetch` gave.
            read: reads it from Postgres, and puts it into Redis.
            is_cache_away: Redis does not answer: processes cannot wait for one another.

        Raises:
            DatabaseAway: Postgres does not answer.
        """
        joined = self._flights.joined
        try:
            return await self._flights.once(
                key, lambda: self._read(key, fetch, parse, read, is_cache_away=is_cache_away)
            )
        finally:
            self._counts.single_flight_waits += self._flights.joined > joined

    async def _read(
        self,
        key: str,
        fetch: Fetch,
        parse: Callable[[Any], T],
        read: Callable[[], Awaitable[T]],
        *,
        is_cache_away: bool,
    ) -> T:
        if is_cache_away:
            return await read()
        lock, token = f"{key}:lock", secrets.token_hex(8)
        try:
            deadline = asyncio.get_running_loop().time() + LOCK_MS / 1000
            while asyncio.get_running_loop().time() < deadline:
                is_ours, found = await self._cache.ask(
                    lambda redis: redis.eval(
                        _LOOK.replace("wanted", fetch.lua),
                        1 + len(fetch.keys),
                        *(lock, *fetch.keys),
                        *(token, LOCK_MS, *fetch.arguments),
                    )
                )
                if found:
                    return parse(found)
                if is_ours:
                    break
                self._counts.single_flight_waits += 1
                await asyncio.sleep(LOOK_AGAIN_S)
        except CacheAway:
            return await read()
        try:
            return await read()
        finally:
            await self._let_go(lock, token)

    async def _let_go(self, lock: str, token: str) -> None:
        try:
            await self._cache.ask(lambda redis: redis.eval(_LET_GO, 1, lock, token))
        except CacheAway:
            return  # it ends by itself


# One exchange tells whether it has come meanwhile, and if not takes the lock unless somebody has it.
_LOOK = """
local function fetch(keys, arguments)
  wanted
end
local found = fetch({unpack(KEYS, 2)}, {unpack(ARGV, 3)})
if found then return {0, found} end
return {redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0, false}
"""

_LET_GO = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""
