"""A full-size Sentinel-2-like tile on disk: red and near infrared at 10 m, scene classes at 20 m, three dates.

Simulated, from a seed. What matters here is what costs time in real files: their size, their blocks, how well they
compress (about 1.5 bytes a pixel), and clouds so large that whole blocks are hidden.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import from_origin

from models.domain import Asset, Grid, Rescale, Scene, SceneWork

VERSION = 2
"""Changes when the files would: an older folder in the cache is then left alone and not used."""
FULL_SIZE = 10_980
BLOCK = 1024
EPSG = 32633
LEFT, TOP = 499_980.0, 5_200_020.0
DAYS = (dt.date(2026, 5, 4), dt.date(2026, 6, 13), dt.date(2026, 7, 23))
VIGOUR_ON_DAY = (0.5, 1.0, 0.75)
CLOUDY_FRACTION = 0.3
FIELD_PX = 20
NOISE_DN = 75
OFFSET_DN = 1000

Image = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """The files of one simulated tile: `DAY-red.tif`, `DAY-nir.tif`, `DAY-scl.tif`."""

    folder: Path
    size: int

    def file(self, day: dt.date, band: str) -> Path:
        """Where a band of a day lies."""
        return self.folder / name_of(day, band)

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(file.stat().st_size for file in self.folder.iterdir())


def name_of(day: dt.date, band: str) -> str:
    """File name of a band of a day."""
    return f"{day}-{band}.tif"


def grid_of(band: str, size: int) -> Grid:
    """Grid of a band (`red`, `nir` or `scl`) of a tile whose 10 m bands have `size` pixels a side."""
    step, side = (20.0, size // 2) if band == "scl" else (10.0, size)
    return Grid(epsg=EPSG, left=LEFT, top=TOP, resolution_m=step, width=side, height=side)


def scene_works(base_url: str, *, size: int, farm_ids: tuple[int, ...]) -> list[SceneWork]:
    """The work of observing the farms on each of the three dates, files at `base_url`."""
    return [
        SceneWork(
            pass_id=f"sentinel-2a:{day}", tiles=("33TWM",), scenes=(_scene(base_url, day, size),), farm_ids=farm_ids
        )
        for day in DAYS
    ]


def _scene(base_url: str, day: dt.date, size: int) -> Scene:
    red, nir, scl = (
        Asset(href=f"{base_url}/{name_of(day, band)}", grid=grid_of(band, size)) for band in ("red", "nir", "scl")
    )
    instant = dt.datetime.combine(day, dt.time(10, 0), dt.UTC)
    return Scene(
        catalog="benchmark",
        collection="simulated",
        item_id=f"S2A_T33TWM_{day:%Y%m%d}",
        tile="33TWM",
        platform="sentinel-2a",
        pass_id=f"sentinel-2a:{day}",
        datastrip=instant.isoformat(),
        acquired_at=instant,
        day=day,
        processing_baseline="05.11",
        updated=None,
        rescale=Rescale(scale=1e-4, offset=-OFFSET_DN * 1e-4, rule="simulated"),
        red=red,
        nir=nir,
        scl=scl,
    )


def make_tile(cache: Path, *, size: int = FULL_SIZE) -> tuple[Tile, bool]:
    """The tile, made if the cache does not hold it, and whether it had to be made.

    It appears in the cache whole or not at all; two runs that make it at the same time do not disturb each other.
    """
    folder = cache / f"tile-v{VERSION}-{size}"
    tile = Tile(folder=folder, size=size)
    if folder.is_dir():
        return tile, False
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="making-", dir=cache) as made:
        draft = Path(made) / "tile"
        draft.mkdir()
        _draw(Tile(folder=draft, size=size))
        with contextlib.suppress(OSError):  # another run was first: its files are the same
            draft.rename(folder)
    if not folder.is_dir():
        raise OSError(f"cannot move the tile into {cache}")
    return tile, True


def _draw(tile: Tile) -> None:
    rng = np.random.default_rng(20260504)
    side = tile.size
    fields = rng.random((-(-side // FIELD_PX),) * 2, dtype=np.float32)
    noise = (rng.standard_normal((side, side), dtype=np.float32) * NOISE_DN).astype(np.int16)
    for number, (day, growth) in enumerate(zip(DAYS, VIGOUR_ON_DAY, strict=True)):
        classes = _clouds(rng, side // 2)
        _write(tile.file(day, "scl"), classes, resolution_m=20)
        is_cloud = np.isin(classes, (8, 9))
        # another day, other noise: the same texture from another place
        red_noise = np.roll(noise, (number * 997, number * 1_501), (0, 1))
        red = _band(fields * growth, red_noise, low=1_300 + OFFSET_DN, high=250 + OFFSET_DN, is_cloud=is_cloud)
        _write(tile.file(day, "red"), red, resolution_m=10)
        nir = _band(fields * growth, red_noise[::-1], low=1_700 + OFFSET_DN, high=4_600 + OFFSET_DN, is_cloud=is_cloud)
        _write(tile.file(day, "nir"), nir, resolution_m=10)


def _band(vigour: Image, noise: Image, *, low: int, high: int, is_cloud: Image) -> Image:
    """Digital numbers (uint16) from bare soil (`low`) to dense crop (`high`), clouds bright, never 0."""
    side = len(noise)
    levels = (low + (high - low) * vigour).astype(np.int16)
    band = np.empty((side, side), np.uint16)
    for top in range(0, side, FIELD_PX * 50):
        rows = slice(top, min(top + FIELD_PX * 50, side))
        ground = _enlarge(levels[top // FIELD_PX : -(-rows.stop // FIELD_PX)], FIELD_PX)[: rows.stop - top, :side]
        cloud = _enlarge(is_cloud[top // 2 : -(-rows.stop // 2)], 2)[: rows.stop - top, :side]
        band[rows] = np.where(cloud, 6_000 + noise[rows], ground + noise[rows])
    return band


def _enlarge(image: Image, times: int) -> Image:
    return np.repeat(np.repeat(image, times, axis=0), times, axis=1)


def _clouds(rng: np.random.Generator, side: int) -> Image:
    """Scene classes (side, side): about 30 % cloud and shadow in clouds a third of the tile wide."""
    height = _smooth(rng, side, knots=3)
    levels = np.quantile(height[::16, ::16], [1 - CLOUDY_FRACTION * part for part in (1, 0.9, 0.8)])
    ground = np.where(_smooth(rng, side, knots=40) > 0, np.uint8(4), np.uint8(5))
    for level, scene_class in zip(levels, (3, 8, 9), strict=True):  # shadow around thin around thick cloud
        ground[height > level] = scene_class
    return ground


def _smooth(rng: np.random.Generator, side: int, *, knots: int) -> Image:
    """A random surface (side, side) of float32 that bends smoothly between `knots` points a side."""
    surface = rng.standard_normal((knots + 3, knots + 3)).astype(np.float32)
    weights = _spline_weights(side, knots)
    return weights @ surface @ weights.T


def _spline_weights(side: int, knots: int) -> Image:
    """Uniform cubic B-spline weights (side, knots + 3) of float32."""
    place = np.arange(side) * (knots / side)
    left, t = place.astype(int), place % 1
    weights = np.zeros((side, knots + 3), np.float32)
    pieces = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    for step, piece in enumerate(pieces):
        weights[np.arange(side), left + step] = piece / 6
    return weights


def _write(file: Path, image: Image, *, resolution_m: float) -> None:
    """Write as COG does: directories first, square blocks, deflate with a predictor as Sentinel-2's public COGs."""
    with rasterio.open(
        file,
        "w",
        driver="COG",
        height=image.shape[0],
        width=image.shape[1],
        count=1,
        dtype=image.dtype,
        crs=f"EPSG:{EPSG}",
        transform=from_origin(LEFT, TOP, resolution_m, resolution_m),
        nodata=0,
        BLOCKSIZE=BLOCK,
        COMPRESS="DEFLATE",
        PREDICTOR="YES",
        OVERVIEWS="NONE",
        NUM_THREADS="ALL_CPUS",
    ) as dataset:
        dataset.write(image, 1)
