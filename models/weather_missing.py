"""Which days of weather are still to be fetched, so that nothing final is fetched again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, text

from models.weather import Cell, Grain, Source
from models.weather_rows import SHEETS


@dataclass(frozen=True, slots=True, kw_only=True)
class Lateness:
    """When a source knows the past, counted from the start of a UTC day."""

    first_after: dt.timedelta
    """Before this the source is not expected to tell the day at all."""
    again_after: tuple[dt.timedelta, ...]
    """A day told provisionally before one of these, and not since, is due to be read again."""


LATENESS = {
    # ERA5 comes 5 days late, and replaces its first version (ERA5T) 2 to 3 months behind.
    Source.OPEN_METEO: Lateness(first_after=dt.timedelta(days=5), again_after=(dt.timedelta(days=120),)),
    # Meteorology comes after some 2 days, FLASHFlux radiation after a week; CERES SYN1deg replaces it 3 to 4 months
    # behind.
    Source.NASA_POWER: Lateness(
        first_after=dt.timedelta(days=2), again_after=(dt.timedelta(days=10), dt.timedelta(days=120))
    ),
}
"""What is known of the sources of `models.weather`."""


@dataclass(frozen=True, slots=True, order=True)
class DaySpan:
    """Days in a row."""

    first: dt.date
    last: dt.date
    """Included."""

    @property
    def days(self) -> tuple[dt.date, ...]:
        """Each of the days, in order."""
        return tuple(self.first + dt.timedelta(days=number) for number in range((self.last - self.first).days + 1))


def missing_days(
    connection: Connection,
    cells: Collection[Cell],
    *,
    source: Source,
    start: dt.date,
    end: dt.date,
    now: dt.datetime,
    model: str | None = None,
    grain: Grain = Grain.DAILY,
    lateness: Lateness | None = None,
    only_again: bool = False,
) -> dict[str, tuple[DaySpan, ...]]:
    """Return for each cell's key the spans of days to be fetched of what is past; cells that need none are left out.

    A day is to be fetched when the source may know it by now and either nothing but forecasts is stored of it, or
    what is stored is provisional and was told before a mark of `again_after` that has passed since. By the hour, a
    day is stored when all its 24 hours are. A day that came without some variable is not asked for again before the
    next mark, and never when it is final.

    Args:
        connection: where readings are stored.
        cells: cells of `source`, known already or not.
        source: who would be asked.
        start: first day wanted, UTC.
        end: last day wanted, included.
        now: the time.
        model: count only what this model told; None counts any.
        grain: days or hours.
        lateness: how late the source is; by default its entry of `LATENESS`.
        only_again: only days that are stored and due to be read again, none that are not stored.

    Raises:
        ValueError: a cell is of another source.
    """
    if odd := [cell.key for cell in cells if cell.source is not source]:
        raise ValueError(f"{odd[0]} is no cell of {source}")
    late = lateness or LATENESS[source]
    sheet = SHEETS[grain]
    by_day = sheet.time == "day"
    last = min(end, (now.astimezone(dt.UTC) - late.first_after).date())
    midnight = dt.datetime.combine(start, dt.time(), dt.UTC)
    day_after = dt.datetime.combine(last + dt.timedelta(days=1), dt.time(), dt.UTC)
    given = {
        "keys": sorted({cell.key for cell in cells}),
        "start": start,
        "last": last,
        "from": start if by_day else midnight,
        "until": day_after.date() if by_day else day_after,
        "model": model,
        "now": now,
        "again_after": list(late.again_after),
        "only_again": only_again,
    }
    query = _MISSING.format(
        table=sheet.table,
        time=sheet.time,
        day="day" if by_day else "CAST(at AT TIME ZONE 'UTC' AS date)",
        hours=1 if by_day else 24,
    )
    return {row.key: tuple(map(_span, row.spans)) for row in connection.execute(text(query), given)}


def _span(days: list[dt.date]) -> DaySpan:
    return DaySpan(days[0], days[1])


# Rows of several models or kinds may tell one hour: a day is final where each of its hours has a final row.
_MISSING = """
WITH times AS (
    SELECT r.cell_id, r.{time}, bool_or(r.is_final) AS is_final, max(r.told_at) AS told_at
    FROM weather_cells AS c JOIN {table} AS r ON r.cell_id = c.id
    WHERE c.key = ANY(:keys) AND r.{time} >= :from AND r.{time} < :until AND r.kind <> 'forecast'
        AND (CAST(:model AS text) IS NULL OR r.model = :model)
    GROUP BY r.cell_id, r.{time}
), days AS (
    SELECT cell_id, {day} AS day, count(*) AS times, bool_and(is_final) AS is_final,
           min(told_at) FILTER (WHERE NOT is_final) AS told_at
    FROM times
    GROUP BY 1, 2
), marks AS (
    SELECT d.day, max(d.day + a.after) AT TIME ZONE 'UTC' AS passed_at
    FROM (SELECT CAST(g AS date) AS day
          FROM generate_series(CAST(:start AS timestamp), CAST(:last AS timestamp), interval '1 day') AS g) AS d
    LEFT JOIN unnest(CAST(:again_after AS interval[])) AS a(after)
        ON (d.day + a.after) AT TIME ZONE 'UTC' <= CAST(:now AS timestamptz)
    GROUP BY d.day
), missing AS (
    SELECT k.key, m.day
    FROM unnest(CAST(:keys AS text[])) AS k(key) CROSS JOIN marks AS m
    LEFT JOIN weather_cells AS c ON c.key = k.key
    LEFT JOIN days AS s ON s.cell_id = c.id AND s.day = m.day
    WHERE (coalesce(s.times, 0) < {hours} AND NOT :only_again) OR (NOT s.is_final AND s.told_at < m.passed_at)
), spans AS (
    SELECT key, min(day) AS first, max(day) AS last
    FROM (SELECT key, day, day - CAST(row_number() OVER (PARTITION BY key ORDER BY day) AS integer) AS run
          FROM missing) AS numbered
    GROUP BY key, run
)
SELECT key, array_agg(ARRAY[first, last] ORDER BY first) AS spans
FROM spans
GROUP BY key
ORDER BY key COLLATE "C"
"""


def cells_without_forecast(
    connection: Connection,
    cells: Collection[Cell],
    *,
    model: str,
    first: dt.date,
    last: dt.date,
    told_since: dt.datetime,
) -> set[str]:
    """Return the keys of those cells of which, for any day from first to last, no forecast was told since then.

    Args:
        connection: where readings are stored.
        cells: cells, known already or not.
        model: whose forecast is wanted.
        first: first UTC day wanted.
        last: last UTC day wanted, included.
        told_since: older forecasts do not count.
    """
    given = {
        "keys": sorted({cell.key for cell in cells}),
        "model": model,
        "first": first,
        "last": last,
        "days": (last - first).days + 1,
        "told_since": told_since,
    }
    return set(connection.execute(text(_WITHOUT_FORECAST), given).scalars())


_WITHOUT_FORECAST = """
SELECT k.key
FROM unnest(CAST(:keys AS text[])) AS k(key)
LEFT JOIN weather_cells AS c ON c.key = k.key
LEFT JOIN weather_daily AS r ON r.cell_id = c.id AND r.day BETWEEN :first AND :last AND r.kind = 'forecast'
    AND r.model = :model AND r.told_at >= :told_since
GROUP BY k.key
HAVING count(r.day) < :days
"""
