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
from models.places import Bbox, is_number, out_of_range
from tasks.farms.boundaries import MAX_VERTICES

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


def rectangle(bbox: Bbox) -> Polygon:
    """Draw a box; longitudes run on past 180 degrees across the antimeridian."""
    west, south, east, north = bbox
    if west > east:
        east += 360
    return Polygon([(west, south), (east, south), (east, north), (west, north)])
