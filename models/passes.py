"""Passes of the satellites: which will come next over a farm."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, text

from models.observations import INDEX

REPEAT = dt.timedelta(days=10)
"""After so long the same satellite flies the same orbit again."""

REMEMBERED = dt.timedelta(days=23)
"""An orbit in which a farm was not seen for so long is not counted on: two repeats, and the time to publish one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NextPass:
    """When a satellite is to look at a farm next."""

    expected_at: dt.datetime
    """UTC, within some minutes; the imagery is published hours to a day later."""
    day: dt.date
    """Local solar day."""
    platform: str
    """As in a catalog, e.g. `sentinel-2c`."""


def next_passes(
    connection: Connection, farm_ids: Collection[int] | None, *, now: dt.datetime, mask_policy: str, index: str = INDEX
) -> dict[int, NextPass]:
    """Return the next pass after `now` over each of these farms, or over all active ones for None, by one query.

    It is told from the passes that saw the farm of late, cloud or not: each satellite repeats its orbit every 10
    days. A farm that no pass of the last weeks has reached is left out. A farm costs one short walk of an index.

    Args:
        connection: where the observations are stored.
        farm_ids: by internal id.
        now: aware; only passes after it count.
        mask_policy: of the observations that are looked at.
        index: the same.
    """
    which = "f.is_active" if farm_ids is None else "f.id = ANY(:farm_ids)"
    given = {} if farm_ids is None else {"farm_ids": sorted(set(farm_ids))}
    values = {"now": now, "since": now - REMEMBERED, "repeat": REPEAT, "mask_policy": mask_policy, "index": index}
    rows = connection.execute(text(_NEXT.replace("which_farms", which)), values | given)
    return {
        row.farm_id: NextPass(expected_at=row.expected_at.astimezone(dt.UTC), day=row.day, platform=row.platform)
        for row in rows
    }


_NEXT = """
SELECT f.id AS farm_id, next.expected_at, next.day, next.platform
FROM farms AS f CROSS JOIN LATERAL (
    SELECT o.acquired_at + later.repeats * CAST(:repeat AS interval) AS expected_at,
           o.day + later.repeats * extract(day FROM CAST(:repeat AS interval))::int AS day,
           split_part(o.pass_id, '/', 1) AS platform
    FROM observations AS o CROSS JOIN LATERAL (
        SELECT 1 + floor(extract(epoch FROM CAST(:now AS timestamptz) - o.acquired_at)
                         / extract(epoch FROM CAST(:repeat AS interval)))::int AS repeats
    ) AS later
    WHERE o.farm_id = f.id AND o.boundary_version = f.boundary_version
        AND o."index" = :index AND o.mask_policy = :mask_policy
        AND o.acquired_at > :since AND o.acquired_at <= :now AND o.status <> 'outside'
    ORDER BY expected_at LIMIT 1
) AS next
WHERE which_farms
"""
