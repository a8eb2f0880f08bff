"""How many farms Open-Meteo's free day carries, by the weights that the real requests have.

Cells are what counts, so the answer depends on how farms lie: in one district they share a few hundred cells however
many they are, spread over a country nearly every farm begins a cell of its own.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable
from dataclasses import dataclass

from flows.prewarm import SPARE_DAYS
from models.quota import QuotaLimits
from models.weather import Grain, Source
from models.weather_bodies import HOURLY_DAYS
from models.weather_missing import LATENESS
from tasks.weather.cells import open_meteo_cell
from tasks.weather.open_meteo_requests import FORECAST_DAYS, Endpoint, requests_for
from tasks.weather_due import READ_AGAIN_TOGETHER_DAYS

PREWARM_EVERY_MIN = 55
RUNS_A_DAY = 4
"""Of the forecast model; cells that have been told the newest run are not asked for again."""
COUNTRY_KM2 = 357_000
COUNTRY_LATITUDE = 51.0
"""As large as Germany, and where it lies."""
_DAY = dt.timedelta(days=1)
_KM_A_DEGREE = 111.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What a free day is worth."""

    calls_a_farm_alone: float
    """Weighted calls a day of one farm that is asked for by itself every 55 minutes, and once for its days."""
    calls_a_cell: float
    """Weighted calls a day of one cell, however many farms it holds."""
    a_day: float

    @property
    def farms_alone(self) -> int:
        """Farms after which the free day is used up, with requests by farm."""
        return int(self.a_day / self.calls_a_farm_alone)

    @property
    def cells(self) -> int:
        """Cells that the free day carries."""
        return int(self.a_day / self.calls_a_cell)

    def farms_over_country(self, *, step_degrees: float) -> float:
        """Farms anywhere in a country whose cells the free day carries; infinite where it carries all its cells."""
        km2 = (step_degrees * _KM_A_DEGREE) ** 2 * math.cos(math.radians(COUNTRY_LATITUDE))
        all_cells = COUNTRY_KM2 / km2
        if self.cells >= all_cells:
            return math.inf
        # Of so many farms at random places, a share of exp(-farms / cells) of all cells stays empty.
        return -all_cells * math.log(1 - self.cells / all_cells)


def quota() -> Quota:
    """What a free day is worth, by what the daily run and the prewarming ask for once all is up to date."""
    late = LATENESS[Source.OPEN_METEO].first_after.days
    behind, ahead = HOURLY_DAYS
    hours = _weight(Endpoint.FORECAST, [Grain.HOURLY], days=behind + 1 + ahead + SPARE_DAYS)
    forecast = _weight(Endpoint.FORECAST, [Grain.DAILY], days=late + FORECAST_DAYS)
    analysis = _weight(Endpoint.ARCHIVE, [Grain.DAILY], days=1)
    read_again = _weight(Endpoint.ARCHIVE, [Grain.DAILY], days=READ_AGAIN_TOGETHER_DAYS) / READ_AGAIN_TOGETHER_DAYS
    days = forecast + analysis + read_again
    return Quota(
        calls_a_farm_alone=hours * 24 * 60 / PREWARM_EVERY_MIN + days,
        calls_a_cell=hours * RUNS_A_DAY + days,
        a_day=QuotaLimits().per_day,
    )


def backfill_weight_a_cell(first: dt.date, last: dt.date) -> float:
    """Weighted calls of the daily reanalysis of one cell over some years, asked year by year."""
    years = range(first.year, last.year + 1)
    spans = [(max(first, dt.date(year, 1, 1)), min(last, dt.date(year, 12, 31))) for year in years]
    return sum(_weight(Endpoint.ARCHIVE, [Grain.DAILY], days=(end - start).days + 1) for start, end in spans)


def _weight(endpoint: Endpoint, grains: Iterable[Grain], *, days: int) -> float:
    first = dt.date(2026, 1, 1)
    [request] = requests_for(
        [open_meteo_cell(0, 0)],
        endpoint=endpoint,
        grains=grains,
        first_day=first,
        last_day=first + (days - 1) * _DAY,
    )
    return request.weight
