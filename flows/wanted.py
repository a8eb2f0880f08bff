"""Which farms a run is for: all, those that are named, or those in a box."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence

from sqlalchemy import Connection

from models.domain import Farm
from models.errors import BadInput
from models.farms import active_farms


def wanted_farms(
    connection: Connection, external_ids: Collection[uuid.UUID] | None, bbox: Sequence[float] | None
) -> list[Farm]:
    """The active farms in order of id: all for None twice, else those named that touch the box.

    Raises:
        BadInput: one that is named is not there or not active, the box is out of range, or no farm is left.
    """
    if bbox is not None and len(bbox) != 4:
        raise BadInput("bbox", f"has {len(bbox)} numbers", allowed="west, south, east, north in degrees")
    if bbox is None or external_ids is not None:
        farms = list(active_farms(connection, external_ids=external_ids))
        unknown = set(external_ids or ()) - {farm.external_farm_id for farm in farms}
        if unknown:
            problem = f"no active farm {', '.join(sorted(map(str, unknown)))}"
            raise BadInput("farm", problem, allowed="see `swath farms list`")
    if bbox is not None:
        west, south, east, north = bbox
        farms = list(active_farms(connection, external_ids=external_ids, bbox=(west, south, east, north)))
        if not farms:
            raise BadInput("bbox", "none of the farms touches it", allowed="west, south, east, north in degrees")
    return farms
