"""Who is calling, may they, how often: one exchange with Redis, which brings the bytes of a cached read along."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import structlog
from redis.exceptions import NoScriptError

from models.principals import TOMBSTONE, TOMBSTONE_S
from serving.cache import Cache, CacheAway
from serving.counts import Counts
from serving.database import Database, DatabaseAway
from serving.faults import ApiError
from serving.flights import Flights
from serving.lines import Lines
from serving.principal import (
    ANYBODY,
    UNAUTHENTICATED,
    Doorkeeper,
    Limit,
    Presented,
    Principal,
    ScopeKind,
    Taken,
    Throttle,
)

log = structlog.get_logger(__name__)

TRUSTED_S = 60
"""How long a caller's record counts without Postgres being asked again."""

KEPT_S = 86_400
"""How long a record is kept for the time that Postgres is away. Revoking puts a tombstone in its place."""

MOST_REFUSED = Limit(30, 60)
"""Bad credentials from one address, in one process, after which Postgres is not asked for more of them."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """What an endpoint wants from Redis, brought along by the one exchange that lets the caller in."""

    lua: str
    """Body of a Lua function that has `keys` and `arguments`, and returns anything."""
    keys: tuple[str, ...]
    arguments: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True)
class Admission:
    """What the gate found out."""

    principal: Principal
    taken: Taken | None
    found: Any
    """What the endpoint's fetch returned; None where there was none."""
    is_cache_away: bool
    """Redis did not answer: nothing is known of what it has."""


class Gate:
    """Lets callers in, one exchange each."""

    def __init__(
        self, cache: Cache, database: Database, *, doorkeeper: Doorkeeper, throttle: Throttle, counts: Counts
    ) -> None:
        self.doorkeeper = doorkeeper
        self.throttle = throttle
        self._cache = cache
        self._lines = Lines(cache.client.connection_pool)
        self._database = database
        self._counts = counts
        self._scripts: dict[str, tuple[str, str]] = {}
        self._flights: Flights[bytes | None] = Flights()
        self._refusals = Refusals(MOST_REFUSED)

    async def admit(
        self, presented: Presented | None, *, kind: ScopeKind, address: str, fetch: Fetch | None
    ) -> Admission:
        """Tell who is calling, count the request, and fetch what the endpoint wants from Redis.

        Args:
            presented: what the caller presented; None is nobody in particular.
            kind: whose limit counts when nothing is presented.
            address: where the request came from, to count those of nobody in particular.
            fetch: what the endpoint wants.

        Raises:
            ApiError: 401, the credentials are not good; 429, too often; 503, no store can tell who it is.
        """
        kind = presented.kind if presented else kind
        limit = self.throttle.limit(kind)
        bucket = presented.bucket if presented else f"{kind}:{_neighbourhood(address)}"
        try:
            found = await self._cache.ask(lambda _: self._ask(presented, bucket, limit, fetch))
        except CacheAway:
            record, taken, payload, is_away = None, self.throttle.take(bucket, limit), None, True
        else:
            record, payload, is_away = found[0], found[4], False
            taken = Taken(found[1] == 1, limit, found[2], found[3])
        if not taken.is_allowed:
            self._counts.note_throttled(kind)
            raise too_often(taken)
        principal = ANYBODY if presented is None else await self._principal(presented, record, address)
        return Admission(principal, taken, payload, is_away)

    async def _ask(self, presented: Presented | None, bucket: str, limit: Limit, fetch: Fetch | None) -> list[Any]:
        script, sha = self._script(fetch.lua if fetch else "return false")
        keys = [
            presented.record_key if presented else "",
            f"swath:v1:throttle:{bucket}",
            *(fetch.keys if fetch else ()),
        ]
        arguments: tuple[str | int, ...] = (limit.requests, limit.window_s, *(fetch.arguments if fetch else ()))
        try:
            answer: list[Any] = await self._lines.run("EVALSHA", sha, len(keys), *keys, *arguments)
        except NoScriptError:
            answer = await self._lines.run("EVAL", script, len(keys), *keys, *arguments)
        return answer

    def _script(self, lua: str) -> tuple[str, str]:
        """The whole script with this fetch in it, and its digest, by which Redis knows it."""
        known = self._scripts.get(lua)
        if known is None:
            script = self.throttle.lua + _ADMIT.replace("wanted", lua)
            known = self._scripts[lua] = script, hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        return known

    async def _principal(self, presented: Presented, record: bytes | None, address: str) -> Principal:
        if record == TOMBSTONE:
            raise self._refused(address)
        told_at, facts = _unstamped(record)
        if facts is None or time.time() - told_at > TRUSTED_S:
            facts = await self._looked_up(presented, address, facts)
        principal = self.doorkeeper.principal(presented, facts)
        if principal is None:
            raise self._refused(address)
        return principal

    async def _looked_up(self, presented: Presented, address: str, old: bytes | None) -> bytes:
        """The record as Postgres has it; while Postgres is away the old one, which nobody can have changed since."""
        if old is None and not self._refusals.may_try(address):
            raise ApiError(429, "too many requests with credentials that are not good", headers={"retry-after": "60"})
        try:
            record = await self._flights.once(
                presented.record_key, lambda: self.doorkeeper.record(presented, self._database)
            )
        except DatabaseAway:
            if old is None:
                raise
            return old
        if record is None:
            if old is not None:  # it ended without Redis being told: nobody is to believe it while Postgres is away
                await self._bury(presented.record_key)
            raise self._refused(address)
        await self._flights.once(f"keep {presented.record_key}", lambda: self._keep(presented.record_key, record))
        return record

    async def _keep(self, key: str, record: bytes) -> bytes | None:
        stamped = b"%d|%b" % (time.time(), record)
        try:
            await self._cache.ask(lambda redis: redis.eval(_KEEP, 1, key, stamped, KEPT_S))
        except CacheAway as error:
            log.debug("caller's record not kept", error=str(error))
        return record

    async def _bury(self, key: str) -> None:
        try:
            await self._cache.ask(lambda redis: redis.set(key, TOMBSTONE, ex=TOMBSTONE_S))
        except CacheAway as error:
            log.debug("caller's end not told", error=str(error))

    def _refused(self, address: str) -> ApiError:
        self._refusals.note(address)
        self._counts.refused += 1
        return ApiError(401, "the credentials are unknown, expired or revoked", headers=UNAUTHENTICATED)


# One command for everything, so that it costs one exchange; nothing is fetched for who comes too often.
_ADMIT = """
local function fetch(keys, arguments)
  wanted
end
local record = KEYS[1] ~= '' and redis.call('GET', KEYS[1])
local taken = take(KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[2]))
local found = taken[1] == 1 and fetch({unpack(KEYS, 3)}, {unpack(ARGV, 3)})
return {record, taken[1], taken[2], taken[3], found}
"""

# Never over a tombstone: who revokes puts it there, perhaps just after we have read the record.
_KEEP = """
if redis.call('GET', KEYS[1]) ~= '' then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
end
"""


def too_often(taken: Taken) -> ApiError:
    """The answer to who asks too often."""
    message = f"at most {taken.limit.requests} requests in {taken.limit.window_s} s; more in {max(1, taken.reset_s)} s"
    return ApiError(429, message, headers={name.decode(): value.decode() for name, value in taken.headers()})


def _unstamped(record: bytes | None) -> tuple[float, bytes | None]:
    """When a record was read from Postgres, and the record."""
    stamp, _, rest = (record or b"").partition(b"|")
    return (float(stamp), rest) if stamp.isdigit() else (0.0, None)


def _neighbourhood(address: str) -> str:
    """Whose requests count together: an IPv4 address, or the 64 bits of IPv6 that one household or server has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)


class Refusals:
    """Counts credentials that were not good, by address, so that guessing does not keep Postgres busy."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._counted: Counter[str] = Counter()
        self._until = 0.0

    def may_try(self, address: str) -> bool:
        """Whether this address may have another one looked up."""
        if time.monotonic() >= self._until:
            self._counted.clear()
            self._until = time.monotonic() + self._limit.window_s
        return self._counted[_neighbourhood(address)] < self._limit.requests

    def note(self, address: str) -> None:
        """Count one that was not good."""
        self._counted[_neighbourhood(address)] += 1
