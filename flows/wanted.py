"""Which farms a run is for: all, those that are named, or those in a box."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence

from sqlalchemy import Connection

from models.errors import BadInput
from models.selection import Selection, count_selected, unknown_farms


def wanted_farms(
    connection: Connection, external_ids: Collection[uuid.UUID] | None, bbox: Sequence[float] | None
) -> tuple[Selection, int]:
    """Select the active farms, all for None twice, else those named that touch the box; and count them.

    Raises:
        BadInput: one that is named is not there or not active, the box is out of range, or no farm is left.
    """
    if external_ids is not None and (unknown := unknown_farms(connection, external_ids)):
        problem = f"no active farm {', '.join(sorted(map(str, unknown)))}"
        raise BadInput("farm", problem, allowed="active farms, see `swath farms list`")
    named = None if external_ids is None else frozenset(external_ids)
    if bbox is None:
        selection = Selection(external_ids=named)
        return selection, count_selected(connection, selection)
    if len(bbox) != 4:
        raise BadInput("bbox", f"has {len(bbox)} numbers", allowed="west, south, east, north in degrees")
    west, south, east, north = bbox
    selection = Selection(external_ids=named, bbox=(west, south, east, north))
    count = count_selected(connection, selection)
    if not count:
        raise BadInput("bbox", "none of the farms touches it", allowed="west, south, east, north in degrees")
    return selection, count
