"""The words of weather as plain, immutable values. Standard library alone.

Weather is gridded, so it is fetched and kept by cell, not by farm. Every value keeps its source, its model and whether
it was observed, reanalysed or forecast; units stand in the names.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Source(enum.StrEnum):
    """Who told a value."""

    OPEN_METEO = "open-meteo"
    NASA_POWER = "nasa-power"


class Kind(enum.StrEnum):
    """How a value came to be."""

    OBSERVED = "observed"
    REANALYSIS = "reanalysis"
    FORECAST = "forecast"


class Grain(enum.StrEnum):
    """Span of time that a value stands for."""

    HOURLY = "hourly"
    DAILY = "daily"
    CURRENT = "current"
    """An instant, for who wants to know the weather now; with hourly variables, without sums, and never stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of a source's grid."""

    source: Source
    key: str
    """Stable name, unique among all grids, such as `om-0.1:513:43` or `power:281:307`."""
    latitude: float
    """Centre, degrees north."""
    longitude: float
    """Centre, degrees east, in [-180, 180)."""


DAILY_VARIABLES = (
    "temperature_mean_c",
    "temperature_min_c",
    "temperature_max_c",
    "dew_point_c",
    "relative_humidity_pct",
    "precipitation_mm",
    "wind_speed_10m_m_s",
    "wind_speed_2m_m_s",
    "shortwave_radiation_mj_m2",
    "surface_pressure_hpa",
    "cloud_cover_pct",
    "et0_mm",
    "soil_temperature_top_c",
    "soil_moisture_top_m3_m3",
)
"""Values of a day, in this order everywhere. The day is a UTC day; sums over the day: precipitation (snow as melted
water), radiation, ET0 (FAO-56). All others are means, but for the minimum and maximum of temperature. The soil layer is
the source's uppermost, named by `Reading.soil_layer`: layers of different models are never joined."""

HOURLY_VARIABLES = (
    "temperature_c",
    "dew_point_c",
    "relative_humidity_pct",
    "precipitation_mm",
    "wind_speed_10m_m_s",
    "wind_speed_2m_m_s",
    "shortwave_radiation_w_m2",
    "surface_pressure_hpa",
    "cloud_cover_pct",
    "et0_mm",
    "soil_temperature_top_c",
    "soil_moisture_top_m3_m3",
)
"""Values of an hour, in this order everywhere: precipitation, radiation and ET0 over the hour that ends at the time
told, all others at that time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one source's one model told of one cell at one time. Absent variables are not in `values`."""

    cell: Cell
    grain: Grain
    at: dt.datetime
    """UTC: start of the day for daily readings, the hour told for hourly ones."""
    kind: Kind
    model: str
    """The model as the source names it, such as `era5_seamless` or `merra2+flashflux`."""
    values: Mapping[str, float]
    is_final: bool
    """False where the source is known to replace the value later."""
    issued_at: dt.datetime | None = None
    """When a forecast was made or fetched; None for what is past."""
    soil_layer: str | None = None
    """Depth of the uppermost soil layer, such as `0-7cm`."""
    told_at: dt.datetime | None = None
    """When the source gave this answer, for what is past; None where it is stored at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Implausible:
    """A value outside what is physically plausible: kept out, counted and logged."""

    cell: Cell
    at: dt.datetime
    variable: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WeatherAnswer:
    """What one request to a source gave."""

    readings: tuple[Reading, ...]
    implausible: tuple[Implausible, ...] = ()
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For a cell's key, variables asked for and not told at all."""
    data_sets: tuple[str, ...] = ()
    """Data sets that the source named behind the whole answer, such as `merra2` and `syn1deg`."""
