"""Weather of a place as finished JSON: the same bytes from the same rows, whoever makes them and for whom.

A place is one cell of each source, shared by all farms in both. Everything here works on plain rows, so that flows
read them by one connection and serving by another; windows are whole days (of current weather, the hour), so that
bytes change only when what is stored does, or the day.
"""

from __future__ import annotations

import datetime as dt
import enum
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import groupby
from typing import Any, NamedTuple

import orjson

from models.reconciling import reconciled_sql
from models.weather import Grain
from models.weather_rows import SHEETS


class Part(enum.StrEnum):
    """What a reader may ask of a place."""

    CURRENT = "current"
    """The newest hour told that is not ahead. Open-Meteo's own current weather is its hours interpolated: it tells
    nothing more, costs as much again, and could not be made from Postgres."""
    HOURLY = "hourly"
    DAILY = "daily"

    @property
    def grain(self) -> Grain:
        """The readings it is made of."""
        return Grain.DAILY if self is Part.DAILY else Grain.HOURLY


HOURLY_DAYS = (2, 7)
"""Whole UTC days behind today and ahead of it that hourly weather tells by default."""
DAILY_DAYS = (30, 15)
"""The same of daily weather."""
CURRENT_LOOKBACK = dt.timedelta(days=2)
"""How old the newest hour may be."""

SEPARATOR = "+"
"""Between the keys of cells in the name of a place."""


class Span(NamedTuple):
    """Days or hours in a row, both included; days are told as their first instant, UTC."""

    first: dt.datetime
    last: dt.datetime


class WeatherBody(NamedTuple):
    """One part of the weather of one place, ready to be given out."""

    place: str
    revision: str
    """Another one for other bytes."""
    as_of: dt.datetime
    """When the newest of its values was told; of forecasts, when they were issued. Its age is now less this."""
    read_at: dt.datetime
    """The database's clock when the rows were read: whoever read after a commit has the later one."""
    body: bytes
    """JSON."""


def place_name(cell_keys: Iterable[str]) -> str:
    """The name of the place that these cells make up: at most one of each source."""
    return SEPARATOR.join(sorted(cell_keys))


def span_of(part: Part, now: dt.datetime) -> Span:
    """What a part tells at this time, when nothing else is asked for."""
    now = now.astimezone(dt.UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    day, one_day = hour.replace(hour=0), dt.timedelta(days=1)
    if part is Part.CURRENT:
        return Span(hour - CURRENT_LOOKBACK, hour)
    behind, ahead = HOURLY_DAYS if part is Part.HOURLY else DAILY_DAYS
    last = day + ahead * one_day
    return Span(day - behind * one_day, last + dt.timedelta(hours=23) if part is Part.HOURLY else last)


def rows_sql(part: Part) -> str:
    """SQL of the rows that a part of the weather of some places is made of, for psycopg; see `parameters`."""
    return _SQL[part.grain]


def parameters(part: Part, places: Collection[str], span: Span) -> dict[str, Any]:
    """The parameters of `rows_sql`."""
    first, last = (span.first.date(), span.last.date()) if part is Part.DAILY else span
    return {"places": sorted(set(places)), "first": first, "last": last}


def bodies(part: Part, rows: Iterable[Sequence[Any]], spans: Sequence[Span]) -> Iterator[tuple[Span, WeatherBody]]:
    """Yield for each place with any weather in a span, and for each such span, the finished bytes.

    Args:
        part: what is to be told.
        rows: tuples that `rows_sql` gave, for a span that holds all of these.
        spans: what each body tells; of current weather the newest hour in it.
    """
    for place, some in groupby(rows, key=lambda row: str(row[0])):
        told = [_told(row) for row in some]
        for span in spans:
            within = [each for each in told if span.first <= each.at <= span.last]
            if within:
                yield span, _body(place, part, within)


def moment(rows: Iterable[Sequence[Any]], at: dt.datetime) -> Iterator[WeatherBody]:
    """Yield for each place the hour that is nearest to `at` among these rows, in the shape of current weather.

    Of two hours that are equally near, the earlier one.
    """
    for place, some in groupby(rows, key=lambda row: str(row[0])):
        nearest = min(map(_told, some), key=lambda each: (abs(each.at - at), each.at))
        yield _body(place, Part.CURRENT, [nearest])


class _Telling(NamedTuple):
    """Who told a value. The names are those of the JSON."""

    source: str
    kind: str
    model: str
    is_final: bool
    as_of: dt.datetime


class _Told(NamedTuple):
    """One row of one place."""

    at: dt.datetime
    values: tuple[float | None, ...]
    tellings: tuple[_Telling | None, ...]
    latitude: float
    longitude: float
    read_at: dt.datetime


_LEADING = ("name", "latitude", "longitude", "read_at", "at", "sources", "kinds", "models", "finals", "told_ats")


def _told(row: Sequence[Any]) -> _Told:
    _, latitude, longitude, read_at, at, *tellers = row[: len(_LEADING)]
    tellings = [
        _Telling(source, kind, model, is_final, told_at.astimezone(dt.UTC))
        for source, kind, model, is_final, told_at in zip(*tellers, strict=True)
    ]
    values = row[len(_LEADING) :: 2]
    places = row[len(_LEADING) + 1 :: 2]
    return _Told(
        at=at.astimezone(dt.UTC) if isinstance(at, dt.datetime) else dt.datetime.combine(at, dt.time(), dt.UTC),
        values=tuple(values),
        tellings=tuple(None if place is None else tellings[place - 1] for place in places),
        latitude=latitude,
        longitude=longitude,
        read_at=read_at,
    )


def _body(place: str, part: Part, told: Sequence[_Told]) -> WeatherBody:
    used = told[-1:] if part is Part.CURRENT else told
    tellings = list(dict.fromkeys(each for row in used for each in row.tellings if each is not None))
    as_of = max(each.as_of for each in tellings)
    variables = SHEETS[part.grain].above_ground
    document = {
        "cells": place.split(SEPARATOR),
        "latitude": used[0].latitude,
        "longitude": used[0].longitude,
        "as_of": as_of,
        **(_instant(used[0], variables) if part is Part.CURRENT else _columns(part, used, tellings, variables)),
    }
    body = orjson.dumps(document, option=orjson.OPT_UTC_Z)
    revision = blake2b(body, digest_size=12).hexdigest()
    return WeatherBody(place=place, revision=revision, as_of=as_of, read_at=used[-1].read_at, body=body)


def _instant(row: _Told, variables: Sequence[str]) -> dict[str, Any]:
    told = zip(variables, row.values, row.tellings, strict=True)
    return {
        "at": row.at,
        "values": {
            name: None if telling is None else {"value": value, **telling._asdict()} for name, value, telling in told
        },
    }


def _columns(
    part: Part, rows: Sequence[_Told], tellings: Sequence[_Telling], variables: Sequence[str]
) -> dict[str, Any]:
    number = {telling: index for index, telling in enumerate(tellings)} | {None: None}
    is_daily = part is Part.DAILY
    columns = list(zip(*(row.values for row in rows), strict=True))
    told_by = [[number[each] for each in column] for column in zip(*(row.tellings for row in rows), strict=True)]
    return {
        "day" if is_daily else "at": [row.at.date() if is_daily else row.at for row in rows],
        "values": dict(zip(variables, columns, strict=True)),
        "told_by": dict(zip(variables, told_by, strict=True)),
        "tellings": [each._asdict() for each in tellings],
    }


_OF_PLACES = """
given AS (
    SELECT name, CAST(number AS integer) AS site FROM unnest(CAST(:places AS text[])) WITH ORDINALITY AS g(name, number)
), given_cells AS (
    SELECT g.site, c.* FROM given AS g CROSS JOIN unnest(string_to_array(g.name, '+')) AS k(key)
    JOIN weather_cells AS c ON c.key = k.key
), centres AS (
    SELECT DISTINCT ON (site) site, latitude, longitude FROM given_cells ORDER BY site, source DESC
), site_cells AS (
    SELECT site, id AS cell_id, source FROM given_cells
)"""
"""The centre of a place is that of Open-Meteo's cell, the smaller one, where there is one."""


def _sql(grain: Grain) -> str:
    values = ", ".join(f"r.{name}, r.{name}_place" for name in SHEETS[grain].above_ground)
    query = f"""
WITH {_OF_PLACES}, {reconciled_sql(grain)}
SELECT g.name, m.latitude, m.longitude, statement_timestamp() AS read_at,
       r.at, r.sources, r.kinds, r.models, r.finals, r.told_ats, {values}
FROM reconciled AS r JOIN given AS g ON g.site = r.site JOIN centres AS m ON m.site = r.site
ORDER BY g.site, r.at
"""  # noqa: S608
    # Written for SQLAlchemy, used without it: `:name` is `%(name)s` to psycopg.
    return re.sub(r"(?<![:\w]):([a-z_]+)", r"%(\1)s", query)


_SQL = {grain: _sql(grain) for grain in SHEETS}
