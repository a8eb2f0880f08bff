"""Farm boundaries as pixels with coverage fractions, on a lattice shared by all tiles of a UTM zone.

A one-hectare field has as many edge pixels as inner ones, so each pixel counts with the share of it that lies inside
the boundary. Rows and columns are those of the zone's lattice, not of one file: tiles of one zone
share it, so a farm across two tiles is one list of pixels.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import Transformer

from models.domain import Farm, Grid
from tasks.indices.coverage import Cells, covered_cells

BOUNDARIES_AT_ONCE = 512
"""The arrays of some hundred stay in the processor's cache; for ten thousand at once each takes four times as long."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """The endless grid of one resolution that all aligned tiles of a zone share."""

    epsg: int
    resolution_m: float
    x_phase: float
    """x of column 0's left edge, in [0, resolution)."""
    y_phase: float
    """y of row 0's top edge, in [0, resolution); rows grow southwards."""

    @classmethod
    def of(cls, grid: Grid) -> Lattice:
        """The lattice on which a grid lies."""
        return cls(grid.epsg, grid.resolution_m, grid.left % grid.resolution_m, grid.top % grid.resolution_m)

    def origin(self, grid: Grid) -> tuple[int, int]:
        """Lattice row and column of the grid's first pixel."""
        return (
            round((self.y_phase - grid.top) / self.resolution_m),
            round((grid.left - self.x_phase) / self.resolution_m),
        )

    def pixels(self, shapes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Shapes (n,) in metres of the zone as shapes in pixels: x is the column, y the row."""

        def to_pixels(places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            x, y = places[:, 0] - self.x_phase, self.y_phase - places[:, 1]
            return np.column_stack((x, y)) / self.resolution_m

        found: npt.NDArray[Any] = np.asarray(shapely.transform(shapes, to_pixels))
        return found


@dataclass(frozen=True, slots=True)
class Footprint:
    """Pixels of one farm boundary. All arrays (n,), in row-major order."""

    rows: npt.NDArray[np.int32]
    cols: npt.NDArray[np.int32]
    coverage: npt.NDArray[np.float64]
    """Coverage fraction of each pixel, in (0, 1]."""
    is_inner: npt.NDArray[np.bool_]
    """Wholly inside the boundary, and inside its inward margin."""


@dataclass(frozen=True, slots=True)
class Footprints:
    """Pixels of many farms end to end: farm `i` owns `offsets[i]:offsets[i + 1]` of each (n,) array."""

    offsets: npt.NDArray[np.intp]
    rows: npt.NDArray[np.int32]
    cols: npt.NDArray[np.int32]
    coverage: npt.NDArray[np.float64]
    is_inner: npt.NDArray[np.bool_]

    @classmethod
    def join(cls, parts: Sequence[Footprint]) -> Footprints:
        """Lay footprints end to end, in the order given."""
        offsets = np.zeros(len(parts) + 1, dtype=np.intp)
        np.cumsum([len(part.rows) for part in parts], out=offsets[1:])
        return cls(
            offsets=offsets,
            rows=np.concatenate([part.rows for part in parts]),
            cols=np.concatenate([part.cols for part in parts]),
            coverage=np.concatenate([part.coverage for part in parts]),
            is_inner=np.concatenate([part.is_inner for part in parts]),
        )


class FootprintCache:
    """Footprints made once per boundary, lattice and margin, bounded by the number of pixels kept."""

    def __init__(self, max_pixels: int = 20_000_000) -> None:
        self._kept: OrderedDict[tuple[int, int, int], Footprint] = OrderedDict()
        self._ways: dict[tuple[Lattice, float], int] = {}
        self._joined: tuple[list[tuple[int, int, int]], Footprints] | None = None
        self._pixels = 0
        self._max_pixels = max_pixels
        self._lock = threading.Lock()  # scenes of one run share the cache

    def footprints(self, farms: Sequence[Farm], lattice: Lattice, *, inner_margin_m: float) -> Footprints:
        """Footprints of the farms on the lattice, in the order of the farms."""
        with self._lock:
            # a number for lattice and margin: ten thousand keys of plain numbers are quick to look up
            way = self._ways.setdefault((lattice, inner_margin_m), len(self._ways))
            keys = [(farm.id, farm.boundary_version, way) for farm in farms]
            if self._joined is not None and self._joined[0] == keys:
                return self._joined[1]  # the same farms in the next scene of their tile
            found = {key: footprint for key in keys if (footprint := self._kept.get(key)) is not None}
        missing = {key: farm for farm, key in zip(farms, keys, strict=True) if key not in found}
        if missing:
            boundaries = [farm.boundary for farm in missing.values()]
            made = footprints_of(boundaries, lattice=lattice, inner_margin_m=inner_margin_m)
            found.update(zip(missing, made, strict=True))
            self._keep(dict(zip(missing, made, strict=True)))
        joined = Footprints.join([found[key] for key in keys])
        with self._lock:
            self._joined = keys, joined
        return joined

    def _keep(self, made: dict[tuple[int, int, int], Footprint]) -> None:
        with self._lock:
            for key, footprint in made.items():
                self._pixels += len(footprint.rows) if key not in self._kept else 0
                self._kept[key] = footprint
            while self._pixels > self._max_pixels and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._pixels -= len(dropped.rows)


@lru_cache(maxsize=130)
def _to_grid(epsg: int) -> Transformer:
    return Transformer.from_crs(4326, epsg, always_xy=True)


def project(boundaries: Sequence[bytes], epsg: int, *, is_strict: bool = True) -> npt.NDArray[Any]:
    """Boundaries (WKB in longitude and latitude) as shapely geometries in metres of a UTM zone.

    Raises:
        pyproj.exceptions.ProjError: a place is too far from the zone; with `is_strict` False it becomes infinite.
    """
    transformer = _to_grid(epsg)

    def to_metres(coordinates: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.column_stack(transformer.transform(coordinates[:, 0], coordinates[:, 1], errcheck=is_strict))

    projected: npt.NDArray[Any] = np.asarray(shapely.transform(shapely.from_wkb(list(boundaries)), to_metres))
    return projected


def footprints_of(boundaries: Sequence[bytes], *, lattice: Lattice, inner_margin_m: float = 0) -> list[Footprint]:
    """Rasterise boundaries to lattice pixels with exact coverage fractions.

    Args:
        boundaries: Polygon or MultiPolygon as WKB, longitude and latitude.
        lattice: where the pixels lie.
        inner_margin_m: how far inside the boundary an inner pixel must lie, metres.

    Returns:
        One footprint a boundary. The sum of coverage fractions times the pixel area is the area of the polygon in
        the zone's projection.
    """
    found: list[Footprint] = []
    for first in range(0, len(boundaries), BOUNDARIES_AT_ONCE):
        found += _footprints(
            project(boundaries[first : first + BOUNDARIES_AT_ONCE], lattice.epsg), lattice, inner_margin_m
        )
    return found


def _footprints(shapes: npt.NDArray[Any], lattice: Lattice, inner_margin_m: float) -> list[Footprint]:
    cells = covered_cells(lattice.pixels(shapes))
    is_inner = cells.coverage >= 1
    if inner_margin_m > 0:
        shrunk = covered_cells(lattice.pixels(shapely.buffer(shapes, -inner_margin_m)))
        is_inner = _are_among(cells, shrunk, shrunk.coverage >= 1)
    owned = (slice(start, end) for start, end in itertools.pairwise(cells.offsets.tolist()))
    return [Footprint(cells.rows[own], cells.cols[own], cells.coverage[own], is_inner[own]) for own in owned]


def _are_among(cells: Cells, others: Cells, wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which cells are also among the wanted ones of the others, polygon by polygon."""
    return np.isin(_numbers(cells), _numbers(others)[wanted], assume_unique=True)


def _numbers(cells: Cells) -> npt.NDArray[np.int64]:
    """One number for polygon, row and column; those are below 2**26 on any lattice of metres."""
    owner = np.repeat(np.arange(len(cells.offsets) - 1), np.diff(cells.offsets))
    rows, cols = (places.astype(np.int64) + (1 << 26) for places in (cells.rows, cells.cols))
    numbers: npt.NDArray[np.int64] = (owner << 54) + (rows << 27) + cols
    return numbers
