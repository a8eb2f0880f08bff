"""Small true scenes: pictures as arrays, the files and the `Scene` made of them, and farms drawn in metres on them.

The truth comes first. A test draws pictures, computes what must be found by plain numpy on whole arrays, each pixel
placed by its coordinates, and lets exactextract reduce it; only then Swath looks at the files.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import rasterio.transform
import shapely
from affine import Affine
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from pyproj import Transformer
from rasterio.shutil import copy as raster_copy
from shapely.geometry.base import BaseGeometry

from infra.dask import Compute, threaded_compute
from models.domain import (
    Asset,
    Farm,
    FarmFailure,
    Grid,
    MaskPolicy,
    Observation,
    Rescale,
    Scene,
    SceneAnswer,
    SceneWork,
)
from tasks.imagery.reader import HttpLimits
from tasks.indices.footprints import FootprintCache
from tasks.look import Method
from tasks.observe import observe

GRID = Grid(epsg=32633, left=499980, top=5200020, resolution_m=10, width=120, height=100)
"""The upper left corner of a tile, 1.2 x 1 km."""
RAW = Rescale(scale=0.0001, offset=-0.1, rule="offset in the pixels")
REMOVED = Rescale(scale=0.0001, offset=0.0, rule="offset removed")
POLICY = MaskPolicy()
QUICK = HttpLimits(timeout_s=10, connect_timeout_s=5, retries=0, retry_delay_s=0.05)
"""No patience: a fault is a fault at once."""

Numbers = npt.NDArray[np.uint16]
Classes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What the three files of one item hold, and where their pixels lie."""

    grid: Grid
    scl_grid: Grid
    red: Numbers
    """(height, width) uint16 digital numbers, 0 nodata."""
    nir: Numbers
    scl: Classes
    """(height, width) uint8 on its own grid, 0 nodata."""


def scl_grid_of(grid: Grid, *, right_m: float = 0, down_m: float = 0) -> Grid:
    """The 20 m grid over a 10 m grid, moved by so much and one pixel larger than needed if it is."""
    side = 2 * grid.resolution_m
    return replace(
        grid,
        resolution_m=side,
        left=grid.left + right_m,
        top=grid.top - down_m,
        width=-(-grid.width // 2) + bool(right_m),
        height=-(-grid.height // 2) + bool(down_m),
    )


def blank(
    grid: Grid = GRID, *, red: int = 1500, nir: int = 4000, scl: int = 4, scl_grid: Grid | None = None
) -> Picture:
    """The same number in all pixels; the default is NDVI 5/7 with the offset in."""
    scl_grid = scl_grid or scl_grid_of(grid)
    return Picture(
        grid=grid,
        scl_grid=scl_grid,
        red=np.full(grid.shape, red, np.uint16),
        nir=np.full(grid.shape, nir, np.uint16),
        scl=np.full(scl_grid.shape, scl, np.uint8),
    )


def noisy(
    seed: int, grid: Grid = GRID, *, cloud: float = 0.3, gaps: float = 0.02, scl_grid: Grid | None = None
) -> Picture:
    """Random fields under random weather: every class occurs, and some pixels of red or near infrared are missing."""
    rng = np.random.default_rng(seed)
    scl_grid = scl_grid or scl_grid_of(grid)
    red = rng.integers(900, 3000, grid.shape, dtype=np.uint16)
    nir = rng.integers(950, 6000, grid.shape, dtype=np.uint16)
    red[rng.random(grid.shape) < gaps] = 0
    nir[rng.random(grid.shape) < gaps] = 0
    clear, hidden = np.array([4, 4, 4, 5, 6, 7, 11], np.uint8), np.array([1, 2, 3, 8, 9, 10, 0], np.uint8)
    scl = np.where(
        rng.random(scl_grid.shape) < cloud, rng.choice(hidden, scl_grid.shape), rng.choice(clear, scl_grid.shape)
    )
    return Picture(grid=grid, scl_grid=scl_grid, red=red, nir=nir, scl=scl.astype(np.uint8))


def write(
    picture: Picture,
    folder: Path,
    *,
    name: str = "scene",
    url: str | None = None,
    block: int = 32,
    rescale: Rescale = RAW,
    is_cog: bool = False,
    tile: str = "33TWM",
    footprint: tuple[tuple[tuple[float, float], ...], ...] = (),
) -> Scene:
    """Write the three files below `folder / name` and return the scene that reads them, from `url` if there is one."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    assets = {}
    for band, file, grid in (
        ("red", "B04", picture.grid),
        ("nir", "B08", picture.grid),
        ("scl", "SCL", picture.scl_grid),
    ):
        path = place / f"{file}.tif"
        _write_file(path, getattr(picture, band), grid, block=block, is_cog=is_cog)
        assets[band] = Asset(href=f"{url}/{name}/{file}.tif" if url else str(path), grid=grid)
    return Scene(
        catalog="test",
        collection="sentinel-2-l2a",
        item_id=name,
        tile=tile,
        platform="sentinel-2b",
        pass_id="sentinel-2b/20230813T100559",
        datastrip=f"S20230813T100600/{name}",
        acquired_at=dt.datetime(2023, 8, 13, 10, 8, tzinfo=dt.UTC),
        day=dt.date(2023, 8, 13),
        processing_baseline="05.09",
        updated=None,
        rescale=rescale,
        footprint=footprint,
        **assets,
    )


def _write_file(path: Path, numbers: npt.NDArray[Any], grid: Grid, *, block: int, is_cog: bool) -> None:
    options: dict[str, Any] = {"compress": "deflate"}
    shape = {
        "count": 1,
        "dtype": numbers.dtype,
        "crs": f"EPSG:{grid.epsg}",
        "transform": transform_of(grid),
        "nodata": 0,
    }
    shape |= {"width": grid.width, "height": grid.height}
    if not is_cog:
        with rasterio.open(
            path, "w", driver="GTiff", tiled=True, blockxsize=block, blockysize=block, **shape, **options
        ) as file:
            file.write(numbers, 1)
        return
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", **shape) as file:
            file.write(numbers, 1)
        with memory.open() as file:
            raster_copy(file, path, driver="COG", blocksize=block, **options)


def transform_of(grid: Grid) -> Affine:
    """The affine transform from columns and rows to metres."""
    return Affine(grid.resolution_m, 0, grid.left, 0, -grid.resolution_m, grid.top)


@functools.lru_cache
def _to_degrees(epsg: int) -> Transformer:
    return Transformer.from_crs(epsg, 4326, always_xy=True)


@functools.lru_cache
def _to_metres(epsg: int) -> Transformer:
    return Transformer.from_crs(4326, epsg, always_xy=True)


def in_degrees(shape: BaseGeometry, epsg: int = GRID.epsg) -> BaseGeometry:
    """A shape drawn in metres of a UTM zone, in longitude and latitude."""
    return shapely.transform(shape, _to_degrees(epsg).transform, interleaved=False)


def in_metres(boundary: bytes, epsg: int = GRID.epsg) -> BaseGeometry:
    """A boundary as it lies in a UTM zone, vertex by vertex."""
    return shapely.transform(shapely.from_wkb(boundary), _to_metres(epsg).transform, interleaved=False)


def farm_of(shape: BaseGeometry, number: int = 1, *, epsg: int = GRID.epsg) -> Farm:
    """A farm whose boundary is drawn in metres of a UTM zone."""
    boundary = in_degrees(shape, epsg)
    return Farm(
        id=number,
        external_farm_id=uuid.UUID(int=number),
        name=f"Farm {number}",
        external_user_id=None,
        boundary_version=1,
        boundary=shapely.to_wkb(boundary),
        bbox=shapely.bounds(boundary).tolist(),
        area_ha=shape.area / 10_000,
    )


def rectangle(left: float, top: float, width: float, height: float, *, grid: Grid = GRID) -> shapely.Polygon:
    """A rectangle placed in pixels from the grid's upper left corner, in metres."""
    step = grid.resolution_m
    x, y = grid.left + left * step, grid.top - top * step
    return shapely.box(x, y - height * step, x + width * step, y)


def circle(col: float, row: float, radius: float, *, grid: Grid = GRID) -> shapely.Polygon:
    """A disc placed in pixels from the grid's upper left corner, in metres."""
    step = grid.resolution_m
    return shapely.Point(grid.left + col * step, grid.top - row * step).buffer(radius * step)


def work_of(scenes: Sequence[Scene], farms: Sequence[Farm]) -> SceneWork:
    """The work of looking at these pieces for these farms."""
    return SceneWork(
        pass_id=scenes[0].pass_id,
        tiles=tuple(dict.fromkeys(scene.tile for scene in scenes)),
        scenes=tuple(scenes),
        farm_ids=tuple(farm.id for farm in farms),
    )


def look(
    scenes: Scene | Sequence[Scene],
    farms: Sequence[Farm],
    *,
    compute: Compute | None = None,
    cache: FootprintCache | None = None,
    **method: Any,
) -> SceneAnswer:
    """Observe with a new cache and, unless said otherwise, four threads and no patience for faults."""
    scenes = [scenes] if isinstance(scenes, Scene) else scenes
    if compute is None:
        with threaded_compute(4) as threads:
            return look(scenes, farms, compute=threads, cache=cache, **method)
    ways = Method(**{"policy": POLICY, "software_version": "test", "compute": compute, "http": QUICK} | method)
    return observe(work_of(scenes, farms), farms, method=ways, cache=cache or FootprintCache())


def by_farm(answer: SceneAnswer) -> dict[int, Observation | FarmFailure]:
    """What each farm was told; every farm is told one thing."""
    told = [*answer.observations, *answer.failures]
    found = {each.farm_id: each for each in told}
    assert len(found) == len(told)
    return found


def only(answer: SceneAnswer) -> Observation:
    """The one observation of an answer without failures."""
    assert not answer.failures, answer.failures
    [observation] = answer.observations
    return observation


# The truth, computed another way: whole arrays, every pixel placed by its coordinates.


def true_ndvi(
    pictures: Sequence[Picture],
    rescales: Sequence[Rescale],
    area: Grid,
    *,
    policy: MaskPolicy = POLICY,
) -> npt.NDArray[np.float64]:
    """NDVI of every pixel of an area that counts, NaN elsewhere; the first picture that knows of a pixel decides.

    Returns:
        (area.height, area.width) float64 on the area's grid.
    """
    cols, rows = np.meshgrid(np.arange(area.width), np.arange(area.height))
    x, y = area.left + (cols + 0.5) * area.resolution_m, area.top - (rows + 0.5) * area.resolution_m
    index = np.full(area.shape, np.nan)
    is_open = np.ones(area.shape, bool)
    for picture, rescale in zip(pictures, rescales, strict=True):
        classes = _at(picture.scl, picture.scl_grid, x, y)
        red, nir = _at(picture.red, picture.grid, x, y), _at(picture.nir, picture.grid, x, y)
        is_on_grid = _at(np.ones(picture.grid.shape, np.uint8), picture.grid, x, y) > 0
        hides = ~np.isin(picture.scl, sorted(policy.clear_classes)) | _within(picture, policy.dilation_m)
        is_hidden = _at(hides.astype(np.uint8), picture.scl_grid, x, y) > 0
        is_known = is_open & is_on_grid & (classes > 0)
        is_told = is_known & ~is_hidden & (red > 0) & (nir > 0)
        low, high = (numbers * rescale.scale + rescale.offset for numbers in (red[is_told], nir[is_told]))
        total = low + high
        with np.errstate(divide="ignore", invalid="ignore"):
            # a digital number is worth 0.0001: sums nearer to zero are zero but for rounding
            index[is_told] = np.where(total > 1e-6, np.clip((high - low) / total, -1, 1), np.nan)
        is_open &= ~(is_told | (is_known & is_hidden))
    return index


def _at(
    values: npt.NDArray[Any], grid: Grid, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Values of a raster at coordinates, 0 outside of it."""
    rows, cols = rasterio.transform.rowcol(transform_of(grid), x.ravel(), y.ravel())
    rows, cols = np.asarray(rows, int), np.asarray(cols, int)
    inside = (rows >= 0) & (rows < grid.height) & (cols >= 0) & (cols < grid.width)
    found = np.zeros(x.size)
    found[inside] = values[rows[inside], cols[inside]]
    return found.reshape(x.shape)


def _within(picture: Picture, distance_m: float) -> npt.NDArray[np.bool_]:
    """Pixels of the SCL grid whose centre lies within the distance of the centre of a cloudy one, pair by pair."""
    near = np.zeros(picture.scl.shape, bool)
    if distance_m <= 0:
        return near
    step = picture.scl_grid.resolution_m
    rows, cols = np.indices(picture.scl.shape)
    for row, col in np.argwhere(np.isin(picture.scl, (3, 8, 9, 10))):
        near |= np.hypot((rows - row) * step, (cols - col) * step) <= distance_m
    return near


TRUE_STATISTICS = (
    "mean", "stdev", "min", "max", "median", "count",
    "quantile(q=0.1)", "quantile(q=0.25)", "quantile(q=0.75)", "quantile(q=0.9)",
)  # fmt: skip


def true_statistics(
    index: npt.NDArray[np.float64], area: Grid, farms: Sequence[Farm], *, folder: Path
) -> list[dict[str, Any]]:
    """What exactextract finds for each farm on the masked NDVI, written to a file first, and of its pixels at all."""
    path = folder / f"truth-{uuid.uuid4().hex}.tif"
    shape = {
        "count": 1,
        "dtype": "float64",
        "crs": f"EPSG:{area.epsg}",
        "transform": transform_of(area),
        "nodata": np.nan,
    }
    with rasterio.open(path, "w", driver="GTiff", width=area.width, height=area.height, **shape) as file:
        file.write(index, 1)
    drawn = [json.loads(shapely.to_geojson(in_metres(farm.boundary, area.epsg))) for farm in farms]
    features = [{"type": "Feature", "properties": {}, "geometry": geometry} for geometry in drawn]
    with rasterio.open(path) as file:
        found = exact_extract(file, features, [*TRUE_STATISTICS, "values"])
    path.unlink()
    left, bottom, right, top = area.bounds
    everywhere = NumPyRasterSource(np.broadcast_to(np.uint8(0), area.shape), left, bottom, right, top)
    whole = exact_extract(everywhere, features, ["count", "coverage"])
    return [
        one["properties"] | {"area_px": other["properties"]["count"], "touched": len(other["properties"]["coverage"])}
        for one, other in zip(found, whole, strict=True)
    ]


def assert_agrees(observation: Observation, true: dict[str, Any]) -> None:
    """Hold an observation to what exactextract found: mean within 1e-6, quantiles within 1e-4."""
    found = observation.statistics
    if not true["count"]:
        assert found is None
        assert observation.ndvi is None
        assert observation.clear_fraction == 0
        return
    assert found is not None
    assert found.mean == pytest.approx(true["mean"], abs=1e-6)
    assert found.std == pytest.approx(true["stdev"], abs=1e-6)
    assert (found.min, found.max) == (true["min"], true["max"])
    quantiles = (found.p10, found.p25, found.median, found.p75, found.p90)
    names = ("quantile_10", "quantile_25", "median", "quantile_75", "quantile_90")
    assert quantiles == pytest.approx([true[name] for name in names], abs=1e-4)
    assert found.clear_area_ha == pytest.approx(true["count"] / 100, rel=1e-6)
    assert found.pixel_count == len(true["values"])
    assert sum(found.histogram) == pytest.approx(true["count"], rel=1e-6)
    assert_ordered(observation)


def assert_ordered(observation: Observation) -> None:
    """Statistics in the order that their names promise."""
    found = observation.statistics
    assert found is not None
    assert found.min <= found.p10 <= found.p25 <= found.median <= found.p75 <= found.p90 <= found.max
    assert found.min <= found.mean <= found.max
    assert found.min >= -1
    assert found.max <= 1
    assert 0 <= observation.clear_fraction <= 1
