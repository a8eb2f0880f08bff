"""Passes that should have been and that no catalog has: noted, asked for again for some days, told of once."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from models.observations import INDEX
from models.orbits import LOOK_BACK_DAYS, UNKNOWN_ORBIT, ExpectedPass, SeenPass

PUBLISHED_WITHIN = dt.timedelta(hours=24)
"""Imagery comes hours after a pass; before this nothing is missing."""

GAPS_LOCK = 0x5357_4154_4805
"""Key of the Postgres advisory lock held while gaps are noted ("SWATH", 5). Never reuse it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A pass over a tile that was expected and that no catalog has."""

    tile: str
    platform: str
    relative_orbit: int | None
    day: dt.date
    expected_at: dt.datetime
    farms: int
    """Active farms that the pass would have seen, and no other pass has seen that day."""
    asked_at: dt.datetime
    """When catalogs were last asked for it."""
    alerted_at: dt.datetime | None
    """When it was told of."""


def seen_passes(connection: Connection, first: dt.date, last: dt.date) -> list[SeenPass]:
    """Return the passes that some catalog has, tile by tile: from `LOOK_BACK_DAYS` before the first day to the last.

    A usable item is enough, whether its files could be read or not.
    """
    days = {"first": first - dt.timedelta(days=LOOK_BACK_DAYS), "last": last, "unknown": UNKNOWN_ORBIT}
    rows = connection.execute(text(_SEEN), days).mappings()
    return [SeenPass(**row) for row in rows]


_SEEN = """
SELECT tile, split_part(pass_id, '/', 1) AS platform, coalesce(max(relative_orbit), :unknown) AS relative_orbit,
       min(day) AS day, min(acquired_at) AS acquired_at, pass_id
FROM scenes WHERE day BETWEEN :first AND :last AND document IS NOT NULL
GROUP BY tile, pass_id
"""


def note_gaps(
    connection: Connection,
    missing: Sequence[ExpectedPass],
    days: tuple[dt.date, dt.date],
    *,
    now: dt.datetime,
    mask_policy: str,
    index: str = INDEX,
) -> int:
    """Note which passes of these days are missing now that all catalogs were asked; return how many.

    Only those that concern somebody: a pass by which no active farm would have been seen, or all of its farms were
    seen by another pass that day, is no gap. Gaps noted before that are none any more are closed.

    Args:
        connection: after the observations of these days are stored.
        missing: the passes expected on these days of which no catalog has an item.
        days: first and last solar day that the catalogs were asked for.
        now: what is expected later than `PUBLISHED_WITHIN` before it may still come and is left out.
        mask_policy, index: of the observations that tell which farms a pass sees.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": GAPS_LOCK})
    late = [each for each in missing if each.expected_at <= now - PUBLISHED_WITHIN]
    farms = _farms(connection, late, mask_policy=mask_policy, index=index)
    rows = [
        {
            "tile": each.tile,
            "platform": each.platform,
            "relative_orbit": each.relative_orbit,
            "day": each.day,
            "expected_at": each.expected_at,
            "like_pass": each.like_pass,
            "farms": count,
            "now": now,
        }
        for each, count in zip(late, farms, strict=True)
        if count
    ]
    connection.execute(text(_FILL), {"now": now})
    connection.execute(
        text(_CLOSE),
        {"first": days[0], "last": days[1]}
        | {name: [row[name] for row in rows] for name in ("tile", "platform", "relative_orbit", "day")},
    )
    if rows:
        connection.execute(text(_NOTE), rows)
    return len(rows)


_FILL = """
UPDATE gaps AS g SET filled_at = :now
WHERE g.filled_at IS NULL AND EXISTS (
    SELECT 1 FROM scenes AS s
    WHERE s.day = g.day AND s.tile = g.tile AND split_part(s.pass_id, '/', 1) = g.platform AND s.document IS NOT NULL
        AND (s.relative_orbit IS NULL OR g.relative_orbit IN (0, s.relative_orbit))
)
"""

_CLOSE = """
DELETE FROM gaps AS g
WHERE g.filled_at IS NULL AND g.day BETWEEN :first AND :last
    AND (g.tile, g.platform, g.relative_orbit, g.day) NOT IN (
        SELECT * FROM unnest(CAST(:tile AS text[]), CAST(:platform AS text[]), CAST(:relative_orbit AS int[]),
                             CAST(:day AS date[]))
    )
"""

_NOTE = """
INSERT INTO gaps (tile, platform, relative_orbit, day, expected_at, like_pass, farms, noted_at, asked_at)
VALUES (:tile, :platform, :relative_orbit, :day, :expected_at, :like_pass, :farms, :now, :now)
ON CONFLICT (tile, platform, relative_orbit, day) DO UPDATE
SET farms = excluded.farms, asked_at = excluded.asked_at, filled_at = NULL
"""


def _farms(connection: Connection, missing: Sequence[ExpectedPass], *, mask_policy: str, index: str) -> list[int]:
    """For each missing pass, the active farms that the pass like it saw from this tile and nobody saw that day."""
    if not missing:
        return []
    columns = {
        "tiles": [each.tile for each in missing],
        "passes": [each.like_pass for each in missing],
        "seen_at": [each.like_at for each in missing],
        "days": [each.day for each in missing],
        "expected_at": [each.expected_at for each in missing],
    }
    method = {"mask_policy": mask_policy, "index": index}
    counts = {row.number: row.farms for row in connection.execute(text(_FARMS), columns | method)}
    return [counts.get(number, 0) for number in range(1, len(missing) + 1)]


# The spans around the instants are what lets Postgres leave other years, and most of an index, alone.
_FARMS = """
SELECT m.number, count(DISTINCT o.farm_id) AS farms
FROM unnest(CAST(:tiles AS text[]), CAST(:passes AS text[]), CAST(:seen_at AS timestamptz[]), CAST(:days AS date[]),
            CAST(:expected_at AS timestamptz[])) WITH ORDINALITY AS m (tile, pass_id, seen_at, day, expected_at, number)
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(s.item_id), '{}') AS item_ids FROM scenes AS s
    WHERE s.pass_id = m.pass_id AND s.tile = m.tile
) AS tile
JOIN observations AS o ON o.pass_id = m.pass_id
    AND o.acquired_at BETWEEN m.seen_at - interval '1 day' AND m.seen_at + interval '1 day'
    AND o."index" = :index AND o.mask_policy = :mask_policy AND o.status <> 'outside' AND o.item_ids && tile.item_ids
JOIN farms AS f ON f.id = o.farm_id AND f.boundary_version = o.boundary_version AND f.is_active
WHERE NOT EXISTS (
    SELECT 1 FROM observations AS seen
    WHERE seen.farm_id = o.farm_id AND seen.boundary_version = o.boundary_version AND seen.day = m.day
        AND seen.acquired_at BETWEEN m.expected_at - interval '1 day' AND m.expected_at + interval '1 day'
        AND seen."index" = :index AND seen.mask_policy = :mask_policy AND seen.status <> 'outside'
)
GROUP BY m.number
"""


def open_gaps(connection: Connection, *, since: dt.date, limit: int | None = None) -> list[Gap]:
    """Return the gaps of the days from `since` on that nothing has filled, the newest first."""
    rows = connection.execute(text(_OPEN + "LIMIT :limit"), {"since": since, "limit": limit})
    return [_gap(row._mapping) for row in rows]


_COLUMNS = "tile, platform, nullif(relative_orbit, 0) AS relative_orbit, day, expected_at, farms, asked_at, alerted_at"

_OPEN = f"""
SELECT {_COLUMNS} FROM gaps WHERE filled_at IS NULL AND day >= :since ORDER BY expected_at DESC, tile, platform
"""  # noqa: S608


def tell_of_gaps(connection: Connection, *, now: dt.datetime, after: dt.timedelta, until: dt.timedelta) -> list[Gap]:
    """Return the gaps as old as `after`, and not older than `until`, that nobody was told of yet; and note that."""
    span = {"now": now, "newest": now - after, "oldest": now - until}
    return sorted((_gap(row._mapping) for row in connection.execute(text(_TELL), span)), key=_newest_first)


_TELL = f"""
UPDATE gaps SET alerted_at = :now
WHERE filled_at IS NULL AND alerted_at IS NULL AND expected_at BETWEEN :oldest AND :newest
RETURNING {_COLUMNS}
"""  # noqa: S608


def _newest_first(gap: Gap) -> tuple[float, str, str]:
    return -gap.expected_at.timestamp(), gap.tile, gap.platform


def _gap(row: object) -> Gap:
    facts = dict(row)  # type: ignore[call-overload]
    for name in ("expected_at", "asked_at", "alerted_at"):
        facts[name] = facts[name] and facts[name].astimezone(dt.UTC)
    return Gap(**facts)
