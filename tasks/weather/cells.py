"""Which cell of a source's grid a point lies in.

Cells are centred on whole multiples of the grid's step and own their western and southern edges, not the eastern and
northern ones; longitude wraps at the antimeridian. At a pole every meridian meets, so the row of cells around it is one
single cell, centred on the pole. Arithmetic is exact on the decimal digits of the coordinates: 0.05 is on an edge
although no binary fraction is 0.05. Away from edges, where that changes nothing, it is quick.

NASA POWER's meteorology lies on the MERRA-2 grid, 0.5 degree of latitude by 0.625 of longitude. Its radiation and cloud
come on 1 x 1 degree. We ask once for each MERRA-2 cell, at its centre, and take the radiation that the service gives
there: all farms of a cell share it, and it is never farther from them than its own resolution.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

from models.errors import BadInput
from models.weather import Cell, Source

OPEN_METEO_STEP_DEGREES = 0.1
_POWER_LATITUDE_STEP = Fraction(1, 2)
_POWER_LONGITUDE_STEP = Fraction(5, 8)
_FINEST_STEP = Fraction(1, 100)
_COARSEST_STEP = Fraction(5)
_EDGE = 1e-6
"""Share of a step: nearer to an edge than this, what binary fractions say does not count. They err by some 1e-11."""
_KNOWN_CELLS = 65_536


def open_meteo_cell(longitude: float, latitude: float, *, step_degrees: float = OPEN_METEO_STEP_DEGREES) -> Cell:
    """The cell in which Open-Meteo is asked for a point.

    Args:
        longitude: Degrees east, in [-180, 180].
        latitude: Degrees north, in [-90, 90].
        step_degrees: Side of a cell, from 0.01 to 5; 90 degrees must be a whole number of steps.

    Raises:
        BadInput: a coordinate out of range or no number, or a step that does not divide the globe.
    """
    step = _step(step_degrees)
    return _open_meteo(_row(latitude, step), _column(longitude, step), step_degrees)


def nasa_power_cell(longitude: float, latitude: float) -> Cell:
    """The MERRA-2 cell in which NASA POWER is asked for a point.

    Rows count from 0 at the South Pole to 360 at the North Pole, columns from 0 at 180 degrees west to 575.

    Args:
        longitude: Degrees east, in [-180, 180].
        latitude: Degrees north, in [-90, 90].

    Raises:
        BadInput: a coordinate out of range or no number.
    """
    return _nasa_power(_row(latitude, _POWER_LATITUDE_STEP) + 180, _column(longitude, _POWER_LONGITUDE_STEP) + 288)


@functools.lru_cache(maxsize=100)
def _step(degrees: float) -> Fraction:
    step = _exact("step_degrees", degrees)
    if not _FINEST_STEP <= step <= _COARSEST_STEP or (90 / step).denominator != 1:
        raise BadInput("step_degrees", f"{degrees} does not divide the globe", allowed="0.01 to 5, dividing 90")
    return step


@functools.lru_cache(maxsize=_KNOWN_CELLS)
def _open_meteo(row: int, column: int, step_degrees: float) -> Cell:
    step = _step(step_degrees)
    if abs(row) == 90 / step:
        column = 0
    return Cell(
        source=Source.OPEN_METEO,
        key=f"om-{step_degrees:g}:{row}:{column}",
        latitude=float(row * step),
        longitude=float(column * step),
    )


@functools.lru_cache(maxsize=_KNOWN_CELLS)
def _nasa_power(row: int, column: int) -> Cell:
    if row in (0, 360):
        column = 288
    return Cell(
        source=Source.NASA_POWER,
        key=f"power:{row}:{column}",
        latitude=float(row * _POWER_LATITUDE_STEP - 90),
        longitude=float(column * _POWER_LONGITUDE_STEP - 180),
    )


def _row(latitude: float, step: Fraction) -> int:
    if not -90 <= latitude <= 90:
        raise BadInput("latitude", f"{latitude} is not on the globe", allowed="-90 to 90")
    return _number(latitude, step, "latitude")


def _column(longitude: float, step: Fraction) -> int:
    if not -180 <= longitude <= 180:
        raise BadInput("longitude", f"{longitude} is not on the globe", allowed="-180 to 180")
    turn = 360 * step.denominator // step.numerator
    column = _number(longitude, step, "longitude")
    return (column + turn // 2) % turn - turn // 2


def _number(degrees: float, step: Fraction, field: str) -> int:
    """Which multiple of the step is nearest, the upper one of two."""
    steps = degrees * step.denominator / step.numerator + 0.5
    if _EDGE < steps % 1 < 1 - _EDGE:
        return math.floor(steps)
    exact = _exact(field, degrees)
    return (2 * exact + step) // (2 * step)


def _exact(field: str, value: float) -> Fraction:
    if not math.isfinite(value):
        raise BadInput(field, f"{value} is not a number")
    return Fraction(repr(float(value)))
