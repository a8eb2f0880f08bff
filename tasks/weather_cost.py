"""What weather of past days will cost, before a service is asked; writes nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from models.quota import Span
from models.weather import Cell, Source
from models.weather_missing import DaySpan
from tasks.weather.open_meteo_requests import Request
from tasks.weather_bench import WeatherBench
from tasks.weather_due import due_of_days

SECONDS_A_REQUEST = 3.0
"""Of either service, for a year of one cell or of many; no more is known beforehand."""
DAY_S, HOUR_S = dt.timedelta(days=1).total_seconds(), dt.timedelta(hours=1).total_seconds()

CellsBySource = Mapping[Source, Mapping[str, Cell]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeatherCost:
    """What is due of some days, and what it will take."""

    days: DaySpan
    batches: int = 0
    requests: int = 0
    """Of both services."""
    weighted_calls: float = 0
    """As Open-Meteo counts."""
    days_of_allowance: float = 0
    """Days for which that takes all that Open-Meteo allows beside live work."""
    seconds: float = 0


def weather_cost(bench: WeatherBench, cells: CellsBySource, days: DaySpan) -> WeatherCost:
    """Plan these UTC days of these cells as a run would, but ask nobody and note nothing."""
    works = due_of_days(bench, days, cells=cells)
    requests = [each for work in works for each in work.requests]
    weight = sum(each.weight for each in requests if isinstance(each, Request))
    limits = bench.limits
    allowed = {span: limits.of(span) * limits.backfill_share for span in Span}
    by_day = weight / allowed[Span.DAY]
    # Within a day the hour is the limit: the day's allowance is gone in less than three.
    waiting = int(by_day) * DAY_S + by_day % 1 * allowed[Span.DAY] / allowed[Span.HOUR] * HOUR_S
    power = sum(not isinstance(each, Request) for each in requests)
    asking = max(len(requests) - power, power / bench.settings.nasa_power_at_once) * SECONDS_A_REQUEST
    return WeatherCost(
        days=days,
        batches=len(works),
        requests=len(requests),
        weighted_calls=weight,
        days_of_allowance=by_day,
        seconds=max(waiting, asking),
    )
