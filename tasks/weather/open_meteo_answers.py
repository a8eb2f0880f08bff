"""What an answer of Open-Meteo means: every list, unit and time is checked before a value is believed."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.errors import UpstreamUnreadable
from models.weather import Cell, Grain, Kind, Reading, Source, WeatherAnswer
from tasks.weather.open_meteo_requests import SOIL_LAYERS, Endpoint, Request, Variable
from tasks.weather.plausible import plausible

ARCHIVE_FINAL_AFTER = dt.timedelta(days=120)
"""ERA5T is replaced by ERA5 two to three months later."""
HISTORICAL_FORECAST_FINAL_AFTER = dt.timedelta(days=2)
"""Later runs have then begun: the first hours of the older ones do not change any more."""
_FARTHEST_DEGREES = 2.0
"""From the cell asked for to the model's cell that answers; the coarsest global models have 1 degree and a bit."""
_ALMOST_POLE_DEGREES = 80

Series = dict[dt.datetime, float]


def weather_from(document: Any, request: Request, *, now: dt.datetime) -> WeatherAnswer:
    """The readings in an answer, without what is implausible.

    What was forecast in the past stays a forecast, the last word of forecasts on its time: any reanalysis ranks above.

    Days are UTC days. Extremes and sums are made by the service, which adds up the 24 hours named 00:00 to 23:00 of
    the day, each standing for the hour before. Means that it does not make are made here, of all 24 hours or not at
    all.

    Args:
        document: The JSON document: an object for one location, a list for several.
        request: What was asked for.
        now: When the answer came. It is the issue time of forecasts but for past ones, when the past was told, and
            decides what is final.

    Raises:
        UpstreamUnreadable: the answer is not what was asked for. Nothing of it can be used then.
    """
    readings: list[Reading] = []
    missing: dict[str, tuple[str, ...]] = {}
    for cell, location in zip(request.cells, _locations(document, request), strict=True):
        told = list(_told(location, cell, request, now=now))
        readings += told
        if absent := _absent(told, request):
            missing[cell.key] = absent
    kept, implausible = plausible(readings)
    return WeatherAnswer(readings=kept, implausible=implausible, missing=missing)


def _locations(document: Any, request: Request) -> list[Mapping[str, Any]]:
    # One location is answered by an object, several by a list; the first of a list has no location_id.
    answers = document if isinstance(document, list) else [document]
    if len(answers) != len(request.cells):
        raise _unreadable(f"{len(answers)} locations in the answer, {len(request.cells)} were asked for")
    for index, (answer, cell) in enumerate(zip(answers, request.cells, strict=True)):
        if not isinstance(answer, dict):
            raise _unreadable(f"location {index} is not an object")
        if answer.get("location_id", index) != index:
            raise _unreadable(f"location {index} says that it is location {answer['location_id']}")
        _check_place(answer, cell)
        if answer.get("utc_offset_seconds") != 0:
            raise _unreadable(f"times are {answer.get('utc_offset_seconds')} seconds off UTC, UTC was asked for")
    return answers


def _check_place(answer: Mapping[str, Any], cell: Cell) -> None:
    latitude, longitude = _number(answer.get("latitude")), _number(answer.get("longitude"))
    if latitude is None or longitude is None:
        raise _unreadable("an answer without a place")
    east = abs((longitude - cell.longitude + 180) % 360 - 180)
    is_near = east <= _FARTHEST_DEGREES or abs(cell.latitude) > _ALMOST_POLE_DEGREES
    if abs(latitude - cell.latitude) > _FARTHEST_DEGREES or not is_near:
        raise _unreadable(f"an answer for {latitude}, {longitude}; {cell.latitude}, {cell.longitude} was asked for")


@dataclass(frozen=True, slots=True)
class _Teller:
    """What all readings of one cell have in common."""

    cell: Cell
    request: Request
    now: dt.datetime

    def reading(self, grain: Grain, at: dt.datetime, values: Mapping[str, float]) -> Reading:
        is_past = self.request.endpoint is Endpoint.ARCHIVE
        layer = SOIL_LAYERS.get(self.request.model)
        return Reading(
            cell=self.cell,
            grain=grain,
            at=at,
            kind=Kind.REANALYSIS if is_past else Kind.FORECAST,
            model=self.request.model,
            values=values,
            is_final=self._is_final(at),
            issued_at=None if is_past else self._issued_at(grain, at),
            told_at=self.now if is_past else None,
            soil_layer=layer.depth if layer is not None and any(name.startswith("soil_") for name in values) else None,
        )

    def _issued_at(self, grain: Grain, at: dt.datetime) -> dt.datetime:
        """When a forecast was made, as far as is known: the answer names no run, so that is when it was fetched.

        What was forecast in the past comes of runs that had begun by the time told, however late it is asked for.
        """
        if self.request.endpoint is not Endpoint.HISTORICAL_FORECAST:
            return self.now
        return min(self.now, at + dt.timedelta(days=1) if grain is Grain.DAILY else at)

    def _is_final(self, at: dt.datetime) -> bool:
        match self.request.endpoint:
            case Endpoint.FORECAST:
                return False
            case Endpoint.ARCHIVE:
                return self.now - at > ARCHIVE_FINAL_AFTER
            case Endpoint.HISTORICAL_FORECAST:
                return self.now - at > HISTORICAL_FORECAST_FINAL_AFTER


def _told(location: Mapping[str, Any], cell: Cell, request: Request, *, now: dt.datetime) -> Iterator[Reading]:
    teller = _Teller(cell, request, now)
    variables = request.variables
    if variables.current:
        at, values = _current(location, variables.current)
        if values:
            yield teller.reading(Grain.CURRENT, at, values)
    hourly = _series(location, "hourly", (*variables.hourly, *variables.daily_means), request)
    by_hour = _by_time({each.ours: hourly[each.api] for each in variables.hourly if each.api in hourly})
    yield from (teller.reading(Grain.HOURLY, at, values) for at, values in by_hour)
    daily = _series(location, "daily", variables.daily, request)
    by_name = {each.ours: daily[each.api] for each in variables.daily if each.api in daily}
    by_name |= {each.ours: _daily_means(hourly[each.api]) for each in variables.daily_means if each.api in hourly}
    yield from (teller.reading(Grain.DAILY, at, values) for at, values in _by_time(by_name))


def _current(location: Mapping[str, Any], variables: Sequence[Variable]) -> tuple[dt.datetime, dict[str, float]]:
    section = _section(location, "current")
    _check_units(location, "current", [each for each in variables if each.api in section])
    values = {each.ours: _number(section.get(each.api)) for each in variables}
    return _time(section.get("time")), {name: value for name, value in values.items() if value is not None}


def _series(
    location: Mapping[str, Any], name: str, variables: Iterable[Variable], request: Request
) -> dict[str, Series]:
    """Values by time for each variable that the answer has, without nulls."""
    wanted = tuple({each.api: each for each in variables}.values())
    if not wanted:
        return {}
    section = _section(location, name)
    wanted = tuple(each for each in wanted if each.api in section)
    _check_units(location, name, wanted)
    times = _times(section.get("time"), name, request)
    found: dict[str, Series] = {}
    for each in wanted:
        values = section[each.api]
        if not isinstance(values, list) or len(values) != len(times):
            length = len(values) if isinstance(values, list) else "no"
            raise _unreadable(f"{length} {name} values of {each.api} for {len(times)} times")
        numbers = zip(times, map(_number, values), strict=True)
        found[each.api] = {at: number for at, number in numbers if number is not None}
    return found


def _section(location: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = location.get(name)
    if not isinstance(section, dict):
        raise _unreadable(f"an answer without {name} values")
    return section


def _check_units(location: Mapping[str, Any], name: str, variables: Iterable[Variable]) -> None:
    units = location.get(f"{name}_units")
    if not isinstance(units, dict):
        raise _unreadable(f"{name} values without units")
    expected = {each.api: each.unit for each in variables} | {"time": "iso8601"}
    for api, unit in expected.items():
        if units.get(api) != unit:
            raise _unreadable(f"{name} {api} in {units.get(api)!r}, {unit!r} was asked for")


def _times(raw: Any, name: str, request: Request) -> list[dt.datetime]:
    if not isinstance(raw, list):
        raise _unreadable(f"{name} values without times")
    times = [_time(each) for each in raw]
    if any(later <= earlier for earlier, later in itertools.pairwise(times)):
        raise _unreadable(f"{name} times that do not go forward")
    if times and not (request.first_day <= times[0].date() and times[-1].date() <= request.last_day):
        raise _unreadable(
            f"{name} times from {times[0]:%Y-%m-%d} to {times[-1]:%Y-%m-%d}; "
            f"{request.first_day} to {request.last_day} was asked for"
        )
    step = dt.timedelta(days=1) if name == "daily" else dt.timedelta(hours=1)
    start = dt.datetime.min.replace(tzinfo=dt.UTC)
    if any((at - start) % step for at in times):
        raise _unreadable(f"{name} times off the full {'day' if name == 'daily' else 'hour'}")
    return times


def _time(raw: Any) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(raw)
    except (TypeError, ValueError):
        raise _unreadable(f"{raw!r} is not a time") from None
    if moment.tzinfo is not None and moment.utcoffset() != dt.timedelta(0):
        raise _unreadable(f"{raw!r} is not in UTC")
    return moment.replace(tzinfo=dt.UTC)


def _number(raw: Any) -> float | None:
    if raw is None:
        return None
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise _unreadable(f"{raw!r} is not a number")
    # A number too large for a float, as 1e999, is read as infinite; no value is.
    return float(raw) if math.isfinite(raw) else None


def _daily_means(series: Series) -> Series:
    """Means of the days of which all 24 hours are there."""
    days: dict[dt.datetime, list[float]] = {}
    for at, value in series.items():
        days.setdefault(at.replace(hour=0), []).append(value)
    return {day: round(math.fsum(values) / 24, 6) for day, values in days.items() if len(values) == 24}


def _by_time(by_name: Mapping[str, Series]) -> Iterator[tuple[dt.datetime, dict[str, float]]]:
    times = sorted(set().union(*by_name.values()))
    for at in times:
        yield at, {name: series[at] for name, series in by_name.items() if at in series}


def _absent(readings: Iterable[Reading], request: Request) -> tuple[str, ...]:
    """Variables asked for of which not one value came."""
    told = {(reading.grain, name) for reading in readings for name in reading.values}
    variables = request.variables
    asked = [(Grain.CURRENT, each.ours) for each in variables.current]
    asked += [(Grain.HOURLY, each.ours) for each in variables.hourly]
    asked += [(Grain.DAILY, each.ours) for each in (*variables.daily, *variables.daily_means)]
    return tuple(sorted({name for grain, name in asked if (grain, name) not in told}))


def _unreadable(problem: str) -> UpstreamUnreadable:
    return UpstreamUnreadable(Source.OPEN_METEO.value, problem)
