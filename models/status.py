"""How things stand, over everything that is stored, in a time that does not grow with the number of observations."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from sqlalchemy import Connection, text

from models.domain import SkippedItem
from models.ledger import skipped_items

COUNTED_BYTES = 256 << 20
"""Observations are counted up to this size, some 350,000 of them; of more, a sample of this size is read.

Counting forty million reads 28 GB, which takes minutes; an operator wants to know in a second how many there are and
which share is cloud.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedWork:
    """A scene in which farms could not be answered, and why."""

    pass_id: str
    tile_set: str
    mask_policy: str
    day: dt.date
    attempts: int
    pending_farms: int
    problem: str | None
    is_retryable: bool | None
    finished_at: dt.datetime
    failed_runs: int = 0
    """Runs in a row in which it failed."""
    not_before: dt.datetime | None = None
    """When a scheduled run may try it again."""
    given_up_at: dt.datetime | None = None
    """Since when scheduled runs leave it alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkStatus:
    """How things stand, over everything that is stored."""

    farms: int
    """Active ones."""
    scenes: int
    """Usable ones, of all catalogs."""
    skipped: dict[str, int]
    """Items that cannot be used, by reason, the most frequent first."""
    skipped_items: tuple[SkippedItem, ...]
    """Those noted last, at most as many as asked for."""
    observations: dict[str, int]
    """Of present boundaries, by status."""
    is_estimated: bool
    """The observations were not counted but estimated from a sample, to two digits."""
    newest_acquired_at: dt.datetime | None
    """Newest pass that was looked at, whatever came of it."""
    newest_observed_day: dt.date | None
    """Newest solar day with a value for some farm."""
    work: dict[str, int]
    """Units of work by state: planned, done, failed."""
    failed: tuple[FailedWork, ...]
    """Newest first, at most as many as asked for; those in which no active farm is pending are left out."""
    last_finished_at: dt.datetime | None


def work_status(connection: Connection, *, limit: int = 100, counted_bytes: int = COUNTED_BYTES) -> WorkStatus:
    """Return how things stand. Times are UTC.

    Args:
        connection: where it is stored.
        limit: most failed units of work, and most skipped items, that are told one by one.
        counted_bytes: how much of the observations is read to count them.
    """
    observations, is_estimated = _observations(connection, counted_bytes)
    one = connection.execute(text(_TOTALS)).one()
    failed = connection.execute(text(_FAILED), {"limit": limit}).mappings()
    return WorkStatus(
        farms=one.farms,
        scenes=one.scenes,
        skipped=_counts(connection, _SKIPPED),
        skipped_items=tuple(skipped_items(connection, limit=limit)),
        observations=observations,
        is_estimated=is_estimated,
        newest_acquired_at=_in_utc(one.newest_acquired_at),
        newest_observed_day=one.newest_observed_day,
        work=work_by_state(connection),
        failed=tuple(FailedWork(**{**row, **{name: _in_utc(row[name]) for name in _INSTANTS}}) for row in failed),
        last_finished_at=_in_utc(one.last_finished_at),
    )


def work_by_state(connection: Connection) -> dict[str, int]:
    """Return how many units of work are planned, done and failed; states that none is in are left out."""
    return _counts(connection, "SELECT state, count(*) FROM work GROUP BY 1 ORDER BY 1")


def _observations(connection: Connection, counted_bytes: int) -> tuple[dict[str, int], bool]:
    """Count observations by status, or estimate from a sample of this size; true when estimated."""
    stored_bytes = connection.execute(text(_STORED_BYTES)).scalar_one()
    if stored_bytes <= counted_bytes:
        return _counts(connection, _OBSERVATIONS.format(sample="")), False
    percent = 100 * counted_bytes / stored_bytes
    sampled = _counts(connection, _OBSERVATIONS.format(sample=f"TABLESAMPLE SYSTEM ({percent:.6f}) REPEATABLE (1)"))
    return {status: _to_two_digits(number * 100 / percent) for status, number in sampled.items()}, True


def _to_two_digits(number: float) -> int:
    return int(float(f"{number:.1e}"))


def _counts(connection: Connection, query: str) -> dict[str, int]:
    return {row[0]: row[1] for row in connection.execute(text(query))}


def _in_utc(instant: dt.datetime | None) -> dt.datetime | None:
    return None if instant is None else instant.astimezone(dt.UTC)


_TOTALS = """
SELECT (SELECT count(*) FROM farms WHERE is_active) AS farms,
       (SELECT count(*) FROM scenes WHERE document IS NOT NULL) AS scenes,
       (SELECT max(acquired_at) FROM work WHERE finished_at IS NOT NULL) AS newest_acquired_at,
       (SELECT day FROM observations WHERE ndvi IS NOT NULL ORDER BY day DESC LIMIT 1) AS newest_observed_day,
       (SELECT max(finished_at) FROM work) AS last_finished_at
"""

_SKIPPED = "SELECT skipped_reason, count(*) FROM scenes WHERE skipped_reason IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"

_STORED_BYTES = """
SELECT coalesce(sum(pg_relation_size(relid)), 0)::bigint FROM pg_partition_tree('observations') WHERE isleaf
"""

_OBSERVATIONS = """
SELECT o.status, count(*) FROM observations AS o {sample} JOIN farms AS f ON f.id = o.farm_id
WHERE o.boundary_version = f.boundary_version
GROUP BY 1 ORDER BY 1
"""

_INSTANTS = ("finished_at", "not_before", "given_up_at")

_FAILED = """
SELECT pass_id, tile_set, mask_policy, day, attempts, pending.farms AS pending_farms, problem, is_retryable,
       finished_at, failed_runs, not_before, given_up_at
FROM work CROSS JOIN LATERAL (
    SELECT count(*) AS farms FROM farms WHERE id = ANY(pending_farm_ids) AND is_active
) AS pending
WHERE state = 'failed' AND pending.farms > 0
ORDER BY acquired_at DESC, pass_id, tile_set
LIMIT :limit
"""
