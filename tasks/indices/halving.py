"""Coverage fractions by overlay: a polygon is cut in halves until what is left is one pixel, or wholly inside.

Slow, and right wherever the corners lie. For the few shapes that exactextract measures wrongly: where a corner is a
nanometre beyond a line between pixels, it may take the pixel behind that line for covered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

SLACK_PX = 2.0**-25
"""A box that lacks no more than this is wholly inside: as little as turns a fraction of 24 bits into one."""


@dataclass(frozen=True, slots=True)
class Box:
    """Pixels of a grid: rows and columns from the first one to before the last one."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def pixels(self) -> int:
        """How many they are."""
        return (self.bottom - self.top) * (self.right - self.left)

    def halves(self) -> tuple[Box, Box]:
        """Both halves of the longer side."""
        if self.bottom - self.top >= self.right - self.left:
            middle = (self.top + self.bottom) // 2
            return Box(self.top, self.left, middle, self.right), Box(middle, self.left, self.bottom, self.right)
        middle = (self.left + self.right) // 2
        return Box(self.top, self.left, self.bottom, middle), Box(self.top, middle, self.bottom, self.right)


def shares_by_halving(
    shape: BaseGeometry, box: Box
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Measure how much of each pixel lies inside a polygon.

    Args:
        shape: in pixels: x is the column of the grid and y its row, both growing away from its first corner.
        box: where to look; what lies outside is left out.

    Returns:
        Row, column and coverage fraction in (0, 1] of each pixel with any area inside: three (n,) arrays, row by row.
    """
    found = list(_parts(shape if shape.is_valid else shapely.make_valid(shape), box))
    places = np.concatenate(
        [np.empty((0, 2), np.int64), *(np.mgrid[b.top : b.bottom, b.left : b.right].reshape(2, -1).T for b, _ in found)]
    )
    coverage = np.repeat(
        np.array([share for _, share in found], np.float64), np.array([b.pixels for b, _ in found], np.intp)
    )
    order = np.lexsort((places[:, 1], places[:, 0]))
    return places[order, 0], places[order, 1], coverage[order]


def _parts(shape: BaseGeometry, box: Box) -> Iterator[tuple[Box, float]]:
    """Boxes that are wholly inside, and pixels that are in part, each with its share."""
    inside = shapely.intersection(shape, shapely.box(box.left, box.top, box.right, box.bottom))
    if box.pixels - inside.area <= SLACK_PX:
        yield box, 1.0
    elif inside.area > 0 and box.pixels == 1:
        yield box, inside.area
    elif inside.area > 0:
        for half in box.halves():
            yield from _parts(inside, half)
