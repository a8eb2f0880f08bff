"""What the weather meant for a crop, computed in SQL from reconciled days; what is not known is counted, never zero.

Growing degree days: of each day, the mean of its maximum and minimum temperature, both first brought into
[base, upper], less the base. That is Method 2 with an upper threshold of McMaster and Wilhelm (1997), "Growing
degree-days: one equation, two interpretations", Agricultural and Forest Meteorology 87, 291-300. Frost days (minimum
below 0 degrees C) and dry days (less than 1 mm) are counted as the indices FD and CDD of the ETCCDI are.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, fields
from typing import Any

from models.reconciling import OF_FARMS, reconciled_sql
from models.weather import Grain
from models.weather_bodies import for_psycopg


@dataclass(frozen=True, slots=True, kw_only=True)
class CropLimits:
    """Temperatures and rain that matter to a crop; by default those usual for maize."""

    base_c: float = 10
    """No growth below."""
    upper_c: float = 30
    """No more growth above."""
    frost_below_c: float = 0
    heat_above_c: float = 35
    dry_below_mm: float = 1

    def __post_init__(self) -> None:
        """Refuse thresholds that are out of order."""
        if not self.base_c < self.upper_c:
            raise ValueError(f"upper_c {self.upper_c:g} is not above base_c {self.base_c:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Agronomy:
    """What was accumulated and counted at one farm over a range of days; None where no day or hour is known.

    Each sum is over the days that are known; the number of those that are not stands beside it.
    """

    farm_id: int
    days: int
    """Days of the range."""
    forecast_days: int
    """Days of which some value that was used is a forecast."""
    growing_degree_days: float | None
    growing_degree_days_missing: int
    precipitation_mm: float | None
    precipitation_days_missing: int
    et0_mm: float | None
    et0_days_missing: int
    water_balance_mm: float | None
    """Rain less ET0, over the days of which both are known."""
    water_balance_days_missing: int
    longest_dry_spell_days: int | None
    """Most dry days in a row; a day without known rain ends a spell, so the true one may be longer."""
    current_dry_spell_days: int | None
    """Dry days in a row up to the last day of the range; None when its rain is not known."""
    frost_days: int | None
    frost_days_missing: int
    heat_stress_hours: int | None
    heat_stress_hours_missing: int


def agronomy_parameters(start: dt.date, end: dt.date, *, limits: CropLimits | None = None) -> dict[str, Any]:
    """The parameters of `AGRONOMY`, and of `AGRONOMY_OF_FARM`, but for which farms.

    Raises:
        ValueError: `end` is before `start`.
    """
    if end < start:
        raise ValueError(f"{end} is before {start}")
    crop = limits or CropLimits()
    midnight = dt.datetime.combine(start, dt.time(), dt.UTC)
    days = (end - start).days + 1
    return {
        "first": start,
        "last": end,
        "first_hour": midnight,
        "last_hour": midnight + dt.timedelta(hours=24 * days - 1),
        "days": days,
        **{each.name: getattr(crop, each.name) for each in fields(crop)},
    }


def _is_forecast(variable: str) -> str:
    return f"coalesce(r.kinds[{variable}_place] = 'forecast', false)"


def _bounded(temperature: str) -> str:
    return f"least(greatest(CAST({temperature} AS double precision), :base_c), :upper_c)"


_USED = ("temperature_min_c", "temperature_max_c", "precipitation_mm", "et0_mm")

_DAYS = f"""
days AS (
    SELECT s.site, CAST(g AS date) AS day,
           CAST(r.precipitation_mm AS double precision) AS rain, CAST(r.et0_mm AS double precision) AS et0,
           r.temperature_min_c AS low,
           CASE WHEN num_nulls(r.temperature_min_c, r.temperature_max_c) = 0 THEN
               ({_bounded("r.temperature_min_c")} + {_bounded("r.temperature_max_c")}) / 2 - :base_c
           END AS growth,
           {" OR ".join(map(_is_forecast, _USED))} AS is_forecast
    FROM (SELECT DISTINCT site FROM farm_sites) AS s
    CROSS JOIN generate_series(CAST(:first AS timestamp), CAST(:last AS timestamp), interval '1 day') AS g
    LEFT JOIN reconciled AS r ON r.site = s.site AND r.at = CAST(g AS date)
)"""  # noqa: S608

# Thresholds are compared in the precision of what is stored: 0.7 in single precision is less than 0.7 in double.
_SPELLS = """
spells AS (
    SELECT site, count(*) AS length, max(day) AS last
    FROM (SELECT site, day, day - CAST(row_number() OVER (PARTITION BY site ORDER BY day) AS integer) AS run
          FROM days WHERE rain < CAST(:dry_below_mm AS real)) AS dry
    GROUP BY site, run
), longest AS (
    SELECT site, max(length) AS longest, max(length) FILTER (WHERE last = CAST(:last AS date)) AS latest
    FROM spells
    GROUP BY site
)"""

_HOURS = """
hours AS (
    SELECT site, count(temperature_c) AS known,
           count(*) FILTER (WHERE temperature_c > CAST(:heat_above_c AS real)) AS hot
    FROM hourly
    GROUP BY site
)"""

_SUMS = """
sums AS (
    SELECT site, count(*) FILTER (WHERE is_forecast) AS forecast_days,
           sum(growth) AS growing_degree_days, :days - count(growth) AS growing_degree_days_missing,
           sum(rain) AS precipitation_mm, :days - count(rain) AS precipitation_days_missing,
           sum(et0) AS et0_mm, :days - count(et0) AS et0_days_missing,
           sum(rain - et0) AS water_balance_mm, :days - count(rain - et0) AS water_balance_days_missing,
           CASE WHEN count(low) > 0 THEN count(*) FILTER (WHERE low < CAST(:frost_below_c AS real)) END AS frost_days,
           :days - count(low) AS frost_days_missing,
           count(rain) > 0 AS has_rain, bool_or(day = :last AND rain IS NOT NULL) AS has_last_rain
    FROM days
    GROUP BY site
)"""

AGRONOMY = f"""
WITH {OF_FARMS}, {reconciled_sql(Grain.DAILY, variables=_USED)},
{reconciled_sql(Grain.HOURLY, name="hourly", bounds=("first_hour", "last_hour"), variables=("temperature_c",))},
{_DAYS}, {_SPELLS}, {_HOURS}, {_SUMS}
SELECT f.farm_id, CAST(:days AS integer) AS days, s.forecast_days,
       s.growing_degree_days, s.growing_degree_days_missing, s.precipitation_mm, s.precipitation_days_missing,
       s.et0_mm, s.et0_days_missing, s.water_balance_mm, s.water_balance_days_missing,
       CASE WHEN s.has_rain THEN coalesce(l.longest, 0) END AS longest_dry_spell_days,
       CASE WHEN s.has_last_rain THEN coalesce(l.latest, 0) END AS current_dry_spell_days,
       s.frost_days, s.frost_days_missing,
       CASE WHEN h.known > 0 THEN h.hot END AS heat_stress_hours,
       24 * :days - coalesce(h.known, 0) AS heat_stress_hours_missing
FROM farm_sites AS f JOIN sums AS s ON s.site = f.site
LEFT JOIN longest AS l ON l.site = f.site
LEFT JOIN hours AS h ON h.site = f.site
ORDER BY f.farm_id
"""  # noqa: S608
"""What the weather meant at the farms of `farm_ids`, in order; those without any cell are left out. For SQLAlchemy."""

_WHICH = "farm_id = ANY(CAST(:farm_ids AS bigint[]))"
assert _WHICH in AGRONOMY

AGRONOMY_OF_FARM = for_psycopg(
    AGRONOMY.replace(_WHICH, "farm_id = (SELECT id FROM farms WHERE external_farm_id = :farm)")
)
"""The same at the one farm that `farm` names as the API does, for psycopg."""
