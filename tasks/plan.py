"""What is to be done: passes that exist, less what was observed of them, grouped into scenes with their farms.

Nothing here depends on "today": a day that was missed, a scene that came late or was reprocessed shows up as a
difference and heals at the next run.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import Transformer

from models.domain import Farm, Grid, Scene, SceneWork
from tasks.indices.footprints import Lattice, project

PassTile = tuple[str, str]
Observed = Callable[[str], Mapping[tuple[int, int], str]]
"""For a pass, the inputs from which each (farm, boundary version) was observed."""

Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class _Reach:
    """Farms near one tile. All arrays (n,), in the order of the farms."""

    farms: Places
    """Positions of the farms whose boundary touches the tile."""
    margin_m: npt.NDArray[np.float64]
    """Distance of the boundary from the tile's edge; below zero where it sticks out."""
    overlap_m2: npt.NDArray[np.float64]
    """Area that the bounds of farm and tile share."""


def plan(
    farms: Sequence[Farm],
    pieces: Mapping[PassTile, tuple[Scene, ...]],
    *,
    observed: Observed | None = None,
    method: str = "",
) -> list[SceneWork]:
    """The work that is due, tile by tile, the newest passes of each first: footprints are made once for a tile.

    A farm inside several overlapping tiles is observed once in a pass: on the tile that holds it whole, with the
    widest margin. A farm that no tile of the pass holds whole is observed on all tiles of one zone that it touches,
    completed pixel by pixel, the tile with most of it first.

    Args:
        farms: whose observations are wanted.
        pieces: for each pass and tile, the scenes to consult, in order.
        observed: what was observed already and from which inputs; None plans everything anew.
        method: what else the numbers depend on besides scenes and mask policy.

    Returns:
        Units of work whose farms have no observation from exactly these inputs.
    """
    tiles: dict[tuple[str, Grid], _Reach] = {}
    by_pass: dict[str, dict[str, tuple[Scene, ...]]] = defaultdict(dict)
    for (pass_id, tile), scenes in pieces.items():
        by_pass[pass_id][tile] = scenes
    works = []
    boundaries = _Boundaries(farms)
    for pass_id, over in by_pass.items():
        reaches = {}
        for tile, scenes in over.items():
            key = (tile, scenes[0].red.grid)
            if key not in tiles:
                tiles[key] = boundaries.near(scenes[0].red.grid)
            reaches[tile] = tiles[key]
        done = observed(pass_id) if observed is not None else {}
        for names, members in _assign(over, reaches, len(farms)).items():
            work = SceneWork(
                pass_id=pass_id,
                tiles=names,
                scenes=tuple(scene for name in names for scene in over[name]),
                farm_ids=tuple(farms[place].id for place in members),
                method=method,
            )
            due = _due(work, [farms[place] for place in members], done)
            if due is not None:
                works.append(due)
    return sorted(works, key=lambda work: (work.tile_set, -work.acquired_at.timestamp(), work.pass_id))


def _due(work: SceneWork, farms: Sequence[Farm], done: Mapping[tuple[int, int], str]) -> SceneWork | None:
    inputs = work.inputs
    missing = tuple(farm.id for farm in farms if done.get((farm.id, farm.boundary_version)) != inputs)
    if not missing:
        return None
    return dataclasses.replace(work, farm_ids=missing)


def _assign(
    over: Mapping[str, tuple[Scene, ...]], reaches: Mapping[str, _Reach], count: int
) -> dict[tuple[str, ...], list[int]]:
    """Tiles of one pass to the positions of the farms that are observed on them."""
    best = np.full(count, -np.inf)
    choice = np.full(count, -1, dtype=np.intp)
    names = sorted(over)
    for number, name in enumerate(names):
        reach = reaches[name]
        better = (reach.margin_m >= 0) & (reach.margin_m > best[reach.farms])
        best[reach.farms[better]] = reach.margin_m[better]
        choice[reach.farms[better]] = number
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place in np.flatnonzero(choice >= 0).tolist():
        groups[names[choice[place]],].append(place)
    for place, touched in _homeless(names, reaches, choice).items():
        groups[_mosaic(touched, over)].append(place)
    return groups


def _homeless(names: Sequence[str], reaches: Mapping[str, _Reach], choice: Places) -> dict[int, dict[str, float]]:
    """Farms that no tile holds whole: for each the tiles it touches, with the area they share."""
    touched: dict[int, dict[str, float]] = defaultdict(dict)
    for name in names:
        reach = reaches[name]
        left = choice[reach.farms] < 0
        for place, area in zip(reach.farms[left].tolist(), reach.overlap_m2[left].tolist(), strict=True):
            touched[place][name] = area
    return touched


def _mosaic(touched: Mapping[str, float], over: Mapping[str, tuple[Scene, ...]]) -> tuple[str, ...]:
    """Tiles to consult for one farm, the one with most of it first; only tiles whose pixels line up with its."""
    ranked = sorted(touched, key=lambda name: (-touched[name], name))
    lattice = Lattice.of(over[ranked[0]][0].red.grid)
    return tuple(name for name in ranked if Lattice.of(over[name][0].red.grid) == lattice)


class _Boundaries:
    """Boundaries of the farms, projected to each zone once."""

    def __init__(self, farms: Sequence[Farm]) -> None:
        self._farms = farms
        boxes = np.array([farm.bbox for farm in farms], dtype=np.float64).reshape(-1, 4)
        self._boxes = boxes
        self._projected: dict[int, tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]] = {}

    def near(self, grid: Grid) -> _Reach:
        """Farms whose boundary touches the bounds of a tile."""
        candidates = np.flatnonzero(self._touching(*_lonlat_box(grid)))
        bounds = self._bounds(candidates, grid.epsg)
        left, bottom, right, top = grid.bounds
        inside = np.column_stack((bounds[:, 0] - left, bounds[:, 1] - bottom, right - bounds[:, 2], top - bounds[:, 3]))
        width = np.minimum(bounds[:, 2], right) - np.maximum(bounds[:, 0], left)
        height = np.minimum(bounds[:, 3], top) - np.maximum(bounds[:, 1], bottom)
        # A boundary that the zone's projection does not reach is not near: its bounds are NaN.
        touches = (width > 0) & (height > 0)
        return _Reach(candidates[touches], inside.min(axis=1)[touches], (width * height)[touches])

    def _touching(self, west: float, south: float, east: float, north: float) -> npt.NDArray[np.bool_]:
        """Which farms' boxes touch a box; either may cross the antimeridian (west > east)."""
        w, s, e, n = self._boxes.T
        level = (s <= north) & (n >= south)
        spans = ((west, east),) if west <= east else ((west, 180.0), (-180.0, east))
        found = np.zeros(len(w), np.bool_)
        for low, high in spans:
            found |= np.where(w <= e, (w <= high) & (e >= low), (w <= high) | (e >= low))
        return level & found

    def _bounds(self, places: Places, epsg: int) -> npt.NDArray[np.float64]:
        """(n, 4) left, bottom, right, top in metres of the zone."""
        if epsg not in self._projected:
            self._projected[epsg] = (np.full((len(self._farms), 4), np.nan), np.zeros(len(self._farms), np.bool_))
        kept, known = self._projected[epsg]
        missing = places[~known[places]]
        if len(missing):
            bounds = shapely.bounds(project([self._farms[place].boundary for place in missing], epsg, is_strict=False))
            bounds[~np.isfinite(bounds).all(axis=1)] = np.nan
            kept[missing] = bounds
            known[missing] = True
        return kept[places]


@lru_cache(maxsize=4096)
def _lonlat_box(grid: Grid) -> tuple[float, float, float, float]:
    """west, south, east, north of a tile, west > east where it crosses the antimeridian."""
    to_degrees = Transformer.from_crs(grid.epsg, 4326, always_xy=True)
    left, bottom, right, top = grid.bounds
    steps = np.linspace(0, 1, 21)
    x = np.concatenate(
        (left + steps * (right - left), left + steps * (right - left), np.full(21, left), np.full(21, right))
    )
    y = np.concatenate(
        (np.full(21, bottom), np.full(21, top), bottom + steps * (top - bottom), bottom + steps * (top - bottom))
    )
    lon, lat = to_degrees.transform(x, y)
    if lon.max() - lon.min() > 180:
        return float(lon[lon > 0].min()), float(lat.min()), float(lon[lon < 0].max()), float(lat.max())
    return float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())


def lonlat_boxes(farms: Iterable[Farm]) -> list[tuple[float, float, float, float]]:
    """Boxes of the farms for a catalog search, one for each far-apart part of a farm."""
    boxes = []
    for farm in farms:
        west, south, east, north = farm.bbox
        is_small = west <= east and east - west < 1 and north - south < 1
        parts = (
            [farm.bbox] if is_small else [part.bounds for part in shapely.get_parts(shapely.from_wkb(farm.boundary))]
        )
        boxes.extend(parts)
    return boxes
