"""The week's weather of the demo's farms: at one of them day by day, and a line for each."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.stores import Stores
from models.farms import stored_farms
from models.weather import Kind, Source
from models.weather_answers import Told, Weather, reconciled_daily

DAYS_BACK, DAYS_AHEAD = 3, 3
_ONE_DAY = dt.timedelta(days=1)
_BARS = "▁▂▃▄▅▆▇█"
_WET_MM = 12.0
"""A day's rain that fills its bar."""
_DRY_MM = 0.1
_LEAST_SPAN_C = 8.0
"""Between the lowest and the highest bar of a farm's days: a steady week looks steady."""
_TEMPERATURE_WIDTH, _RAIN_WIDTH = 15, 13
"""So that a farm and its week fit on a line of 80."""
_TELLERS = {
    (Source.OPEN_METEO, Kind.REANALYSIS): ("A", "Open-Meteo reanalysis"),
    (Source.OPEN_METEO, Kind.FORECAST): ("F", "Open-Meteo forecast"),
    (Source.NASA_POWER, Kind.REANALYSIS): ("P", "NASA POWER reanalysis"),
}


@dataclass(frozen=True, slots=True)
class _Week:
    """What is known of one farm, in order of days."""

    name: str
    days: Sequence[Weather]

    def values(self, variable: str) -> list[float]:
        """Of the days that have it."""
        return [day.values[variable].value for day in self.days if variable in day.values]


def show_week(console: Console, stores: Stores, *, today: dt.date) -> None:
    """Print the weather around a day: of one farm by day, then a line for each farm."""
    first, last = today - DAYS_BACK * _ONE_DAY, today + DAYS_AHEAD * _ONE_DAY
    with stores.engine.connect() as connection:
        names = {farm.id: farm.name for farm in stored_farms(connection)}
        by_farm: dict[int, list[Weather]] = defaultdict(list)
        for day in reconciled_daily(connection, names.keys(), start=first, end=last):
            if day.farm_id is not None:
                by_farm[day.farm_id].append(day)
    weeks = sorted((_Week(names[farm_id], days) for farm_id, days in by_farm.items()), key=lambda week: week.name)
    if not weeks:
        console.print("[red]No weather is known of this week.[/red]")
        return
    console.print(_by_day(weeks[0]))
    console.print(_by_farm(weeks, first, last))
    letters = ", ".join(f"{letter} {words}" for letter, words in _TELLERS.values())
    console.print(
        "Lowest and highest temperature, rain and ET0 (mm) of the week, mean wind (m/s). A bar a day for how warm and "
        f"how wet (· dry) it was, a letter a day for who told it: {letters}."
    )
    console.print("[bold]This weather is simulated.[/bold]")


def _by_day(week: _Week) -> Table:
    table = _table(f"This week at {week.name}: temperatures in °C, rain and ET0 in mm, wind in m/s")
    table.add_column("day", no_wrap=True)
    for name in ("low", "high", "rain", "ET0", "wind"):
        table.add_column(name, justify="right", no_wrap=True, min_width=5)
    table.add_column("told by", no_wrap=True)
    variables = ("temperature_min_c", "temperature_max_c", "precipitation_mm", "et0_mm", "wind_speed_10m_m_s")
    for day in week.days:
        cells = [_number(day.values.get(name)) for name in variables]
        table.add_row(f"{day.at:%a %d %b}", *cells, _teller(day.values)[1])
    return table


def _by_farm(weeks: Sequence[_Week], first: dt.date, last: dt.date) -> Table:
    table = _table(f"The farms' weather, {first} to {last}")
    table.add_column("farm", no_wrap=True)
    table.add_column("°C", justify="right", no_wrap=True, min_width=_TEMPERATURE_WIDTH)
    table.add_column("rain mm", justify="right", no_wrap=True, min_width=_RAIN_WIDTH)
    for name in ("ET0", "wind"):
        table.add_column(name, justify="right", no_wrap=True, min_width=4)
    table.add_column("told by", no_wrap=True, min_width=DAYS_BACK + 1 + DAYS_AHEAD)
    for week in weeks:
        lows, highs = week.values("temperature_min_c"), week.values("temperature_max_c")
        rain, wind = week.values("precipitation_mm"), week.values("wind_speed_10m_m_s")
        span_c = max([_LEAST_SPAN_C, *(high - min(highs) for high in highs)])
        warmth = "".join(_bar(high - min(highs), of=span_c) for high in highs)
        wetness = "".join(_bar(value, of=_WET_MM) if value >= _DRY_MM else "·" for value in rain)
        table.add_row(
            escape(week.name),
            f"{min(lows):.0f}…{max(highs):.0f} {warmth}" if lows and highs else "",
            f"{sum(rain):.1f} {wetness}",
            f"{sum(week.values('et0_mm')):.1f}",
            f"{sum(wind) / len(wind):.1f}" if wind else "",
            "".join(_teller(day.values)[0] for day in week.days),
        )
    return table


def _table(title: str) -> Table:
    return Table(box=SIMPLE_HEAD, title=escape(title), title_justify="left", title_style="bold", padding=(0, 1))


def _number(told: Told | None) -> str:
    return "" if told is None else f"{told.value:.1f}"


def _teller(values: Mapping[str, Told]) -> tuple[str, str]:
    """Letter and words for whoever told the day's temperature."""
    told = values.get("temperature_max_c")
    return ("?", "nobody") if told is None else _TELLERS[told.source, told.kind]


def _bar(value: float, *, of: float) -> str:
    return _BARS[min(7, max(0, int(8 * value / of)))]
