"""Weather kept ready in Redis as finished bytes, by place, and how a reader finds it there or makes it from Postgres.

A place is one cell of each source: farms in the same cells share its bytes. Redis has

- for each place, part and stamp (the UTC day; of current weather, the hour) a hash `revision` (for an ETag), `as_of`
  (seconds since 1970, for the age), `body` and `order`; the stamps that begin before it expires are there already, so
  that what a reader finds is always of its own day or hour;
- for each active farm the name of its place.

All of it expires by itself and is written over before that; nothing is ever deleted. A reader asks for a farm by one
`EVAL` of `READ_FARM`, for a place by one `HMGET`; on a miss it makes the same bytes from Postgres by `rows_sql`,
`parameters`, `bodies` of `models.weather_bodies`, and may put them into Redis by `publish_command`.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from psycopg import Connection
from redis import Redis

from models.weather_bodies import Part, Span, WeatherBody, bodies, parameters, place_name, rows_sql, span_of

LIFE = {
    Part.CURRENT: dt.timedelta(hours=1),
    Part.HOURLY: dt.timedelta(hours=1),
    Part.DAILY: dt.timedelta(hours=26),
}
"""How long bytes stay in Redis unless written again: somewhat more than the time between two runs that write them."""
PLACE_LIFE = dt.timedelta(hours=1)
"""How long Redis names the place of a farm: a farm that moved is looked up again by then."""

FIELDS = ("revision", "as_of", "body")
"""What a reader takes of a hash, in this order."""

BODIES_AT_ONCE = 100
"""Bodies that one command to Redis carries: about 1 MB and a few milliseconds."""
PLACES_AT_ONCE = 40
"""Places whose rows are in memory at the same time."""
NAMES_AT_ONCE = 5_000

_PREFIX = "swath:v1:weather:"


class Ready(NamedTuple):
    """A body and where it belongs."""

    key: str
    life_s: int
    body: WeatherBody


class Hit(NamedTuple):
    """What Redis had for a reader."""

    revision: str
    as_of: dt.datetime
    body: bytes


def weather_key(place: str, part: Part, *, now: dt.datetime) -> str:
    """Where Redis has this part of a place's weather as of now. The version in it changes with the body's shape."""
    return f"{_PREFIX}{place}{_tail(part, now)}"


def place_key(external_farm_id: uuid.UUID) -> str:
    """Where Redis has the name of a farm's place."""
    return f"swath:v1:farm:{external_farm_id}:place"


def _tail(part: Part, now: dt.datetime) -> str:
    return f":{part}:{now.astimezone(dt.UTC):{'%Y%m%d%H' if part is Part.CURRENT else '%Y%m%d'}}"


def farm_command(external_farm_id: uuid.UUID, part: Part, *, now: dt.datetime) -> tuple[str, int, str, str, str]:
    """The arguments of the one `EVAL` that reads a farm's weather; `hit_from` reads its answer."""
    return READ_FARM, 1, place_key(external_farm_id), _PREFIX, _tail(part, now)


READ_FARM = """
local place = redis.call('GET', KEYS[1])
if not place then return {false, false, false} end
return redis.call('HMGET', ARGV[1] .. place .. ARGV[2], 'revision', 'as_of', 'body')
"""
"""One round trip from a farm to its weather. The second key is made here: no Redis Cluster."""


def hit_from(answer: Sequence[bytes | None]) -> Hit | None:
    """Read what `READ_FARM`, or `HMGET` of `FIELDS`, answered; None for a miss."""
    revision, as_of, body = answer
    if revision is None or as_of is None or body is None:
        return None
    return Hit(revision.decode(), dt.datetime.fromtimestamp(float(as_of), dt.UTC), body)


PLACES_OF_FARMS = """
SELECT f.external_farm_id, array_agg(c.key ORDER BY c.key)
FROM farms AS f JOIN farm_cells AS k ON k.farm_id = f.id JOIN weather_cells AS c ON c.id = k.cell_id
WHERE f.external_farm_id = ANY(%(farms)s)
GROUP BY f.id
"""
"""The cells of farms, active or not; `place_name` makes a name of them."""

PLACE_OF_FARM = """
SELECT f.client_id, f.west, f.south, f.east, f.north,
    array_agg(c.key ORDER BY c.key) FILTER (WHERE c.key IS NOT NULL) AS cells
FROM farms AS f LEFT JOIN farm_cells AS k ON k.farm_id = f.id LEFT JOIN weather_cells AS c ON c.id = k.cell_id
WHERE f.external_farm_id = %(farm)s
GROUP BY f.id
"""
"""Whose a farm is, its box, and its cells; null as long as it has been given none."""

CELLS_WITH_WEATHER = """
SELECT c.key FROM weather_cells AS c
WHERE c.key = ANY(CAST(%(cells)s AS text[]))
    AND EXISTS (SELECT FROM weather_hourly AS r WHERE r.cell_id = c.id AND r.at = %(hour)s)
"""
"""Which of these cells know an hour: where a point's own cell does not, a near one may."""

_PLACES_OF_ACTIVE = """
SELECT f.external_farm_id, array_agg(c.key ORDER BY c.key)
FROM farms AS f JOIN farm_cells AS k ON k.farm_id = f.id JOIN weather_cells AS c ON c.id = k.cell_id
WHERE f.is_active
GROUP BY f.id
"""

_PLACES_OF_ACTIVE_IN = """
SELECT f.external_farm_id, array_agg(c.key ORDER BY c.key)
FROM farms AS f JOIN farm_cells AS k ON k.farm_id = f.id JOIN weather_cells AS c ON c.id = k.cell_id
WHERE f.is_active AND f.id IN (
    SELECT i.farm_id FROM farm_cells AS i JOIN weather_cells AS w ON w.id = i.cell_id
    WHERE w.key = ANY(CAST(%(cells)s AS text[]))
)
GROUP BY f.id
"""


def places_of_active_farms(
    connection: Connection[Any], *, cell_keys: Collection[str] | None = None
) -> dict[uuid.UUID, str]:
    """Return the place of every active farm by `external_farm_id`; of farms in any of these cells, if given."""
    if cell_keys is None:
        rows = connection.execute(_PLACES_OF_ACTIVE)
    else:
        rows = connection.execute(_PLACES_OF_ACTIVE_IN, {"cells": sorted(set(cell_keys))})
    return {external_id: place_name(keys) for external_id, keys in rows}


def weather_of_places(
    connection: Connection[Any], places: Collection[str], parts: Collection[Part], *, now: dt.datetime
) -> Iterator[Ready]:
    """Yield what Redis is to hold of these places, made from Postgres: each part, for each stamp of its life from now.

    Parts of which nothing is known are left out. Runs outside a transaction, or in one begun after the commit of
    what is to be told.
    """
    remaining = iter(sorted(set(places)))
    while some := list(islice(remaining, PLACES_AT_ONCE)):
        for part in parts:
            stamps = {span_of(part, at): at for at in _stamps(part, now)}
            whole = Span(min(span.first for span in stamps), max(span.last for span in stamps))
            rows = connection.execute(rows_sql(part), parameters(part, some, whole))
            for span, body in bodies(part, rows, list(stamps)):
                key = weather_key(body.place, part, now=stamps[span])
                yield Ready(key, round(LIFE[part].total_seconds()), body)


def _stamps(part: Part, now: dt.datetime) -> list[dt.datetime]:
    """Now, and the start of each hour or day that begins while what is written now lives."""
    step = dt.timedelta(hours=1) if part is Part.CURRENT else dt.timedelta(days=1)
    start = now.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
    if part is not Part.CURRENT:
        start = start.replace(hour=0)
    count = (now + LIFE[part] - start) // step
    return [now, *(start + number * step for number in range(1, count + 1))]


# The database's clock orders what was read: who read after a commit has the later time than who read before it.
_PUBLISH = """
local written = 0
for i, key in ipairs(KEYS) do
  local n = 5 * (i - 1)
  local stored = redis.call('HGET', key, 'order')
  if not stored or tonumber(stored) <= tonumber(ARGV[n + 1]) then
    redis.call('HSET', key, 'order', ARGV[n + 1], 'revision', ARGV[n + 2], 'as_of', ARGV[n + 3], 'body', ARGV[n + 4])
    redis.call('EXPIRE', key, ARGV[n + 5])
    written = written + 1
  end
end
return written
"""


def publish_command(ready: Sequence[Ready]) -> tuple[str | int | bytes, ...]:
    """The arguments of the one `EVAL` that puts bodies into Redis, each whole or not at all, and over older ones only.

    It answers how many were written.
    """
    arguments: list[str | int | bytes] = []
    for each in ready:
        order = int(each.body.read_at.timestamp() * 1_000_000)
        as_of = repr(each.body.as_of.timestamp())
        arguments += [order, each.body.revision, as_of, each.body.body, each.life_s]
    return _PUBLISH, len(ready), *(each.key for each in ready), *arguments


def publish_weather_bodies(client: Redis, ready: Iterable[Ready]) -> int:
    """Put bodies into Redis, and return how many; one that is older than what Redis has is left out.

    Raises:
        redis.RedisError: Redis could not be reached or did not take them; doing it again is safe.
    """
    written = 0
    remaining = iter(ready)
    while batch := list(islice(remaining, BODIES_AT_ONCE)):
        written += int(client.eval(*publish_command(batch)))  # type: ignore[arg-type]
    return written


def publish_places(client: Redis, places: Mapping[uuid.UUID, str]) -> None:
    """Name the places of farms in Redis.

    Raises:
        redis.RedisError: Redis could not be reached or did not take them; doing it again is safe.
    """
    remaining = iter(places.items())
    while batch := list(islice(remaining, NAMES_AT_ONCE)):
        with client.pipeline(transaction=False) as pipe:
            for external_id, place in batch:
                pipe.set(place_key(external_id), place, ex=PLACE_LIFE)
            pipe.execute()
