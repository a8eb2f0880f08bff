"""A boundary as a program sends it, read so that what is wrong is named to the very coordinate.

GeoJSON Polygon or MultiPolygon, or a box. Reading comes before the rules of `boundaries`: it asks whether there is a
shape at all, and bounds what is handed on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon

from models.errors import BadInput
from tasks.farms.boundaries import ALLOWED_PLACES, MAX_VERTICES

Bbox = tuple[float, float, float, float]

_KINDS = "Polygon or MultiPolygon"
_POSITION = "[longitude, latitude], numbers in degrees"


class Reading:
    """One geometry on its way from JSON to a shape."""

    def __init__(self) -> None:
        self.repairs: list[str] = []
        """What was done to it, in words."""
        self._vertices = 0

    def shape(self, geometry: object) -> Polygon | MultiPolygon:
        """Read a GeoJSON geometry.

        Raises:
            BadInput: naming the member or the coordinate that is wrong.
        """
        if not isinstance(geometry, dict):
            raise BadInput("geometry", "is not an object", allowed=f"a GeoJSON {_KINDS}")
        kind, coordinates = geometry.get("type"), geometry.get("coordinates")
        if not isinstance(kind, str) or kind not in {"Polygon", "MultiPolygon"}:
            problem = f"is a {kind[:40]}" if isinstance(kind, str) else "is missing or no text"
            raise BadInput("geometry.type", problem, allowed=_KINDS)
        for name in geometry:
            if name not in {"type", "coordinates", "bbox"}:
                raise BadInput(f"geometry.{name[:60]}", "is not a known field", allowed="type, coordinates")
        at = "geometry.coordinates"
        if kind == "Polygon":
            return self._polygon(_filled(coordinates, at, "rings"), at)
        parts = _filled(coordinates, at, "polygons")
        return MultiPolygon(
            [self._polygon(_filled(part, f"{at}[{n}]", "rings"), f"{at}[{n}]") for n, part in enumerate(parts)]
        )

    def _polygon(self, rings: list[Any], at: str) -> Polygon:
        shell, *holes = [self._ring(ring, f"{at}[{number}]") for number, ring in enumerate(rings)]
        return Polygon(shell, holes)

    def _ring(self, given: object, at: str) -> NDArray[np.float64]:
        positions = _filled(given, at, "positions")
        self._vertices += len(positions)
        if self._vertices > MAX_VERTICES:
            raise BadInput("geometry", f"has more than {MAX_VERTICES:,} vertices", allowed=f"at most {MAX_VERTICES:,}")
        ring = [_plain(each) or position(each, at, number) for number, each in enumerate(positions)]
        if ring[0] != ring[-1]:
            ring.append(ring[0])
            self.repairs.append(f"closed a ring that was open: {at}")
        if len(ring) < 4:
            raise BadInput(at, f"has {len(set(ring))} corners", allowed="a ring of at least 3 corners, closed")
        return np.array(ring, dtype=np.float64)


def _filled(value: object, at: str, of_what: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadInput(at, "is not a list", allowed=f"a list of {of_what}")
    if not value:
        raise BadInput(at, "is empty", allowed=f"a list of {of_what}")
    return value


def _plain(value: object) -> tuple[float, float] | None:
    """Read a position that is as nearly all are, in a third of the time; None for `position` to look closer."""
    if type(value) is list and len(value) == 2:
        lon, lat = value
        if type(lon) is float and type(lat) is float and -360 <= lon <= 360 and -90 <= lat <= 90:
            return lon, lat
    return None


def position(value: object, at: str, number: int) -> tuple[float, float]:
    """Read one position of a list; a height is left out.

    Raises:
        BadInput: naming it.
    """
    if not isinstance(value, list) or not 2 <= len(value) <= 3 or not all(map(is_number, value)):
        raise BadInput(f"{at}[{number}]", "is not a position", allowed=_POSITION)
    lon, lat = float(value[0]), float(value[1])
    if abs(lat) > 90 or abs(lon) > 360:
        raise out_of_range(f"{at}[{number}]", lon, lat)
    return lon, lat


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


def rectangle(bbox: Bbox) -> Polygon:
    """Draw a box; longitudes run on past 180 degrees across the antimeridian."""
    west, south, east, north = bbox
    if west > east:
        east += 360
    return Polygon([(west, south), (east, south), (east, north), (west, north)])


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
