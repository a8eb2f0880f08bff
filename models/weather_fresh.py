"""Which cells have the hours that the newest model run tells, so that no run is asked for twice."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection

from sqlalchemy import Connection, text


def cells_without_hours(
    connection: Connection, cell_keys: Collection[str], *, model: str, hour: dt.datetime, told_since: dt.datetime
) -> set[str]:
    """Return those of these cells whose forecast of an hour was not told since then, or not at all.

    A forecast is asked for with all its hours, so that one stands for all.

    Args:
        connection: where readings are stored.
        cell_keys: cells, known already or not.
        model: whose forecast is wanted.
        hour: the hour looked at, such as the present one.
        told_since: older forecasts do not count.
    """
    given = {"keys": sorted(set(cell_keys)), "model": model, "hour": hour, "told_since": told_since}
    return set(connection.execute(text(_WITHOUT_HOURS), given).scalars())


_WITHOUT_HOURS = """
SELECT k.key
FROM unnest(CAST(:keys AS text[])) AS k(key)
LEFT JOIN weather_cells AS c ON c.key = k.key
LEFT JOIN weather_hourly AS r ON r.cell_id = c.id AND r.at = :hour AND r.model = :model AND r.kind = 'forecast'
    AND r.told_at >= :told_since
WHERE r.cell_id IS NULL
"""
