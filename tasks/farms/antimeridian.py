"""Farms where the map ends: longitudes that jump from 180 to -180, and boxes whose west is greater than their east."""

from __future__ import annotations

import math

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon

from models.errors import BadInput


def in_one_piece(polygon: Polygon) -> Polygon:
    """Return the polygon with longitudes that run on past 180 degrees instead of jumping to -180.

    Raises:
        BadInput: when a ring runs around a pole.
    """
    shell = np.asarray(polygon.exterior.coords)
    holes = [np.asarray(ring.coords) for ring in polygon.interiors]
    if not any(_jumps(ring).any() for ring in [shell, *holes]) and all(
        shell[:, 0].min() <= ring[:, 0].min() and ring[:, 0].max() <= shell[:, 0].max() for ring in holes
    ):
        return polygon
    shell = _unrolled(shell)
    centre = (shell[:, 0].min() + shell[:, 0].max()) / 2
    return Polygon(shell, [_beside(_unrolled(ring), centre) for ring in holes])


def _jumps(ring: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Edges that span more than half the globe: nobody farms that, the ring crosses the antimeridian there."""
    return np.abs(np.diff(ring[:, 0])) > 180


def _unrolled(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    jumps = _jumps(ring)
    if not jumps.any():
        return ring
    turns = np.where(jumps, -np.sign(np.diff(ring[:, 0])), 0).cumsum()
    if turns[-1] != 0:
        raise BadInput("geometry", "runs around a pole")
    return np.column_stack([ring[:, 0] + 360 * np.concatenate([[0], turns]), ring[:, 1]])


def _beside(ring: NDArray[np.float64], centre: float) -> NDArray[np.float64]:
    """Move a hole by whole turns until it lies nearest to its shell."""
    turns = round((centre - (ring[:, 0].min() + ring[:, 0].max()) / 2) / 360)
    return ring + np.array([360.0 * turns, 0.0]) if turns else ring


def split_at_antimeridian(polygon: Polygon) -> list[Polygon]:
    """Cut a polygon whose longitudes run on past 180 degrees into pieces that lie within [-180, 180]."""
    west, _south, east, _north = polygon.bounds
    if west >= -180 and east <= 180:
        return [polygon]
    pieces: list[Polygon] = []
    for turn in range(math.floor((west + 180) / 360), math.ceil((east + 180) / 360)):
        world = shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90)
        parts = shapely.get_parts(polygon.intersection(world))
        pieces += [_turned(part, turn) for part in parts if isinstance(part, Polygon) and not part.is_empty]
    return pieces


def _turned(polygon: Polygon, turns: int) -> Polygon:
    """Move a polygon west by whole turns."""
    return shapely.transform(polygon, lambda places: places - np.array([360.0 * turns, 0.0]))


def shortest_bbox(shape: Polygon | MultiPolygon) -> tuple[float, float, float, float]:
    """Return west, south, east, north of the narrowest box around a shape; west > east across the antimeridian."""
    west, south, east, north = shape.bounds
    spans = sorted((part.bounds[0], part.bounds[2]) for part in shapely.get_parts(shape))
    widest_gap, reach = west + 360 - east, spans[0][1]
    for start, end in spans[1:]:
        if start - reach > widest_gap:
            widest_gap, west, east = start - reach, start, reach
        reach = max(reach, end)
    return (west, south, east, north)
