"""Which pixels polygons cover, and how much of each, worked out for many polygons at once.

Every boundary is cut where it crosses the lines between pixels, so that each piece lies in one pixel. A piece that goes
down adds to its row's winding what it goes down, and to its own pixel the area on its right; summed along a row, that
gives the share of every pixel inside the boundary, and where the winding is one and no piece lies, whole pixels. It is
how font renderers fill outlines exactly (the accumulation of signed areas in FreeType's and libart's smooth
rasterisers).

Places are whole numbers of 2**-30 pixels, ten nanometres on a grid of ten metres. Their sums have no rounding,
so windings are exact, and a polygon's pixels do not depend on which others are worked out with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

_BITS = 30
_ONE = 1 << _BITS
_WHOLE = 1 - 2.0**-26
"""From this share on a pixel is covered whole: parts that meet on a line may miss each other by the last digit."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cells:
    """Pixels of many polygons end to end: polygon `i` owns `offsets[i]:offsets[i + 1]` of each (n,) array."""

    offsets: Ints
    rows: npt.NDArray[np.int32]
    cols: npt.NDArray[np.int32]
    coverage: npt.NDArray[np.float64]
    """In (0, 1], row by row, each pixel once."""


def covered_cells(shapes: npt.NDArray[Any]) -> Cells:
    """Pixels that polygons cover, with their exact coverage fractions.

    Args:
        shapes: (n,) Polygon or MultiPolygon, valid, in pixels: x is the column, y the row, growing southwards. Others
            cover nothing.

    Returns:
        The sum of coverage fractions is the area of the polygon, off by less than a billionth of a pixel for each
        pixel on its boundary.
    """
    starts, ends, owner, corner = _edges(shapes)
    starts, ends, owner = _cut(starts, ends, owner, axis=1)
    starts, ends, owner = _cut(starts, ends, owner, axis=0)
    middle = starts + ends
    places = middle >> (_BITS + 1)
    falls = ends[:, 1] - starts[:, 1]
    # twice the area between the piece and the right side of its pixel, in units of 2**-60 pixels
    areas = falls * (2 * _ONE - (middle[:, 0] - (places[:, 0] << (_BITS + 1))))
    order, firsts = _grouped(owner, places)
    owner, places = owner[order][firsts], places[order][firsts]
    winding, area = (np.add.reduceat(each[order], firsts) if len(firsts) else each for each in (falls, areas))
    winding = np.cumsum(winding)  # every row of every polygon comes back to nothing
    before = np.concatenate(([0], winding[:-1])) if len(winding) else winding
    coverage = np.clip((before * (2 * _ONE) + area) / (2.0 * _ONE * _ONE), 0, 1)
    coverage[coverage >= _WHOLE] = 1
    # pixels between this one and the next of its row, all of them inside
    gaps = np.where(winding[:-1] > 0, places[1:, 0] - places[:-1, 0] - 1, 0)
    run = np.concatenate((gaps, [0]))[: len(coverage)] + 1
    of = np.repeat(np.arange(len(run)), run)
    along = np.arange(len(of)) - np.repeat(np.cumsum(run) - run, run)
    shares = np.where(along == 0, coverage[of], 1.0)
    kept = shares > 0
    of, along = of[kept], along[kept]
    at = places[of] + corner[owner[of]]
    return Cells(
        offsets=np.searchsorted(owner[of], np.arange(len(shapes) + 1)),
        rows=at[:, 1].astype(np.int32),
        cols=(at[:, 0] + along).astype(np.int32),
        coverage=shares[kept],
    )


def _edges(shapes: npt.NDArray[Any]) -> tuple[Ints, Ints, Ints, Ints]:
    """The boundaries' edges: starts and ends (m, 2) from the pixel at the corner (n, 2) of their polygon, and whose.

    Rings have what they enclose on their right, with y growing downwards.
    """
    parts, owner = shapely.get_parts(shapes, return_index=True)
    is_polygon = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    parts, owner = parts[is_polygon], owner[is_polygon]
    bounds = shapely.bounds(shapes)
    corner = np.floor(np.where(np.isfinite(bounds[:, :2]), bounds[:, :2], 0)).astype(np.int64)
    rings, part = shapely.get_rings(shapely.orient_polygons(parts, exterior_cw=True), return_index=True)
    places, ring = shapely.get_coordinates(rings, return_index=True)
    whose = owner[part[ring]]
    units = np.rint((places - corner[whose]) * _ONE).astype(np.int64)
    goes_on = ring[1:] == ring[:-1]
    return units[:-1][goes_on], units[1:][goes_on], whose[:-1][goes_on], corner


def _cut(starts: Ints, ends: Ints, owner: Ints, *, axis: int) -> tuple[Ints, Ints, Ints]:
    """Pieces of edges, cut where they cross a line between pixels of one axis (0: columns, 1: rows)."""
    low = np.minimum(starts[:, axis], ends[:, axis])
    first = (low >> _BITS) + 1
    last = (np.maximum(starts[:, axis], ends[:, axis]) - 1) >> _BITS
    cuts = np.maximum(last - first + 1, 0)
    if not cuts.any():
        return starts, ends, owner
    of = np.repeat(np.arange(len(cuts)), cuts + 1)
    heads = np.cumsum(cuts + 1) - cuts - 1
    step = np.arange(len(of)) - heads[of]
    to = ends[of]
    cut = np.flatnonzero(step < cuts[of])
    edge = of[cut]
    begin, end = starts[edge], ends[edge]
    is_up = end[:, axis] > begin[:, axis]
    line = np.where(is_up, first[edge] + step[cut], last[edge] - step[cut]) << _BITS
    slope = (end[:, 1 - axis] - begin[:, 1 - axis]) / (end[:, axis] - begin[:, axis])
    to[cut, 1 - axis] = begin[:, 1 - axis] + np.rint((line - begin[:, axis]) * slope).astype(np.int64)
    to[cut, axis] = line
    since = np.concatenate((to[:1], to[:-1]))
    since[heads] = starts
    return since, to, owner[of]


def _grouped(owner: Ints, places: Ints) -> tuple[Ints, Ints]:
    """The order that brings pieces of one pixel together, row by row, and where each pixel begins in it."""
    if len(owner) == 0:
        return owner, owner
    width, height = (places.max(axis=0) + 1).tolist()
    if (int(owner[-1]) + 1) * width * height < 1 << 62:
        key = (owner * height + places[:, 1]) * width + places[:, 0]
        order = np.argsort(key, kind="stable")
        is_new = np.diff(key[order], prepend=-1) > 0
    else:
        order = np.lexsort((places[:, 0], places[:, 1], owner))
        is_new = np.concatenate(
            ([True], (np.diff(places[order], axis=0) != 0).any(axis=1) | (np.diff(owner[order]) > 0))
        )
    return order, np.flatnonzero(is_new)
