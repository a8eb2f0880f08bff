"""How things stand for the person who runs this: how fresh each region is, what is stuck, and what needs a person."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from models.gaps import Gap, open_gaps
from models.quota import LENGTHS, Span
from models.runs import LIVING
from models.searches import CatalogSearch

REGION_DAYS = 30
"""Days of passes that a region's line sums up, to the newest day that was worked at."""

GAP_DAYS_SHOWN = 30
"""Passes missing for longer are of history."""

GIVEN_UP_ATTENTION = dt.timedelta(days=14)
"""So long after it was given up a scene calls for a person; it stays listed."""

SILENT_CATALOG = dt.timedelta(hours=36)
"""A catalog that has not answered for so long, while it was asked, calls for a person: one daily run may fail."""

LATE_RUN = dt.timedelta(hours=36)
"""Scheduled runs are daily; after so long one is overdue."""

MISSING_SHARE = 0.05
"""From this share of the passes of the last days on, missing ones call for a person. Single ones are normal: satellites
are manoeuvred, and products get lost for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """One UTM zone over its last days: passes over tiles with farms."""

    zone: str
    """Two digits."""
    tiles: int
    newest_pass: dt.datetime
    newest_value_day: dt.date | None
    """Newest solar day on which some farm got a value."""
    used: int
    """Passes over a tile in which all farms were answered."""
    clear: int
    """Of these the ones that gave a value to some farm."""
    unfinished: int
    seen: dict[str, int]
    """Passes over these tiles that each catalog has."""
    missing: int
    """Passes that no catalog has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Scenes that are not done."""

    at_work: int
    """Planned by a run that lives."""
    left_behind: int
    """Planned by a run that is gone: the next one takes them up."""
    due: int
    """Failed, and to be tried by the next run."""
    resting: int
    """Failed of late, and to be tried later."""
    given_up: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason why scenes are not done."""

    problem: str
    scenes: int
    farms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WeatherFreshness:
    """What one model told last, by kind."""

    model: str
    kind: str
    newest_day: dt.date
    told_at: dt.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaUse:
    """Weighted calls of one weather service in the present minute, hour or day, of all accounts together."""

    service: str
    span: Span
    used: float


def regions(connection: Connection, *, today: dt.date) -> list[Region]:
    """Return how fresh each UTM zone is, over `REGION_DAYS` to the newest day that was worked at."""
    newest: dt.date | None = connection.execute(text("SELECT max(day) FROM work")).scalar()
    if newest is None:
        return []
    last = min(newest, today)
    days = {"first": last - dt.timedelta(days=REGION_DAYS - 1), "last": max(newest, today)}
    seen: dict[str, dict[str, int]] = {}
    for zone, catalog, count in connection.execute(text(_SEEN), days):
        seen.setdefault(zone, {})[catalog] = count
    rows = connection.execute(text(_REGIONS), days).mappings()
    return [
        Region(**{**row, "newest_pass": row["newest_pass"].astimezone(dt.UTC)}, seen=seen.get(row["zone"], {}))
        for row in rows
    ]


_REGIONS = """
SELECT left(w.tile_set, 2) AS zone, count(DISTINCT split_part(w.tile_set, '+', 1)) AS tiles,
       max(w.acquired_at) AS newest_pass, max(w.day) FILTER (WHERE w.observed > 0) AS newest_value_day,
       count(*) FILTER (WHERE w.state = 'done') AS used,
       count(*) FILTER (WHERE w.state = 'done' AND w.observed > 0) AS clear,
       count(*) FILTER (WHERE w.state <> 'done') AS unfinished,
       coalesce(max(g.missing), 0) AS missing
FROM work AS w LEFT JOIN (
    SELECT left(tile, 2) AS zone, count(*) AS missing FROM gaps
    WHERE filled_at IS NULL AND day BETWEEN :first AND :last GROUP BY 1
) AS g ON g.zone = left(w.tile_set, 2)
WHERE w.day BETWEEN :first AND :last AND w.tile_set NOT LIKE '%+%'
GROUP BY 1 ORDER BY 1
"""

_SEEN = """
SELECT left(s.tile, 2) AS zone, s.catalog, count(DISTINCT (s.tile, s.pass_id)) AS passes
FROM scenes AS s
WHERE s.day BETWEEN :first AND :last AND s.document IS NOT NULL
    AND s.tile IN (SELECT tile_set FROM work WHERE day BETWEEN :first AND :last)
GROUP BY 1, 2 ORDER BY 1, 2
"""


def queue(connection: Connection, *, now: dt.datetime) -> Queue:
    """Return how many scenes are not done, and why not."""
    row = connection.execute(text(_QUEUE), {"now": now}).mappings().one()
    return Queue(**row)


_QUEUE = f"""
SELECT count(*) FILTER (WHERE state = 'planned' AND is_living) AS at_work,
       count(*) FILTER (WHERE state = 'planned' AND NOT is_living AND given_up_at IS NULL) AS left_behind,
       count(*) FILTER (WHERE state = 'failed' AND given_up_at IS NULL AND coalesce(not_before, :now) <= :now) AS due,
       count(*) FILTER (WHERE state = 'failed' AND given_up_at IS NULL AND not_before > :now) AS resting,
       count(*) FILTER (WHERE given_up_at IS NOT NULL AND NOT (state = 'planned' AND is_living)) AS given_up
FROM (SELECT *, coalesce(run_id IN ({LIVING}), false) AS is_living FROM work WHERE state <> 'done') AS w
"""  # noqa: S608


def newest_observation_at(connection: Connection) -> dt.datetime | None:
    """Return when the newest pass was that gave some farm a value; None when there is none."""
    found: dt.datetime | None = connection.execute(
        text("SELECT max(acquired_at) FROM work WHERE observed > 0")
    ).scalar()
    return found


def reasons(connection: Connection, *, limit: int) -> list[Reason]:
    """Return why scenes failed that are not done since, the most frequent reason first."""
    return [Reason(**row) for row in connection.execute(text(_REASONS), {"limit": limit}).mappings()]


_REASONS = r"""
SELECT regexp_replace(split_part(problem, '; ', 1), '^\d+ x ', '') AS problem, count(*) AS scenes,
       sum(cardinality(pending_farm_ids)) AS farms
FROM work WHERE state <> 'done' AND problem IS NOT NULL
GROUP BY 1 ORDER BY scenes DESC, 1 LIMIT :limit
"""


def weather_freshness(connection: Connection, *, today: dt.date) -> list[WeatherFreshness]:
    """Return what each model told last of the days around now."""
    span = {"first": today - dt.timedelta(days=40), "last": today + dt.timedelta(days=20)}
    rows = connection.execute(text(_WEATHER), span).mappings()
    return [WeatherFreshness(**{**row, "told_at": row["told_at"].astimezone(dt.UTC)}) for row in rows]


_WEATHER = """
SELECT model, kind, max(day) AS newest_day, max(told_at) AS told_at FROM weather_daily
WHERE day BETWEEN :first AND :last GROUP BY 1, 2 ORDER BY 1, 2
"""


def quota_used(connection: Connection, *, now: dt.datetime) -> list[QuotaUse]:
    """Return the weighted calls of each weather service in the spans that last right now."""
    starts = {f"since_{span.value}": now - LENGTHS[span] for span in Span}
    rows = connection.execute(text(_QUOTA), {"now": now} | starts).mappings()
    return [QuotaUse(service=row["service"], span=Span(row["span"]), used=row["used"]) for row in rows]


_QUOTA = """
SELECT service, span, sum(live + backfill) AS used FROM weather_quota
WHERE starts_at <= :now AND starts_at > CASE span WHEN 'minute' THEN CAST(:since_minute AS timestamptz)
    WHEN 'hour' THEN CAST(:since_hour AS timestamptz) ELSE CAST(:since_day AS timestamptz) END
GROUP BY 1, 2 ORDER BY 1, array_position(ARRAY['minute', 'hour', 'day'], span)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Concerns:
    """What the verdict rests on."""

    given_up: int
    """Scenes given up of late."""
    given_up_farms: int
    gaps: tuple[Gap, ...]
    """Passes of the last weeks that no catalog has, newest first."""
    missing_share: float
    """Of the passes due while gaps are asked for, how many are missing."""
    last_daily_run: dt.datetime | None


def concerns(connection: Connection, *, now: dt.datetime, gap_days: int) -> Concerns:
    """Return what may need a person."""
    asked = {"now": now, "given_up": now - GIVEN_UP_ATTENTION, "first": (now - dt.timedelta(days=gap_days)).date()}
    row: Any = connection.execute(text(_CONCERNS), asked).one()
    passes = row.worked + row.missing
    return Concerns(
        given_up=row.given_up,
        given_up_farms=row.given_up_farms,
        gaps=tuple(open_gaps(connection, since=(now - dt.timedelta(days=GAP_DAYS_SHOWN)).date())),
        missing_share=row.missing / passes if passes else 0.0,
        last_daily_run=row.last_daily_run and row.last_daily_run.astimezone(dt.UTC),
    )


_CONCERNS = """
SELECT (SELECT count(*) FROM work WHERE state <> 'done' AND given_up_at > :given_up) AS given_up,
       (SELECT coalesce(sum(cardinality(pending_farm_ids)), 0) FROM work
        WHERE state <> 'done' AND given_up_at > :given_up) AS given_up_farms,
       (SELECT count(*) FROM work WHERE day >= :first AND tile_set NOT LIKE '%+%') AS worked,
       (SELECT count(*) FROM gaps WHERE day >= :first AND filled_at IS NULL) AS missing,
       (SELECT max(started_at) FROM runs WHERE kind = 'daily-ndvi') AS last_daily_run
"""


def needs_person(
    found: Concerns, searches: list[CatalogSearch], *, failed: int, now: dt.datetime, gap_alert_days: int, gap_days: int
) -> list[str]:
    """What needs a person now, in words; empty when nothing does.

    What heals by itself is not in it: scenes that rest, catalogs that failed once. Nor is what nobody can mend any
    more: gaps that are not asked for any longer, and scenes given up weeks ago.

    Args:
        found: what the stores tell.
        searches: the last searches of the catalogs that are in use.
        failed: scenes that failed, were not given up, and have farms that wait.
        now: the time.
        gap_alert_days, gap_days: when a missing pass is told of, and until when it is asked for.
    """
    said = []
    if failed and found.last_daily_run is None:
        scenes, them = ("1 scene", "it") if failed == 1 else (f"{failed:,} scenes", "them")
        said.append(f"{scenes} failed, and no schedule tries {them} again; `swath ndvi run` or `swath up` does")
    if found.given_up:
        scenes, them = ("1 scene was", "it") if found.given_up == 1 else (f"{found.given_up:,} scenes were", "them")
        said.append(
            f"{scenes} given up, {found.given_up_farms:,} farms wait; "
            f"`swath ndvi run --start DAY --end DAY` tries {them} again"
        )
    alarming = [
        gap for gap in found.gaps if gap_alert_days <= (now - gap.expected_at).total_seconds() / 86_400 <= gap_days
    ]
    if alarming and found.missing_share >= MISSING_SHARE:
        said.append(
            f"passes over {len(alarming):,} tiles have been in no catalog for {gap_alert_days} days or more "
            f"({found.missing_share:.0%} of those due): is another catalog to be had for SWATH_CATALOGS?"
        )
    for search in searches:
        answered = search.answered_at
        if search.problem and (answered is None or search.asked_at - answered > SILENT_CATALOG):
            since = f"since {answered:%Y-%m-%d %H:%M} UTC" if answered else "yet"
            said.append(f"catalog {search.catalog} has not answered {since}: {search.problem}")
    if found.last_daily_run is not None and now - found.last_daily_run > LATE_RUN:
        said.append(f"no daily run began since {found.last_daily_run:%Y-%m-%d %H:%M} UTC: is a worker running?")
    return said
