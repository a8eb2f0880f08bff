"""Farms: stored in bulk, and found again."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    case,
    func,
    literal,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from models.boundaries import is_same_boundary
from models.domain import Farm, FarmDraft
from models.errors import BadInput
from models.revision import lock_revisions
from models.tables import farm_boundaries, farms

MAX_LISTED = 10_000
"""Most farms of one page of `list_farms`."""

ROWS_AT_ONCE = 1_000
"""Rows that a streaming query holds in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOutcome:
    """What storing a list of farms changed, in farms."""

    created: int
    updated: int
    unchanged: int
    new_boundaries: int
    """Of those updated, how many have another boundary than before, and so a new version of it."""
    reactivated: int
    """Of those updated, how many were inactive before."""
    inactive: int
    """Given, and still inactive: no imagery is read for them."""


def upsert_farms(connection: Connection, drafts: Sequence[FarmDraft], *, reactivate: bool = False) -> ImportOutcome:
    """Store farms by `external_farm_id`: new ones are created, others brought up to date, equal ones left alone.

    Runs inside the caller's transaction, so that all land or none. An owner that is not given does not erase the one
    that is known. A farm that was deactivated stays so, because somebody decided that, unless `reactivate` says
    otherwise.

    Raises:
        BadInput: when a farm is given twice.
    """
    if len({draft.external_farm_id for draft in drafts}) < len(drafts):
        raise BadInput("external_farm_id", "a farm is given twice", allowed="each farm once")
    _stage(connection, drafts)
    lock_revisions(connection)
    _compare(connection, reactivate=reactivate)
    connection.execute(text(_WRITE_FARMS))
    connection.execute(text(_WRITE_BOUNDARIES))
    return ImportOutcome(**connection.execute(text(_COUNT)).one()._asdict())


def _stage(connection: Connection, drafts: Sequence[FarmDraft]) -> None:
    connection.execute(text("DROP TABLE IF EXISTS pg_temp.staged_farms"))
    connection.execute(text(_STAGED))
    driver = connection.connection.driver_connection
    assert driver is not None
    with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
        for draft in drafts:
            given = (draft.external_farm_id, draft.external_user_id, draft.name)
            copy.write_row((*given, *draft.bbox, draft.area_ha, draft.boundary))
    connection.execute(text("ANALYZE pg_temp.staged_farms"))


def _compare(connection: Connection, *, reactivate: bool) -> None:
    """Find each staged farm's stored row, and keep the stored boundary where the new one is the same shape."""
    connection.execute(text(_MATCH), {"reactivate": reactivate})
    differing = connection.execute(text(_DIFFERING), execution_options={"stream_results": True, "yield_per": 1_000})
    same = [row.farm_id for row in differing if is_same_boundary(bytes(row.stored), bytes(row.given))]
    if same:
        connection.execute(
            text("UPDATE staged_farms SET has_new_boundary = false WHERE farm_id = ANY(:ids)"), {"ids": same}
        )
    connection.execute(text(_DECIDE))


_STAGED = """
CREATE TEMPORARY TABLE staged_farms (
    place integer GENERATED ALWAYS AS IDENTITY,
    external_farm_id uuid PRIMARY KEY,
    external_user_id text,
    name text NOT NULL,
    west double precision NOT NULL,
    south double precision NOT NULL,
    east double precision NOT NULL,
    north double precision NOT NULL,
    area_ha double precision NOT NULL,
    wkb bytea NOT NULL,
    farm_id bigint,
    version integer NOT NULL DEFAULT 1,
    was_active boolean,
    is_active boolean NOT NULL DEFAULT true,
    has_new_boundary boolean NOT NULL DEFAULT true,
    is_changed boolean NOT NULL DEFAULT true
) ON COMMIT DROP
"""

_COPY = """
COPY staged_farms (external_farm_id, external_user_id, name, west, south, east, north, area_ha, wkb) FROM STDIN
"""

_MATCH = """
UPDATE staged_farms AS s
SET farm_id = f.id, version = f.boundary_version, was_active = f.is_active,
    is_active = f.is_active OR :reactivate, has_new_boundary = b.wkb IS DISTINCT FROM s.wkb,
    external_user_id = coalesce(s.external_user_id, f.external_user_id)
FROM farms AS f LEFT JOIN farm_boundaries AS b ON b.farm_id = f.id AND b.version = f.boundary_version
WHERE f.external_farm_id = s.external_farm_id
"""

_DIFFERING = """
SELECT s.farm_id, b.wkb AS stored, s.wkb AS given
FROM staged_farms AS s JOIN farm_boundaries AS b ON b.farm_id = s.farm_id AND b.version = s.version
WHERE s.has_new_boundary
"""

# Box and area belong to the boundary: they stay as they are when it does.
_DECIDE = """
UPDATE staged_farms AS s
SET version = f.boundary_version + has_new_boundary::integer,
    west = CASE WHEN has_new_boundary THEN s.west ELSE f.west END,
    south = CASE WHEN has_new_boundary THEN s.south ELSE f.south END,
    east = CASE WHEN has_new_boundary THEN s.east ELSE f.east END,
    north = CASE WHEN has_new_boundary THEN s.north ELSE f.north END,
    area_ha = CASE WHEN has_new_boundary THEN s.area_ha ELSE f.area_ha END,
    is_changed = has_new_boundary
        OR (s.name, s.external_user_id, s.is_active) IS DISTINCT FROM (f.name, f.external_user_id, f.is_active)
FROM farms AS f
WHERE f.id = s.farm_id
"""

_WRITE_FARMS = """
INSERT INTO farms (external_farm_id, external_user_id, name, is_active, boundary_version,
                   west, south, east, north, area_ha)
SELECT external_farm_id, external_user_id, name, is_active, version, west, south, east, north, area_ha
FROM staged_farms
WHERE is_changed
ORDER BY place
ON CONFLICT (external_farm_id) DO UPDATE
SET external_user_id = excluded.external_user_id, name = excluded.name, is_active = excluded.is_active,
    boundary_version = excluded.boundary_version, west = excluded.west, south = excluded.south,
    east = excluded.east, north = excluded.north, area_ha = excluded.area_ha,
    revision = excluded.revision, updated_at = now()
"""

_WRITE_BOUNDARIES = """
INSERT INTO farm_boundaries (farm_id, version, wkb)
SELECT f.id, s.version, s.wkb
FROM staged_farms AS s JOIN farms AS f USING (external_farm_id)
WHERE s.has_new_boundary
"""

_COUNT = """
SELECT count(*) FILTER (WHERE farm_id IS NULL) AS created,
       count(*) FILTER (WHERE farm_id IS NOT NULL AND is_changed) AS updated,
       count(*) FILTER (WHERE NOT is_changed) AS unchanged,
       count(*) FILTER (WHERE farm_id IS NOT NULL AND has_new_boundary) AS new_boundaries,
       count(*) FILTER (WHERE NOT was_active AND is_active) AS reactivated,
       count(*) FILTER (WHERE NOT is_active) AS inactive
FROM staged_farms
"""


def farms_by_id(connection: Connection, ids: Collection[int]) -> list[Farm]:
    """Return the farms with these ids, active or not, in order of id; unknown ids are left out."""
    wanted = literal(sorted(set(ids)), ARRAY(BigInteger))
    return [_farm(row) for row in connection.execute(_selected().where(farms.c.id == func.any(wanted)))]


def active_farms(connection: Connection, *, external_ids: Collection[uuid.UUID] | None = None) -> Iterator[Farm]:
    """Yield the active farms in order of id, some at a time: all of them, or those of `external_ids` that there are."""
    query = _selected().where(farms.c.is_active)
    if external_ids is not None:
        query = query.where(_is_among(external_ids))
    return _streamed(connection, query)


def stored_farms(
    connection: Connection, *, include_inactive: bool = False, external_ids: Collection[uuid.UUID] | None = None
) -> Iterator[Farm]:
    """Yield the farms, or those of `external_ids` that there are, in order of `external_farm_id`, some at a time."""
    query = _selected().order_by(None).order_by(farms.c.external_farm_id)
    if external_ids is not None:
        query = query.where(_is_among(external_ids))
    return _streamed(connection, query if include_inactive else query.where(farms.c.is_active))


def _is_among(external_ids: Collection[uuid.UUID]) -> ColumnElement[bool]:
    return farms.c.external_farm_id == func.any(literal(sorted(set(external_ids)), ARRAY(UUID(as_uuid=True))))


def list_farms(
    connection: Connection,
    *,
    bbox: tuple[float, float, float, float] | None = None,
    limit: int = 100,
    after: int | None = None,
    include_inactive: bool = False,
) -> list[Farm]:
    """Return one page of farms in order of id.

    Args:
        connection: where they are stored.
        bbox: west, south, east, north in degrees: farms whose own box touches it; west > east across the antimeridian.
        limit: most farms of the page.
        after: id of the last farm of the page before.
        include_inactive: deactivated farms too.

    Raises:
        BadInput: when the limit or the box is out of range.
    """
    if not 1 <= limit <= MAX_LISTED:
        raise BadInput("limit", f"is {limit}", allowed=f"1 to {MAX_LISTED:,}")
    query = _selected().limit(limit)
    if bbox is not None:
        query = query.where(_touches(bbox))
    if after is not None:
        query = query.where(farms.c.id > after)
    if not include_inactive:
        query = query.where(farms.c.is_active)
    return [_farm(row) for row in connection.execute(query)]


def count_farms(connection: Connection, *, include_inactive: bool = False) -> int:
    """Return how many farms there are."""
    query = select(func.count()).select_from(farms)
    return connection.execute(query if include_inactive else query.where(farms.c.is_active)).scalar_one()


def _selected() -> Select[tuple[object, ...]]:
    current = and_(farm_boundaries.c.farm_id == farms.c.id, farm_boundaries.c.version == farms.c.boundary_version)
    return select(farms, farm_boundaries.c.wkb).join_from(farms, farm_boundaries, current).order_by(farms.c.id)


def _streamed(connection: Connection, query: Select[tuple[object, ...]]) -> Iterator[Farm]:
    options = {"stream_results": True, "yield_per": ROWS_AT_ONCE}
    with connection.execute(query, execution_options=options) as rows:
        for row in rows:
            yield _farm(row)


def _farm(row: Row[tuple[object, ...]]) -> Farm:
    return Farm(
        id=row.id,
        external_farm_id=row.external_farm_id,
        name=row.name,
        external_user_id=row.external_user_id,
        boundary_version=row.boundary_version,
        boundary=bytes(row.wkb),
        bbox=(row.west, row.south, row.east, row.north),
        area_ha=row.area_ha,
        is_active=row.is_active,
    )


def _touches(bbox: tuple[float, float, float, float]) -> ColumnElement[bool]:
    west, south, east, north = bbox
    if not (-90 <= south <= north <= 90 and -180 <= west <= 180 and -180 <= east <= 180):
        raise BadInput("bbox", f"is {bbox}", allowed="west, south, east, north in degrees, south <= north")
    spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    farm = farms.c
    beside = or_(
        *(
            case(
                (farm.west <= farm.east, and_(farm.west <= span_east, farm.east >= span_west)),
                else_=or_(farm.west <= span_east, farm.east >= span_west),
            )
            for span_west, span_east in spans
        )
    )
    return and_(farm.south <= north, farm.north >= south, beside)
