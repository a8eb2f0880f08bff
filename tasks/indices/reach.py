"""Where farms lie on tiles: how far inside, and how much of them, told by boxes alone wherever that is enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import Transformer

from models.domain import Grid
from tasks.indices.footprints import project

Places = npt.NDArray[np.intp]
Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

Outlines = Callable[[Sequence[int]], Mapping[int, bytes]]
"""Gives the boundaries of the farms at these positions, as WKB."""

SMALL_DEG = 0.2
"""Boxes up to this wide and high are small enough for their corners to tell where their edges run."""
# A parallel or meridian between two corners leaves the straight line by at most d2 tan(latitude) / 8 R: at 84 degrees
# of latitude 0.2e-6 of the squared distance. Five times that, and a good metre for what rounding may do to a box.
_BENT_PER_M, _SLACK_M = 1e-6, 1.0


@dataclass(frozen=True, slots=True)
class Plots:
    """Farms without their outlines. All arrays in one order, (n,) each."""

    ids: npt.NDArray[np.int64]
    versions: npt.NDArray[np.int64]
    """Versions of their boundaries."""
    boxes: Numbers
    """(n, 4): west, south, east, north in degrees; west > east across the antimeridian."""

    @classmethod
    def of(cls, rows: Sequence[tuple[int, int, float, float, float, float]]) -> Plots:
        """From rows of id, boundary version, west, south, east and north."""
        ids, versions, *sides = zip(*rows, strict=True) if rows else ((),) * 6
        boxes = np.array(sides, dtype=np.float64).T
        return cls(np.array(ids, dtype=np.int64), np.array(versions, dtype=np.int64), np.ascontiguousarray(boxes))

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Reach:
    """How farms lie on tiles, a row for each farm and tile that it may touch. All arrays (m,).

    Where only boxes were looked at, `least_m` and `most_m` differ; where outlines were, they are the same.
    """

    farms: Places
    tiles: Places
    least_m: Numbers
    """Distance of the boundary from the tile's edge, at least; below zero where it sticks out."""
    most_m: Numbers
    """The same at most."""
    overlap_m2: Numbers
    """Area that the bounds of farm and tile share; NaN where only boxes were looked at."""
    touches: Flags
    """Whether it is certain that they touch."""

    def of_farms(self, wanted: Flags) -> Reach:
        """The rows of those farms whose flag (n,) is True."""
        return self.rows(wanted[self.farms])

    def rows(self, kept: Flags) -> Reach:
        """The rows whose flag (m,) is True."""
        return Reach(*(getattr(self, name)[kept] for name in self.__slots__))

    def joined(self, other: Reach) -> Reach:
        """The rows of both."""
        return Reach(*(np.concatenate((getattr(self, name), getattr(other, name))) for name in self.__slots__))


class Tiles:
    """The grids of tiles, ready to be asked which farms they touch."""

    def __init__(self, grids: Sequence[Grid]) -> None:
        self._epsg = np.array([grid.epsg for grid in grids], dtype=np.int64)
        self._bounds = np.array([grid.bounds for grid in grids], dtype=np.float64).reshape(-1, 4)
        boxes, self._owner = _level(_lonlat_boxes(self._epsg, self._bounds))
        self._tree = shapely.STRtree(_rectangles(boxes))

    def look(self, plots: Plots) -> Reach:
        """What the boxes of farms tell of where they lie on tiles."""
        farms, tiles = self._near(plots)
        low, high = (np.empty((len(farms), 4)) for _ in range(2))
        for epsg, own in self._by_zone(tiles):
            places, back = np.unique(farms[own], return_inverse=True)
            least, most = _bounds_of_boxes(plots.boxes[places], epsg)
            low[own], high[own] = least[back], most[back]
        bounds = self._bounds[tiles]
        widest = np.minimum(high[:, 2:], bounds[:, 2:]) - np.maximum(low[:, :2], bounds[:, :2])
        narrowest = np.minimum(low[:, 2:], bounds[:, 2:]) - np.maximum(high[:, :2], bounds[:, :2])
        found = Reach(
            farms=farms,
            tiles=tiles,
            least_m=_margin(np.column_stack((low[:, :2], high[:, 2:])), bounds),
            most_m=_margin(np.column_stack((high[:, :2], low[:, 2:])), bounds),
            overlap_m2=np.full(len(farms), np.nan),
            touches=narrowest.min(axis=1) > 0,
        )
        return found.rows(widest.min(axis=1) > 0)

    def look_closely(self, reach: Reach, outlines: Outlines) -> Reach:
        """The same rows told exactly, from the outlines of the farms; those that do not touch are left out."""
        bounds = np.empty((len(reach.farms), 4))
        boundaries = outlines(np.unique(reach.farms).tolist()) if len(reach.farms) else {}
        for epsg, own in self._by_zone(reach.tiles):
            places, back = np.unique(reach.farms[own], return_inverse=True)
            shapes = project([boundaries[place] for place in places.tolist()], epsg, is_strict=False)
            found = shapely.bounds(shapes)
            found[~np.isfinite(found).all(axis=1)] = np.nan
            bounds[own] = found[back]
        tiles = self._bounds[reach.tiles]
        margin = _margin(bounds, tiles)
        sides = np.minimum(bounds[:, 2:], tiles[:, 2:]) - np.maximum(bounds[:, :2], tiles[:, :2])
        # A boundary that the zone's projection does not reach is not near: its bounds are NaN.
        touches: Flags = sides.min(axis=1) > 0
        exact = Reach(reach.farms, reach.tiles, margin, margin, sides.prod(axis=1), touches)
        return exact.rows(touches)

    def _near(self, plots: Plots) -> tuple[Places, Places]:
        """Farms and tiles whose boxes in degrees touch, each pair once."""
        boxes, owner = _level(plots.boxes)
        pieces, found = self._tree.query(_rectangles(boxes))
        pairs = np.unique(owner[pieces] * len(self._epsg) + self._owner[found])
        return np.divmod(pairs, len(self._epsg))

    def _by_zone(self, tiles: Places) -> list[tuple[int, Flags]]:
        zones = self._epsg[tiles]
        return [(epsg, zones == epsg) for epsg in np.unique(zones).tolist()]


def _margin(bounds: Numbers, tiles: Numbers) -> Numbers:
    """Smallest distance of bounds from the edges of their tiles, (m,) in metres."""
    inside: Numbers = np.column_stack((bounds[:, :2] - tiles[:, :2], tiles[:, 2:] - bounds[:, 2:])).min(axis=1)
    return inside


def _bounds_of_boxes(boxes: Numbers, epsg: int) -> tuple[Numbers, Numbers]:
    """(n, 4) left, bottom, right, top in metres of the zone: the least and the most that each can be.

    An outline touches all four sides of its box. Of boxes that are large, or that the projection does not reach,
    nothing is known.
    """
    west, south, east, north = boxes.T
    corners = _from_degrees(epsg).transform(
        np.concatenate((west, east, east, west)), np.concatenate((south, south, north, north)), errcheck=False
    )
    x, y = (np.asarray(each).reshape(4, -1) for each in corners)  # south-west, south-east, north-east, north-west
    is_small = (west <= east) & (east - west <= SMALL_DEG) & (north - south <= SMALL_DEG)
    is_known = is_small & np.isfinite(x).all(axis=0) & np.isfinite(y).all(axis=0)
    x, y = np.where(is_known, x, 0), np.where(is_known, y, 0)
    left, right, bottom, top = x.min(axis=0), x.max(axis=0), y.min(axis=0), y.max(axis=0)
    slack = (_SLACK_M + _BENT_PER_M * ((right - left) ** 2 + (top - bottom) ** 2))[:, None]
    least = np.column_stack((left, bottom, np.minimum(x[1], x[2]), np.minimum(y[2], y[3]))) - slack
    most = np.column_stack((np.maximum(x[0], x[3]), np.maximum(y[0], y[1]), right, top)) + slack
    least[~is_known], most[~is_known] = -np.inf, np.inf
    return least, most


def _rectangles(boxes: Numbers) -> npt.NDArray[Any]:
    return np.asarray(shapely.box(*boxes.T))


def _level(boxes: Numbers) -> tuple[Numbers, Places]:
    """Boxes cut where they cross the antimeridian, and which one each piece is of."""
    across = np.flatnonzero(boxes[:, 0] > boxes[:, 2])
    if not len(across):
        return boxes, np.arange(len(boxes))
    far = boxes[across].copy()
    far[:, 0] = -180.0
    cut = boxes.copy()
    cut[across, 2] = 180.0
    return np.concatenate((cut, far)), np.concatenate((np.arange(len(boxes)), across))


def _lonlat_boxes(epsg: npt.NDArray[np.int64], bounds: Numbers) -> Numbers:
    """(n, 4) west, south, east, north of tiles, west > east where one crosses the antimeridian."""
    found = np.empty((len(epsg), 4))
    steps = np.linspace(0, 1, 21)
    for zone in np.unique(epsg).tolist():
        own = epsg == zone
        left, bottom, right, top = (side[:, None] for side in bounds[own].T)
        along, up = left + steps * (right - left), bottom + steps * (top - bottom)
        x = np.hstack((along, along, left + 0 * steps, right + 0 * steps))
        y = np.hstack((bottom + 0 * steps, top + 0 * steps, up, up))
        lon, lat = (np.asarray(each) for each in _to_degrees(zone).transform(x, y))
        is_across = (lon.max(axis=1) - lon.min(axis=1) > 180)[:, None]
        west = np.where(is_across & (lon <= 0), np.inf, lon).min(axis=1)
        east = np.where(is_across & (lon >= 0), -np.inf, lon).max(axis=1)
        found[own] = np.column_stack((west, lat.min(axis=1), east, lat.max(axis=1)))
    return found


@lru_cache(maxsize=130)
def _to_degrees(epsg: int) -> Any:
    return Transformer.from_crs(epsg, 4326, always_xy=True)


@lru_cache(maxsize=130)
def _from_degrees(epsg: int) -> Any:
    return Transformer.from_crs(4326, epsg, always_xy=True)
