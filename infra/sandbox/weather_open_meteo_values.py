"""What the Open-Meteo stand-in tells: the truth as each endpoint sees it, as far as it is known by now."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from infra.sandbox.weather_climate import Climate, Hours
from infra.sandbox.weather_noise import Floats, Noise
from infra.sandbox.weather_questions import DAILY, HOURLY, SECTIONS, Kind, Question, Told
from infra.sandbox.weather_telling import ARCHIVE_ERRORS, FORECAST_ERRORS, told

_IFS = ("ecmwf_ifs025", "ecmwf_ifs", "best_match")
FORECAST = Kind(name="forecast", models=_IFS, days_back=93, days_ahead=15, has_current=True)
REANALYSIS = Kind(
    name="archive", models=("era5_seamless", "era5", "era5_land", "best_match"), days_back=31_000, days_ahead=0
)
HISTORICAL_FORECAST = Kind(name="historical-forecast", models=_IFS, days_back=3_650, days_ahead=15)

REANALYSIS_LATE = dt.timedelta(days=5)
"""The last whole day that the reanalysis has, before today."""
REANALYSIS_FINAL_AFTER = dt.timedelta(days=90)
RUN_EVERY = dt.timedelta(hours=6)
RUN_TAKES = dt.timedelta(hours=7)
RUN_REACHES = dt.timedelta(days=15)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MODEL_GRID_DEGREES = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of the forecast model."""

    began_at: dt.datetime
    came_at: dt.datetime
    ends_at: dt.datetime


def newest_run(now: dt.datetime) -> Run:
    """The run that is served at this instant."""
    began_at = _EPOCH + (now - RUN_TAKES - _EPOCH) // RUN_EVERY * RUN_EVERY
    return Run(began_at=began_at, came_at=began_at + RUN_TAKES, ends_at=began_at + RUN_REACHES)


class Teller:
    """Answers the questions put to one endpoint at one instant."""

    def __init__(self, climate: Climate, kind: Kind, *, now: dt.datetime) -> None:
        self._climate = climate
        self._kind = kind
        self._now = now
        self._run = newest_run(now)

    def answer(self, question: Question) -> dict[str, Any] | list[dict[str, Any]]:
        """The document: an object for one location, a list for several."""
        found = [self._location(number, *place, question) for number, place in enumerate(question.places)]
        return found[0] if len(found) == 1 else found

    def hours(self, latitude: float, longitude: float, first: dt.date, last: dt.date) -> Hours:
        """What the endpoint tells of these days, before it rounds: NaN where nothing is known by now."""
        truth = self._climate.hours(latitude, longitude, first, last)
        midnight = dt.datetime.combine(first, dt.time(), dt.UTC)
        since_h = np.arange(24 * truth.days + 1, dtype=np.float64)
        if self._kind is REANALYSIS:
            known_until = _midnight(self._now.date() - REANALYSIS_LATE) + dt.timedelta(days=1)
            early = _after(midnight, since_h, self._now - REANALYSIS_FINAL_AFTER)
            values = told(ARCHIVE_ERRORS, truth.values, is_provisional=dict.fromkeys(truth.values, early))
        else:
            known_until = self._run.ends_at + dt.timedelta(hours=1)
            ahead = since_h - (self._run.began_at - midnight) / dt.timedelta(hours=1)
            ahead = np.maximum(0, ahead) / 24 * (self._kind is FORECAST)
            values = told(
                FORECAST_ERRORS, truth.values, days_ahead=ahead, wander=self._wander(latitude, longitude, ahead)
            )
        unknown = _after(midnight, since_h, known_until - dt.timedelta(minutes=1)) > 0
        return Hours(first, truth.days, {name: np.where(unknown, np.nan, each) for name, each in values.items()})

    def _wander(self, latitude: float, longitude: float, ahead: Floats) -> Floats:
        """Where within its spread this run errs: another way each run."""
        noise = Noise(self._climate.seed, f"run {self._run.began_at:%Y%m%d%H}", 30, 5)
        return noise.at(latitude, longitude, ahead * 24)

    def _location(self, number: int, latitude: float, longitude: float, question: Question) -> dict[str, Any]:
        hours = self.hours(latitude, longitude, question.first_day, question.last_day)
        answer: dict[str, Any] = {
            "latitude": _on_grid(latitude),
            "longitude": _on_grid(longitude),
            "generationtime_ms": 0.25,
            "utc_offset_seconds": 0,
            "timezone": "GMT",
            "timezone_abbreviation": "GMT",
            "elevation": float(round(self._climate.elevation_m(latitude, longitude))),
        }
        if number:
            answer["location_id"] = number
        for section, names in question.sections.items():
            answer |= dict(self._section(section, names, hours, question, (latitude, longitude)))
        return answer

    def _section(
        self, section: str, names: tuple[str, ...], hours: Hours, question: Question, place: tuple[float, float]
    ) -> Iterator[tuple[str, Any]]:
        units = {name: _unit(SECTIONS[section][name], question.units)[0] for name in names}
        if section == "current":
            at = self._now.replace(minute=self._now.minute // 15 * 15, second=0, microsecond=0)
            of_today = self.hours(*place, at.date(), at.date())
            series = {name: _hourly(HOURLY[name], of_today, question.units)[at.hour] for name in names}
            yield "current_units", {"time": "iso8601", "interval": "seconds", **units}
            yield "current", {"time": f"{at:%Y-%m-%dT%H:%M}", "interval": 900, **series}
            return
        days = [hours.first + dt.timedelta(days=number) for number in range(hours.days)]
        yield f"{section}_units", {"time": "iso8601", **units}
        if section == "daily":
            lists = {name: _daily(DAILY[name], hours, question.units) for name in names}
            yield section, {"time": [day.isoformat() for day in days], **lists}
        else:
            lists = {name: _hourly(HOURLY[name], hours, question.units)[: 24 * hours.days] for name in names}
            yield section, {"time": [f"{day}T{hour:02}:00" for day in days for hour in range(24)], **lists}


def _hourly(variable: Told, hours: Hours, units: Mapping[str, str]) -> list[float | None]:
    _, factor, offset = _unit(variable, units)
    return _rounded(hours.values[variable.ours] * factor + offset, variable.decimals)


def _daily(variable: Told, hours: Hours, units: Mapping[str, str]) -> list[float | None]:
    """Of the hours named 00:00 to 23:00 of each day; unknown where one of them is."""
    by_day = hours.values[variable.ours][: 24 * hours.days].reshape(hours.days, 24)
    _, factor, offset = _unit(variable, units)
    match variable.statistic:
        case "min":
            of_days = by_day.min(axis=1)
        case "max":
            of_days = by_day.max(axis=1)
        case "sum":
            of_days = by_day.sum(axis=1)
        case _:
            of_days = by_day.mean(axis=1)
    return _rounded(of_days * factor + offset, variable.decimals)


def _rounded(values: Floats, decimals: int) -> list[float | None]:
    numbers: list[float | None] = np.round(values, decimals).tolist()
    return [None if number != number else number for number in numbers]


def _unit(variable: Told, units: Mapping[str, str]) -> tuple[str, float, float]:
    """Name of the unit that was chosen, and the factor and offset that lead there from ours."""
    match variable.measure:
        case "temperature":
            return ("°C", 1, 0) if units["temperature_unit"] == "celsius" else ("°F", 1.8, 32)
        case "speed":
            names = {"kmh": ("km/h", 3.6), "ms": ("m/s", 1), "mph": ("mp/h", 2.236936), "kn": ("kn", 1.943844)}
            return (*names[units["wind_speed_unit"]], 0)
        case "water":
            return ("mm", 1, 0) if units["precipitation_unit"] == "mm" else ("inch", 1 / 25.4, 0)
        case "energy":
            return "MJ/m²", 0.0036, 0
    return {"share": "%", "pressure": "hPa", "power": "W/m²", "moisture": "m³/m³"}[variable.measure], 1, 0


def _after(midnight: dt.datetime, since_h: Floats, moment: dt.datetime) -> Floats:
    """1 for hours after a moment, 0 for others."""
    return np.asarray(since_h > (moment - midnight) / dt.timedelta(hours=1), dtype=np.float64)


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def _on_grid(degrees: float) -> float:
    return round(round(degrees / _MODEL_GRID_DEGREES) * _MODEL_GRID_DEGREES, 4)
