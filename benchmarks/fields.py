"""Random fields on the tile, the same in every run."""

from __future__ import annotations

import math
import uuid

import numpy as np
import shapely
from pyproj import Transformer

from benchmarks.tile import EPSG, LEFT, TOP
from models.domain import Farm

SMALLEST_HA, LARGEST_HA = 1.0, 6.0
_MARGIN_M = 300


def random_farms(count: int, *, size: int) -> list[Farm]:
    """Fields of 1 to 6 ha, rectangles at any angle, anywhere on a tile of `size` pixels a side."""
    rng = np.random.default_rng(count)
    to_degrees = Transformer.from_crs(EPSG, 4326, always_xy=True)
    x = LEFT + rng.uniform(_MARGIN_M, size * 10 - _MARGIN_M, count)
    y = TOP - rng.uniform(_MARGIN_M, size * 10 - _MARGIN_M, count)
    area_ha = rng.uniform(SMALLEST_HA, LARGEST_HA, count)
    slimness = rng.uniform(1, 3, count)
    angle = rng.uniform(0, math.pi, count)
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]) / 2
    farms = []
    for number in range(count):
        length = math.sqrt(area_ha[number] * 10_000 * slimness[number])
        along, across = (corners * (length, length / slimness[number])).T
        turn = angle[number]
        east = x[number] + along * math.cos(turn) - across * math.sin(turn)
        north = y[number] + along * math.sin(turn) + across * math.cos(turn)
        boundary = shapely.Polygon(np.column_stack(to_degrees.transform(east, north)))
        west, south, right, top = boundary.bounds
        farms.append(
            Farm(
                id=number,
                external_farm_id=uuid.UUID(int=number),
                name=f"field {number}",
                external_user_id=None,
                boundary_version=1,
                boundary=shapely.to_wkb(boundary),
                bbox=(west, south, right, top),
                area_ha=float(area_ha[number]),
            )
        )
    return farms
