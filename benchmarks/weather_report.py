"""What the weather benchmark measured: for people, for programs, and what of it is not right."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.weather_quota import PREWARM_EVERY_MIN, backfill_weight_a_cell, quota
from benchmarks.weather_runs import FlowRun, Heard
from models.quota import QuotaLimits

MOST_OPEN_METEO, MOST_NASA_POWER = 10, 12
"""Requests for a day's weather of a thousand farms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """The daily run: the first, and one right after it."""

    run: FlowRun
    heard: Heard
    again: FlowRun
    heard_again: Heard
    open_meteo_cells: int
    nasa_power_cells: int

    @property
    def repeated(self) -> int:
        """Requests of the second run, when everything that can be known is stored."""
        return self.heard_again.open_meteo_requests + self.heard_again.nasa_power_requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """Years of weather, loaded by a run that was killed and one that went on."""

    first: dt.date
    last: dt.date
    seconds: float
    """Of both together, process starts included."""
    rows_when_killed: int
    rows: int
    lost: int
    """Days of cells that are not there, of those that the services tell."""
    doubled: int
    heard: Heard
    after: FlowRun


def problems_of(day: Day, backfill: Backfill | None) -> list[str]:
    """What is not as it should be."""
    found = []
    if day.heard.open_meteo_requests > MOST_OPEN_METEO or day.heard.nasa_power_requests > MOST_NASA_POWER:
        found.append(f"more than {MOST_OPEN_METEO} requests to Open-Meteo or {MOST_NASA_POWER} to NASA POWER")
    if day.repeated:
        found.append(f"{day.repeated} requests repeated for what is stored")
    runs = [day.run, day.again, *([backfill.after] if backfill else [])]
    found += [f"a run ended {run.state}: {run.message}" for run in runs if run.state != "COMPLETED"]
    if backfill and (backfill.lost or backfill.doubled):
        found.append(f"{backfill.lost} rows lost and {backfill.doubled} doubled by the kill")
    return found


def report(day: Day, backfill: Backfill | None, farms: int) -> Iterator[str]:
    """What was measured, for people."""
    heard, run = day.heard, day.run
    yield f"\n{farms:,} farms in 100 x 100 km: {day.open_meteo_cells} Open-Meteo and {day.nasa_power_cells} POWER cells"
    yield f"  {'':26}{'Open-Meteo':>12}{'weighted':>10}{'NASA POWER':>12}{'rows':>9}{'s':>7}{'rows/s':>8}"
    yield (
        f"  {'daily run':26}{heard.open_meteo_requests:12,}{heard.weighted_calls:10,.1f}{heard.nasa_power_requests:12,}"
        f"{run.rows:9,}{run.seconds:7.1f}{run.rows / run.seconds:8,.0f}"
    )
    again = day.heard_again
    yield (
        f"  {'again, all stored':26}{again.open_meteo_requests:12,}{again.weighted_calls:10,.1f}"
        f"{again.nasa_power_requests:12,}{day.again.rows:9,}{day.again.seconds:7.1f}{'':8}"
    )
    a_cell = heard.weighted_calls / day.open_meteo_cells
    yield f"  {'one request a farm':26}{farms:12,}{farms * a_cell:10,.1f}{farms:12,}   (told from the weights)"
    if backfill:
        yield from _report_of(backfill)
    yield from _report_of_quota(day)


def _report_of(backfill: Backfill) -> Iterator[str]:
    heard = backfill.heard
    yield (
        f"  {f'{backfill.first.year} to {backfill.last.year}, killed once':26}{heard.open_meteo_requests:12,}"
        f"{heard.weighted_calls:10,.1f}{heard.nasa_power_requests:12,}{backfill.rows:9,}{backfill.seconds:7.1f}"
        f"{backfill.rows / backfill.seconds:8,.0f}"
    )
    a_cell = backfill_weight_a_cell(backfill.first, backfill.last)
    yield (
        f"  killed at {backfill.rows_when_killed:,} rows; {heard.told_before} requests asked again for it,"
        f" {backfill.lost} rows lost, {backfill.doubled} doubled"
    )
    free_days = math.ceil(heard.weighted_calls / (QuotaLimits().per_day * QuotaLimits().backfill_share))
    yield (
        f"  {a_cell:,.0f} weighted calls a cell: {free_days} free days beside live work for Open-Meteo's,"
        " while NASA POWER's are there at once"
    )


def _report_of_quota(day: Day) -> Iterator[str]:
    worth = quota()
    carried = worth.cells / day.open_meteo_cells
    yield "\nWhat Open-Meteo's free day of 10,000 weighted calls carries, days and hours of every farm kept up to date:"
    yield (
        f"  one request a farm, every {PREWARM_EVERY_MIN} minutes: {worth.calls_a_farm_alone:.1f} calls a farm,"
        f" used up at {worth.farms_alone:,} farms"
    )
    yield f"  by cell, when there is a new model run: {worth.calls_a_cell:.1f} calls a cell, {worth.cells:,} cells"
    yield f"  in a district of 100 x 100 km: any number of farms, and {carried:.1f} such districts"
    for step in (0.1, 0.25):
        farms = worth.farms_over_country(step_degrees=step)
        count = "any number of" if math.isinf(farms) else f"{farms:,.0f}"
        yield f"  anywhere in a country like Germany, cells of {step} degrees: {count} farms"


def summary(day: Day, backfill: Backfill | None, farms: int) -> dict[str, Any]:
    """The numbers for programs; null where not measured."""
    worth = quota()
    over_country = worth.farms_over_country(step_degrees=0.1)
    return {
        "farms": farms,
        "open_meteo_cells": day.open_meteo_cells,
        "nasa_power_cells": day.nasa_power_cells,
        "open_meteo_requests": day.heard.open_meteo_requests,
        "nasa_power_requests": day.heard.nasa_power_requests,
        "repeated": day.repeated,
        "weighted_calls": round(day.heard.weighted_calls, 1),
        "refused": day.heard.refused + day.heard_again.refused,
        "rows": day.run.rows,
        "seconds": round(day.run.seconds, 2),
        "rows_per_second": round(day.run.rows / day.run.seconds),
        "free_farms_one_request_each": worth.farms_alone,
        "free_cells": worth.cells,
        "free_farms_district": None,  # no limit: all its cells are carried, whatever they hold
        "free_districts": round(worth.cells / day.open_meteo_cells, 1),
        "free_farms_country": None if math.isinf(over_country) else round(over_country),
        "backfill_rows": backfill.rows if backfill else None,
        "backfill_seconds": round(backfill.seconds, 1) if backfill else None,
        "backfill_rows_per_second": round(backfill.rows / backfill.seconds) if backfill else None,
        "backfill_asked_again": backfill.heard.told_before if backfill else None,
        "backfill_lost": backfill.lost if backfill else None,
        "backfill_doubled": backfill.doubled if backfill else None,
    }
