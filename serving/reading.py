"""A farm's state for a reader: what Redis brought, else from Postgres, once, however many ask at the same time."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import structlog

from models.domain import INDEX
from models.state import FIELDS, ReadModel, publish_command, read_model, state_key, states_sql
from serving.cache import Cache, CacheAway
from serving.counts import Counts
from serving.database import Database
from serving.faults import ApiError
from serving.flights import Flights
from serving.gate import Fetch
from serving.principal import Principal
from serving.trace import current

log = structlog.get_logger(__name__)

LOCK_MS = 4_000
"""How long one process may take to read from Postgres before another tries; a lock that is left behind ends then."""

LOOK_AGAIN_S = 0.02
"""Between two looks whether another process has put into Redis what it is reading."""

_HMGET = "return redis.call('HMGET', keys[1], {})".format(", ".join(f"'{name}'" for name in FIELDS))


@dataclass(frozen=True, slots=True)
class State:
    """A farm's state, and whose it is."""

    owner: int | None
    revision: int
    body: bytes


def fetch_state(external_farm_id: uuid.UUID) -> Fetch:
    """What brings a farm's state along from Redis."""
    return Fetch(_HMGET, (state_key(external_farm_id),))


def unknown_farm(external_farm_id: uuid.UUID) -> ApiError:
    """The answer for a farm that there is not, and, word for word, for one of somebody else."""
    return ApiError(404, f"there is no farm {external_farm_id}")


class Reading:
    """Reads the states of farms."""

    def __init__(self, cache: Cache, database: Database, *, mask_policy: str, counts: Counts) -> None:
        self._cache = cache
        self._database = database
        self._mask_policy = mask_policy
        self._counts = counts
        self._flights: Flights[State | None] = Flights()

    async def state(
        self, external_farm_id: uuid.UUID, principal: Principal, *, found: Any, is_cache_away: bool
    ) -> State:
        """Return a farm's state for a caller.

        Args:
            external_farm_id: the farm.
            principal: who asks.
            found: what `fetch_state` brought along.
            is_cache_away: it could not, because Redis does not answer.

        Raises:
            ApiError: 404, there is no such farm that this caller may see.
            DatabaseAway: Redis does not have it, and Postgres does not answer.
        """
        state = _state(found)
        _note("hit" if state else "away" if is_cache_away else "miss")
        if state is not None:
            self._counts.cache_hits += 1
        else:
            if is_cache_away:
                self._counts.cache_away += 1
            else:
                self._counts.cache_misses += 1
            state = await self._missed(external_farm_id, is_cache_away=is_cache_away)
        if state is None or not principal.may_see(state.owner):
            raise unknown_farm(external_farm_id)
        return state

    async def publish(self, external_farm_ids: Collection[uuid.UUID]) -> bool:
        """Bring the states of farms in Redis up to date after a commit; losing Redis costs speed, not an answer.

        Returns whether Redis took them.

        Raises:
            DatabaseAway: Postgres does not answer.
        """
        models = await self._read(external_farm_ids)
        try:
            await self._put(models)
        except CacheAway as error:
            log.warning("states not published", farms=len(models), error=str(error))
            return False
        return True

    async def _missed(self, external_farm_id: uuid.UUID, *, is_cache_away: bool) -> State | None:
        joined = self._flights.joined
        try:
            return await self._flights.once(
                str(external_farm_id), lambda: self._filled(external_farm_id, is_cache_away=is_cache_away)
            )
        finally:
            self._counts.single_flight_waits += self._flights.joined > joined

    async def _filled(self, external_farm_id: uuid.UUID, *, is_cache_away: bool) -> State | None:
        """Read from Postgres and fill the cache, or wait for another process that is doing so."""
        if is_cache_away:
            return await self._from_postgres(external_farm_id)
        key, token = state_key(external_farm_id), secrets.token_hex(8)
        try:
            deadline = asyncio.get_running_loop().time() + LOCK_MS / 1000
            while asyncio.get_running_loop().time() < deadline:
                is_ours, found = await self._cache.ask(
                    lambda redis: redis.eval(_LOOK, 2, key, _lock(key), token, LOCK_MS)
                )
                if found and (state := _state(found)):
                    return state
                if is_ours:
                    break
                self._counts.single_flight_waits += 1
                await asyncio.sleep(LOOK_AGAIN_S)
        except CacheAway:
            pass
        return await self._from_postgres(external_farm_id, token=token)

    async def _from_postgres(self, external_farm_id: uuid.UUID, *, token: str | None = None) -> State | None:
        key = state_key(external_farm_id)
        try:
            models = await self._read([external_farm_id])
            if token is not None and models:
                await self._put(models)
        except CacheAway as error:
            log.debug("state not kept", farm=str(external_farm_id), error=str(error))
        finally:
            if token is not None:
                await self._let_go(key, token)
        return State(models[0].client, models[0].revision, models[0].body) if models else None

    async def _read(self, external_farm_ids: Collection[uuid.UUID]) -> list[ReadModel]:
        self._counts.database_reads += 1
        rows = await self._database.rows(
            _STATES, {"farms": list(external_farm_ids), "index": INDEX, "mask_policy": self._mask_policy}
        )
        return [read_model(row) for row in rows]

    async def _put(self, models: list[ReadModel]) -> None:
        if models:
            await self._cache.ask(lambda redis: redis.eval(*publish_command(models)))

    async def _let_go(self, key: str, token: str) -> None:
        try:
            await self._cache.ask(lambda redis: redis.eval(_LET_GO, 1, _lock(key), token))
        except CacheAway:
            return  # it ends by itself


_STATES = states_sql("f.external_farm_id = ANY(%(farms)s)")

# One exchange tells whether it has come meanwhile, and if not takes the lock unless somebody has it.
_LOOK = f"""
local found = redis.call('HMGET', KEYS[1], {", ".join(f"'{name}'" for name in FIELDS)})
if found[3] then return {{0, found}} end
local is_ours = redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2])
return {{is_ours and 1 or 0, false}}
"""

_LET_GO = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


def _lock(key: str) -> str:
    return f"{key}:lock"


def _state(found: Any) -> State | None:
    if not found or any(each is None for each in found):
        return None
    client, revision, body = found
    return State(int(client) if client else None, int(revision), body)


def _note(how: str) -> None:
    trace = current.get()
    if trace is not None:
        trace.cache = how
