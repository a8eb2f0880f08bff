"""The ground of one district: farms, the country around them, and how both reflect on any day."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from infra.sandbox.crops import CROPS, HALF_A_YEAR_DAYS, VILLAGE, WOODLAND, season
from infra.sandbox.fields import SimulatedFarm
from infra.sandbox.noise import smooth_noise
from infra.sandbox.passes import stream
from infra.sandbox.places import District
from models.domain import Grid

Floats = npt.NDArray[np.float32]
_COUNTRY = (*CROPS, WOODLAND, VILLAGE)
_RIVER_NDVI = -0.3
_TRACK_NDVI = 0.13
_BRIGHT_ROOF = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class FarmPixels:
    """The pixels that one farm touches on the district's 10 m grid, row by row."""

    rows: npt.NDArray[np.intp]
    columns: npt.NDArray[np.intp]
    fraction: npt.NDArray[np.float64]
    """Share of each pixel inside the boundary, above 0 up to 1."""
    texture: npt.NDArray[np.float64]
    """Factor on the field's NDVI, about 1."""


class Land:
    """One district of the world of one seed."""

    def __init__(self, district: District, farms: tuple[SimulatedFarm, ...], seed: int) -> None:
        self.district = district
        self.farms = tuple(farm for farm in farms if farm.district == district)
        rng = np.random.default_rng(stream(seed, "land", district.name))
        height, width = district.grid.shape
        self._parcels, count = _parcels(rng, height, width)
        self._kinds = rng.choice(len(_COUNTRY), count, p=_shares())
        self._shifts = rng.normal(0, 8, count)
        self._vigour = rng.uniform(0.75, 1.0, count)
        # Steps of 40 m, so that the files stay small: the eye of a test is on the farms.
        steps = rng.integers(-1, 2, (height // 4 + 1, width // 4 + 1)).astype(np.float32)
        self._relief = (1 + 0.02 * np.kron(steps, np.ones((4, 4), np.float32)))[:height, :width]
        self._is_river = _river(rng, height, width) if not district.is_southern else np.zeros((height, width), bool)
        self._pixels = {farm.external_farm_id: _farm_pixels(rng, farm, district.grid) for farm in self.farms}
        self.bright_roofs = self._roofs()
        """Where the scene classes take roofs for snow, as the real ones do: bool (y, x) on the 20 m grid."""

    def pixels(self, farm: SimulatedFarm) -> FarmPixels:
        """The pixels that the farm touches."""
        return self._pixels[farm.external_farm_id]

    def field_ndvi(self, farm: SimulatedFarm, day: dt.date) -> npt.NDArray[np.float64]:
        """NDVI of the farm's own ground in each of its pixels, nothing mixed in: float64 by pixel, none missing."""
        level = season(farm.crop, self._day_of_year(day), farm.shift_days, farm.vigour)
        return np.asarray(np.clip(level * self.pixels(farm).texture, -0.95, 0.95), dtype=np.float64)

    def reflectance(self, day: dt.date) -> tuple[Floats, Floats]:
        """Red and near infrared of the ground under a clear sky.

        Returns:
            Two arrays (y, x) on the district's 10 m grid, float32, reflectance as a fraction, none missing. A pixel
            on a boundary mixes field and surroundings by their shares of its area.
        """
        red, nir = _bands(self._country_ndvi(day))
        every = [self.pixels(farm) for farm in self.farms]
        where = (
            np.concatenate([pixels.rows for pixels in every]),
            np.concatenate([pixels.columns for pixels in every]),
        )
        share = np.concatenate([pixels.fraction for pixels in every]).astype(np.float32)
        own = np.concatenate([self.field_ndvi(farm, day) for farm in self.farms]).astype(np.float32)
        own_red, own_nir = _bands(own)
        red[where] = share * own_red + (1 - share) * red[where]
        nir[where] = share * own_nir + (1 - share) * nir[where]
        return red, nir

    def _day_of_year(self, day: dt.date) -> float:
        ordinal = day.timetuple().tm_yday
        return float((ordinal + HALF_A_YEAR_DAYS) % 365 if self.district.is_southern else ordinal)

    def _roofs(self) -> npt.NDArray[np.bool_]:
        villages = np.flatnonzero(self._kinds == len(_COUNTRY) - 1)[::4] + 1
        is_roof = np.isin(self._parcels, villages)
        for pixels in self._pixels.values():
            is_roof[pixels.rows, pixels.columns] = False
        return is_roof[::2, ::2] & is_roof[1::2, ::2] & is_roof[::2, 1::2] & is_roof[1::2, 1::2]

    def _country_ndvi(self, day: dt.date) -> Floats:
        levels = np.empty(len(self._kinds) + 1, np.float32)
        levels[0] = _TRACK_NDVI
        for number, crop in enumerate(_COUNTRY):
            of_kind = np.flatnonzero(self._kinds == number)
            levels[of_kind + 1] = season(crop, self._day_of_year(day), self._shifts[of_kind], self._vigour[of_kind])
        ndvi = levels[self._parcels] * self._relief
        ndvi[self._is_river] = _RIVER_NDVI
        return np.asarray(ndvi, dtype=np.float32)


def _bands(ndvi: Floats) -> tuple[Floats, Floats]:
    """Reflectances with exactly this NDVI: bright soil, brighter leaves in near infrared, dark water."""
    total = np.where(ndvi < 0, np.float32(0.07), np.float32(0.34) + np.float32(0.16) * ndvi)
    nir: Floats = (total * (1 + ndvi) / 2).astype(np.float32, copy=False)
    red: Floats = (total - nir).astype(np.float32, copy=False)
    return red, nir


def _shares() -> npt.NDArray[np.float64]:
    shares = np.array([1.0] * len(CROPS) + [1.5, 0.6])
    return np.asarray(shares / shares.sum())


def _parcels(rng: np.random.Generator, height: int, width: int) -> tuple[npt.NDArray[np.int32], int]:
    """Cut the ground into rectangles of 120 to 600 m; 0 is the track at the edge of each, 1 to `count` are parcels."""
    parcels = np.zeros((height, width), np.int32)
    pieces, count = [(0, 0, height, width)], 0
    while pieces:
        top, left, tall, wide = pieces.pop()
        if max(tall, wide) > 60 or (max(tall, wide) > 24 and rng.random() < 0.5):
            share = rng.uniform(0.35, 0.65)
            if tall >= wide:
                cut = int(tall * share)
                pieces += [(top, left, cut, wide), (top + cut, left, tall - cut, wide)]
            else:
                cut = int(wide * share)
                pieces += [(top, left, tall, cut), (top, left + cut, tall, wide - cut)]
            continue
        count += 1
        parcels[top + 1 : top + tall, left + 1 : left + wide] = count
    return parcels, count


def _river(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.bool_]:
    rows = np.arange(height)
    bends = 40 * np.sin(rows / rng.uniform(90, 140)) + 15 * np.sin(rows / 31)
    middle = width * 0.83 + bends
    return np.asarray(np.abs(np.arange(width)[None, :] - middle[:, None]) < 4)


def _farm_pixels(rng: np.random.Generator, farm: SimulatedFarm, grid: Grid) -> FarmPixels:
    left, bottom, right, top = farm.outline.bounds
    first_row, last_row = int((grid.top - top) // 10), int((grid.top - bottom) // 10)
    first_column, last_column = int((left - grid.left) // 10), int((right - grid.left) // 10)
    rows, columns = np.mgrid[first_row : last_row + 1, first_column : last_column + 1]
    x, y = grid.left + 10.0 * columns, grid.top - 10.0 * rows
    shapely.prepare(farm.outline)
    squares = shapely.box(x, y - 10, x + 10, y)
    fraction = shapely.contains_properly(farm.outline, squares).astype(np.float64)
    crossed = (fraction == 0) & shapely.intersects(farm.outline, squares)
    fraction[crossed] = shapely.area(shapely.intersection(squares[crossed], farm.outline)) / 100
    texture = 1 + 0.05 * smooth_noise(rng, rows.shape, 6) + 0.008 * rng.standard_normal(rows.shape)
    touched = fraction > 0
    return FarmPixels(
        rows=rows[touched],
        columns=columns[touched],
        fraction=np.minimum(fraction[touched], 1.0),
        texture=texture[touched],
    )
