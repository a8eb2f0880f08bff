"""Places and boxes in longitude and latitude, as callers give them. Standard library alone, for serving to load."""

from __future__ import annotations

from models.errors import BadInput

Bbox = tuple[float, float, float, float]
"""west, south, east, north in degrees; west > east across the antimeridian."""

ALLOWED_PLACES = "longitude -180 to 180, latitude -90 to 90"


def is_number(value: object) -> bool:
    """Whether a value of JSON is a finite number; `true` is none."""
    return type(value) in (int, float) and -1e300 < value < 1e300  # type: ignore[operator]


def out_of_range(field: str, lon: float, lat: float) -> BadInput:
    """Say that a place is not on the Earth, and what it looks like instead."""
    hint = ""
    if abs(lon) <= 90 and abs(lat) <= 180:
        hint = ": longitude and latitude look swapped"
    elif max(abs(lon), abs(lat)) > 1_000:
        hint = ": these look like metres, and degrees on WGS84 are wanted"
    return BadInput(field, f"is out of range: ({lon:.10g}, {lat:.10g}){hint}", allowed=ALLOWED_PLACES)


def bbox_from(value: object) -> Bbox:
    """Read a box: west, south, east, north in degrees; west > east across the antimeridian.

    Raises:
        BadInput: naming what is wrong.
    """
    allowed = "[west, south, east, north] in degrees"
    if not isinstance(value, list) or len(value) != 4:
        raise BadInput("bbox", "is not a list of four numbers", allowed=allowed)
    for number, each in enumerate(value):
        if not is_number(each):
            raise BadInput(f"bbox[{number}]", "is not a number", allowed=allowed)
    west, south, east, north = (float(each) for each in value)
    for number, lon, lat in ((1, west, south), (3, east, north)):
        if abs(lat) > 90 or abs(lon) > 180:
            raise out_of_range(f"bbox[{number}]" if abs(lat) > 90 else f"bbox[{number - 1}]", lon, lat)
    if south >= north:
        raise BadInput("bbox", f"has its south ({south:g}) not below its north ({north:g})", allowed=allowed)
    if west == east:
        raise BadInput("bbox", "has no width", allowed=allowed)
    return (west, south, east, north)


def place_from(value: object) -> tuple[float, float]:
    """Read a centroid: a GeoJSON Point, [longitude, latitude], or an object of `lon` and `lat`.

    Raises:
        BadInput: naming what is wrong.
    """
    allowed = "a GeoJSON Point, [longitude, latitude], or an object of lon and lat"
    if isinstance(value, dict) and value.keys() == {"lon", "lat"}:
        value = [value["lon"], value["lat"]]
    elif isinstance(value, dict) and value.get("type") == "Point":
        value = value.get("coordinates")
    if not isinstance(value, list) or not 2 <= len(value) <= 3 or not all(map(is_number, value)):
        raise BadInput("centroid", "is not a place", allowed=allowed)
    lon, lat = float(value[0]), float(value[1])
    if abs(lat) > 90 or abs(lon) > 180:
        raise out_of_range("centroid", lon, lat)
    return lon, lat
