"""What exactextract says of the masked NDVI raster of an item: the judge of our numbers, sharing no code with them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
from exactextract import exact_extract

CLEAR = (4, 5, 6, 7, 11)
QUANTILES = {"p10": 0.1, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9}


@dataclass(frozen=True)
class Truth:
    """Statistics of one polygon; None where it has no clear pixel."""

    numbers: dict[str, float] | None
    clear_fraction: float


def masked_ndvi(item: dict[str, Any], folder: Path, out: Path, *, offset: float) -> Path:
    """Write the NDVI of an item whose assets are files below `folder`, NaN where a pixel does not count.

    The scene classification is brought to the 10 m grid by the coordinates of the pixels' centres.
    """
    bands = {}
    for name in ("red", "nir", "scl"):
        with rasterio.open(folder / item["assets"][name]["href"]) as dataset:
            bands[name] = (dataset.read(1), dataset.transform, dataset.crs)
    red, transform, crs = bands["red"]
    nir = bands["nir"][0]
    classes, scl_transform, _ = bands["scl"]
    rows, cols = np.mgrid[: red.shape[0], : red.shape[1]]
    x, y = transform @ (cols + 0.5, rows + 0.5)
    scl_cols, scl_rows = ~scl_transform @ (x, y)
    scl_rows, scl_cols = np.floor(scl_rows).astype(int), np.floor(scl_cols).astype(int)
    inside = (scl_rows >= 0) & (scl_rows < classes.shape[0]) & (scl_cols >= 0) & (scl_cols < classes.shape[1])
    clear = np.zeros(red.shape, bool)
    clear[inside] = np.isin(classes[scl_rows[inside], scl_cols[inside]], CLEAR)
    r, n = red * 1e-4 + offset, nir * 1e-4 + offset
    counts = clear & (red > 0) & (nir > 0) & (r + n > 0)
    ndvi = np.where(counts, np.clip((n - r) / np.where(counts, n + r, 1), -1, 1), np.nan)
    with rasterio.open(
        out,
        "w",
        driver="GTiff",
        height=red.shape[0],
        width=red.shape[1],
        count=1,
        dtype="float64",
        crs=crs,
        transform=transform,
        nodata=np.nan,
    ) as dataset:
        dataset.write(ndvi, 1)
    return out


def judge(raster: Path, polygons: gpd.GeoDataFrame, *, key: str) -> dict[str, Truth]:
    """What exactextract finds in the raster for each polygon, by the polygons' `key`."""
    with rasterio.open(raster) as dataset:
        projected = polygons.to_crs(dataset.crs)
        pixel_area = abs(dataset.transform.a * dataset.transform.e)
    operations = ["mean", "stdev", "min", "max", "count", *(f"quantile(q={q})" for q in QUANTILES.values())]
    found = exact_extract(str(raster), projected[[key, "geometry"]], operations, include_cols=[key])
    truths = {}
    for feature, area in zip(found, projected.area, strict=True):
        numbers = feature["properties"]
        count = numbers["count"] or 0
        told = None
        if count > 0:
            told = {name: numbers[name] for name in ("mean", "min", "max")}
            told["std"] = numbers["stdev"]
            told |= {name: numbers[f"quantile_{round(q * 100)}"] for name, q in QUANTILES.items()}
        truths[str(numbers[key])] = Truth(told, count * pixel_area / area)
    return truths


def solar_day(item: dict[str, Any]) -> dt.date:
    """The local solar day of an item, from its time and the middle of its outline."""
    instant = dt.datetime.fromisoformat(item["properties"]["datetime"].replace("Z", "+00:00"))
    ring = item["geometry"]["coordinates"][0]
    longitude = (min(x for x, _ in ring) + max(x for x, _ in ring)) / 2
    return (instant + dt.timedelta(hours=longitude / 15)).date()
