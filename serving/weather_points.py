"""Weather at points: from what Redis has of their places, else from the nearest cells in Postgres."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson
from redis.asyncio import Redis

from models.weather import Cell, Grain, Source
from models.weather_bodies import Part, WeatherBody
from models.weather_points import Found, Wish, found, of_its_day, points_parameters, points_sql, wish_at, wish_now
from models.weather_readmodel import FIELDS, Hit, hit_from, weather_key
from serving.cache import Cache, CacheAway
from serving.counts import Counts
from serving.envelope import dumps
from serving.gate import Fetch
from serving.shared_reads import SharedReads
from serving.weather_reading import WeatherReading
from tasks.weather.places import RINGS, distance_km, place_at, places_near

ANSWER_KEPT_S = 60
"""How long Redis keeps the answer for one point where no place's weather is the answer as it is."""

MOST_INLINE = 20
"""More points than these are looked up in a thread, so that other requests go on."""

_HMGET = ", ".join(f"'{name}'" for name in FIELDS)
_NOW = f"""
local found = redis.call('HMGET', keys[2], {_HMGET})
return found[{len(FIELDS)}] and found or redis.call('GET', keys[1])
"""
_THEN: Final = "return redis.call('GET', keys[1])"


class Spot(NamedTuple):
    """Where and when; None for now."""

    lat: float
    lon: float
    ts: dt.datetime | None


def fetch_of_spot(spot: Spot, *, step_degrees: float, now: dt.datetime) -> Fetch:
    """What brings along the weather of a point, or the answer that was given for it."""
    if spot.ts is not None:
        return Fetch(_THEN, (_answer_key(spot, now),))
    place = place_at(spot.lon, spot.lat, step_degrees=step_degrees)
    return Fetch(_NOW, (_answer_key(spot, now), weather_key(place, Part.CURRENT, now=now)))


def _answer_key(spot: Spot, now: dt.datetime) -> str:
    when = f"{now.astimezone(dt.UTC):now-%Y%m%d%H}" if spot.ts is None else spot.ts.isoformat()
    return f"swath:v1:weather:point:{spot.lat!r}:{spot.lon!r}:{when}"


def answer_of(spot: Spot, told: Any) -> bytes | None:
    """Make an answer of what `fetch_of_spot` brought along; None for a miss."""
    if isinstance(told, list):
        hit = hit_from(told)
        return None if hit is None else _answer(spot, Grain.HOURLY, hit.body)
    return told or None


def _answer(spot: Spot, grain: Grain, body: bytes) -> bytes:
    """Finished JSON around finished JSON."""
    told = orjson.loads(body)
    centre = Cell(source=Source.OPEN_METEO, key="", latitude=told["latitude"], longitude=told["longitude"])
    head = {**spot._asdict(), "grain": grain, "distance_km": round(distance_km(spot.lon, spot.lat, centre), 2)}
    return dumps(head)[:-1] + b',"weather":' + body + b',"why_empty":null}'


def _empty(spot: Spot, step_degrees: float) -> bytes:
    when = "now" if spot.ts is None else f"at {spot.ts:%Y-%m-%dT%H:%M}Z"
    reach = f"{RINGS} cells of {step_degrees:g} degrees"
    why = f"no weather is known {when}, neither where this point lies nor within {reach} around it"
    return dumps({**spot._asdict(), "grain": None, "distance_km": None, "weather": None, "why_empty": why})


class PointReading:
    """Reads the weather of points."""

    def __init__(self, cache: Cache, reading: WeatherReading, *, counts: Counts, step_degrees: float) -> None:
        self._cache = cache
        self._reading = reading
        self._step_degrees = step_degrees
        self._shared: SharedReads[bytes | None] = SharedReads(cache, counts)

    async def of_spot(self, spot: Spot, *, now: dt.datetime, is_cache_away: bool) -> bytes:
        """Return the answer for a point that Redis was found to know nothing of.

        Raises:
            DatabaseAway: Postgres does not answer.
        """
        key = _answer_key(spot, now)

        async def read() -> bytes:
            [(answer, is_of_place)] = await self._read([spot], now=now, is_cache_away=is_cache_away)
            if not is_cache_away and not is_of_place:
                await self._reading.kept(lambda redis: redis.set(key, answer, ex=ANSWER_KEPT_S))
            return answer

        answer = await self._shared.once(
            key,
            fetch=fetch_of_spot(spot, step_degrees=self._step_degrees, now=now),
            parse=lambda told: answer_of(spot, told),
            read=read,
            is_cache_away=is_cache_away,
        )
        assert answer is not None
        return answer

    async def of_spots(self, spots: Sequence[Spot], *, now: dt.datetime) -> list[bytes]:
        """Return the answer for each of these points: by one exchange with Redis and at most two queries.

        Raises:
            DatabaseAway: Redis does not have all of it, and Postgres does not answer.
        """
        places = {
            number: place_at(spot.lon, spot.lat, step_degrees=self._step_degrees)
            for number, spot in enumerate(spots)
            if spot.ts is None
        }
        hits, is_cache_away = await self._hits(sorted(set(places.values())), now)
        answers = {
            number: _answer(spots[number], Grain.HOURLY, hits[place].body)
            for number, place in places.items()
            if place in hits
        }
        missing = [number for number in range(len(spots)) if number not in answers]
        self._reading.note("hit" if not missing else "away" if is_cache_away else "miss")
        if missing:
            told = await self._read([spots[number] for number in missing], now=now, is_cache_away=is_cache_away)
            answers |= {number: answer for number, (answer, _) in zip(missing, told, strict=True)}
        return [answers[number] for number in range(len(spots))]

    async def _hits(self, places: Sequence[str], now: dt.datetime) -> tuple[Mapping[str, Hit], bool]:
        if not places:
            return {}, False

        async def ask(redis: Redis) -> list[Any]:
            pipe = redis.pipeline(transaction=False)
            for place in places:
                pipe.hmget(weather_key(place, Part.CURRENT, now=now), FIELDS)
            return await pipe.execute()

        try:
            found = await self._cache.ask(ask)
        except CacheAway:
            return {}, True
        hits = {place: hit_from(each) for place, each in zip(places, found, strict=True)}
        return {place: hit for place, hit in hits.items() if hit is not None}, False

    async def _read(self, spots: Sequence[Spot], *, now: dt.datetime, is_cache_away: bool) -> list[tuple[bytes, bool]]:
        """From Postgres: the answer for each point, and whether it is the current weather of its own place."""
        wished = await _aside(len(spots), lambda: [self._wish(spot, now) for spot in spots])
        told = await self._found(Grain.HOURLY, wished)
        unknown = [wish for wish in dict.fromkeys(wished) if wish not in told]
        days = {wish: of_its_day(wish) for wish in unknown}
        told_of_days = await self._found(Grain.DAILY, list(days.values()))
        answers, of_places = [], {}
        for spot, wish in zip(spots, wished, strict=True):
            is_of_place = False
            if one := told.get(wish):
                answer = _answer(spot, Grain.HOURLY, one.body.body)
                is_of_place = spot.ts is None and one.rank == 0
                if is_of_place:
                    of_places[one.body.place] = one.body
            elif one := told_of_days.get(days[wish]):
                answer = _answer(spot, Grain.DAILY, one.body.body)
            else:
                answer = _empty(spot, self._step_degrees)
            answers.append((answer, is_of_place))
        await self._keep(of_places, now=now, is_cache_away=is_cache_away)
        return answers

    def _wish(self, spot: Spot, now: dt.datetime) -> Wish:
        places = places_near(spot.lon, spot.lat, step_degrees=self._step_degrees)
        return wish_now(places, now) if spot.ts is None else wish_at(places, spot.ts)

    async def _found(self, grain: Grain, wished: Sequence[Wish]) -> dict[Wish, Found]:
        wishes = list(dict.fromkeys(wished))
        if not wishes:
            return {}
        rows = await self._reading.rows(points_sql(grain), points_parameters(grain, wishes))
        told = await _aside(len(rows), lambda: list(found(grain, rows, wishes)))
        return {wishes[each.number]: each for each in told}

    async def _keep(self, bodies: Mapping[str, WeatherBody], *, now: dt.datetime, is_cache_away: bool) -> None:
        if bodies and not is_cache_away:
            await self._reading.keep(bodies, Part.CURRENT, now=now)


async def _aside(size: int, work: Any) -> Any:
    return work() if size <= MOST_INLINE else await asyncio.to_thread(work)
