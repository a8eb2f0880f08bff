"""Farms: stored in bulk, and found again."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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

from models.domain import Farm, FarmDraft
from models.errors import BadInput
from models.farm_sync import COUNT, IN_CONFLICT, OPERATOR, CopyIn, Ownership, Steps, storing
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


def upsert_farms(
    connection: Connection, drafts: Sequence[FarmDraft], *, reactivate: bool = False, client_id: int | None = None
) -> ImportOutcome:
    """Store farms by `external_farm_id`: new ones are created, others brought up to date, equal ones left alone.

    Runs inside the caller's transaction, so that all land or none. An owner that is not given does not erase the one
    that is known. A farm that was deactivated stays so, because somebody decided that, unless `reactivate` says
    otherwise. With a client of the API, the farms become that client's; without, they stay whose they are.

    Raises:
        BadInput: when a farm is given twice, or belongs to another client than the one given.
    """
    ownership = OPERATOR if client_id is None else Ownership(client_id=client_id, takes_unowned=True)
    _run(connection, storing(drafts, ownership=ownership, reactivate=reactivate))
    taken = [str(each) for each in connection.execute(text(IN_CONFLICT)).scalars()]
    if taken:
        shown = ", ".join(taken[:3]) + (" and others" if len(taken) > 3 else "")
        raise BadInput("client", f"these farms belong to another one: {shown}", allowed="farms of its own or of nobody")
    return ImportOutcome(**connection.execute(text(COUNT)).one()._asdict())


def _run(connection: Connection, steps: Steps) -> None:
    rows: Sequence[Any] | None = None
    while True:
        try:
            step = steps.send(rows)
        except StopIteration:
            return
        rows = ()
        if isinstance(step, CopyIn):
            driver = connection.connection.driver_connection
            assert driver is not None
            with driver.cursor() as cursor, cursor.copy(step.statement) as copy:
                for row in step.rows:
                    copy.write_row(row)
        else:
            result = connection.exec_driver_sql(step.statement, dict(step.values) if step.values else None)
            rows = result.all() if step.has_rows else ()


def farms_by_id(connection: Connection, ids: Collection[int]) -> list[Farm]:
    """Return the farms with these ids, active or not, in order of id; unknown ids are left out."""
    wanted = literal(sorted(set(ids)), ARRAY(BigInteger))
    return [_farm(row) for row in connection.execute(_selected().where(farms.c.id == func.any(wanted)))]


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
        query = query.where(touching(bbox))
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


def touching(bbox: tuple[float, float, float, float]) -> ColumnElement[bool]:
    """A condition on farms: their own box touches this one; west > east across the antimeridian.

    Raises:
        BadInput: the box is out of range.
    """
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
