"""Observations: stored in bulk, each pass over a farm once, and read back."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Connection, RowMapping, Text, and_, func, literal, select, text
from sqlalchemy.dialects.postgresql import UUID

from models.domain import INDEX as INDEX
from models.domain import Observation, Status
from models.observation_rows import KEY, STORED, row_of
from models.revision import lock_revisions
from models.schema import ensure_partitions
from models.tables import farms, observations

EXPORT_COLUMNS = (
    *("external_farm_id", "acquired_at", "day", "status", "ndvi", "rule", "clear_fraction"),
    *("mean", "std", "min", "max", "median", "p10", "p25", "p75", "p90", "inner_mean", "inner_pixel_count"),
    *("clear_area_ha", "pixel_count", "item_ids", "processing_baseline", "catalog", "revision"),
)
"""What an export tells of an observation, in this order."""

ROWS_AT_ONCE = 1_000
"""Rows that a streaming query holds in memory."""

ONE_DAY = dt.timedelta(days=1)
"""More than catalogs differ in when a pass was over a farm, and than a solar day from the UTC day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveOutcome:
    """What saving a list of observations changed, in observations."""

    inserted: int
    replaced: int
    """Another content than the one stored, or the same pass told at another instant."""
    unchanged: int
    changed_farm_ids: tuple[int, ...]
    """Farms with an observation inserted or replaced, in order."""


def save_observations(connection: Connection, given: Sequence[Observation]) -> SaveOutcome:
    """Store observations of any farms and passes; what is stored already with the same content is left alone.

    Runs inside the caller's transaction, so that all land or none. From here until it ends, other writers of farms
    and observations wait: call it late, and before the ledger. Identical is what has the same
    `content_of`. An observation of the same content from other inputs keeps its revision and notes the inputs. A
    pass over a farm is observed once: told at another instant (catalogs differ), it takes the place of the first.

    Raises:
        ValueError: the same pass over a farm is given twice, or an instant has no time zone.
    """
    if not given:
        return SaveOutcome(inserted=0, replaced=0, unchanged=0, changed_farm_ids=())
    _check(given)
    first = min(each.acquired_at for each in given).astimezone(dt.UTC)
    last = max(each.acquired_at for each in given).astimezone(dt.UTC)
    _stage(connection, given)
    lock_revisions(connection)
    ensure_partitions(connection, first.date(), last.date())
    # The bounds are what lets Postgres leave the other years alone.
    connection.execute(text(_REMOVE_MOVED), {"first": first - ONE_DAY, "last": last + ONE_DAY})
    connection.execute(text(_MATCH), {"first": first, "last": last})
    connection.execute(text(_WRITE))
    connection.execute(text(_NOTE_INPUTS), {"first": first, "last": last})
    counted = connection.execute(text(_COUNT)).one()
    return SaveOutcome(
        inserted=counted.inserted,
        replaced=counted.replaced,
        unchanged=counted.unchanged,
        changed_farm_ids=tuple(counted.changed_farm_ids),
    )


def _check(given: Sequence[Observation]) -> None:
    if any(each.acquired_at.tzinfo is None for each in given):
        raise ValueError("acquired_at must have a time zone")
    for instant_or_pass in ("acquired_at", "pass_id"):
        keys = {
            (each.farm_id, each.boundary_version, getattr(each, instant_or_pass), each.index, each.mask_policy)
            for each in given
        }
        if len(keys) < len(given):
            raise ValueError(f"a farm is given twice with the same {instant_or_pass}")


def _stage(connection: Connection, given: Sequence[Observation]) -> None:
    connection.execute(text("DROP TABLE IF EXISTS pg_temp.staged_observations"))
    connection.execute(text(_STAGED))
    connection.execute(text(_MARKS))
    driver = connection.connection.driver_connection
    assert driver is not None
    with driver.cursor() as cursor, cursor.copy(f"COPY staged_observations ({_COLUMNS}) FROM STDIN") as copy:
        for each in given:
            copy.write_row(row_of(each))
    connection.execute(text("ANALYZE pg_temp.staged_observations"))


_COLUMNS = ", ".join(f'"{name}"' for name in STORED)
_SAME_ROW = " AND ".join(f'o."{name}" = s."{name}"' for name in KEY)

_STAGED = f"""
CREATE TEMPORARY TABLE staged_observations ON COMMIT DROP AS
SELECT {_COLUMNS} FROM observations WITH NO DATA
"""  # noqa: S608

_MARKS = """
ALTER TABLE staged_observations
    ADD COLUMN is_moved boolean NOT NULL DEFAULT false,
    ADD COLUMN is_changed boolean NOT NULL DEFAULT true,
    ADD COLUMN stored_inputs text
"""

_REMOVE_MOVED = f"""
WITH moved AS (
    DELETE FROM observations AS o USING staged_observations AS s
    WHERE (o.farm_id, o.boundary_version, o.pass_id, o."index", o.mask_policy)
        = (s.farm_id, s.boundary_version, s.pass_id, s."index", s.mask_policy)
        AND o.acquired_at <> s.acquired_at
        AND o.acquired_at BETWEEN :first AND :last
    RETURNING s.farm_id, s.boundary_version, s.acquired_at, s."index", s.mask_policy
)
UPDATE staged_observations AS s SET is_moved = true
FROM moved AS o
WHERE {_SAME_ROW}
"""  # noqa: S608

_MATCH = f"""
UPDATE staged_observations AS s
SET is_changed = s.is_moved OR o.content <> s.content, stored_inputs = o.inputs
FROM observations AS o
WHERE {_SAME_ROW} AND o.acquired_at BETWEEN :first AND :last
"""  # noqa: S608

_WRITE = f"""
INSERT INTO observations ({_COLUMNS})
SELECT {_COLUMNS} FROM staged_observations WHERE is_changed ORDER BY farm_id, acquired_at
ON CONFLICT (farm_id, boundary_version, acquired_at, "index", mask_policy) DO UPDATE
SET {", ".join(f'"{name}" = excluded."{name}"' for name in STORED if name not in KEY)},
    revision = excluded.revision, updated_at = now()
"""  # noqa: S608

_NOTE_INPUTS = f"""
UPDATE observations AS o SET inputs = s.inputs
FROM staged_observations AS s
WHERE {_SAME_ROW} AND o.acquired_at BETWEEN :first AND :last
    AND NOT s.is_changed AND s.stored_inputs <> s.inputs
"""  # noqa: S608

_COUNT = """
SELECT count(*) FILTER (WHERE is_changed AND NOT is_moved AND stored_inputs IS NULL) AS inserted,
       count(*) FILTER (WHERE is_changed AND (is_moved OR stored_inputs IS NOT NULL)) AS replaced,
       count(*) FILTER (WHERE NOT is_changed) AS unchanged,
       coalesce(array_agg(DISTINCT farm_id ORDER BY farm_id) FILTER (WHERE is_changed), '{}') AS changed_farm_ids
FROM staged_observations
"""


def observed_inputs(
    connection: Connection,
    pass_ids: Collection[str],
    *,
    index: str,
    mask_policy: str,
    farm_ids: Collection[int] | None = None,
) -> dict[str, dict[tuple[int, int], str]]:
    """Return for each pass that was observed what each (farm, boundary version) was observed from.

    Of all farms, or of those named.

    A pass over many farms takes some 100 bytes for each; ask for one pass at a time where there are many.
    """
    o = observations.c
    query = select(o.pass_id, o.farm_id, o.boundary_version, o.inputs).where(
        o.pass_id == func.any(literal(sorted(set(pass_ids)), ARRAY(Text))),
        o.index == index,
        o.mask_policy == mask_policy,
    )
    if farm_ids is not None:
        query = query.where(o.farm_id == func.any(literal(sorted(set(farm_ids)), ARRAY(BigInteger))))
    found: dict[str, dict[tuple[int, int], str]] = {}
    farm_versions: dict[tuple[int, int], tuple[int, int]] = {}
    digests: dict[str, str] = {}
    with connection.execute(query, execution_options={"stream_results": True, "yield_per": 10_000}) as rows:
        for pass_id, farm_id, version, inputs in rows:
            farm = farm_versions.setdefault((farm_id, version), (farm_id, version))
            found.setdefault(pass_id, {})[farm] = digests.setdefault(inputs, inputs)
    return found


def observed_status(
    connection: Connection, pass_id: str, farm_ids: Collection[int], *, inputs: str, index: str, mask_policy: str
) -> dict[tuple[int, int], Status]:
    """Return how each (farm, boundary version) of these farms came out that was observed in this pass from `inputs`."""
    o = observations.c
    query = select(o.farm_id, o.boundary_version, o.status).where(
        o.pass_id == pass_id,
        o.farm_id == func.any(literal(sorted(set(farm_ids)), ARRAY(BigInteger))),
        o.inputs == inputs,
        o.index == index,
        o.mask_policy == mask_policy,
    )
    return {(farm_id, version): Status(status) for farm_id, version, status in connection.execute(query)}


def export_observations(
    connection: Connection,
    *,
    start: dt.date | None,
    end: dt.date | None,
    mask_policy: str,
    external_ids: Collection[uuid.UUID] | None = None,
    index: str = INDEX,
) -> Iterator[dict[str, Any]]:
    """Yield observations as `EXPORT_COLUMNS`, sorted by farm and instant, some at a time.

    Only those of each farm's present boundary: of all active farms, or of those named, active or not.

    Args:
        connection: where they are stored.
        start: first solar day; None from the beginning.
        end: last solar day, included; None to the end.
        mask_policy: the one whose observations are wanted.
        external_ids: the farms that are wanted; None means all that are active.
        index: the one whose observations are wanted.
    """
    columns = [farms.c.external_farm_id, *(observations.c[name] for name in EXPORT_COLUMNS[1:])]
    query = (
        select(*columns)
        .join_from(observations, farms, _PRESENT)
        .where(observations.c.index == index, observations.c.mask_policy == mask_policy)
    )
    if external_ids is None:
        query = query.where(farms.c.is_active)
    else:
        wanted = literal(sorted(set(external_ids)), ARRAY(UUID(as_uuid=True)))
        query = query.where(farms.c.external_farm_id == func.any(wanted))
    if start is not None:
        query = query.where(observations.c.day >= start, observations.c.acquired_at >= _midnight(start) - ONE_DAY)
    if end is not None:
        query = query.where(observations.c.day <= end, observations.c.acquired_at < _midnight(end) + 2 * ONE_DAY)
    query = query.order_by(farms.c.external_farm_id, observations.c.acquired_at)
    options = {"stream_results": True, "yield_per": ROWS_AT_ONCE}
    with connection.execute(query, execution_options=options) as rows:
        for row in rows.mappings():
            yield _in_utc(row)


_PRESENT = and_(observations.c.farm_id == farms.c.id, observations.c.boundary_version == farms.c.boundary_version)


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def observation_of(
    connection: Connection, external_id: uuid.UUID, day: dt.date, mask_policy: str, *, index: str = INDEX
) -> list[dict[str, Any]]:
    """Return all that is stored of a farm's present boundary on a solar day: a row for each pass, in their order.

    Each has every column of the table, and `external_farm_id`; times are UTC.
    """
    o = observations.c
    query = (
        select(farms.c.external_farm_id, observations)
        .join_from(observations, farms, _PRESENT)
        .where(farms.c.external_farm_id == external_id, o.day == day, o.index == index, o.mask_policy == mask_policy)
        .where(o.acquired_at.between(_midnight(day) - ONE_DAY, _midnight(day) + 2 * ONE_DAY))
        .order_by(o.acquired_at)
    )
    return [_in_utc(row) for row in connection.execute(query).mappings()]


def _in_utc(row: RowMapping) -> dict[str, Any]:
    # Names that SQLAlchemy quotes come as a subclass of str, which orjson takes for no name.
    return {
        str(name): value.astimezone(dt.UTC) if isinstance(value, dt.datetime) else value for name, value in row.items()
    }
