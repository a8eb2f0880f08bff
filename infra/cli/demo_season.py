"""The season of the demo's farms: a line for each, with the last clear day, the trend and how the season went."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Connection

from infra.settings import Settings
from infra.stores import Stores
from models.domain import Status
from models.farms import stored_farms
from models.observations import export_observations

CLEAR_ENOUGH = 0.5
"""Smallest clear fraction shown as a farm's clear day."""
SEASON_WIDTH = 17
"""Characters for a season: a farm and its season fit on a line of 80."""

_BARS = "▁▂▃▄▅▆▇█"

Days = tuple[dt.date, dt.date]
"""First and last day, both included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Season:
    """What the table tells of one farm."""

    name: str
    area_ha: float
    clear: list[tuple[dt.date, float, float]]
    """Day, NDVI and clear fraction of the days that were clear enough, oldest first."""
    last_status: str


def show_season(console: Console, settings: Settings, stores: Stores, days: Days) -> None:
    """Print how the farms looked from the first day to the last."""
    with stores.engine.connect() as connection:
        seasons = _seasons(connection, settings, days)
    table = Table(
        box=SIMPLE_HEAD, title="How the farms looked", title_justify="left", title_style="bold", padding=(0, 1)
    )
    table.add_column("farm", no_wrap=True)
    for name, width in (("ha", 5), ("last clear", 10), ("NDVI", 4), ("trend", 7), ("clear", 5)):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    table.add_column("season", no_wrap=True, min_width=SEASON_WIDTH)
    for season in sorted(seasons, key=lambda each: each.name):
        table.add_row(*_cells(season, days))
    console.print(table)


def _seasons(connection: Connection, settings: Settings, days: Days) -> list[_Season]:
    farms = {farm.external_farm_id: farm for farm in stored_farms(connection)}
    rows: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in export_observations(connection, start=days[0], end=days[1], mask_policy=settings.mask_policy.name):
        rows[row["external_farm_id"]].append(row)
    return [
        _Season(
            name=farms[farm_id].name,
            area_ha=farms[farm_id].area_ha,
            clear=[
                (row["day"], row["ndvi"], row["clear_fraction"])
                for row in own
                if row["status"] == Status.OBSERVED and row["clear_fraction"] >= CLEAR_ENOUGH
            ],
            last_status=own[-1]["status"],
        )
        for farm_id, own in rows.items()
    ]


def _cells(season: _Season, days: Days) -> list[str]:
    name = escape(season.name)
    size = f"{season.area_ha:.1f}" if season.area_ha >= 0.1 else f"{season.area_ha:.3f}"
    if not season.clear:
        return [name, size, f"none ({season.last_status})", "", "", "", ""]
    day, ndvi, clear_fraction = season.clear[-1]
    trend = ""
    if len(season.clear) > 1:
        change = ndvi - season.clear[-2][1]
        colour, arrow = ("green", "↑") if change > 0.02 else ("red", "↓") if change < -0.02 else ("dim", "→")
        trend = f"[{colour}]{arrow} {change:+.2f}[/{colour}]"
    return [name, size, str(day), f"{ndvi:.2f}", trend, f"{clear_fraction:.0%}", _sparkline(season, days)]


def _sparkline(season: _Season, days: Days) -> str:
    """NDVI over the season as bars from 0 to 0.9, blank where no day of that span was clear."""
    spans: dict[int, list[float]] = defaultdict(list)
    length = (days[1] - days[0]).days + 1
    for day, ndvi, _ in season.clear:
        spans[(day - days[0]).days * SEASON_WIDTH // length].append(ndvi)
    return "".join(_bar(sum(span) / len(span)) if (span := spans.get(n)) else " " for n in range(SEASON_WIDTH))


def _bar(ndvi: float) -> str:
    return _BARS[min(7, max(0, int(ndvi / 0.9 * 8)))]
