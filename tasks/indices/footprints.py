"""Farm boundaries as pixels with coverage fractions, on a lattice shared by all tiles of a UTM zone.

A one-hectare field has as many edge pixels as inner ones, so each pixel counts with the share of it that lies inside
the boundary (exactextract). Rows and columns are those of the zone's lattice, not of one file: tiles of one zone
share it, so a farm across two tiles is one list of pixels.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from exactextract import Feature, exact_extract
from exactextract.feature import FeatureSource
from exactextract.raster import NumPyRasterSource
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from models.domain import Farm, Grid
from tasks.indices.halving import Box, shares_by_halving


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
        # Scenes of one run share the cache, and scenes of one tile begin together: one makes what all of them want.
        self._making = threading.Lock()

    def footprints(self, farms: Sequence[Farm], lattice: Lattice, *, inner_margin_m: float) -> Footprints:
        """Footprints of the farms on the lattice, in the order of the farms."""
        with self._making:
            return self._footprints(farms, lattice, inner_margin_m)

    def _footprints(self, farms: Sequence[Farm], lattice: Lattice, inner_margin_m: float) -> Footprints:
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
        self._joined = keys, joined
        return joined

    def _keep(self, made: dict[tuple[int, int, int], Footprint]) -> None:
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
    shapes = project(boundaries, lattice.epsg)
    parts = _covered_cells(shapes, lattice)
    if inner_margin_m <= 0:
        return [Footprint(rows, cols, coverage, coverage >= 1) for rows, cols, coverage in parts]
    shrunk = _covered_cells(shapely.buffer(shapes, -inner_margin_m), lattice)
    footprints = []
    for (rows, cols, coverage), (inner_rows, inner_cols, inner_coverage) in zip(parts, shrunk, strict=True):
        whole = inner_coverage >= 1
        inner = set(zip(inner_rows[whole].tolist(), inner_cols[whole].tolist(), strict=True))
        is_inner = np.fromiter(((r, c) in inner for r, c in zip(rows.tolist(), cols.tolist(), strict=True)), np.bool_)
        footprints.append(Footprint(rows, cols, coverage, is_inner))
    return footprints


Cells = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float64]]


def _covered_cells(shapes: npt.NDArray[Any], lattice: Lattice) -> list[Cells]:
    """Rows, columns and coverage of each shape; empty shapes have no cells."""
    none: Cells = (np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float64))
    cells = [none] * len(shapes)
    full = np.flatnonzero(~shapely.is_empty(shapes))
    if len(full) == 0:
        return cells
    left, bottom, right, top = shapely.total_bounds(shapes[full])
    step = lattice.resolution_m
    first_col, last_col = math.floor((left - lattice.x_phase) / step), math.ceil((right - lattice.x_phase) / step)
    first_row, last_row = math.floor((lattice.y_phase - top) / step), math.ceil((lattice.y_phase - bottom) / step)
    width, height = max(1, last_col - first_col), max(1, last_row - first_row)
    canvas = NumPyRasterSource(
        np.broadcast_to(np.uint8(0), (height, width)),  # exactextract wants a raster; only its grid matters here
        xmin=lattice.x_phase + first_col * step,
        xmax=lattice.x_phase + (first_col + width) * step,
        ymin=lattice.y_phase - (first_row + height) * step,
        ymax=lattice.y_phase - first_row * step,
    )
    found = exact_extract(canvas, _Boundaries(shapely.to_wkb(shapes[full])), ["cell_id", "coverage"])
    areas_px = shapely.area(shapes[full]) / step**2
    for index, feature, area_px in zip(full, found, areas_px.tolist(), strict=True):
        numbers = feature["properties"]
        rows, cols = np.divmod(numbers["cell_id"].astype(np.int64), width)
        coverage = numbers["coverage"].astype(np.float64)
        if not _adds_up(coverage, area_px):
            rows, cols, coverage = _measured_again(shapes[index], lattice, first_row, first_col)
        cells[index] = (rows + first_row).astype(np.int32), (cols + first_col).astype(np.int32), coverage
    return cells


def _adds_up(coverage: npt.NDArray[np.float64], area_px: float) -> bool:
    """Whether fractions, of which exactextract keeps 24 bits, make up the area in pixels."""
    return bool(abs(np.add.reduce(coverage) - area_px) <= len(coverage) * 2.0**-24 + 1e-8 * max(area_px, 1))


def _measured_again(
    shape: BaseGeometry, lattice: Lattice, first_row: int, first_col: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Rows and columns from the first ones on, and coverage, where exactextract's do not make up the area."""
    step = lattice.resolution_m

    def to_pixels(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        cols = (xy[:, 0] - lattice.x_phase) / step - first_col
        return np.column_stack((cols, (lattice.y_phase - xy[:, 1]) / step - first_row))

    in_pixels = shapely.transform(shape, to_pixels)
    left, top, right, bottom = shapely.bounds(in_pixels)
    return shares_by_halving(
        in_pixels, Box(math.floor(top), math.floor(left), math.floor(bottom) + 1, math.floor(right) + 1)
    )


class _Boundary(Feature):  # type: ignore[misc]
    """A feature for exactextract that hands over WKB; about a third quicker than going through GeoJSON."""

    def __init__(self, wkb: bytes) -> None:
        super().__init__()
        self._wkb = wkb
        self._values: dict[str, Any] = {}

    def geometry(self) -> bytes:
        return self._wkb

    def set(self, name: str, value: Any) -> None:
        self._values[name] = value

    def get(self, name: str) -> Any:
        return self._values[name]

    def fields(self) -> list[str]:
        return list(self._values)


class _Boundaries(FeatureSource):  # type: ignore[misc]
    def __init__(self, wkbs: npt.NDArray[Any]) -> None:
        super().__init__()
        self._wkbs = wkbs

    def count(self) -> int:
        return len(self._wkbs)

    def __iter__(self) -> Iterator[_Boundary]:
        return (_Boundary(wkb) for wkb in self._wkbs)

    def srs_wkt(self) -> None:
        return None
