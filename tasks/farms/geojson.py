"""GeoJSON, read feature by feature, so that one bad feature costs one farm and not the file.

Read by ourselves: GDAL gives up at the first malformed geometry, and turns an `id` beside the properties into a
number of its own when it is not whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pyproj
import shapely
from shapely.geometry.base import BaseGeometry

from models.errors import BadInput
from tasks.farms.identity import Wanted
from tasks.farms.layers import Layer, check_size, dataset_name
from tasks.farms.projection import crs_from


def read_geojson(path: Path, *, layer: str | None, wanted: Wanted) -> Layer:
    """Read a GeoJSON file: a FeatureCollection or one Feature."""
    if layer is not None:
        raise BadInput("layer", "a GeoJSON file has no layers")
    features, crs = _features(path)
    check_size(0, features=len(features))
    properties = [_properties(each) for each in features]
    columns = wanted.among(list(dict.fromkeys(name for each in properties for name in each)))
    return Layer(
        dataset=dataset_name(path.stem),
        crs=crs,
        columns=columns,
        fields={name: [each.get(name) for each in properties] for name in columns.all},
        geometries=[_drawn(each) for each in features],
        feature_ids=[each.get("id") if isinstance(each, dict) else None for each in features],
    )


def _features(path: Path) -> tuple[list[Any], pyproj.CRS | None]:
    try:
        document = orjson.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise BadInput("file", f"{path.name} is not JSON: {error}") from error
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "Feature":
        return [document], _crs(document)
    if kind != "FeatureCollection" or not isinstance(document.get("features"), list):
        raise BadInput("file", f"{path.name} is not GeoJSON with features", allowed="a FeatureCollection or a Feature")
    return document["features"], _crs(document)


def _crs(document: dict[str, Any]) -> pyproj.CRS | None:
    """Read the `crs` member of GeoJSON before 2016; without it the file is in longitude and latitude (RFC 7946)."""
    member = document.get("crs")
    if member is None:
        return None
    properties = member.get("properties") if isinstance(member, dict) else None
    name = properties.get("name") if isinstance(properties, dict) else None
    if not isinstance(name, str):
        raise BadInput("crs", "the `crs` member of the file names no coordinate reference system", allowed="a name")
    return crs_from(name, field="crs")


def _properties(feature: object) -> dict[str, Any]:
    properties = feature.get("properties") if isinstance(feature, dict) else None
    return properties if isinstance(properties, dict) else {}


def _drawn(feature: object) -> BaseGeometry | str | None:
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        return "is not a GeoJSON Feature"
    geometry = feature.get("geometry")
    if geometry is None:
        return None
    if not isinstance(geometry, dict):
        return "its geometry is not an object"
    try:
        drawn: BaseGeometry = shapely.geometry.shape(geometry)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, shapely.errors.ShapelyError) as error:
        return f"its geometry cannot be read: {str(error)[:200]}"
    return drawn
