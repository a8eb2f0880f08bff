"""From a point to the place whose weather is told there: the cells it lies in, or else the nearest ones."""

from __future__ import annotations

import functools
import itertools
import math

from models.weather import Cell
from models.weather_bodies import place_name
from tasks.weather.cells import OPEN_METEO_STEP_DEGREES, nasa_power_cell, open_meteo_cell

EARTH_RADIUS_KM = 6371.0
RINGS = 2
"""How many cells away from its own one the weather of a point may come from: some 25 km with cells of 0.1 degree."""


def place_at(longitude: float, latitude: float, *, step_degrees: float = OPEN_METEO_STEP_DEGREES) -> str:
    """The name of the place that a point lies in, as `models.weather_bodies.place_name`.

    Args:
        longitude: Degrees east, in [-180, 180].
        latitude: Degrees north, in [-90, 90].
        step_degrees: Side of an Open-Meteo cell.

    Raises:
        BadInput: a coordinate out of range or no number.
    """
    return place_of(open_meteo_cell(longitude, latitude, step_degrees=step_degrees), longitude, latitude)


def place_of(cell: Cell, longitude: float, latitude: float) -> str:
    """The name of the place of this cell of Open-Meteo and the cell of NASA POWER that a point lies in."""
    return place_name([cell.key, nasa_power_cell(longitude, latitude).key])


def places_near(longitude: float, latitude: float, *, step_degrees: float = OPEN_METEO_STEP_DEGREES) -> tuple[str, ...]:
    """The names of places whose weather a point may be told, its own first; with the cells of `cells_near`.

    Raises:
        BadInput: as `cells_near`.
    """
    of_power = nasa_power_cell(longitude, latitude).key
    return tuple(
        place_name([cell.key, of_power]) for cell in cells_near(longitude, latitude, step_degrees=step_degrees)
    )


def middle_of(bbox: tuple[float, float, float, float]) -> tuple[float, float]:
    """Longitude and latitude of the middle of a box, west above east where it crosses the antimeridian.

    A farm's weather is that of the place in which this point lies.
    """
    west, south, east, north = bbox
    half = ((east - west) % 360 if west > east else east - west) / 2
    longitude = west + half
    return longitude - 360 if longitude > 180 else longitude, (south + north) / 2


def cells_near(
    longitude: float, latitude: float, *, step_degrees: float = OPEN_METEO_STEP_DEGREES, rings: int = RINGS
) -> tuple[Cell, ...]:
    """The Open-Meteo cells around a point, its own one first, then by the distance of their centres.

    Args:
        longitude: Degrees east, in [-180, 180].
        latitude: Degrees north, in [-90, 90].
        step_degrees: Side of a cell.
        rings: How many cells away.

    Raises:
        BadInput: a coordinate out of range or no number.
    """
    own = open_meteo_cell(longitude, latitude, step_degrees=step_degrees)
    # All points of a cell have the same ones around it, except at a pole, where every meridian meets.
    seen_from = longitude if abs(own.latitude) == 90 else own.longitude
    others = _around(seen_from, own.latitude, step_degrees, rings)
    return own, *sorted(others, key=lambda cell: (distance_km(longitude, latitude, cell), cell.key))


@functools.lru_cache(maxsize=4_096)
def _around(longitude: float, latitude: float, step_degrees: float, rings: int) -> tuple[Cell, ...]:
    steps = [number * step_degrees for number in range(-rings, rings + 1)]
    own = open_meteo_cell(longitude, latitude, step_degrees=step_degrees)
    around = {own.key: own}
    for east, north in itertools.product(steps, steps):
        if abs(latitude + north) <= 90 + step_degrees / 4:  # a sum may be a little beyond what it stands for
            to_the_north = max(-90.0, min(90.0, latitude + north))
            cell = open_meteo_cell(_wrapped(longitude + east), to_the_north, step_degrees=step_degrees)
            around[cell.key] = cell
    del around[own.key]
    return tuple(around.values())


def distance_km(longitude: float, latitude: float, cell: Cell) -> float:
    """How far a point is from the centre of a cell, on a sphere."""
    lat, other_lat = math.radians(latitude), math.radians(cell.latitude)
    half_north = (other_lat - lat) / 2
    half_east = math.radians(cell.longitude - longitude) / 2
    chord = math.sin(half_north) ** 2 + math.cos(lat) * math.cos(other_lat) * math.sin(half_east) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(chord)))


def _wrapped(longitude: float) -> float:
    return (longitude + 180) % 360 - 180
