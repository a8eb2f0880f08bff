"""What the weather meant for crops at farms, asked by SQLAlchemy; see `models.agronomy_sums`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection

from sqlalchemy import Connection, text

from models.agronomy_sums import AGRONOMY, Agronomy, CropLimits, agronomy_parameters

__all__ = ["Agronomy", "CropLimits", "agronomy"]


def agronomy(
    connection: Connection,
    farm_ids: Collection[int],
    *,
    start: dt.date,
    end: dt.date,
    limits: CropLimits | None = None,
) -> list[Agronomy]:
    """Return what the weather from `start` to `end`, UTC days both included, meant at each of these farms, in order.

    Farms without any cell are left out. An hour told at `t` is the instant `t`; hours of the range begin with the
    first midnight and end before the last.

    Raises:
        ValueError: `end` is before `start`.
    """
    given = agronomy_parameters(start, end, limits=limits) | {"farm_ids": sorted(set(farm_ids))}
    return [Agronomy(**row) for row in connection.execute(text(AGRONOMY), given).mappings()]
