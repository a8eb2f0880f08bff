"""What changed since a revision, for psycopg: farms, their cells of weather, observations, days of weather.

Revisions become visible in order (`models.revision`), so a reader that has seen one has seen all before it, provided
that it reads all kinds from one snapshot: `SNAPSHOT` first, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping

from models.state import OBSERVATION
from models.weather import DAILY_VARIABLES

SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"

EVERYTHING = "true"
OF_CLIENT = "f.client_id = %(client)s"
"""Conditions on the farms that are told of."""


def changes_sql(which_farms: str) -> Mapping[str, str]:
    """The query of each kind of change, its rows by `revision`; parameters are `since`, `limit`, `index`,
    `mask_policy` and those of the condition."""
    return {kind: query.replace("which_farms", which_farms) for kind, query in _QUERIES.items()}


_OBSERVATION = ", ".join(f'o."{name}"' for name in OBSERVATION)
_DAILY = ", ".join(f"w.{name}" for name in DAILY_VARIABLES)

_QUERIES = {
    "farm": """
SELECT f.revision, f.external_farm_id, f.external_user_id, f.name, f.is_active, f.boundary_version, f.area_ha,
       ARRAY[f.west, f.south, f.east, f.north] AS bbox
FROM farms AS f
WHERE f.revision > %(since)s AND which_farms
ORDER BY f.revision LIMIT %(limit)s
""",
    "farm_cell": """
SELECT k.revision, f.external_farm_id, c.key AS cell, k.source
FROM farm_cells AS k JOIN farms AS f ON f.id = k.farm_id JOIN weather_cells AS c ON c.id = k.cell_id
WHERE k.revision > %(since)s AND which_farms
ORDER BY k.revision LIMIT %(limit)s
""",
    "observation": f"""
SELECT o.revision, f.external_farm_id, o.boundary_version, o.pass_id, {_OBSERVATION}
FROM observations AS o JOIN farms AS f ON f.id = o.farm_id
WHERE o.revision > %(since)s AND o."index" = %(index)s AND o.mask_policy = %(mask_policy)s AND which_farms
ORDER BY o.revision LIMIT %(limit)s
""",  # noqa: S608
    "weather_day": f"""
SELECT w.revision, c.key AS cell, c.source, w.day, w.model, w.kind AS weather_kind, w.is_final, {_DAILY}
FROM weather_daily AS w JOIN weather_cells AS c ON c.id = w.cell_id
WHERE w.revision > %(since)s AND EXISTS (
    SELECT 1 FROM farm_cells AS k JOIN farms AS f ON f.id = k.farm_id WHERE k.cell_id = w.cell_id AND which_farms
)
ORDER BY w.revision LIMIT %(limit)s
""",  # noqa: S608
}
