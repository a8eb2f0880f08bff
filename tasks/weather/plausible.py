"""What a value of weather may be on this planet: anything else is kept out, counted, and told.

Limits are wide on purpose. They stop wrong units, fill values and broken models, not rare weather: most are the
extremes in the World Weather and Climate Extremes Archive of the World Meteorological Organization (WMO), widened a
little, because a model's cell is not a station.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from models.weather import Grain, Implausible, Reading

_ORDER_TOLERANCE_C = 0.2
"""Sources round to 0.1; the mean of a calm day may then lie outside its extremes by a rounding."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The range in which a variable is plausible, ends included, and where that comes from."""

    low: float
    high: float
    source: str


_AIR = Limits(-95, 60, "WMO: -89.2 at Vostok, 56.7 in Death Valley")
_DEW_POINT = Limits(-110, 40, "WMO: 35 in Dhahran; very dry air over the ice sheets lies below the lowest temperature")
_HUMIDITY = Limits(0, 115, "over ice and in fog, models tell a few percent above saturation")
_PRESSURE = Limits(300, 1090, "WMO: 1089.4 hPa in Tosontsengel (reduced to sea level); about 337 on Everest")
_CLOUD = Limits(0, 100, "a share of the sky")
_SOIL = Limits(-80, 90, "skin temperatures reach 80 in the Lut desert")
_SOIL_MOISTURE = Limits(0, 1, "a share of the volume")

_SAME_IN_BOTH: Mapping[str, Limits] = {
    "dew_point_c": _DEW_POINT,
    "relative_humidity_pct": _HUMIDITY,
    "surface_pressure_hpa": _PRESSURE,
    "cloud_cover_pct": _CLOUD,
    "soil_temperature_top_c": _SOIL,
    "soil_moisture_top_m3_m3": _SOIL_MOISTURE,
}
_MEAN_WIND = Limits(0, 80, "daily means reach about 50 on the coast of Antarctica")
_WIND = Limits(0, 115, "WMO: a gust of 113.2 m/s on Barrow Island")

LIMITS: Mapping[Grain, Mapping[str, Limits]] = {
    Grain.DAILY: {
        **_SAME_IN_BOTH,
        "temperature_mean_c": _AIR,
        "temperature_min_c": _AIR,
        "temperature_max_c": _AIR,
        "precipitation_mm": Limits(0, 2000, "WMO: 1825 mm in 24 hours at Foc-Foc, La Reunion"),
        "wind_speed_10m_m_s": _MEAN_WIND,
        "wind_speed_2m_m_s": _MEAN_WIND,
        "shortwave_radiation_mj_m2": Limits(
            0, 50, "47.7 reach the top of the atmosphere at the South Pole in December"
        ),
        "et0_mm": Limits(0, 30, "FAO-56 gives about 25 for the hottest, driest, windiest day recorded"),
    },
    Grain.HOURLY: {
        **_SAME_IN_BOTH,
        "temperature_c": _AIR,
        "precipitation_mm": Limits(0, 450, "WMO: 305 mm in 42 minutes at Holt; 401 in one hour at Shangdi"),
        "wind_speed_10m_m_s": _WIND,
        "wind_speed_2m_m_s": _WIND,
        "shortwave_radiation_w_m2": Limits(0, 1500, "1361 above the atmosphere; edges of cloud focus a little more"),
        "et0_mm": Limits(0, 3, "a tenth of the daily limit"),
    },
}
"""For each grain and variable, in the variable's own unit. Current weather has those of an hour."""


def plausible(readings: Iterable[Reading]) -> tuple[tuple[Reading, ...], tuple[Implausible, ...]]:
    """The readings without what cannot be, and what was taken out.

    A reading that keeps no value is not returned.

    Raises:
        KeyError: a variable that has no limits.
    """
    kept: list[Reading] = []
    refused: list[Implausible] = []
    for reading in readings:
        odd = _odd_variables(reading)
        refused += [
            Implausible(cell=reading.cell, at=reading.at, variable=name, value=reading.values[name]) for name in odd
        ]
        values = {name: value for name, value in reading.values.items() if name not in odd}
        if values:
            kept.append(replace(reading, values=values) if odd else reading)
    return tuple(kept), tuple(refused)


def _odd_variables(reading: Reading) -> list[str]:
    limits = LIMITS[Grain.DAILY if reading.grain is Grain.DAILY else Grain.HOURLY]
    # Not a number is not between any limits.
    odd = [name for name, value in reading.values.items() if not limits[name].low <= value <= limits[name].high]
    return odd or _out_of_order(reading.values)


def _out_of_order(values: Mapping[str, float]) -> list[str]:
    """The daily temperatures, all of them, where the lowest is above the mean or the mean above the highest."""
    names = [name for name in ("temperature_min_c", "temperature_mean_c", "temperature_max_c") if name in values]
    pairs = itertools.pairwise(names)
    is_wrong = any(values[lower] > values[upper] + _ORDER_TOLERANCE_C for lower, upper in pairs)
    return names if is_wrong else []
