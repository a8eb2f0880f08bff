"""What callers send to be told the weather, and what they are given."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from models.errors import BadInput
from serving.endpoints import Strict, Told
from serving.fields import LAST_DAY

FIRST_DAY = dt.date(1940, 1, 1)
"""First day of the ERA5 reanalysis."""

MOST_POINTS = 1_000
MOST_HOURLY_DAYS = 100
MOST_DAILY_DAYS = 3_660
MOST_AGRONOMY_DAYS = 366

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?([Zz]|[+-]\d{2}:\d{2})")
_RANGE = f"{FIRST_DAY} to {LAST_DAY}"


def _as_day(value: Any) -> dt.date:
    """A day as `YYYY-MM-DD` and in no other way."""
    if isinstance(value, str) and _DAY.fullmatch(value):
        try:
            day = dt.date.fromisoformat(value)
        except ValueError:
            raise PydanticCustomError("day", "is no day of the calendar", {"allowed": "YYYY-MM-DD"}) from None
        if FIRST_DAY <= day <= LAST_DAY:
            return day
        raise PydanticCustomError("day", "is out of range", {"allowed": _RANGE})
    raise PydanticCustomError("day", "is not a day", {"allowed": "YYYY-MM-DD"})


def _as_instant(value: Any) -> dt.datetime:
    """An instant as RFC 3339 and in no other way: pydantic takes `1` for one second after 1970."""
    allowed = {"allowed": "RFC 3339 with its offset, such as 2026-11-20T10:00:00Z; in an address, + is written %2B"}
    if isinstance(value, str) and _INSTANT.fullmatch(value):
        try:
            instant = dt.datetime.fromisoformat(value.upper())
        except ValueError:
            raise PydanticCustomError("instant", "is no instant of the calendar", allowed) from None
        if FIRST_DAY.year < instant.year <= LAST_DAY.year:
            return instant.astimezone(dt.UTC)
        raise PydanticCustomError("instant", "is out of range", {"allowed": f"{FIRST_DAY.year + 1} to {LAST_DAY.year}"})
    raise PydanticCustomError("instant", "is not an instant", allowed)


WeatherDay = Annotated[dt.date, BeforeValidator(_as_day)]
Instant = Annotated[
    dt.datetime, BeforeValidator(_as_instant), WithJsonSchema({"type": "string", "format": "date-time"})
]
_LAT = "Degrees north on WGS84."
_LON = "Degrees east on WGS84."
_TS = "The time wanted; without it, now."


def after_end(end: dt.date) -> BadInput:
    """Say that a range of days ends before it starts."""
    return BadInput("start", f"is after end ({end})", allowed="the same day as end, or before")


class RangeQuery(Strict):
    """Which UTC days."""

    start: WeatherDay | None = Field(default=None, description="First UTC day.")
    end: WeatherDay | None = Field(default=None, description="Last UTC day, included.")

    @model_validator(mode="after")
    def _in_order(self) -> RangeQuery:
        if self.start is not None and self.end is not None and self.start > self.end:
            raise after_end(self.end)
        return self

    @property
    def is_given(self) -> bool:
        """Whether anything else is asked for than what is told by default."""
        return self.start is not None or self.end is not None


class CropQuery(Strict):
    """Which UTC days, and between which temperatures the crop grows."""

    start: WeatherDay = Field(description="First UTC day.")
    end: WeatherDay = Field(description=f"Last UTC day, included; at most {MOST_AGRONOMY_DAYS} days in all.")
    base: Annotated[float, Field(ge=-30, le=60, description="No growth below, °C.")] = 10.0
    upper: Annotated[float, Field(ge=-30, le=60, description="No more growth above, °C.")] = 30.0

    @model_validator(mode="after")
    def _in_order(self) -> CropQuery:
        if self.start > self.end:
            raise after_end(self.end)
        if (self.end - self.start).days >= MOST_AGRONOMY_DAYS:
            raise BadInput("end", "is too long after start", allowed=f"at most {MOST_AGRONOMY_DAYS} days in all")
        if self.base >= self.upper:
            raise BadInput("base", f"is not below upper ({self.upper:g})", allowed="a temperature below upper")
        return self


class PointQuery(Strict):
    """Where, and when."""

    lat: Annotated[float, Field(ge=-90, le=90, description=_LAT)]
    lon: Annotated[float, Field(ge=-180, le=180, description=_LON)]
    ts: Instant | None = Field(default=None, description=_TS)


class Point(Strict):
    """Where, and when."""

    lat: Annotated[float, Field(ge=-90, le=90, strict=True, description=_LAT)]
    lon: Annotated[float, Field(ge=-180, le=180, strict=True, description=_LON)]
    ts: Instant | None = Field(default=None, description=_TS)


class Points(Strict):
    """Many at once."""

    points: Annotated[list[Point], Field(min_length=1, max_length=MOST_POINTS)]


class Telling(Told):
    """Who told a value."""

    source: Literal["open-meteo", "nasa-power"]
    kind: Literal["observed", "reanalysis", "forecast"]
    model: str = Field(description="As the source names it.")
    is_final: bool = Field(description="False where the source will replace it.")
    as_of: AwareDatetime = Field(description="When it was told; of a forecast, when that was issued.")


class ToldValue(Telling):
    """A value and who told it."""

    value: float


class _Weather(Told):
    cells: list[str] = Field(description="Cells of the sources' grids that the weather is of, at most one of each.")
    latitude: float = Field(description="Centre of the smaller cell, degrees north.")
    longitude: float
    as_of: AwareDatetime = Field(
        description="When the newest value was told: the age of what is told is now less this."
    )


class CurrentWeather(_Weather):
    """The weather of one hour, or of one day; units stand in the names."""

    at: AwareDatetime = Field(description="The hour told; of a day, its first instant.")
    values: dict[str, ToldValue | None]


class _Columns(_Weather):
    values: dict[str, list[float | None]] = Field(description="By variable, the unit in its name.")
    told_by: dict[str, list[int | None]] = Field(description="Who told each value: its place in `tellings`, from 0.")
    tellings: list[Telling]


class HourlyWeather(_Columns):
    """Hours in a row, column by column."""

    at: list[AwareDatetime]


class DailyWeather(_Columns):
    """UTC days in a row, column by column."""

    day: list[dt.date]


class PointWeather(Told):
    """The weather nearest to a point and a time."""

    lat: float
    lon: float
    ts: AwareDatetime | None = Field(description="The time wanted; null: now.")
    grain: Literal["hourly", "daily"] | None = Field(description="An hour, or, where none is known, the UTC day.")
    distance_km: float | None = Field(description="From the point to the centre that the weather is told of.")
    weather: CurrentWeather | None
    why_empty: str | None = Field(description="Why there is no weather, in a sentence.")


class PointsWeather(Told):
    """Many at once, in the order asked."""

    points: list[PointWeather]


class FarmAgronomy(Told):
    """What the weather of a range of days meant for a crop; sums are over the days that are known."""

    external_farm_id: uuid.UUID
    start: dt.date
    end: dt.date
    base_c: float
    upper_c: float
    days: int
    forecast_days: int = Field(description="Days of which some value that was used is a forecast.")
    growing_degree_days: float | None
    growing_degree_days_missing: int = Field(description="Days that are not known, as for each `..._missing`.")
    precipitation_mm: float | None
    precipitation_days_missing: int
    et0_mm: float | None
    et0_days_missing: int
    water_balance_mm: float | None = Field(description="Rain less ET0.")
    water_balance_days_missing: int
    longest_dry_spell_days: int | None
    current_dry_spell_days: int | None
    frost_days: int | None
    frost_days_missing: int
    heat_stress_hours: int | None
    heat_stress_hours_missing: int
