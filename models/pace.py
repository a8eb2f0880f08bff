"""How fast scenes came out of late, from the ledger."""

from __future__ import annotations

from sqlalchemy import Connection, text

SCENES_LOOKED_AT = 500
"""Of the newest scenes."""
LONGEST_GAP_S = 600.0
"""Between two scenes of one run; whatever is longer is a pause between runs."""
LEAST_SCENES = 10
"""Fewer tell nothing."""


def seconds_a_scene(connection: Connection, *, farms: float, index: str, mask_policy: str) -> float | None:
    """Return the mean seconds from one finished scene to the next in runs of late; None where too little is known.

    Looks at scenes with about as many farms: a quarter to four times this number.
    """
    given = {"index": index, "mask_policy": mask_policy, "low": farms / 4, "high": farms * 4}
    given |= {"scenes": SCENES_LOOKED_AT, "longest": LONGEST_GAP_S}
    count, seconds = connection.execute(text(_PACE), given).one()
    return float(seconds) / count if count >= LEAST_SCENES else None


_PACE = """
WITH looks AS (
    SELECT finished_at, observed + (SELECT coalesce(sum(v.value::bigint), 0) FROM jsonb_each_text(not_observed) AS v)
        AS farms
    FROM work
    WHERE state = 'done' AND finished_at IS NOT NULL AND "index" = :index AND mask_policy = :mask_policy
), newest AS (
    SELECT finished_at FROM looks WHERE farms BETWEEN :low AND :high ORDER BY finished_at DESC LIMIT :scenes
), gaps AS (
    SELECT extract(epoch FROM finished_at - lag(finished_at) OVER (ORDER BY finished_at)) AS seconds FROM newest
)
SELECT count(*), coalesce(sum(seconds), 0) FROM gaps WHERE seconds <= :longest
"""
