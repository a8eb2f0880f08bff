"""Answers in the shape of the weather services, made from values that a test chooses."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

from tests.support.weather_server import Received

UNITS = {
    "temperature_2m": "°C",
    "dew_point_2m": "°C",
    "relative_humidity_2m": "%",
    "wind_speed_10m": "m/s",
    "surface_pressure": "hPa",
    "cloud_cover": "%",
    "precipitation": "mm",
    "shortwave_radiation": "W/m²",
    "et0_fao_evapotranspiration": "mm",
    "soil_temperature_0_to_7cm": "°C",
    "soil_moisture_0_to_7cm": "m³/m³",
    "temperature_2m_min": "°C",
    "temperature_2m_max": "°C",
    "precipitation_sum": "mm",
    "shortwave_radiation_sum": "MJ/m²",
}
VALUES = {
    "temperature_2m": 12.0,
    "dew_point_2m": 8.0,
    "relative_humidity_2m": 76.0,
    "wind_speed_10m": 3.5,
    "surface_pressure": 1012.5,
    "cloud_cover": 40.0,
    "precipitation": 0.1,
    "shortwave_radiation": 150.0,
    "et0_fao_evapotranspiration": 0.1,
    "soil_temperature_0_to_7cm": 11.0,
    "soil_moisture_0_to_7cm": 0.31,
    "temperature_2m_min": 7.5,
    "temperature_2m_max": 16.5,
    "precipitation_sum": 2.4,
    "shortwave_radiation_sum": 12.96,
}
Truth = Callable[[str, dt.datetime], float | None]


def mild(api: str, _: dt.datetime) -> float:
    """The same mild weather at all times."""
    return VALUES[api.removesuffix("_mean")]


def open_meteo_answer(parameters: Mapping[str, str], truth: Truth = mild) -> Any:
    """What the service would answer: an object for one location, a list for several."""
    latitudes, longitudes = parameters["latitude"].split(","), parameters["longitude"].split(",")
    places = zip(latitudes, longitudes, strict=True)
    found = [_location(index, float(y), float(x), parameters, truth) for index, (y, x) in enumerate(places)]
    return found[0] if len(found) == 1 else found


def open_meteo_answer_to(request: Received) -> Any:
    """What the service would answer to a request that came in."""
    return open_meteo_answer(request.parameters)


def _location(
    index: int, latitude: float, longitude: float, parameters: Mapping[str, str], truth: Truth
) -> dict[str, Any]:
    first = dt.datetime.fromisoformat(parameters["start_date"]).replace(tzinfo=dt.UTC)
    last = dt.datetime.fromisoformat(parameters["end_date"]).replace(tzinfo=dt.UTC)
    days = [first + dt.timedelta(days=number) for number in range((last - first).days + 1)]
    hours = [day + dt.timedelta(hours=hour) for day in days for hour in range(24)]
    answer: dict[str, Any] = {
        "latitude": latitude + 0.03,
        "longitude": longitude - 0.04,
        "generationtime_ms": 0.2,
        "utc_offset_seconds": 0,
        "timezone": "GMT",
        "timezone_abbreviation": "GMT",
        "elevation": 9.0,
    }
    if index:
        answer["location_id"] = index
    if names := _names(parameters, "current"):
        answer["current_units"] = {"time": "iso8601", "interval": "seconds", **_units(names)}
        now = first + dt.timedelta(hours=10, minutes=15)
        answer["current"] = {
            "time": f"{now:%Y-%m-%dT%H:%M}",
            "interval": 900,
            **{name: truth(name, now) for name in names},
        }
    for section, times, form in (("hourly", hours, "%Y-%m-%dT%H:%M"), ("daily", days, "%Y-%m-%d")):
        if names := _names(parameters, section):
            answer[f"{section}_units"] = {"time": "iso8601", **_units(names)}
            answer[section] = {"time": [format(at, form) for at in times]} | {
                name: [truth(name, at) for at in times] for name in names
            }
    return answer


def _names(parameters: Mapping[str, str], section: str) -> list[str]:
    return parameters[section].split(",") if section in parameters else []


def _units(names: list[str]) -> dict[str, str]:
    return {name: UNITS[name.removesuffix("_mean")] for name in names}


POWER_UNITS = {
    "T2M": "C",
    "T2M_MIN": "C",
    "T2M_MAX": "C",
    "T2MDEW": "C",
    "RH2M": "%",
    "WS10M": "m/s",
    "WS2M": "m/s",
    "PS": "kPa",
    "CLOUD_AMT": "%",
}
POWER_VALUES = {
    "T2M": 17.1,
    "T2M_MIN": 12.3,
    "T2M_MAX": 21.5,
    "T2MDEW": 12.05,
    "RH2M": 73.0,
    "WS10M": 2.78,
    "WS2M": 2.08,
    "PS": 100.12,
    "CLOUD_AMT": 40.0,
    "PRECTOTCORR": 2.4,
    "ALLSKY_SFC_SW_DWN": 22.07,
}
"""The day of example 18 of FAO-56, with rain."""


def power_answer(path: str, parameters: Mapping[str, str], truth: Truth | None = None) -> dict[str, Any]:
    """What NASA POWER would answer for a point, in the units of its community AG; None becomes its fill value."""
    is_hourly = "/hourly/" in path
    first = dt.datetime.strptime(parameters["start"], "%Y%m%d").replace(tzinfo=dt.UTC)
    last = dt.datetime.strptime(parameters["end"], "%Y%m%d").replace(tzinfo=dt.UTC)
    step, form = (dt.timedelta(hours=1), "%Y%m%d%H") if is_hourly else (dt.timedelta(days=1), "%Y%m%d")
    times = [first + number * step for number in range(((last - first).days + 1) * (24 if is_hourly else 1))]
    names = parameters["parameters"].split(",")
    units = POWER_UNITS | (
        {"PRECTOTCORR": "mm/hour", "ALLSKY_SFC_SW_DWN": "MJ/hr"}
        if is_hourly
        else {"PRECTOTCORR": "mm/day", "ALLSKY_SFC_SW_DWN": "MJ/m^2/day"}
    )
    tell = truth or (lambda name, _: POWER_VALUES[name])
    series = {name: {format(at, form): _or_fill(tell(name, at)) for at in times} for name in names}
    return {
        "type": "Feature",
        "geometry": {
            "type": "Point",
            "coordinates": [float(parameters["longitude"]), float(parameters["latitude"]), 100.0],
        },
        "properties": {"parameter": series},
        "header": {
            "title": "NASA/POWER Source Native Resolution Daily Data",
            "api": {"version": "v2.9.7", "name": "POWER Daily API"},
            "sources": ["MERRA2", "SYN1DEG", "POWER"],
            "fill_value": -999.0,
            "time_standard": parameters["time-standard"],
            "start": parameters["start"],
            "end": parameters["end"],
        },
        "messages": [],
        "parameters": {name: {"units": units[name], "longname": name} for name in names},
        "times": {"data": 0.121, "process": 0.01},
    }


def power_answer_to(request: Received) -> dict[str, Any]:
    """What NASA POWER would answer to a request that came in."""
    return power_answer(request.path, request.parameters)


def _or_fill(value: float | None) -> float:
    return -999.0 if value is None else value
