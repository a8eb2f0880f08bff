"""Farms as the API gives them out and takes them back, over asyncio. Loaded by serving: no SQLAlchemy here."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from models.domain import Farm, FarmDraft
from models.farm_sync import Ownership, Synced, sync_farms
from models.places import Bbox
from models.revision import TAKE_LOCK

MOST_PAGE_BYTES = 4 * 1024**2
"""Boundaries on one page, as bytes: 250,000 vertices. A page of large farms is shorter than was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFarm:
    """A farm, and what is known of its row."""

    farm: Farm
    revision: int
    created_at: dt.datetime
    updated_at: dt.datetime


def stored_farm(row: Mapping[str, Any]) -> StoredFarm:
    """Make a farm of a row of `ONE_FARM` or of a page."""
    return StoredFarm(
        farm=Farm(
            id=row["id"],
            external_farm_id=row["external_farm_id"],
            name=row["name"],
            external_user_id=row["external_user_id"],
            boundary_version=row["boundary_version"],
            boundary=bytes(row["wkb"]),
            bbox=(row["west"], row["south"], row["east"], row["north"]),
            area_ha=row["area_ha"],
            is_active=row["is_active"],
        ),
        revision=row["revision"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


_COLUMNS = """
f.id, f.external_farm_id, f.external_user_id, f.name, f.is_active, f.boundary_version,
f.west, f.south, f.east, f.north, f.area_ha, f.revision, f.created_at, f.updated_at
"""

ONE_FARM = f"""
SELECT {_COLUMNS}, b.wkb
FROM farms AS f JOIN farm_boundaries AS b ON b.farm_id = f.id AND b.version = f.boundary_version
WHERE f.external_farm_id = %(external_farm_id)s AND (%(sees_all)s OR f.client_id = %(client_id)s::bigint)
"""  # noqa: S608
"""A farm that is there and theirs to see; otherwise no row, and no way to tell the one from the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which farms a list is to have."""

    client_id: int | None
    sees_all: bool
    external_user_id: str | None = None
    bbox: Bbox | None = None
    is_active: bool | None = True
    """None: both."""
    after: int = 0
    """Id of the last farm of the page before."""
    limit: int = 100


def page_query(wanted: Wanted) -> tuple[str, dict[str, Any]]:
    """Return the query for one page of farms in order of id, and its values.

    Each row is as of `ONE_FARM`, with `found`: how many there are up to one more than the limit. A page ends early
    when its boundaries are large.
    """
    conditions = ["f.id > %(after)s"]
    values: dict[str, Any] = {"after": wanted.after, "limit": wanted.limit + 1}
    if not wanted.sees_all:
        conditions.append("f.client_id = %(client_id)s::bigint")
        values["client_id"] = wanted.client_id
    if wanted.external_user_id is not None:
        conditions.append("f.external_user_id = %(external_user_id)s")
        values["external_user_id"] = wanted.external_user_id
    if wanted.is_active is not None:
        conditions.append("f.is_active" if wanted.is_active else "NOT f.is_active")
    if wanted.bbox is not None:
        conditions.append(_TOUCHES)
        values |= dict(zip(("west", "south", "east", "north"), wanted.bbox, strict=True))
        values["east"] += 360 * (values["west"] > values["east"])
    return _PAGE.replace("conditions", " AND ".join(conditions)), values | {"most_bytes": MOST_PAGE_BYTES}


# Longitudes run on past 180 degrees for whoever lies across the antimeridian, so that one comparison serves, a turn
# to either side.
_TOUCHES = """
f.south <= %(north)s AND f.north >= %(south)s AND EXISTS (
    SELECT 1 FROM unnest(ARRAY[-360, 0, 360]) AS turn
    WHERE f.west <= %(east)s + turn
        AND f.east + CASE WHEN f.west > f.east THEN 360 ELSE 0 END >= %(west)s + turn
)
"""

_PAGE = f"""
SELECT * FROM (
    SELECT f.*, b.wkb, count(*) OVER () AS found,
           sum(octet_length(b.wkb)) OVER (ORDER BY f.id) - octet_length(b.wkb) AS bytes_before
    FROM (SELECT {_COLUMNS} FROM farms AS f WHERE conditions ORDER BY f.id LIMIT %(limit)s) AS f
    JOIN farm_boundaries AS b ON b.farm_id = f.id AND b.version = f.boundary_version
) AS sized
WHERE bytes_before < %(most_bytes)s
ORDER BY id
"""  # noqa: S608


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is to be another than before; None leaves it."""

    name: str | None = None
    external_user_id: str | None = None
    is_active: bool | None = None
    boundary: bytes | None = None
    bbox: Bbox | None = None
    area_ha: float | None = None
    """Box and area come with the boundary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A farm after it was changed."""

    stored: StoredFarm
    synced: Synced


async def change_farm(
    connection: AsyncConnection[Any],
    external_farm_id: uuid.UUID,
    changes: Changes,
    *,
    ownership: Ownership,
    check: Callable[[StoredFarm], None] = lambda _stored: None,
) -> Changed | None:
    """Change a farm and return it; None when there is none that may be changed.

    Runs inside the caller's transaction; other writers of farms wait until it ends. Another boundary is a new version
    of it: what was observed stays with the old one. `check` is given the farm as it was, and may raise.
    """
    await connection.execute(TAKE_LOCK.encode())
    known = await farm_by_external_id(connection, external_farm_id, ownership=ownership)
    if known is None:
        return None
    check(known)
    farm = known.farm
    draft = FarmDraft(
        external_farm_id=external_farm_id,
        name=changes.name or farm.name,
        external_user_id=changes.external_user_id or farm.external_user_id,
        boundary=farm.boundary,
        bbox=farm.bbox,
        area_ha=farm.area_ha,
        feature="body",
        is_active=changes.is_active,
    )
    if changes.boundary is not None and changes.bbox is not None and changes.area_ha is not None:
        draft = replace(draft, boundary=changes.boundary, bbox=changes.bbox, area_ha=changes.area_ha)
    [synced] = await sync_farms(connection, [draft], ownership=ownership)
    stored = await farm_by_external_id(connection, external_farm_id, ownership=ownership)
    assert stored is not None
    return Changed(stored=stored, synced=synced)


async def farm_by_external_id(
    connection: AsyncConnection[Any], external_farm_id: uuid.UUID, *, ownership: Ownership
) -> StoredFarm | None:
    """Return a farm, or None when there is none or it is somebody else's."""
    values = {
        "external_farm_id": external_farm_id,
        "client_id": ownership.client_id,
        "sees_all": ownership.may_change_all,
    }
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(ONE_FARM.encode(), values)
        row = await cursor.fetchone()
    return None if row is None else stored_farm(row)
