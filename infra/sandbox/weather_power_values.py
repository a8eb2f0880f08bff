"""What the NASA POWER stand-in tells: the truth on the service's own cells, as far as it is known by now."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from infra.sandbox.weather_climate import Climate
from infra.sandbox.weather_noise import Floats
from infra.sandbox.weather_telling import POWER_ERRORS, told

FILL = -999.0
METEOROLOGY_LATE = dt.timedelta(days=2)
SOLAR_LATE = dt.timedelta(days=7)
"""The last whole day that there is, before today."""
METEOROLOGY_FINAL_AFTER = dt.timedelta(days=10)
SOLAR_FINAL_AFTER = dt.timedelta(days=120)
_REANALYSIS_LATE = dt.timedelta(days=60)
_SOLAR = frozenset({"shortwave_radiation_w_m2", "cloud_cover_pct"})
_OVER_THE_HOUR = frozenset({"shortwave_radiation_w_m2", "precipitation_mm"})


@dataclass(frozen=True, slots=True)
class _Parameter:
    ours: str
    longname: str
    statistic: str = "mean"
    """Of days: `mean`, `min`, `max` or `sum`."""


PARAMETERS: Mapping[str, _Parameter] = {
    "T2M": _Parameter("temperature_c", "Temperature at 2 Meters"),
    "T2M_MIN": _Parameter("temperature_c", "Temperature at 2 Meters Minimum", "min"),
    "T2M_MAX": _Parameter("temperature_c", "Temperature at 2 Meters Maximum", "max"),
    "T2MDEW": _Parameter("dew_point_c", "Dew/Frost Point at 2 Meters"),
    "RH2M": _Parameter("relative_humidity_pct", "Relative Humidity at 2 Meters"),
    "WS10M": _Parameter("wind_speed_10m_m_s", "Wind Speed at 10 Meters"),
    "WS2M": _Parameter("wind_speed_2m_m_s", "Wind Speed at 2 Meters"),
    "PS": _Parameter("surface_pressure_hpa", "Surface Pressure"),
    "CLOUD_AMT": _Parameter("cloud_cover_pct", "Cloud Amount"),
    "PRECTOTCORR": _Parameter("precipitation_mm", "Precipitation Corrected", "sum"),
    "ALLSKY_SFC_SW_DWN": _Parameter("shortwave_radiation_w_m2", "All Sky Surface Shortwave Downward Irradiance", "sum"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerQuestion:
    """One request that can be answered."""

    is_hourly: bool
    names: tuple[str, ...]
    latitude: float
    longitude: float
    first_day: dt.date
    last_day: dt.date
    standard: str
    """`UTC`, or `LST` for local solar time."""
    community: str


def meteorology_place(latitude: float, longitude: float) -> tuple[float, float]:
    """Latitude and longitude for which meteorology is told: the centre of the cell of 1/2 x 5/8 degree."""
    return math.floor(2 * latitude + 0.5) / 2, math.floor(1.6 * longitude + 0.5) / 1.6


def solar_place(latitude: float, longitude: float) -> tuple[float, float]:
    """Latitude and longitude for which radiation and cloud are told: the centre of the cell of 1 degree."""
    return min(89.5, math.floor(latitude) + 0.5), min(179.5, math.floor(longitude) + 0.5)


class PowerTeller:
    """Answers questions at one instant."""

    def __init__(self, climate: Climate, *, now: dt.datetime) -> None:
        self._climate = climate
        self._today = now.date()

    def answer(self, question: PowerQuestion) -> dict[str, Any]:
        """The document: a GeoJSON feature with series by parameter."""
        values = self._values(question)
        place = meteorology_place(question.latitude, question.longitude)
        height_m = round(self._climate.elevation_m(*place), 2)
        keys = _keys(question)
        return {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [question.longitude, question.latitude, height_m]},
            "properties": {
                "parameter": {
                    name: dict(zip(keys, _series(name, values, question), strict=True)) for name in question.names
                }
            },
            "header": self._header(question),
            "messages": [],
            "parameters": {
                name: {"units": _unit(name, question)[0], "longname": PARAMETERS[name].longname}
                for name in question.names
            },
            "times": {"data": 0.12, "process": 0.01},
        }

    def _header(self, question: PowerQuestion) -> dict[str, Any]:
        grain = "Hourly" if question.is_hourly else "Daily"
        return {
            "title": f"NASA/POWER Source Native Resolution {grain} Data",
            "api": {"version": "v2.9.7", "name": f"POWER {grain} API"},
            "sources": self._sources(question),
            "fill_value": FILL,
            "time_standard": question.standard,
            "start": f"{question.first_day:%Y%m%d}",
            "end": f"{question.last_day:%Y%m%d}",
        }

    def _values(self, question: PowerQuestion) -> dict[str, Floats]:
        """Hours as the service names them, by their beginnings, of whole days; NaN where nothing is known by now."""
        wanted = {PARAMETERS[name].ours for name in question.names}
        return self._known(question, wanted - _SOLAR) | self._known(question, wanted & _SOLAR, is_solar=True)

    def _known(self, question: PowerQuestion, wanted: Set[str], *, is_solar: bool = False) -> dict[str, Floats]:
        # A day more at either end, to cut days by the sun.
        first, last = question.first_day - dt.timedelta(days=1), question.last_day + dt.timedelta(days=1)
        place = (solar_place if is_solar else meteorology_place)(question.latitude, question.longitude)
        hours = self._climate.hours(*place, first, last)
        truth = {name: values for name, values in hours.values.items() if name in wanted}
        late, final_after = (SOLAR_LATE, SOLAR_FINAL_AFTER) if is_solar else (METEOROLOGY_LATE, METEOROLOGY_FINAL_AFTER)
        day = np.arange(24 * hours.days) // 24
        is_unknown = day > (self._today - late - first).days
        is_early = np.asarray(day >= (self._today - final_after - first).days, dtype=np.float64)
        begun = {  # sums over an hour stand at its end in the truth, and at its beginning here
            name: values[1:] if name in _OVER_THE_HOUR else values[:-1] for name, values in truth.items()
        }
        values = told(POWER_ERRORS, begun, is_provisional=dict.fromkeys(begun, is_early))
        start = 24 - (round(question.longitude / 15) if question.standard == "LST" else 0)
        whole = slice(start, start + 24 * (hours.days - 2))
        return {name: np.where(is_unknown, np.nan, series)[whole] for name, series in values.items()}

    def _sources(self, question: PowerQuestion) -> list[str]:
        names = {PARAMETERS[name].ours for name in question.names}
        found = []
        if names - _SOLAR:
            found += ["MERRA2"] if question.first_day <= self._today - _REANALYSIS_LATE else []
            found += ["GEOSIT"] if question.last_day > self._today - _REANALYSIS_LATE else []
        if names & _SOLAR:
            found += ["SYN1DEG"] if question.first_day <= self._today - SOLAR_FINAL_AFTER else []
            found += ["FLASHFLUX"] if question.last_day > self._today - SOLAR_FINAL_AFTER else []
        return [*found, "POWER"]


def _keys(question: PowerQuestion) -> list[str]:
    """Names of the days or hours."""
    count = (question.last_day - question.first_day).days + 1
    days = [f"{question.first_day + dt.timedelta(days=number):%Y%m%d}" for number in range(count)]
    return [f"{day}{hour:02}" for day in days for hour in range(24)] if question.is_hourly else days


def _series(name: str, values: Mapping[str, Floats], question: PowerQuestion) -> list[float]:
    """Rounded to two decimals, with fill values."""
    hours = values[PARAMETERS[name].ours]
    _, factor = _unit(name, question)
    if not question.is_hourly:
        by_day = hours.reshape(-1, 24)
        match PARAMETERS[name].statistic:
            case "min":
                hours = by_day.min(axis=1)
            case "max":
                hours = by_day.max(axis=1)
            case "sum":
                hours = by_day.sum(axis=1)
            case _:
                hours = by_day.mean(axis=1)
    found: list[float] = np.where(np.isnan(hours), FILL, np.round(hours * factor, 2)).tolist()
    return found


def _unit(name: str, question: PowerQuestion) -> tuple[str, float]:
    """Unit of a parameter, and the factor that leads there from ours."""
    match PARAMETERS[name].ours:
        case "temperature_c" | "dew_point_c":
            return "C", 1
        case "relative_humidity_pct" | "cloud_cover_pct":
            return "%", 1
        case "surface_pressure_hpa":
            return "kPa", 0.1
        case "precipitation_mm":
            return ("mm/hour", 1) if question.is_hourly else ("mm/day", 1)
        case "shortwave_radiation_w_m2":
            if question.community == "AG":
                return ("MJ/hr", 0.0036) if question.is_hourly else ("MJ/m^2/day", 0.0036)
            return ("Wh/m^2", 1) if question.is_hourly else ("kW-hr/m^2/day", 0.001)
    return "m/s", 1
