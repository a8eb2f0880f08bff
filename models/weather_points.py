"""Weather at points and times: of each, the nearest cell that knows any, and of it the nearest hour, by one query.

Everything here works on plain rows, as `models.weather_bodies` does, and makes the same bytes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from models.reconciling import ranked_sql
from models.weather import Grain, Source
from models.weather_bodies import CURRENT_LOOKBACK, SEPARATOR, Part, Span, WeatherBody, for_psycopg, moment, span_of
from models.weather_rows import SHEETS

WITHIN = dt.timedelta(hours=3)
"""How far from a time the hour that is told of it may be: a source that tells every third hour has one."""


class Wish(NamedTuple):
    """What is wanted of one point."""

    places: tuple[str, ...]
    """Where to look, in order: the place that the point lies in, then those with another cell of Open-Meteo."""
    target: dt.datetime
    """The time wanted."""
    span: Span
    """What may be told instead."""


class Found(NamedTuple):
    """What was found of one wish."""

    number: int
    """Which one, from 0."""
    rank: int
    """Which of its places."""
    body: WeatherBody


def wish_now(places: Sequence[str], now: dt.datetime) -> Wish:
    """Current weather: the newest hour that is not ahead."""
    span = span_of(Part.CURRENT, now)
    assert span.last - span.first == CURRENT_LOOKBACK
    return Wish(tuple(places), span.last, span)


def wish_at(places: Sequence[str], at: dt.datetime) -> Wish:
    """The hour nearest to an instant."""
    return Wish(tuple(places), at, Span(at - WITHIN, at + WITHIN))


def of_its_day(wish: Wish) -> Wish:
    """The UTC day of the time wanted, for where no hour is known."""
    day = wish.target.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return wish._replace(target=day, span=Span(day, day))


def points_sql(grain: Grain) -> str:
    """SQL of the rows that the hours or days of points are made of, for psycopg; see `points_parameters`."""
    return _SQL[grain]


def points_parameters(grain: Grain, wishes: Sequence[Wish]) -> dict[str, Any]:
    """The parameters of `points_sql`."""
    tries = [
        (number, rank, key)
        for number, wish in enumerate(wishes)
        for rank, place in enumerate(wish.places)
        # The cell of the other source is the same in all these places.
        for key in place.split(SEPARATOR)[: None if rank == 0 else 1]
    ]
    times = [(wish.target, *wish.span) for wish in wishes]
    if grain is Grain.DAILY:
        times = [tuple(each.astimezone(dt.UTC).date() for each in some) for some in times]  # type: ignore[misc]
    names = (("targets", "firsts", "lasts"), ("sites", "ranks", "cells"))
    columns = (zip(*some, strict=True) if some else ((), (), ()) for some in (times, tries))
    return {
        name: list(column)
        for of, some in zip(names, columns, strict=True)
        for name, column in zip(of, some, strict=True)
    }


def found(grain: Grain, rows: Iterable[Sequence[Any]], wishes: Sequence[Wish]) -> Iterator[Found]:
    """Yield what the rows that `points_sql` gave tell of these wishes; nothing of those of which nothing is known."""
    for (number, rank), some in groupby(rows, key=itemgetter(0, 1)):
        wish = wishes[number]
        of_place = ((wish.places[rank], *row[2:]) for row in some)
        for body in moment(of_place, wish.target, grain=grain):
            yield Found(number, rank, body)


def _sql(grain: Grain) -> str:
    sheet = SHEETS[grain]
    kind = "date" if grain is Grain.DAILY else "timestamptz"
    values = ", ".join(f"r.{name}" for name in sheet.above_ground)
    # A reading of the soil alone tells nothing here.
    of_cell = f"FROM {sheet.table} AS r WHERE r.cell_id = t.id AND num_nonnulls({values}) > 0 AND r.{sheet.time}"

    def any_of(which: str, *, of: str = "tried") -> str:
        """Cells and times of which anything is told; each is looked at once, however many points ask."""
        return f"""
    SELECT t.id, t.first, t.last FROM (SELECT DISTINCT id, first, last FROM {of} WHERE {which}) AS t
    CROSS JOIN LATERAL (SELECT {of_cell} BETWEEN t.first AND t.last ORDER BY r.{sheet.time} DESC LIMIT 1) AS anything
"""  # noqa: S608

    # Each LIMIT 1 walks the primary key from where it begins and stops at the first row.
    return for_psycopg(f"""
WITH given AS (
    SELECT CAST(number - 1 AS integer) AS site, target, first, last
    FROM unnest(CAST(:targets AS {kind}[]), CAST(:firsts AS {kind}[]), CAST(:lasts AS {kind}[]))
        WITH ORDINALITY AS g(target, first, last, number)
), tried AS (
    SELECT t.site, t.rank, c.id, c.source, c.latitude, c.longitude, g.target, g.first, g.last
    FROM unnest(CAST(:sites AS integer[]), CAST(:ranks AS integer[]), CAST(:cells AS text[])) AS t(site, rank, key)
    JOIN weather_cells AS c ON c.key = t.key JOIN given AS g ON g.site = t.site
), own AS (
    SELECT DISTINCT t.site
    FROM tried AS t JOIN ({any_of("rank = 0")}) AS k ON (k.id, k.first, k.last) = (t.id, t.first, t.last)
    WHERE t.rank = 0
), near AS (
    SELECT t.* FROM tried AS t WHERE NOT EXISTS (SELECT FROM own AS o WHERE o.site = t.site)
), chosen AS (
    SELECT site, 0 AS rank FROM own
    UNION ALL
    SELECT t.site, min(t.rank)
    FROM near AS t JOIN ({any_of("true", of="near")}) AS k ON (k.id, k.first, k.last) = (t.id, t.first, t.last)
    GROUP BY t.site
), of_sites AS (
    SELECT t.* FROM chosen AS h JOIN tried AS t
    ON t.site = h.site AND (t.rank = h.rank OR t.source = '{Source.NASA_POWER}')
), spots AS (
    SELECT DISTINCT ON (t.site) t.site, n.at
    FROM of_sites AS t CROSS JOIN LATERAL (
        (SELECT r.{sheet.time} AS at {of_cell} BETWEEN t.first AND t.target ORDER BY r.{sheet.time} DESC LIMIT 1)
        UNION ALL
        (SELECT r.{sheet.time} {of_cell} BETWEEN t.target AND t.last ORDER BY r.{sheet.time} LIMIT 1)
    ) AS n
    ORDER BY t.site, greatest(n.at - t.target, t.target - n.at), n.at
), site_cells AS (
    SELECT t.site, t.id AS cell_id, t.source, p.at FROM of_sites AS t JOIN spots AS p ON p.site = t.site
), centres AS (
    SELECT DISTINCT ON (site) site, latitude, longitude FROM of_sites ORDER BY site, source DESC
), {ranked_sql(grain, at_spots=True)}
SELECT r.site, h.rank, m.latitude, m.longitude, statement_timestamp() AS read_at,
       r.at, r.source, r.kind, r.model, r.is_final, r.told_at, {values}
FROM reconciled_ranked AS r JOIN chosen AS h ON h.site = r.site JOIN centres AS m ON m.site = r.site
ORDER BY r.site, r.place
""")  # noqa: S608


_SQL = {grain: _sql(grain) for grain in SHEETS}
