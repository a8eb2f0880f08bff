"""Farms drawn in metres around a place, and files of them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from models.domain import FarmDraft
from tasks.farms.boundaries import AreaLimits, boundary_from

ANY_AREA = AreaLimits(min_ha=0, max_ha=1e6)


def field(
    *, lon: float = 15.0, lat: float = 46.0, width_m: float = 100, height_m: float = 100, turned_deg: float = 0
) -> Polygon:
    """Return a rectangle around a place, in longitude and latitude."""
    around = pyproj.CRS.from_proj4(f"+proj=laea +lon_0={lon} +lat_0={lat} +datum=WGS84")
    to_lon_lat = pyproj.Transformer.from_crs(around, 4326, always_xy=True)
    x, y = width_m / 2, height_m / 2
    angle = np.radians(turned_deg)
    corners = np.array([(-x, -y), (x, -y), (x, y), (-x, y)]) @ np.array(
        [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    )
    return Polygon(np.column_stack(to_lon_lat.transform(corners[:, 0], corners[:, 1])))


def feature(geometry: object, **properties: object) -> dict[str, Any]:
    """Return a GeoJSON feature of a shape or of a ready geometry object."""
    drawn = shapely.geometry.mapping(geometry) if isinstance(geometry, BaseGeometry) else geometry
    return {"type": "Feature", "properties": properties, "geometry": drawn}


def write_geojson(path: Path, features: Sequence[dict[str, Any]], **members: object) -> Path:
    """Write a FeatureCollection and return its path."""
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **members}), encoding="utf-8")
    return path


def draft(
    number: int = 1, geometry: Polygon | None = None, *, name: str | None = None, user: str | None = None
) -> FarmDraft:
    """Return a farm that keeps every rule, told apart by its number."""
    boundary = boundary_from(geometry or field(lon=15 + number / 100), limits=ANY_AREA)
    return FarmDraft(
        external_farm_id=uuid.UUID(int=number),
        name=name or f"Farm {number}",
        external_user_id=user,
        boundary=boundary.wkb,
        bbox=boundary.bbox,
        area_ha=boundary.area_ha,
        feature=f"feature {number}",
    )
