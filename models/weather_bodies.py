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
from operator import itemgetter
from typing import Any, NamedTuple

import orjson

from models.reconciling import ranked_sql
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
        told = _told(some)
        for span in spans:
            within = [each for each in told if span.first <= each.at <= span.last]
            if not within:
                continue
            if part is Part.CURRENT:
                yield span, _instant(place, Grain.HOURLY, within[-1])
            else:
                yield span, _table(place, part.grain, within)


def moment(rows: Iterable[Sequence[Any]], at: dt.datetime, *, grain: Grain = Grain.HOURLY) -> Iterator[WeatherBody]:
    """Yield for each place the hour that is nearest to `at` among these rows, in the shape of current weather.

    Of two hours that are equally near, the earlier one. Of rows of days the nearest day, told by its first instant.
    """
    for place, some in groupby(rows, key=lambda row: str(row[0])):
        nearest = min(_told(some), key=lambda each: (abs(each.at - at), each.at))
        yield _instant(place, grain, nearest)


class _Telling(NamedTuple):
    """Who told a value. The names are those of the JSON."""

    source: str
    kind: str
    model: str
    is_final: bool
    as_of: dt.datetime


class _Told(NamedTuple):
    """One hour or day of one place."""

    at: dt.datetime
    values: Sequence[float | None]
    tellers: Sequence[_Telling | None]
    """Who told each value; the same object for the same teller, wherever in the place."""
    latitude: float
    longitude: float
    read_at: dt.datetime


_TIME = 4
"""Where a row tells its day or hour; place, centre and the database's clock stand before it."""
_VALUES = _TIME + 1 + len(_Telling._fields)


def _told(rows: Iterable[Sequence[Any]]) -> list[_Told]:
    """The hours or days of one place: of each, rows come best first, and the first that tells a value answers."""
    known: dict[tuple[Any, ...], _Telling] = {}
    found = []
    for at, some in groupby(rows, key=itemgetter(_TIME)):
        best, *others = some
        teller = _teller(best, known)
        values = list(best[_VALUES:])
        tellers = [None if value is None else teller for value in values]
        for row in others:
            teller = _teller(row, known)
            for place, value in enumerate(row[_VALUES:]):
                if value is not None and tellers[place] is None:
                    values[place], tellers[place] = value, teller
        _, latitude, longitude, read_at = best[:_TIME]
        found.append(_Told(_as_instant(at), values, tellers, latitude, longitude, read_at))
    return found


def _teller(row: Sequence[Any], known: dict[tuple[Any, ...], _Telling]) -> _Telling:
    source, kind, model, is_final, told_at = facts = tuple(row[_TIME + 1 : _VALUES])
    telling = known.get(facts)
    if telling is None:
        telling = known[facts] = _Telling(source, kind, model, is_final, told_at.astimezone(dt.UTC))
    return telling


def _as_instant(at: dt.datetime | dt.date) -> dt.datetime:
    return at.astimezone(dt.UTC) if isinstance(at, dt.datetime) else dt.datetime.combine(at, dt.time(), dt.UTC)


def _instant(place: str, grain: Grain, told: _Told) -> WeatherBody:
    """One hour or day, each value with who told it."""
    values = {
        name: None if teller is None else {"value": value, **teller._asdict()}
        for name, value, teller in zip(SHEETS[grain].above_ground, told.values, told.tellers, strict=True)
    }
    as_of = max(each.as_of for each in told.tellers if each is not None)
    return _body(place, told, as_of, {"at": told.at, "values": values})


def _table(place: str, grain: Grain, told: Sequence[_Told]) -> WeatherBody:
    """Hours or days in a row, by column, and who told each value by a number in a list of tellings."""
    numbers: dict[int, int] = {}
    tellings: list[_Telling] = []
    told_by = []
    for row in told:
        line = []
        for teller in row.tellers:
            number = None
            if teller is not None and (number := numbers.get(id(teller))) is None:
                number = numbers[id(teller)] = len(tellings)
                tellings.append(teller)
            line.append(number)
        told_by.append(line)
    variables = SHEETS[grain].above_ground
    is_daily = grain is Grain.DAILY
    columns = {
        "day" if is_daily else "at": [row.at.date() if is_daily else row.at for row in told],
        "values": dict(zip(variables, zip(*(row.values for row in told), strict=True), strict=True)),
        "told_by": dict(zip(variables, zip(*told_by, strict=True), strict=True)),
        "tellings": [each._asdict() for each in tellings],
    }
    return _body(place, told[-1], max(each.as_of for each in tellings), columns)


def _body(place: str, told: _Told, as_of: dt.datetime, more: dict[str, Any]) -> WeatherBody:
    document = {
        "cells": place.split(SEPARATOR),
        "latitude": told.latitude,
        "longitude": told.longitude,
        "as_of": as_of,
        **more,
    }
    body = orjson.dumps(document, option=orjson.OPT_UTC_Z)
    revision = blake2b(body, digest_size=12).hexdigest()
    return WeatherBody(place=place, revision=revision, as_of=as_of, read_at=told.read_at, body=body)


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
    # Rows as ranked, not yet made one: thirty sorted aggregates for each hour took ten times as long as all the rest.
    values = ", ".join(f"r.{name}" for name in SHEETS[grain].above_ground)
    return for_psycopg(f"""
WITH {_OF_PLACES}, {ranked_sql(grain)}
SELECT g.name, m.latitude, m.longitude, statement_timestamp() AS read_at,
       r.at, r.source, r.kind, r.model, r.is_final, r.told_at, {values}
FROM reconciled_ranked AS r JOIN given AS g ON g.site = r.site JOIN centres AS m ON m.site = r.site
ORDER BY g.site, r.at, r.place
""")  # noqa: S608


def for_psycopg(query: str) -> str:
    """A query written for SQLAlchemy, to be used without it: `:name` becomes `%(name)s`."""
    return re.sub(r"(?<![:\w]):([a-z_]+)", r"%(\1)s", query)


_SQL = {grain: _sql(grain) for grain in SHEETS}
