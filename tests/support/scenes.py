"""Scenes and farms made by hand, for tests of what is done with them."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import shapely
from pyproj import Transformer

from models.domain import Asset, Farm, Grid, Rescale, Scene

NOON = dt.datetime(2024, 6, 1, 10, 0, tzinfo=dt.UTC)


def farm_at(number: int, *, epsg: int, left: float, bottom: float, width: float = 100, height: float = 100) -> Farm:
    """A rectangular farm given in metres of a UTM zone."""
    to_degrees = Transformer.from_crs(epsg, 4326, always_xy=True)
    corners = [(left, bottom), (left + width, bottom), (left + width, bottom + height), (left, bottom + height)]
    boundary = shapely.Polygon([to_degrees.transform(x, y) for x, y in corners])
    return Farm(
        id=number,
        external_farm_id=uuid.UUID(int=number),
        name=f"farm {number}",
        external_user_id=None,
        boundary_version=1,
        boundary=shapely.to_wkb(boundary),
        bbox=boundary.bounds,
        area_ha=width * height / 10_000,
    )


def tile_grid(*, epsg: int = 32633, left: float = 499_980, top: float = 5_100_000, side: int = 10_980) -> Grid:
    """The 10 m grid of a tile."""
    return Grid(epsg=epsg, left=left, top=top, resolution_m=10, width=side, height=side)


def made_scene(tile: str, grid: Grid, **changes: Any) -> Scene:
    """A scene of a tile; its files do not exist."""
    coarse = Grid(
        epsg=grid.epsg,
        left=grid.left,
        top=grid.top,
        resolution_m=grid.resolution_m * 2,
        width=grid.width // 2,
        height=grid.height // 2,
    )
    facts: dict[str, Any] = {
        "catalog": "earth-search-c1",
        "collection": "sentinel-2-c1-l2a",
        "item_id": f"S2A_{tile}_20240601_0_L2A",
        "tile": tile,
        "platform": "sentinel-2a",
        "pass_id": "sentinel-2a/20240601T095031",
        "datastrip": "S20240601T095400",
        "acquired_at": NOON,
        "day": NOON.date(),
        "processing_baseline": "05.10",
        "updated": "2024-06-01T15:00:00Z",
        "red": Asset(href=f"http://127.0.0.1:9/{tile}/red.tif", grid=grid),
        "nir": Asset(href=f"http://127.0.0.1:9/{tile}/nir.tif", grid=grid),
        "scl": Asset(href=f"http://127.0.0.1:9/{tile}/scl.tif", grid=coarse),
        "rescale": Rescale(scale=0.0001, offset=-0.1, rule="c1"),
    }
    return Scene(**(facts | changes))
