"""Which farms something is for, and where they are: without their outlines, by area, some at a time.

A million farms with their outlines take more than a gigabyte. Who plans asks for boxes, some thousands at a time, and
for outlines of the few farms whose boxes leave a question open.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, BigInteger, Connection, Integer, Select, and_, column, func, literal, select
from sqlalchemy.dialects.postgresql import UUID

from models.farms import touching
from models.tables import farm_boundaries, farms

PLOTS_AT_ONCE = 50_000
"""Farms that are held in memory: some 15 MB."""
CELLS_PER_DEGREE = 2
SMALL_DEG = 1.0
"""A farm whose box is wider or higher may be parts that lie far apart."""

Box = tuple[float, float, float, float]


class Plot(NamedTuple):
    """A farm as a planner sees it: who, and the box around its present boundary in degrees."""

    farm_id: int
    boundary_version: int
    west: float
    south: float
    east: float
    north: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which of the active farms are meant: all; those that are named; those that touch a box; or both."""

    external_ids: frozenset[uuid.UUID] | None = None
    bbox: Box | None = None
    """west, south, east, north in degrees; west > east across the antimeridian."""

    @property
    def is_all(self) -> bool:
        """Whether no farm is left out."""
        return self.external_ids is None and self.bbox is None


def count_selected(connection: Connection, selection: Selection) -> int:
    """Return how many farms there are of those selected.

    Raises:
        BadInput: the box is out of range.
    """
    found: int = connection.execute(_only(select(func.count()).select_from(farms), selection)).scalar_one()
    return found


def selected_plots(
    connection: Connection, selection: Selection, *, at_once: int = PLOTS_AT_ONCE
) -> Iterator[list[Plot]]:
    """Yield the farms by area, so many at once: UTM zone by zone, and in each from south to north.

    Passes go from north to south, so that the farms of one list are seen by few of them.

    Raises:
        BadInput: the box is out of range.
    """
    zone = func.floor((farms.c.west + 180) / 6)
    query = _only(_plots(), selection).order_by(zone, farms.c.south, farms.c.id)
    with connection.execute(query, execution_options={"stream_results": True}) as rows:
        for part in rows.partitions(at_once):
            yield [Plot(*row) for row in part]


def selected_ids(connection: Connection, selection: Selection) -> list[int]:
    """Return the ids of the farms selected, in order.

    Raises:
        BadInput: the box is out of range.
    """
    return list(connection.execute(_only(select(farms.c.id), selection).order_by(farms.c.id)).scalars())


def plots_among(connection: Connection, selection: Selection, farm_ids: Collection[int]) -> list[Plot]:
    """Return those of these farms that are selected, in order of id."""
    among = farms.c.id == func.any(literal(sorted(set(farm_ids)), ARRAY(BigInteger)))
    return [Plot(*row) for row in connection.execute(_only(_plots(), selection).where(among).order_by(farms.c.id))]


def outlines(connection: Connection, versions: Mapping[int, int]) -> dict[int, bytes]:
    """Return the boundaries (WKB in longitude and latitude) of these farms in these versions."""
    boundary = farm_boundaries.c
    asked = (
        func.unnest(literal(list(versions), ARRAY(BigInteger)), literal(list(versions.values()), ARRAY(Integer)))
        .table_valued(column("farm_id", BigInteger), column("version", Integer), name="asked")
        .render_derived()
    )
    this_one = and_(boundary.farm_id == asked.c.farm_id, boundary.version == asked.c.version)
    rows = connection.execute(select(boundary.farm_id, boundary.wkb).join_from(asked, farm_boundaries, this_one))
    return {farm_id: bytes(wkb) for farm_id, wkb in rows}


def selected_hulls(connection: Connection, selection: Selection) -> tuple[list[Box], list[bytes]]:
    """Return where the farms are, for a search: boxes around those near each other, and the outlines of large ones.

    Farms whose south-west corners lie in one cell of half a degree share a box: however many there are, it is some
    ten thousand boxes over all the land of the earth.
    """
    f = farms.c
    is_small = and_(f.west <= f.east, f.east - f.west < SMALL_DEG, f.north - f.south < SMALL_DEG)
    sides = (func.min(f.west), func.min(f.south), func.max(f.east), func.max(f.north))
    cell = (func.floor(f.west * CELLS_PER_DEGREE), func.floor(f.south * CELLS_PER_DEGREE))
    near = _only(select(*sides), selection).where(is_small).group_by(*cell)
    hulls = [(west, south, east, north) for west, south, east, north in connection.execute(near)]
    present = and_(farm_boundaries.c.farm_id == f.id, farm_boundaries.c.version == f.boundary_version)
    large = _only(select(farm_boundaries.c.wkb).join_from(farms, farm_boundaries, present), selection).where(~is_small)
    return sorted(hulls), [bytes(wkb) for wkb in connection.execute(large.order_by(f.id)).scalars()]


def unknown_farms(connection: Connection, external_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Return those of these farms that are not there, or not active."""
    selection = Selection(external_ids=frozenset(external_ids))
    found = connection.execute(_only(select(farms.c.external_farm_id), selection)).scalars()
    return set(external_ids) - set(found)


def _plots() -> Select[Any]:
    f = farms.c
    return select(f.id, f.boundary_version, f.west, f.south, f.east, f.north)


def _only(query: Select[Any], selection: Selection) -> Select[Any]:
    query = query.where(farms.c.is_active)
    if selection.external_ids is not None:
        named = literal(sorted(selection.external_ids), ARRAY(UUID(as_uuid=True)))
        query = query.where(farms.c.external_farm_id == func.any(named))
    return query if selection.bbox is None else query.where(touching(selection.bbox))
