"""The one shared token of a client, minted once for all workers and renewed before it ends.

Redis answers nearly always. When it has none, one request of each worker goes on, and a lock lets one worker ask
Postgres while the others wait for what it finds. Both may be lost in a failover, so neither decides: the row in
Postgres does.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from infra.settings import Settings
from models.keys import MasterKeys
from models.shared_tokens import MINT, STORED, TokenFacts, from_cache, from_row, lock_key, to_cache, token_key
from serving.cache import Cache, CacheAway
from serving.counts import Counts
from serving.database import Database
from serving.flights import Flights
from serving.tokens import Claims, signed

log = structlog.get_logger(__name__)

LOCK_MS = 5_000
"""Longest time that a worker which died while it was minting keeps the others waiting."""

LOOK_AGAIN_S = 0.02
MOST_LOOKS = 50
"""After this the waiting worker asks Postgres itself: slower, and just as right."""


class ClientEnded(Exception):
    """The client was revoked: there is no token for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedToken:
    """A token and its end."""

    token: str
    expires_at: dt.datetime


class Mint:
    """Gives the shared token of a client."""

    def __init__(
        self,
        cache: Cache,
        database: Database,
        counts: Counts,
        *,
        masters: MasterKeys,
        audience: str,
        ttl: dt.timedelta,
        margin: dt.timedelta,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._cache = cache
        self._database = database
        self._counts = counts
        self._masters = masters
        self._audience = audience
        self._ttl = ttl
        self._margin = margin
        self._clock = clock
        self._flights: Flights[TokenFacts] = Flights()

    async def token(self, client_id: int, name: str) -> SharedToken:
        """Return the client's token; it is good for the margin at least.

        Raises:
            ClientEnded: the client is revoked.
            DatabaseAway: Redis has none, and Postgres does not answer.
        """
        facts = await self._cached(client_id)
        if facts is not None:
            self._counts.token_cache_hits += 1
        else:
            self._counts.token_cache_misses += 1
            facts = await self._flights.once(str(client_id), lambda: self._one_for_all(client_id))
        master = self._masters.find(facts.signed_by)
        assert master is not None
        claims = Claims(
            client=name,
            token_id=facts.token_id,
            generation=facts.generation,
            issued_at=facts.issued_at,
            expires_at=facts.expires_at,
        )
        return SharedToken(token=signed(claims, master, audience=self._audience), expires_at=facts.expires_at)

    def _is_good(self, facts: TokenFacts) -> bool:
        return facts.expires_at >= self._clock() + self._margin and self._masters.find(facts.signed_by) is not None

    async def _cached(self, client_id: int) -> TokenFacts | None:
        try:
            facts = from_cache(await self._cache.ask(lambda client: client.get(token_key(client_id))))
        except CacheAway:
            return None
        return facts if facts is not None and self._is_good(facts) else None

    async def _one_for_all(self, client_id: int) -> TokenFacts:
        """Ask Postgres, while others who miss the token wait for what comes of it."""
        ours = secrets.token_hex(16)
        for _ in range(MOST_LOOKS):
            try:
                is_ours = await self._cache.ask(
                    lambda client: client.set(lock_key(client_id), ours, nx=True, px=LOCK_MS)
                )
            except CacheAway:
                return await self._from_postgres(client_id)
            # The second look: whoever had the lock before may have put it there since the first.
            facts = await self._cached(client_id)
            if is_ours:
                try:
                    return facts or await self._from_postgres(client_id)
                finally:
                    await self._unlock(client_id, ours)
            if facts is not None:
                return facts
            await asyncio.sleep(LOOK_AGAIN_S)
        return await self._from_postgres(client_id)

    async def _unlock(self, client_id: int, ours: str) -> None:
        try:
            await self._cache.ask(lambda client: client.eval(_UNLOCK, 1, lock_key(client_id), ours))
        except CacheAway as error:
            log.debug("lock is left to expire", client_id=client_id, error=str(error))

    async def _from_postgres(self, client_id: int) -> TokenFacts:
        """The stored token, or a new one where there is none that is good."""
        row = await self._database.row(STORED, {"client_id": client_id})
        facts = None if row is None else from_row(row)
        if facts is None or not self._is_good(facts):
            facts = await self._minted(client_id)
        await self._keep(client_id, facts)
        return facts

    async def _minted(self, client_id: int) -> TokenFacts:
        now = self._clock()
        values = {
            "client_id": client_id,
            "token_id": uuid.uuid4(),
            "signed_by": self._masters.newest.id,
            "issued_at": now,
            "expires_at": now + self._ttl,
            "good_until": now + self._margin,
            "known_keys": [key.id for key in self._masters.keys],
        }
        async with self._database.transaction() as connection:
            made = await (await connection.execute(MINT, values)).fetchone()
            # No row: somebody else was first, and has committed by now.
            row = made or await (await connection.execute(STORED, values)).fetchone()
        if row is None:
            raise ClientEnded
        facts = from_row(row)
        if made is not None:
            self._counts.token_mint_count += 1
            log.info("shared token minted", client_id=client_id, token_id=str(facts.token_id))
        return facts

    async def _keep(self, client_id: int, facts: TokenFacts) -> None:
        good_for_s = int((facts.expires_at - self._margin - self._clock()).total_seconds())
        if good_for_s < 1:
            return
        try:
            await self._cache.ask(
                lambda client: client.eval(_KEEP, 1, token_key(client_id), to_cache(facts), good_for_s)
            )
        except CacheAway as error:
            log.debug("shared token not kept", client_id=client_id, error=str(error))


# Only what is still ours: the lock may have expired and be somebody else's by now.
_UNLOCK = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""

# Never over a tombstone: who revokes puts it there, and we may have minted just before.
_KEEP = """
if redis.call('GET', KEYS[1]) ~= '' then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end
"""


def make_mint(settings: Settings, masters: MasterKeys, cache: Cache, database: Database, counts: Counts) -> Mint:
    """The mint that the settings describe."""
    return Mint(
        cache,
        database,
        counts,
        masters=masters,
        audience=settings.jwt_audience,
        ttl=dt.timedelta(seconds=settings.token_ttl_s),
        margin=dt.timedelta(seconds=settings.token_margin_s),
    )
