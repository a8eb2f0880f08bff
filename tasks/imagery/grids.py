"""Where the pixels of an asset lie, from its `proj:*` fields in either form."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from models.domain import Grid
from models.errors import ItemUnusable

_EPSG = re.compile(r"(?i)^epsg:(\d{4,6})$")
# Five times the side of a Sentinel-2 tile at 10 m; more is a mistake or worse.
_LONGEST_SIDE = 54_900
_PIXEL_TOLERANCE = 1e-6
# Metres; no UTM coordinate is farther from its origin than the pole is from the equator.
_FARTHEST = 10_100_000


def asset_grid(item: Mapping[str, Any], asset: Mapping[str, Any]) -> Grid:
    """The grid of one asset; its coordinate system may be told by the item, its shape and place only by itself.

    Raises:
        ItemUnusable: something is missing, or the grid is not a north-up grid of square pixels in a UTM zone.
    """
    epsg = _epsg(asset) or _epsg(item["properties"])
    if epsg is None:
        raise ItemUnusable("proj:epsg or proj:code missing")
    if not (32601 <= epsg <= 32660 or 32701 <= epsg <= 32760):
        raise ItemUnusable(f"EPSG:{epsg} is not a UTM zone")
    left, top, resolution, width, height = _placement(asset)
    if not (1 <= width <= _LONGEST_SIDE and 1 <= height <= _LONGEST_SIDE):
        raise ItemUnusable(f"{width} x {height} pixels are not a tile")
    return Grid(epsg=epsg, left=left, top=top, resolution_m=resolution, width=width, height=height)


def _epsg(fields: Mapping[str, Any]) -> int | None:
    code = fields.get("proj:code")
    if isinstance(code, str) and (match := _EPSG.match(code.strip())):
        return int(match[1])
    number = fields.get("proj:epsg")
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def _placement(asset: Mapping[str, Any]) -> tuple[float, float, float, int, int]:
    """left, top, resolution, width and height, from two of transform, shape and bbox."""
    transform = _numbers(asset.get("proj:transform"), counts=(6, 9))
    shape = _numbers(asset.get("proj:shape"), counts=(2,))
    bbox = _numbers(asset.get("proj:bbox"), counts=(4,))
    if transform is not None:
        left, top, resolution = _corner(transform)
        if shape is not None:
            return left, top, resolution, _whole(shape[1]), _whole(shape[0])
        if bbox is not None:
            size = ((bbox[2] - bbox[0]) / resolution, (bbox[3] - bbox[1]) / resolution)
            return left, top, resolution, _whole(size[0]), _whole(size[1])
    if shape is not None and bbox is not None:
        width, height = _whole(shape[1]), _whole(shape[0])
        across, down = ((bbox[2] - bbox[0]) / max(width, 1), (bbox[3] - bbox[1]) / max(height, 1))
        if across <= 0 or not math.isclose(across, down, rel_tol=_PIXEL_TOLERANCE):
            raise ItemUnusable("pixels are not square")
        return bbox[0], bbox[3], across, width, height
    raise ItemUnusable("proj:shape or proj:transform missing")


def _corner(transform: tuple[float, ...]) -> tuple[float, float, float]:
    across, row_turn, left, column_turn, down, top = transform[:6]
    if row_turn != 0 or column_turn != 0 or across <= 0 or down >= 0 or transform[6:] not in ((), (0, 0, 1)):
        raise ItemUnusable("grid is rotated")
    if not math.isclose(across, -down, rel_tol=_PIXEL_TOLERANCE):
        raise ItemUnusable("pixels are not square")
    return left, top, across


def _numbers(values: object, *, counts: tuple[int, ...]) -> tuple[float, ...] | None:
    """The values as numbers; None when they are absent, of another count, or not all numbers that can be."""
    if not isinstance(values, list | tuple) or len(values) not in counts:
        return None
    if not all(isinstance(value, int | float) and abs(value) <= _FARTHEST for value in values):
        return None
    return tuple(float(value) for value in values)


def _whole(number: float) -> int:
    if abs(number - round(number)) > _PIXEL_TOLERANCE * max(1.0, abs(number)):
        raise ItemUnusable("proj:shape and proj:transform do not fit")
    return round(number)
