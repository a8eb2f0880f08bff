"""The simulated world as it is, and as the satellite sees it on a pass."""

from __future__ import annotations

import datetime as dt
import functools
import uuid
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from shapely import Polygon, box
from shapely.geometry.base import BaseGeometry

from infra.sandbox.fields import SimulatedFarm, draw_farms
from infra.sandbox.land import Land
from infra.sandbox.passes import Pass, passes_between
from infra.sandbox.places import District, Tile, swath_outline
from infra.sandbox.sky import clouds, veil
from models.domain import MaskPolicy

VEGETATION, BARE, WATER, SNOW = 4, 5, 6, 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one pass saw of its district, before it is cut into tiles and pieces."""

    red: npt.NDArray[np.uint16]
    """(y, x) at 10 m: surface reflectance x 10,000, at least 1; no offset, no nodata."""
    nir: npt.NDArray[np.uint16]
    """The same in near infrared."""
    scl: npt.NDArray[np.uint8]
    """(y, x) at 20 m: scene classes 3 to 11."""
    pieces: tuple[Polygon, ...]
    """What each datastrip covers, in grid units; together all that was seen, none overlaps another."""


class World:
    """All districts and farms of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.farms = draw_farms(seed)
        self._lands: dict[str, Land] = {}

    def land(self, district: District) -> Land:
        """The ground of one district."""
        if district.name not in self._lands:
            self._lands[district.name] = Land(district, self.farms, self.seed)
        return self._lands[district.name]

    def look(self, a_pass: Pass) -> Look:
        """What the satellite sees on this pass."""
        land = self.land(a_pass.district)
        red, nir = land.reflectance(a_pass.day)
        sky = clouds(a_pass, self.seed)
        scl = np.where(sky == 0, _ground_classes(land, red, nir), sky).astype(np.uint8)
        red, nir = veil(red, nir, sky)
        return Look(red=_whole_numbers(red), nir=_whole_numbers(nir), scl=scl, pieces=_pieces(a_pass))


class Truth:
    """What an observer should find, asked by farm."""

    def __init__(self, world: World, start: dt.date, end: dt.date) -> None:
        self.world = world
        self.farms = world.farms
        self.passes = tuple(passes_between(start, end))
        self._farms = {farm.external_farm_id: farm for farm in world.farms}
        self._scl = functools.lru_cache(maxsize=16)(self._seen_classes)

    def farm(self, farm_id: uuid.UUID) -> SimulatedFarm:
        """The farm with this external id; KeyError where there is none."""
        return self._farms[farm_id]

    def ndvi(self, farm_id: uuid.UUID, day: dt.date) -> float:
        """Mean NDVI of the farm's own ground on that day, by area; nothing of its surroundings mixed in."""
        farm = self.farm(farm_id)
        land = self.world.land(farm.district)
        return float(np.average(land.field_ndvi(farm, day), weights=land.pixels(farm).fraction))

    def seen_ndvi(self, farm_id: uuid.UUID, day: dt.date) -> float:
        """Mean NDVI of the farm's pixels under a clear sky, weighted by coverage fraction, mixed pixels as they are."""
        farm = self.farm(farm_id)
        pixels = self.world.land(farm.district).pixels(farm)
        return float(np.average(self._ground(farm.district, day)[pixels.rows, pixels.columns], weights=pixels.fraction))

    def clear_fraction(
        self, farm_id: uuid.UUID, a_pass: Pass, *, clear_classes: frozenset[int] = MaskPolicy().clear_classes
    ) -> float:
        """Share of the farm's area that this pass saw in one of these scene classes; 0 in another district."""
        farm = self.farm(farm_id)
        if farm.district != a_pass.district:
            return 0.0
        pixels = self.world.land(farm.district).pixels(farm)
        is_clear = np.isin(self._scl(a_pass)[pixels.rows // 2, pixels.columns // 2], sorted(clear_classes))
        return float((pixels.fraction * is_clear).sum() / pixels.fraction.sum())

    def raster(self, tile: Tile, district: District, day: dt.date) -> npt.NDArray[np.float32]:
        """NDVI under a clear sky of all pixels of a tile: (y, x) at 10 m, float32, unitless, none missing."""
        return self._ground(district, day)[district.window(tile, 10)]

    def _ground(self, district: District, day: dt.date) -> npt.NDArray[np.float32]:
        return _ndvi(*self.world.land(district).reflectance(day))

    def _seen_classes(self, a_pass: Pass) -> npt.NDArray[np.uint8]:
        """Scene classes over the district at 20 m; 0 where no tile of this pass has data."""
        look = self.world.look(a_pass)
        tiles = shapely.union_all([tile.outline for tile in a_pass.district.tiles])
        seen = shapely.union_all(look.pieces)
        return np.where(covered(a_pass.district, tiles) & covered(a_pass.district, seen), look.scl, np.uint8(0))


def covered(district: District, outline: BaseGeometry) -> npt.NDArray[np.bool_]:
    """Which 20 m pixels of the district have their centre inside the outline: (y, x)."""
    grid = district.grid
    if outline.contains(box(*grid.bounds)):
        return np.ones((grid.height // 2, grid.width // 2), bool)
    x = grid.left + 20 * (np.arange(grid.width // 2) + 0.5)
    y = grid.top - 20 * (np.arange(grid.height // 2) + 0.5)
    shapely.prepare(outline)
    return np.asarray(shapely.contains_xy(outline, *np.meshgrid(x, y)))


def _pieces(a_pass: Pass) -> tuple[Polygon, ...]:
    left, bottom, right, top = a_pass.district.grid.bounds
    if a_pass.is_partial:
        return (swath_outline(),)
    if not a_pass.is_split:
        return (box(left, bottom, right, top),)
    # The line meets no centre of a 20 m pixel: each belongs to one piece.
    west, east = (top + bottom) / 2 + 700.3, (top + bottom) / 2 - 903.1
    upper = Polygon([(left, top), (right, top), (right, east), (left, west)])
    return upper, Polygon([(left, west), (right, east), (right, bottom), (left, bottom)])


def _ground_classes(land: Land, red: npt.NDArray[np.float32], nir: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    fine = _ndvi(red, nir)
    ndvi = (fine[::2, ::2] + fine[1::2, ::2] + fine[::2, 1::2] + fine[1::2, 1::2]) / 4
    classes = np.where(ndvi < -0.05, WATER, np.where(ndvi > 0.35, VEGETATION, BARE))
    classes[land.bright_roofs] = SNOW
    return classes.astype(np.uint8)


def _ndvi(red: npt.NDArray[np.float32], nir: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray((nir - red) / (nir + red), dtype=np.float32)


def _whole_numbers(reflectance: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    return np.maximum(np.rint(reflectance * 10_000), 1).astype(np.uint16)
