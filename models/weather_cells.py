"""Which farm lies in which cell, so that each cell is fetched once, however many farms it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from models.revision import lock_revisions
from models.weather import Cell, Source
from models.weather_store import save_cells


@dataclass(frozen=True, slots=True, kw_only=True)
class CellOfFarm:
    """The cell of one source that a version of a farm's boundary lies in."""

    farm_id: int
    boundary_version: int
    cell: Cell


def assign_cells(connection: Connection, assignments: Sequence[CellOfFarm]) -> int:
    """Note the cell of each farm, one for each source, and return how many are new or other ones than before.

    Runs inside the caller's transaction; other writers of what carries a revision wait until it ends. An assignment
    for an older boundary than the one noted is left out, as are farms that do not exist.

    Raises:
        ValueError: a farm is given two cells of one source.
    """
    if len({(each.farm_id, each.cell.source) for each in assignments}) < len(assignments):
        raise ValueError("a farm is given two cells of one source")
    lock_revisions(connection)
    save_cells(connection, {each.cell for each in assignments})
    given = {
        "farm_ids": [each.farm_id for each in assignments],
        "sources": [each.cell.source.value for each in assignments],
        "versions": [each.boundary_version for each in assignments],
        "keys": [each.cell.key for each in assignments],
    }
    written = connection.execute(text(_ASSIGN), given).scalars()
    return sum(written)


_ASSIGN = """
WITH given AS (
    SELECT f.id AS farm_id, g.source, g.version, c.id AS cell_id, k.cell_id IS DISTINCT FROM c.id AS is_moved
    FROM unnest(CAST(:farm_ids AS bigint[]), CAST(:sources AS text[]), CAST(:versions AS integer[]),
                CAST(:keys AS text[])) AS g(farm_id, source, version, key)
    JOIN farms AS f ON f.id = g.farm_id
    JOIN weather_cells AS c ON c.key = g.key
    LEFT JOIN farm_cells AS k ON k.farm_id = f.id AND k.source = g.source
    WHERE k.farm_id IS NULL OR g.version > k.boundary_version
        OR (g.version = k.boundary_version AND k.cell_id <> c.id)
), written AS (
    INSERT INTO farm_cells (farm_id, source, boundary_version, cell_id)
    SELECT farm_id, source, version, cell_id FROM given ORDER BY farm_id, source
    ON CONFLICT (farm_id, source) DO UPDATE
    SET boundary_version = excluded.boundary_version, cell_id = excluded.cell_id,
        revision = CASE WHEN farm_cells.cell_id = excluded.cell_id THEN farm_cells.revision ELSE excluded.revision END
)
SELECT count(*) FROM given WHERE is_moved
"""


def farms_without_cell(connection: Connection, source: Source, *, key_prefix: str) -> list[int]:
    """Return the ids of active farms whose present boundary has no cell of this source's grid yet, in order.

    Args:
        connection: where they are stored.
        source: whose cell is wanted.
        key_prefix: how the keys of the grid in use begin, such as `om-0.1:`; cells of another grid do not count.
    """
    return list(connection.execute(text(_WITHOUT), {"source": source.value, "prefix": key_prefix}).scalars())


_WITHOUT = """
SELECT f.id FROM farms AS f
WHERE f.is_active AND NOT EXISTS (
    SELECT FROM farm_cells AS k JOIN weather_cells AS c ON c.id = k.cell_id
    WHERE k.farm_id = f.id AND k.source = :source AND k.boundary_version = f.boundary_version
        AND starts_with(c.key, :prefix)
)
ORDER BY f.id
"""


def cells_of_active_farms(connection: Connection, source: Source) -> dict[Cell, tuple[int, ...]]:
    """Return the cells of this source that hold active farms, in order of key, and the ids of those farms."""
    rows = connection.execute(text(_CELLS_OF_ACTIVE), {"source": source.value})
    return {
        Cell(source=source, key=row.key, latitude=row.latitude, longitude=row.longitude): tuple(row.farm_ids)
        for row in rows
    }


_CELLS_OF_ACTIVE = """
SELECT c.key, c.latitude, c.longitude, array_agg(f.id ORDER BY f.id) AS farm_ids
FROM farms AS f JOIN farm_cells AS k ON k.farm_id = f.id JOIN weather_cells AS c ON c.id = k.cell_id
WHERE f.is_active AND k.source = :source
GROUP BY c.id
ORDER BY c.key COLLATE "C"
"""
