"""The other ways: farm by farm with plain rasterio, stackstac or odc-stac; or the whole scene, then exactextract.

They are given what is good for them: the farms already in metres, Swath's own GDAL settings, items without a search,
all dates of a farm in one load where the library can, and threads if those help.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import geopandas
import numpy as np
import odc.stac
import rasterio
import stackstac
from exactextract import exact_extract
from exactextract.feature import JSONFeatureSource
from exactextract.raster import NumPyRasterSource
from odc.geo.geobox import GeoBox
from pystac import Item
from rasterio.transform import from_origin
from rasterio.windows import Window

from benchmarks.tile import BLOCK, DAYS, EPSG, LEFT, OFFSET_DN, TOP, grid_of, name_of
from models.domain import Farm, MaskPolicy
from tasks.imagery.reader import HttpLimits, gdal_options, use_gdal_options
from tasks.indices.footprints import project

LIMITS = HttpLimits()
BANDS = ("red", "nir", "scl")
Means = tuple[float | None, ...]
"""Mean NDVI of one farm on each date."""
Image = Any


class Field:
    """A farm as the per-farm ways want it: in metres, with its window on the 20 m grid, in 10 m pixels."""

    def __init__(self, shape: Any) -> None:
        self.shape = shape
        left, bottom, right, top = shape.bounds
        first_col, last_col = int((left - LEFT) // 20) * 2, -int(-(right - LEFT) // 20) * 2
        first_row, last_row = int((TOP - top) // 20) * 2, -int(-(TOP - bottom) // 20) * 2
        self.window = Window(first_col, first_row, last_col - first_col, last_row - first_row)
        self.bounds = (
            LEFT + first_col * 10,
            TOP - last_row * 10,
            LEFT + last_col * 10,
            TOP - first_row * 10,
        )

    def mean(self, red: Image, nir: Image, classes: Image) -> float | None:
        """Coverage-weighted mean NDVI over clear pixels of the window."""
        index = masked_ndvi(red, nir, classes)
        left, bottom, right, top = self.bounds
        raster = NumPyRasterSource(index, xmin=left, ymin=bottom, xmax=right, ymax=top, nodata=np.nan)
        feature = JSONFeatureSource([{"type": "Feature", "geometry": self.shape.__geo_interface__, "properties": {}}])
        [found] = exact_extract(raster, feature, ["mean"])
        mean = found["properties"]["mean"]
        return None if mean is None or np.isnan(mean) else float(mean)


def fields_of(farms: Sequence[Farm]) -> list[Field]:
    """The farms in metres."""
    return [Field(shape) for shape in project([farm.boundary for farm in farms], EPSG)]


def masked_ndvi(red: Image, nir: Image, classes: Image) -> Image:
    """NDVI as float64, NaN where the scene class hides the pixel or a band is missing; any shape."""
    near, far = (band.astype(np.float64) * 1e-4 - OFFSET_DN * 1e-4 for band in (red, nir))
    with np.errstate(all="ignore"):
        index = np.clip((far - near) / (far + near), -1, 1)
    index[~np.isin(classes, sorted(MaskPolicy().clear_classes)) | (red == 0) | (nir == 0) | (near + far <= 0)] = np.nan
    return index


def plain_rasterio(url: str, field: Field, _size: int) -> Means:
    """Open three files a date, read the window of each."""
    use_gdal_options(LIMITS)
    means = []
    half = Window(*(part // 2 for part in field.window.flatten()))
    for day in DAYS:
        bands = []
        for band in BANDS:
            with rasterio.open(f"/vsicurl/{url}/{name_of(day, band)}") as dataset:
                bands.append(dataset.read(1, window=half if band == "scl" else field.window))
        red, nir, classes = bands
        means.append(field.mean(red, nir, np.repeat(np.repeat(classes, 2, 0), 2, 1)))
    return tuple(means)


def with_stackstac(url: str, field: Field, size: int) -> Means:
    """Stack all dates over the farm's bounds, as one chunk an asset, and compute in this thread."""
    array = stackstac.stack(
        _items(url, size),
        assets=list(BANDS),
        epsg=EPSG,
        resolution=10,
        bounds=field.bounds,
        snap_bounds=False,
        dtype=np.dtype(np.uint16),
        fill_value=np.uint16(0),
        rescale=False,
        xy_coords=False,
        properties=False,
        band_coords=False,
        errors_as_nodata=(),
        gdal_env=stackstac.DEFAULT_GDAL_ENV.updated(always=gdal_options(LIMITS)),
    )
    pixels = array.data.compute(scheduler="synchronous")
    return tuple(field.mean(*bands) for bands in pixels)


def with_odc_stac(url: str, field: Field, size: int) -> Means:
    """Load all dates over the farm's bounds at once."""
    use_gdal_options(LIMITS)
    left, _, _, top = field.bounds
    shape = (int(field.window.height), int(field.window.width))
    geobox = GeoBox(shape, from_origin(left, top, 10, 10), EPSG)
    items = [Item.from_dict(item) for item in _items(url, size)]
    loaded = odc.stac.load(items, bands=list(BANDS), geobox=geobox, dtype="uint16", nodata=0, resampling="nearest")
    red, nir, classes = (loaded[band].values for band in BANDS)
    return tuple(field.mean(*bands) for bands in zip(red, nir, classes, strict=True))


PER_FARM: dict[str, Callable[[str, Field, int], Means]] = {
    "rasterio per farm": plain_rasterio,
    "stackstac per farm": with_stackstac,
    "odc-stac per farm": with_odc_stac,
}


def per_farm(name: str, url: str, fields: Sequence[Field], *, size: int, threads: int) -> list[Means]:
    """Mean NDVI of each field on each date, one field after the other or as many at once as there are threads."""
    way = PER_FARM[name]
    if threads == 1:
        return [way(url, each, size) for each in fields]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda each: way(url, each, size), fields))


def whole_scene(url: str, fields: Sequence[Field], *, size: int) -> list[Means]:
    """Read whole bands, write the NDVI raster of each date, and run exactextract over it."""
    frame = geopandas.GeoDataFrame(geometry=[field.shape for field in fields], crs=EPSG)
    with tempfile.TemporaryDirectory(prefix="swath-bench-") as folder, ndvi_rasters(url, Path(folder), size) as files:
        columns = [exact_extract(str(file), frame, ["mean"], output="pandas")["mean"].to_numpy() for file in files]
    table = np.column_stack(columns)
    return [tuple(None if np.isnan(mean) else float(mean) for mean in row) for row in table]


@contextmanager
def ndvi_rasters(url: str, folder: Path, size: int) -> Iterator[list[Path]]:
    """Masked NDVI of each date as a file, float32, NaN where not clear."""
    yield [_write_ndvi(url, folder, size, number) for number in range(len(DAYS))]


def _write_ndvi(url: str, folder: Path, size: int, number: int) -> Path:
    bands = []
    with rasterio.Env(**gdal_options(LIMITS) | {"GDAL_NUM_THREADS": "ALL_CPUS"}):
        for band in BANDS:
            with rasterio.open(f"/vsicurl/{url}/{name_of(DAYS[number], band)}") as dataset:
                bands.append(dataset.read(1))
    red, nir, classes = bands
    file = folder / f"{DAYS[number]}-ndvi.tif"
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": size, "width": size, "nodata": np.nan}
    profile |= {"crs": f"EPSG:{EPSG}", "transform": from_origin(LEFT, TOP, 10, 10), "tiled": True}
    with rasterio.open(file, "w", **profile, blockxsize=256, blockysize=256) as dataset:
        for top in range(0, size, BLOCK):
            rows = slice(top, min(top + BLOCK, size))
            half = slice(top // 2, rows.stop // 2)
            near = np.repeat(np.repeat(classes[half], 2, 0), 2, 1)
            index = masked_ndvi(red[rows], nir[rows], near).astype(np.float32)
            dataset.write(index, 1, window=Window(0, top, size, rows.stop - top))
    return file


_made = threading.local()


def _items(url: str, size: int) -> list[dict[str, Any]]:
    """STAC items of the three dates, as a search would have given them."""
    if getattr(_made, "key", None) != (url, size):
        _made.key, _made.items = (url, size), [_item(url, size, number) for number in range(len(DAYS))]
    items: list[dict[str, Any]] = _made.items
    return items


def _item(url: str, size: int, number: int) -> dict[str, Any]:
    day = DAYS[number]
    corners = [(14.9, 45.9), (16.5, 45.9), (16.5, 47.0), (14.9, 47.0), (14.9, 45.9)]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
        ],
        "id": f"S2A_T33TWM_{day:%Y%m%d}",
        "collection": "simulated",
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "bbox": [14.9, 45.9, 16.5, 47.0],
        "properties": {"datetime": f"{day}T10:00:00Z", "proj:epsg": EPSG},
        "links": [],
        "assets": {band: _asset(url, band, day, size) for band in BANDS},
    }


def _asset(url: str, band: str, day: Any, size: int) -> dict[str, Any]:
    grid = grid_of(band, size)
    step = grid.resolution_m
    return {
        "href": f"{url}/{name_of(day, band)}",
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"],
        "proj:shape": list(grid.shape),
        "proj:transform": [step, 0, grid.left, 0, -step, grid.top],
        "raster:bands": [{"data_type": "uint8" if band == "scl" else "uint16", "nodata": 0}],
    }


dask.config.set(scheduler="synchronous")
