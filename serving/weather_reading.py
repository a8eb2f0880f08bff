"""Weather for readers: what Redis has, else from Postgres, once, and put into Redis for who comes next."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from models.state import state_key
from models.weather_bodies import Part, Span, WeatherBody, bodies, parameters, place_name, rows_sql, span_of
from models.weather_readmodel import (
    BODIES_AT_ONCE,
    FIELDS,
    PLACE_LIFE,
    PLACE_OF_FARM,
    READ_FARM,
    Hit,
    Ready,
    farm_command,
    hit_from,
    place_key,
    publish_command,
    weather_key,
)
from serving.cache import Cache, CacheAway
from serving.counts import Counts
from serving.database import Database
from serving.gate import Fetch
from serving.principal import Principal
from serving.reading import Reading, unknown_farm
from serving.shared_reads import SharedReads
from serving.trace import current
from tasks.weather.places import middle_of, place_at

log = structlog.get_logger(__name__)

KEPT_S = 300
"""How long Redis keeps what a reader put there: flows write over what is of active farms, and of nothing else."""

MOST_ROWS_AT_ONCE = 1_000
"""More than these are made into bytes in a thread, so that other requests go on."""

_HMGET = ", ".join(f"'{name}'" for name in FIELDS)
_OF_PLACE = f"""
local found = redis.call('HMGET', keys[1], {_HMGET})
return found[{len(FIELDS)}] and found
"""
_OF_FARM = f"""
local function weather(KEYS, ARGV)
  {READ_FARM}
end
local found = weather({{keys[2]}}, arguments)
return {{redis.call('HGET', keys[1], 'client'), redis.call('GET', keys[2]), found[1], found[2], found[3]}}
"""
_PLACE_OF_FARM = "return {redis.call('HGET', keys[1], 'client'), redis.call('GET', keys[2])}"


def fetch_of_farm(external_farm_id: uuid.UUID, part: Part | None, *, now: dt.datetime) -> Fetch:
    """What brings along whose a farm is, its place, and a part of its weather, if one is named."""
    keys = (state_key(external_farm_id), place_key(external_farm_id))
    if part is None:
        return Fetch(_PLACE_OF_FARM, keys)
    _, _, _, *arguments = farm_command(external_farm_id, part, now=now)
    return Fetch(_OF_FARM, keys, tuple(arguments))


def hit_of(found: Any) -> Hit | None:
    """The weather among what `fetch_of_farm` brought along."""
    return hit_from(found[2:]) if found else None


class WeatherReading:
    """Reads the weather of places."""

    def __init__(
        self, cache: Cache, database: Database, reading: Reading, *, counts: Counts, step_degrees: float
    ) -> None:
        self._cache = cache
        self._database = database
        self._reading = reading
        self._counts = counts
        self._step_degrees = step_degrees
        self._shared: SharedReads[Hit | None] = SharedReads(cache, counts)

    async def place_of_farm(
        self, external_farm_id: uuid.UUID, principal: Principal, *, found: Any, is_cache_away: bool
    ) -> str:
        """Return the name of the place of a farm that this caller may see.

        A farm that has not been given cells yet gets its weather where they will be.

        Args:
            external_farm_id: the farm.
            principal: who asks.
            found: what `fetch_of_farm` brought along.
            is_cache_away: it could not, because Redis does not answer.

        Raises:
            ApiError: 404, there is no such farm that this caller may see.
            DatabaseAway: Redis does not know, and Postgres does not answer.
        """
        owner, place = found[:2] if found else (None, None)
        if owner is None and not is_cache_away:
            # Brings the farm's state into Redis too, so that the next reader's one exchange tells whose it is.
            await self._reading.state(external_farm_id, principal, found=None, is_cache_away=False)
        elif owner is not None and not principal.may_see(int(owner) if owner else None):
            raise unknown_farm(external_farm_id)
        if place is not None:
            return str(place.decode())
        row = await self._database.row(PLACE_OF_FARM, {"farm": external_farm_id})
        if row is None or not principal.may_see(row["client_id"]):
            raise unknown_farm(external_farm_id)
        if not row["cells"]:
            longitude, latitude = middle_of((row["west"], row["south"], row["east"], row["north"]))
            return place_at(longitude, latitude, step_degrees=self._step_degrees)
        name = place_name(row["cells"])
        if not is_cache_away:
            await self.kept(lambda redis: redis.set(place_key(external_farm_id), name, ex=PLACE_LIFE))
        return name

    async def of_place(self, place: str, part: Part, *, now: dt.datetime, is_cache_away: bool) -> Hit | None:
        """Return a part of a place's weather that Redis was found not to have; None if nothing is known.

        Raises:
            DatabaseAway: Postgres does not answer.
        """

        async def read() -> Hit | None:
            body = await self._body(place, part, span_of(part, now))
            if body is None:
                return None
            if not is_cache_away:
                await self.keep({place: body}, part, now=now)
            return Hit(body.revision, body.as_of, body.body)

        key = weather_key(place, part, now=now)
        fetch = Fetch(_OF_PLACE, (key,))
        return await self._shared.once(key, fetch=fetch, parse=hit_from, read=read, is_cache_away=is_cache_away)

    async def of_days(self, place: str, part: Part, span: Span) -> Hit | None:
        """Return a part of a place's weather over a span of days, from Postgres; None if nothing is known.

        Raises:
            DatabaseAway: Postgres does not answer.
        """
        body = await self._body(place, part, span)
        return None if body is None else Hit(body.revision, body.as_of, body.body)

    async def _body(self, place: str, part: Part, span: Span) -> WeatherBody | None:
        rows = await self.rows(rows_sql(part), parameters(part, [place], span))
        if len(rows) > MOST_ROWS_AT_ONCE:
            told = await asyncio.to_thread(lambda: list(bodies(part, rows, [span])))
        else:
            told = list(bodies(part, rows, [span]))
        return told[0][1] if told else None

    async def rows(self, query: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Rows of weather as plain tuples.

        Raises:
            DatabaseAway: Postgres does not answer.
        """
        self._counts.database_reads += 1
        return [tuple(row.values()) for row in await self._database.rows(query, values)]

    async def keep(self, by_place: Mapping[str, WeatherBody], part: Part, *, now: dt.datetime) -> None:
        """Put bodies into Redis, where it has no newer ones; losing Redis costs speed, not an answer."""
        ready = [Ready(weather_key(place, part, now=now), KEPT_S, body) for place, body in by_place.items()]
        for start in range(0, len(ready), BODIES_AT_ONCE):
            some: Sequence[Ready] = ready[start : start + BODIES_AT_ONCE]
            await self.kept(lambda redis, some=some: redis.eval(*publish_command(some)))

    async def kept(self, exchange: Any) -> None:
        """Put something into Redis; losing Redis costs speed, not an answer."""
        try:
            await self._cache.ask(exchange)
        except CacheAway as error:
            log.debug("weather not kept", error=str(error))

    def note(self, how: str) -> None:
        """Note whether a read was a `hit`, a `miss`, or Redis was `away`."""
        if how == "hit":
            self._counts.cache_hits += 1
        elif how == "away":
            self._counts.cache_away += 1
        else:
            self._counts.cache_misses += 1
        trace = current.get()
        if trace is not None:
            trace.cache = how
