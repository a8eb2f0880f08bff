"""What a backfill is to do, in pieces, and what that will cost."""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.wanted import wanted_farms
from infra.cli.running import progress_bar
from infra.settings import Settings
from models.days import FIRST_SCENE, Step, pieces_newest_first
from models.selection import Selection, selected_ids
from models.weather_missing import DaySpan
from tasks.bench import Bench, catalogs_of, open_bench
from tasks.ndvi_cost import NdviCost, ndvi_cost
from tasks.weather_bench import open_weather_bench
from tasks.weather_cost import WeatherCost, weather_cost
from tasks.weather_due import cells_wanted

MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a backfill is to do."""

    days: DaySpan
    what: tuple[str, ...]
    farms: list[uuid.UUID] | None
    bbox: tuple[float, float, float, float] | None

    @classmethod
    def of(
        cls,
        first: dt.date,
        last: dt.date,
        *,
        what: tuple[str, ...],
        farms: list[uuid.UUID] | None = None,
        bbox: tuple[float, float, float, float] | None = None,
    ) -> Wanted:
        """These days, both included."""
        return cls(days=DaySpan(first, last), what=what, farms=farms, bbox=bbox)

    @property
    def is_for_some(self) -> bool:
        """For named farms or those in a box only."""
        return self.farms is not None or self.bbox is not None

    @property
    def months(self) -> list[DaySpan]:
        """Pieces for NDVI, newest first: as much as is planned, and seen in Prefect, as one run."""
        days = DaySpan(max(self.days.first, FIRST_SCENE), self.days.last)
        return pieces_newest_first(days, Step.MONTH) if "ndvi" in self.what else []

    @property
    def years(self) -> list[DaySpan]:
        """Pieces for weather, newest first: NASA POWER tells a year by one request as it would a day."""
        return pieces_newest_first(self.days, Step.YEAR) if "weather" in self.what else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What is due, piece by piece, and what that will cost; pieces without anything to do are left out."""

    farms: int
    ndvi: tuple[NdviCost, ...]
    weather: tuple[WeatherCost, ...]

    @property
    def is_anything_due(self) -> bool:
        """Whether there is anything to do, as far as one can tell."""
        return bool(self.ndvi or self.weather)

    @property
    def problems(self) -> dict[str, str]:
        """Catalogs that could not be searched, with the reason."""
        return {name: problem for each in self.ndvi for name, problem in each.problems.items()}

    def facts(self) -> dict[str, Any]:
        """All of it for programs."""
        return {
            "farms": self.farms,
            "cost": {
                "ndvi": {
                    "months": len(self.ndvi),
                    "scenes": sum(each.scenes for each in self.ndvi),
                    "observations": sum(each.looks for each in self.ndvi),
                    "requests": sum(each.requests for each in self.ndvi),
                    "megabytes": round(sum(each.megabytes for each in self.ndvi), 1),
                    "seconds": round(sum(each.seconds for each in self.ndvi)),
                    "is_from_history": any(each.is_from_history for each in self.ndvi),
                },
                "weather": {
                    "years": len(self.weather),
                    "requests": sum(each.requests for each in self.weather),
                    "weighted_calls": round(sum(each.weighted_calls for each in self.weather), 1),
                    "days_of_allowance": round(sum(each.days_of_allowance for each in self.weather), 2),
                    "seconds": round(sum(each.seconds for each in self.weather)),
                },
            },
            "problems": [f"catalog {name} could not be searched: {why}" for name, why in self.problems.items()],
        }


def estimate(settings: Settings, wanted: Wanted) -> Costs:
    """Plan every piece, without reading imagery or asking for weather, and without a note of it.

    Raises:
        BadInput: a farm that is not there, or a box without farms.
    """
    with progress_bar("planning") as advance, contextlib.ExitStack() as stack:
        options = {"is_for_some": wanted.is_for_some, "is_asked_for": True}
        bench = stack.enter_context(open_bench(settings, **options))
        with bench.stores.engine.connect() as connection:
            selection, farms = wanted_farms(connection, wanted.farms, wanted.bbox)
        done, total = 0, len(wanted.months) + len(wanted.years)

        def step(days: DaySpan) -> None:
            nonlocal done
            done += 1
            advance(str(days.first), done, total)

        ndvi = tuple(_ndvi(bench, selection, wanted.months, step)) if farms else ()
        weather = tuple(_weather(settings, wanted, selection, step)) if farms else ()
    return Costs(farms=farms, ndvi=ndvi, weather=weather)


def _ndvi(
    bench: Bench, selection: Selection, months: list[DaySpan], step: Callable[[DaySpan], None]
) -> Iterator[NdviCost]:
    catalogs = catalogs_of(bench.settings)
    for month in months:
        cost = ndvi_cost(bench, catalogs, selection, month)
        step(month)
        if cost.scenes or cost.problems:
            yield cost


def _weather(
    settings: Settings, wanted: Wanted, selection: Selection, step: Callable[[DaySpan], None]
) -> Iterator[WeatherCost]:
    if not wanted.years:
        return
    with open_weather_bench(settings, is_live=False) as bench:
        with bench.stores.engine.connect() as connection:
            ids = None if selection.is_all else selected_ids(connection, selection)
        cells = cells_wanted(bench, farm_ids=ids)
        for year in wanted.years:
            cost = weather_cost(bench, cells, year)
            step(year)
            if cost.batches:
                yield cost


def print_costs(console: Console, wanted: Wanted, costs: Costs) -> None:
    """Say in a few lines what there is to do and what it will cost."""
    days = wanted.days
    console.print(f"Backfill {days.first} to {days.last}: {costs.farms:,} farms, the newest days first")
    for name, problem in costs.problems.items():
        console.print(f"  [red]catalog {escape(name)} could not be searched[/red]: {escape(problem)}", soft_wrap=True)
    if not costs.is_anything_due:
        console.print("Nothing is due." if costs.farms else "Nothing is due: there are no farms yet.")
        return
    found = costs.facts()["cost"]
    table = Table("", "runs", "scenes", "requests", "megabytes", "weighted calls", "about", box=SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    if costs.ndvi:
        each = found["ndvi"]
        size, about = f"{each['megabytes']:,.0f}", duration(each["seconds"])
        table.add_row("ndvi", str(each["months"]), f"{each['scenes']:,}", f"{each['requests']:,}", size, "", about)
    if costs.weather:
        each = found["weather"]
        calls, about = f"{each['weighted_calls']:,.1f}", duration(each["seconds"])
        table.add_row("weather", str(each["years"]), "", f"{each['requests']:,}", "", calls, about)
    console.print(table)
    if costs.ndvi and not found["ndvi"]["is_from_history"]:
        console.print("The time of NDVI is a guess from sizes; it is told by experience after the first scenes.")
    if found["weather"]["days_of_allowance"] >= 0.1:
        share = found["weather"]["days_of_allowance"]
        console.print(f"Weather takes {share:.1f} days of what Open-Meteo allows beside live work.")


def duration(seconds: float) -> str:
    """A time as a person says it, e.g. `40 s`, `12 min`, `3.5 h` or `6.8 days`."""
    if seconds < 2 * MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < 2 * HOUR_S:
        return f"{seconds / MINUTE_S:.0f} min"
    return f"{seconds / HOUR_S:.1f} h" if seconds < 2 * DAY_S else f"{seconds / DAY_S:.1f} days"
