"""STAC items of the simulated archive, in the two shapes in which Earth Search v1 serves Sentinel-2."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from infra.sandbox.fields import to_degrees
from infra.sandbox.passes import Pass
from infra.sandbox.places import Tile
from infra.sandbox.sky import CLOUDY

C1, L2A = "sentinel-2-c1-l2a", "sentinel-2-l2a"
COLLECTIONS = (C1, L2A)
OFFSET_DN = 1000
"""Left in the pixels of the first collection and taken out of the second, which still publishes it."""
_EXTENSIONS = [
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("eo/v1.1.0", "raster/v1.1.0", "projection/v1.1.0", "mgrs/v1.0.0", "grid/v1.0.0")
]
_BANDS = {"red": ("B04", 0.665, "Red (band 4) - 10m"), "nir": ("B08", 0.842, "NIR 1 (band 8) - 10m")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One delivery of one piece of one pass over one tile, in one collection."""

    collection: str
    a_pass: Pass
    tile: Tile
    piece: int
    """0, or 1 for the second datastrip of a split pass."""
    is_old: bool
    """The earlier of two processings."""

    @property
    def baseline(self) -> str:
        """Processing baseline, e.g. `05.11`."""
        return "05.10" if self.is_old else "05.11"

    @property
    def sensed_at(self) -> dt.datetime:
        """When the datastrip begins."""
        return self.a_pass.acquired_at + dt.timedelta(seconds=347 + 11 * self.piece)

    @property
    def generated_at(self) -> dt.datetime:
        """When the product was made."""
        hours = 4.5 if self.is_old or not self.a_pass.is_processed_twice else 90
        return self.sensed_at + dt.timedelta(hours=hours, minutes=self.piece)

    @property
    def item_id(self) -> str:
        """As the real collection would name it."""
        a_pass, tile = self.a_pass, self.tile.name
        if self.collection == C1:
            return f"{a_pass.short_platform}_T{tile}_{self.sensed_at:%Y%m%dT%H%M%S}_L2A"
        is_newer = a_pass.is_processed_twice and not self.is_old
        return f"{a_pass.short_platform}_{tile}_{a_pass.day:%Y%m%d}_{self.piece or int(is_newer)}_L2A"


def item_of(product: Product, outline: BaseGeometry, scl: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """The item of a product, its addresses relative to the archive's folder.

    Args:
        product: What was delivered.
        outline: Where it has data, in grid units.
        scl: Scene classes of the tile, uint8 (y, x) at 20 m, 0 where it has none.
    """
    footprint = to_degrees(outline, product.tile.grid.epsg)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": _EXTENSIONS,
        "id": product.item_id,
        "collection": product.collection,
        "geometry": mapping(footprint),
        "bbox": list(footprint.bounds),
        "properties": _properties(product, scl),
        "links": [],
        "assets": {
            **{name: _band(product, name) for name in _BANDS},
            "scl": _asset(product, "SCL", 20, "Scene classification map (SCL)", {"data_type": "uint8"}),
        },
    }


def _properties(product: Product, scl: npt.NDArray[np.uint8]) -> dict[str, Any]:
    epsg, tile, counts = product.tile.grid.epsg, product.tile.name, np.bincount(scl.ravel(), minlength=12)
    seen = int(counts[1:].sum())
    made = f"{product.generated_at:%Y-%m-%dT%H:%M:%S}"
    special: dict[str, Any] = (
        {"proj:code": f"EPSG:{epsg}"}
        if product.collection == C1
        else {"proj:epsg": epsg, "earthsearch:boa_offset_applied": True, "s2:sequence": product.item_id.split("_")[3]}
    )
    return {
        # The tile is pictured some seconds into its datastrip; pieces of one pass differ, as real ones do.
        "datetime": f"{product.sensed_at + dt.timedelta(seconds=9):%Y-%m-%dT%H:%M:%S}.024000Z",
        "created": f"{made}.000Z",
        "updated": f"{made}.000Z",
        "platform": product.a_pass.platform,
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "eo:cloud_cover": round(100 * float(counts[list(CLOUDY)].sum()) / seen, 6),
        "grid:code": f"MGRS-{tile}",
        "mgrs:utm_zone": int(tile[:2]),
        "mgrs:latitude_band": tile[2],
        "mgrs:grid_square": tile[3:],
        "s2:nodata_pixel_percentage": round(100 * float(counts[0]) / scl.size, 6),
        "swath:simulated": True,
        **_names(product),
        **special,
    }


def _names(product: Product) -> dict[str, str]:
    a_pass = product.a_pass
    short, number = a_pass.short_platform, product.baseline
    orbit = 30_000 + a_pass.day.toordinal() % 20_000
    taken, made = f"{a_pass.acquired_at:%Y%m%dT%H%M%S}", f"{product.generated_at:%Y%m%dT%H%M%S}"
    compact = number.replace(".", "")
    return {
        "s2:processing_baseline": number,
        "s2:generation_time": f"{product.generated_at:%Y-%m-%dT%H:%M:%S}.000000Z",
        "s2:datatake_id": f"G{short}_{taken}_{orbit:06}_N{number}",
        "s2:datatake_type": "INS-NOBS",
        "s2:product_type": "S2MSI2A",
        "s2:datastrip_id": f"{short}_OPER_MSI_L2A_DS_SIMU_{made}_S{product.sensed_at:%Y%m%dT%H%M%S}_N{number}",
        "s2:product_uri": (
            f"{short}_MSIL2A_{taken}_N{compact}_R{a_pass.relative_orbit:03}_T{product.tile.name}_{made}.SAFE"
        ),
    }


def _band(product: Product, name: str) -> dict[str, Any]:
    band, wavelength, title = _BANDS[name]
    raster = {"data_type": "uint16", "bits_per_sample": 15, "scale": 0.0001, "offset": -0.1}
    asset = _asset(product, band, 10, title, raster)
    asset["eo:bands"] = [{"name": band, "common_name": name, "center_wavelength": wavelength}]
    return asset


def _asset(product: Product, file: str, resolution_m: int, title: str, raster: dict[str, Any]) -> dict[str, Any]:
    grid = product.tile.grid
    size = round(grid.width * 10 / resolution_m)
    return {
        "href": f"{product.a_pass.name}/{product.collection}/{product.item_id}/{file}.tif",
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "title": title,
        "gsd": resolution_m,
        "proj:shape": [size, size],
        "proj:transform": [resolution_m, 0, grid.left, 0, -resolution_m, grid.top],
        "raster:bands": [{"nodata": 0, "spatial_resolution": resolution_m, **raster}],
        "roles": ["data", "reflectance"] if raster["data_type"] == "uint16" else ["data"],
    }
