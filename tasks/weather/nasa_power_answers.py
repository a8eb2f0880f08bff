"""What an answer of NASA POWER means: fill values, units, dropped parameters, and what is still to be replaced."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from models.errors import UpstreamUnreadable
from models.weather import Cell, Grain, Kind, Reading, Source, WeatherAnswer
from tasks.weather.evapotranspiration import (
    reference_evapotranspiration_mm,
    saturation_vapour_pressure_kpa,
    vapour_pressure_from_humidity_kpa,
    wind_speed_at_2_m,
)
from tasks.weather.nasa_power_requests import Parameter, PowerRequest
from tasks.weather.plausible import plausible

METEOROLOGY_FINAL_AFTER = dt.timedelta(days=10)
"""Until then, values of the near-real-time analysis may still be replaced or come late."""
SOLAR_FINAL_AFTER = dt.timedelta(days=120)
"""FLASHFlux comes about a week late, and CERES SYN1deg replaces it three to four months later."""
_ALWAYS_MISSING = -999.0
MODEL = "merra2+ceres"
"""The families of data sets behind the answers: MERRA-2 and the GEOS analysis that runs ahead of it; CERES SYN1deg and
the FLASHFlux that runs ahead of it. A header names the sets of a whole answer, not of each day, and the better set
replaces the earlier one, so the name stays when the set changes: `is_final` tells that, `data_sets` what was named."""

_Values = dict[dt.datetime, dict[str, float]]


def power_weather_from(document: Any, request: PowerRequest, *, now: dt.datetime) -> WeatherAnswer:
    """The readings in an answer, without what is implausible; days also with ET0 by FAO-56, where its inputs are.

    Args:
        document: The JSON document.
        request: What was asked for.
        now: When the answer came; it decides what is final.

    Raises:
        UpstreamUnreadable: the answer is not what was asked for. Nothing of it can be used then.
    """
    answer, header = _object(document, "the answer"), _object(_member(document, "header"), "its header")
    if header.get("time_standard") != "UTC":
        raise _unreadable(f"times are in {header.get('time_standard')!r}, UTC was asked for")
    fill = _number(header.get("fill_value"), "the fill value")
    elevation_m = _elevation(answer, request.cell)
    series = _object(_member(_object(_member(answer, "properties"), "properties"), "parameter"), "its parameters")
    units = _object(_member(answer, "parameters"), "its units")
    values: _Values = {}
    for parameter in request.parameters:
        if parameter.api in series:
            _take(values, parameter, series[parameter.api], units, fill=fill, request=request)
    told = [_reading(request, at, values[at], now=now) for at in sorted(values) if _is_wanted(at, request)]
    readings, implausible = plausible(told)
    return WeatherAnswer(
        # ET0 from what is left, so that an implausible input makes no plausible ET0.
        readings=tuple(_with_et0(reading, elevation_m=elevation_m) for reading in readings),
        implausible=implausible,
        missing=_missing(told, request),
        data_sets=_data_sets(header),
    )


def is_final(at: dt.datetime, *, has_solar: bool, now: dt.datetime) -> bool:
    """Whether the service will not replace a value of this time any more, by the rule of its own lateness.

    Args:
        at: The time of the value.
        has_solar: Whether radiation or cloud is among the values, or is still to come.
        now: The present instant.
    """
    return now - at > (SOLAR_FINAL_AFTER if has_solar else METEOROLOGY_FINAL_AFTER)


def _take(
    values: _Values,
    parameter: Parameter,
    series: Any,
    units: Mapping[str, Any],
    *,
    fill: float,
    request: PowerRequest,
) -> None:
    unit = _object(units.get(parameter.api), f"the unit of {parameter.api}").get("units")
    convert = parameter.units.get(unit) if isinstance(unit, str) else None
    if convert is None:
        raise _unreadable(f"{parameter.api} in {unit!r}; known are {', '.join(parameter.units)}")
    first, last = request.days_asked
    for key, raw in _object(series, f"the values of {parameter.api}").items():
        at = _time(key, request.grain)
        if not first <= at.date() <= last:
            raise _unreadable(f"a value for {key}; {first} to {last} was asked for")
        if raw is None:
            continue
        number = _number(raw, f"{parameter.api} of {key}")
        if number in (fill, _ALWAYS_MISSING) or not math.isfinite(number):
            continue
        if parameter.is_over_the_hour:
            at += dt.timedelta(hours=1)
        # One rounding for all, so that 0.1 kPa does not become 0.9999999999999999 hPa.
        values.setdefault(at, {})[parameter.ours] = round(convert(number), 6)


def _reading(request: PowerRequest, at: dt.datetime, values: Mapping[str, float], *, now: dt.datetime) -> Reading:
    has_solar = any(parameter.is_solar for parameter in request.parameters)
    return Reading(
        cell=request.cell,
        grain=request.grain,
        at=at,
        kind=Kind.REANALYSIS,
        model=MODEL,
        values=values,
        is_final=is_final(at, has_solar=has_solar, now=now),
        told_at=now,
    )


def _is_wanted(at: dt.datetime, request: PowerRequest) -> bool:
    return request.first_day <= at.date() <= request.last_day


def _with_et0(reading: Reading, *, elevation_m: float) -> Reading:
    if reading.grain is not Grain.DAILY:
        return reading
    et0 = daily_et0_mm(reading.values, reading.at.date(), cell=reading.cell, elevation_m=elevation_m)
    if et0 is None:
        return reading
    [with_et0], _ = plausible([replace(reading, values={**reading.values, "et0_mm": round(et0, 4)})])
    return with_et0


def daily_et0_mm(values: Mapping[str, float], day: dt.date, *, cell: Cell, elevation_m: float) -> float | None:
    """ET0 of a day by FAO-56 from daily values, or None where one of its inputs is not there.

    Wind at 2 m is the source's own, else reduced from 10 m; vapour pressure is that of the dew point, else of the
    mean humidity.

    Args:
        values: Daily variables by name.
        day: The UTC day.
        cell: Where, for the sun.
        elevation_m: Of the cell, for the clear sky.
    """
    needed = ("temperature_min_c", "temperature_max_c", "shortwave_radiation_mj_m2", "surface_pressure_hpa")
    wind = values.get("wind_speed_2m_m_s")
    if wind is None and "wind_speed_10m_m_s" in values:
        wind = wind_speed_at_2_m(values["wind_speed_10m_m_s"], height_m=10)
    vapour = _vapour_pressure_kpa(values)
    if wind is None or vapour is None or not all(name in values for name in needed):
        return None
    return reference_evapotranspiration_mm(
        latitude_degrees=cell.latitude,
        elevation_m=elevation_m,
        day=day,
        temperature_min_c=values["temperature_min_c"],
        temperature_max_c=values["temperature_max_c"],
        vapour_pressure_kpa=vapour,
        wind_speed_2m_m_s=wind,
        shortwave_radiation_mj_m2=values["shortwave_radiation_mj_m2"],
        pressure_kpa=values["surface_pressure_hpa"] / 10,
    )


def _vapour_pressure_kpa(values: Mapping[str, float]) -> float | None:
    if "dew_point_c" in values:
        return saturation_vapour_pressure_kpa(values["dew_point_c"])
    if not {"relative_humidity_pct", "temperature_min_c", "temperature_max_c"} <= values.keys():
        return None
    mean = min(100.0, values["relative_humidity_pct"])
    return vapour_pressure_from_humidity_kpa(
        temperature_min_c=values["temperature_min_c"],
        temperature_max_c=values["temperature_max_c"],
        humidity_min_pct=mean,
        humidity_max_pct=mean,
    )


def _data_sets(header: Mapping[str, Any]) -> tuple[str, ...]:
    sources = header.get("sources")
    if not isinstance(sources, list) or not all(isinstance(each, str) for each in sources):
        raise _unreadable(f"its sources are {sources!r}, not names")
    return tuple(sorted({each.strip().lower() for each in sources}))


def _missing(told: Iterable[Reading], request: PowerRequest) -> dict[str, tuple[str, ...]]:
    names = {name for reading in told for name in reading.values}
    absent = tuple(sorted(each.ours for each in request.parameters if each.ours not in names))
    return {request.cell.key: absent} if absent else {}


def _elevation(answer: Mapping[str, Any], cell: Cell) -> float:
    geometry = _object(_member(answer, "geometry"), "its geometry")
    place = geometry.get("coordinates")
    if not isinstance(place, list) or len(place) < 2:
        raise _unreadable("an answer without a place")
    longitude, latitude, elevation_m = [_number(each, "a coordinate") for each in [*place, 0.0][:3]]
    if abs(latitude - cell.latitude) > 0.5 or abs((longitude - cell.longitude + 180) % 360 - 180) > 0.625:
        raise _unreadable(f"an answer for {latitude}, {longitude}; {cell.latitude}, {cell.longitude} was asked for")
    return elevation_m


def _time(key: str, grain: Grain) -> dt.datetime:
    pattern, length = ("%Y%m%d", 8) if grain is Grain.DAILY else ("%Y%m%d%H", 10)
    try:
        if len(key) != length:
            raise ValueError
        return dt.datetime.strptime(key, pattern).replace(tzinfo=dt.UTC)
    except ValueError:
        raise _unreadable(f"{key!r} is not a {'day' if grain is Grain.DAILY else 'day and hour'}") from None


def _number(raw: Any, what: str) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise _unreadable(f"{what} is {raw!r}, not a number")
    return float(raw)


def _member(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else None


def _object(raw: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise _unreadable(f"{what}: not an object")
    return raw


def _unreadable(problem: str) -> UpstreamUnreadable:
    return UpstreamUnreadable(Source.NASA_POWER.value, problem)
