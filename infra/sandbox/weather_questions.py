"""What a request to the Open-Meteo stand-in asks for, what it weighs, and why it is refused."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

MOST_LOCATIONS = 1_000


class Refused(Exception):
    """A request that the service answers by 400, with this reason."""


@dataclass(frozen=True, slots=True)
class Told:
    """One variable of the service."""

    ours: str
    """As the truth names it."""
    measure: str
    """What its unit depends on, such as `temperature`."""
    decimals: int
    statistic: str = "mean"
    """Of days: `mean`, `min`, `max` or `sum`."""


HOURLY: Mapping[str, Told] = {
    "temperature_2m": Told("temperature_c", "temperature", 1),
    "dew_point_2m": Told("dew_point_c", "temperature", 1),
    "relative_humidity_2m": Told("relative_humidity_pct", "share", 0),
    "wind_speed_10m": Told("wind_speed_10m_m_s", "speed", 2),
    "surface_pressure": Told("surface_pressure_hpa", "pressure", 1),
    "cloud_cover": Told("cloud_cover_pct", "share", 0),
    "precipitation": Told("precipitation_mm", "water", 2),
    "shortwave_radiation": Told("shortwave_radiation_w_m2", "power", 0),
    "et0_fao_evapotranspiration": Told("et0_mm", "water", 2),
    "soil_temperature_0_to_7cm": Told("soil_temperature_top_c", "temperature", 1),
    "soil_moisture_0_to_7cm": Told("soil_moisture_top_m3_m3", "moisture", 3),
}
_MEANS = ("dew_point_2m", "relative_humidity_2m", "wind_speed_10m", "cloud_cover")
_SOIL_MEANS = ("soil_temperature_0_to_7cm", "soil_moisture_0_to_7cm")
DAILY: Mapping[str, Told] = {
    "temperature_2m_min": Told("temperature_c", "temperature", 1, "min"),
    "temperature_2m_max": Told("temperature_c", "temperature", 1, "max"),
    "temperature_2m_mean": Told("temperature_c", "temperature", 1),
    "precipitation_sum": Told("precipitation_mm", "water", 2, "sum"),
    "shortwave_radiation_sum": Told("shortwave_radiation_w_m2", "energy", 2, "sum"),
    "et0_fao_evapotranspiration": Told("et0_mm", "water", 2, "sum"),
    **{f"{name}_mean": HOURLY[name] for name in (*_MEANS, *_SOIL_MEANS)},
}
SECTIONS: Mapping[str, Mapping[str, Told]] = {"current": HOURLY, "hourly": HOURLY, "daily": DAILY}

_UNITS = {
    "temperature_unit": ("celsius", "fahrenheit"),
    "wind_speed_unit": ("kmh", "ms", "mph", "kn"),
    "precipitation_unit": ("mm", "inch"),
}
"""By parameter, what it may say; the first is the default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One of the service's endpoints."""

    name: str
    models: tuple[str, ...]
    days_back: int
    days_ahead: int
    """Last day that may be asked for, from today on."""
    has_current: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request that can be answered."""

    places: tuple[tuple[float, float], ...]
    """Latitude and longitude."""
    sections: Mapping[str, tuple[str, ...]]
    first_day: dt.date
    last_day: dt.date
    units: Mapping[str, str]

    @property
    def weight(self) -> float:
        """Weighted calls: over 10 variables or two weeks a location counts as more than one."""
        of_variables = sum(map(len, self.sections.values())) / 10
        of_days = ((self.last_day - self.first_day).days + 1) / 14
        return max(1.0, of_variables, of_variables * of_days) * len(self.places)


def question_from(given: Mapping[str, str], *, kind: Kind, today: dt.date) -> Question:
    """The question in the parameters of a request.

    Raises:
        Refused: with the reason that the service gives.
    """
    if given.get("timezone", "GMT") not in ("GMT", "UTC") or given.get("timeformat", "iso8601") != "iso8601":
        raise Refused("Invalid timezone")
    if (model := given.get("models", "best_match")) not in kind.models:
        raise Refused(f"Data corrupted at path ''. Cannot initialize MultiDomains from invalid String value {model}.")
    sections = {name: _names(given[name], name) for name in SECTIONS if given.get(name)}
    if "current" in sections and not kind.has_current:
        raise Refused(f"Parameter 'current' is not available for {kind.name}")
    if not sections:
        raise Refused("No variables were asked for")
    first, last = _days(given, kind, today)
    return Question(places=_places(given), sections=sections, first_day=first, last_day=last, units=_units(given))


def _names(raw: str, section: str) -> tuple[str, ...]:
    names = tuple(raw.split(","))
    for name in names:
        if name not in SECTIONS[section]:
            raise Refused(
                f"Data corrupted at path ''. Cannot initialize {section.title()}Variable from invalid String value "
                f"{name}."
            )
    return names


def _places(given: Mapping[str, str]) -> tuple[tuple[float, float], ...]:
    latitudes, longitudes = _numbers(given, "latitude"), _numbers(given, "longitude")
    if len(latitudes) != len(longitudes):
        raise Refused("Parameter 'latitude' and 'longitude' must have the same number of elements")
    if len(latitudes) > MOST_LOCATIONS:
        raise Refused(f"Parameter 'latitude' and 'longitude' must not exceed {MOST_LOCATIONS} coordinates.")
    for name, numbers, bound in (("Latitude", latitudes, 90), ("Longitude", longitudes, 180)):
        for number in numbers:
            if not -bound <= number <= bound:
                raise Refused(f"{name} must be in range of -{bound} to {bound}°. Given: {number}.")
    return tuple(zip(latitudes, longitudes, strict=True))


def _numbers(given: Mapping[str, str], name: str) -> list[float]:
    try:
        return [float(part) for part in given[name].split(",")]
    except KeyError:
        raise Refused(f"Value required for key '{name}'.") from None
    except ValueError:
        raise Refused(f"Data corrupted at path '{name}'. Not a number.") from None


def _days(given: Mapping[str, str], kind: Kind, today: dt.date) -> tuple[dt.date, dt.date]:
    if ("start_date" in given) != ("end_date" in given):
        raise Refused("Both 'start_date' and 'end_date' must be set in the url")
    counted = [name for name in ("forecast_days", "past_days") if name in given]
    if "start_date" not in given:
        return _counted_days(given, kind, today)
    if counted:
        raise Refused(f"Parameter '{counted[0]}' is mutually exclusive with 'start_date' and 'end_date'")
    low, high = today - dt.timedelta(days=kind.days_back), today + dt.timedelta(days=kind.days_ahead)
    first, last = (_date(given[name], name) for name in ("start_date", "end_date"))
    for name, day in (("start_date", first), ("end_date", last)):
        if not low <= day <= high:
            raise Refused(f"Parameter '{name}' is out of allowed range from {low} to {high}")
    if last < first:
        raise Refused("End-date must be larger or equals than start-date")
    return first, last


def _counted_days(given: Mapping[str, str], kind: Kind, today: dt.date) -> tuple[dt.date, dt.date]:
    if not kind.has_current:
        raise Refused("Both 'start_date' and 'end_date' must be set in the url")
    ahead, back = given.get("forecast_days", "7"), given.get("past_days", "0")
    if not ahead.isdecimal() or int(ahead) > 16:
        raise Refused("Forecast days is invalid. Allowed range 0 to 16.")
    if not back.isdecimal() or int(back) > 92:
        raise Refused("Past days is invalid. Allowed range 0 to 92.")
    return today - dt.timedelta(days=int(back)), today + dt.timedelta(days=max(0, int(ahead) - 1))


def _date(raw: str, name: str) -> dt.date:
    try:
        return dt.date.fromisoformat(raw)
    except ValueError:
        raise Refused(f"Invalid date format for '{name}'. Make sure to use 'YYYY-MM-DD'") from None


def _units(given: Mapping[str, str]) -> dict[str, str]:
    chosen = {}
    for name, allowed in _UNITS.items():
        chosen[name] = given.get(name, allowed[0])
        if chosen[name] not in allowed:
            raise Refused(f"Data corrupted at path '{name}'. Invalid String value {chosen[name]}.")
    return chosen
