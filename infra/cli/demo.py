"""`swath demo`: a season on simulated imagery and a week of simulated weather, from farms to tables."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from infra.cli.demo_api import CLIENT, demo_key, examples, served_api, show_examples
from infra.cli.demo_weather import show_week
from infra.cli.given import parse_day
from infra.cli.ndvi import print_summary, run_days
from infra.cli.running import prefect_server
from infra.cli.weather import print_weather_summary, run_daily
from infra.settings import Settings, load_settings
from infra.stores import Stores, open_stores
from infra.telemetry import set_up_logs
from models.clients import client_id_of
from models.domain import Status
from models.farms import stored_farms, upsert_farms
from models.observations import export_observations

if TYPE_CHECKING:
    from infra.sandbox import Sandbox

SEASON = (dt.date(2024, 4, 1), dt.date(2024, 8, 31))
CLEAR_ENOUGH = 0.5
"""Smallest clear fraction shown as a farm's clear day."""

# What names the user's own stores, catalogs and servers must not reach the demo: it writes invented numbers.
_FOREIGN = (
    "SWATH_DATABASE_URL",
    "SWATH_REDIS_URL",
    "SWATH_STAC_PROFILE",
    "SWATH_DASK_ADDRESS",
    "SWATH_OPEN_METEO_KEY",
    "SWATH_OPEN_METEO_FORECAST_MODEL",
    "SWATH_OPEN_METEO_ARCHIVE_MODEL",
    "PREFECT_API_URL",
)
_BARS = "▁▂▃▄▅▆▇█"
SEASON_WIDTH = 17
"""Characters for a season: a farm and its season fit on a line of 80."""


@dataclass(frozen=True, slots=True)
class FarmSeason:
    """What the table tells of one farm."""

    name: str
    clear: list[tuple[dt.date, float, float]]
    """Day, NDVI and clear fraction of the days that were clear enough, oldest first."""
    last_status: str


def demo(
    start: Annotated[str, typer.Option(help="First day of the season, YYYY-MM-DD.")] = str(SEASON[0]),
    end: Annotated[str, typer.Option(help="Last day of the season, YYYY-MM-DD.")] = str(SEASON[1]),
) -> None:
    """Simulate imagery and weather, observe farms over a season, and show how they looked and this week's weather.

    Everything runs on this machine. The stores are the demo's own, so your data are not touched.
    """
    days = parse_day(start, field="--start") or SEASON[0], parse_day(end, field="--end") or SEASON[1]
    console = Console(highlight=False)
    with _demo_settings() as settings:
        from infra.sandbox import sandbox

        console.print(
            "[bold]Swath demo.[/bold] All is [bold]simulated[/bold]: fields, clouds, seasons and weather are invented."
        )
        console.print(f"Drawing the archive from {days[0]} to {days[1]} (some 20 seconds the first time) …")
        with sandbox(settings.home / "sandbox", start=days[0], end=days[1]) as world:
            os.environ |= world.settings
            settings = load_settings()
            # Both kept open, so that the servers run on between the steps.
            with open_stores(settings) as stores, prefect_server(settings):
                key = demo_key(stores, settings)
                _import(console, settings, world)
                is_loss = _observe_and_show(console, settings, days)
                is_loss |= not _serve(console, settings, stores, key=key, days=days)
    if is_loss:
        raise typer.Exit(1)


def _observe_and_show(console: Console, settings: Settings, days: tuple[dt.date, dt.date]) -> bool:
    """Run both flows, show what came of them, and tell whether anything due is missing."""
    console.print("Observing all farms in all passes, scene by scene …")
    summary = run_days(settings, *days)
    print_summary(console, summary)
    console.print("Asking both weather services, cell by cell …")
    weather = run_daily(settings)
    print_weather_summary(console, weather)
    _show(console, settings, days)
    show_week(console, settings, today=weather.end)
    _show_what_next(console, settings)
    return summary.is_loss or weather.is_loss


@contextlib.contextmanager
def _demo_settings() -> Iterator[Settings]:
    """Settings of the demo for the time of the block: its own home, its own stores."""
    before = dict(os.environ)
    for name in _FOREIGN:
        os.environ.pop(name, None)
    os.environ["SWATH_HOME"] = str(load_settings().home / "demo")
    os.environ.setdefault("SWATH_LOG_LEVEL", "ERROR")
    try:
        settings = load_settings()
        set_up_logs(settings.log_level, as_json=settings.log_json)
        yield settings
    finally:
        os.environ.clear()
        os.environ.update(before)


def _import(console: Console, settings: Settings, world: Sandbox) -> None:
    from tasks.farms.boundaries import AreaLimits
    from tasks.farms.files import read_farms

    limits = AreaLimits(min_ha=settings.min_farm_area_ha, max_ha=settings.max_farm_area_ha)
    found = read_farms(world.farms_file, limits=limits)
    with open_stores(settings) as stores, stores.engine.begin() as connection:
        upsert_farms(connection, found.drafts, client_id=client_id_of(connection, CLIENT))
    console.print(
        f"{len(found.drafts)} farms imported from {world.farms_file.name}, {len(world.items)} STAC items served."
    )


def _show(console: Console, settings: Settings, days: tuple[dt.date, dt.date]) -> None:
    with open_stores(settings) as stores, stores.engine.connect() as connection:
        names = {farm.external_farm_id: (farm.name, farm.area_ha) for farm in stored_farms(connection)}
        seasons = _seasons(connection, names, settings)
    table = Table(
        box=SIMPLE_HEAD, title="How the farms looked", title_justify="left", title_style="bold", padding=(0, 1)
    )
    table.add_column("farm", no_wrap=True)
    for name, width in (("ha", 5), ("last clear", 10), ("NDVI", 4), ("trend", 7), ("clear", 5)):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    table.add_column("season", no_wrap=True, min_width=SEASON_WIDTH)
    for season, area_ha in sorted(seasons, key=lambda pair: pair[0].name):
        table.add_row(*_cells(season, area_ha, days))
    console.print(table)


def _show_what_next(console: Console, settings: Settings) -> None:
    home = settings.home
    console.print(f"The data lie in {home}. Take them out, or see how things stand:", soft_wrap=True)
    console.print(f"  SWATH_HOME={_quoted(home)} .venv/bin/swath export ndvi -o season.csv", soft_wrap=True)
    console.print(f"  SWATH_HOME={_quoted(home)} .venv/bin/swath status", soft_wrap=True)
    console.print("[bold]This imagery is simulated.[/bold]")
    console.print("On your own farms, with the public services:", end=" ")
    run = ".venv/bin/swath ndvi run && .venv/bin/swath weather run"
    console.print(f".venv/bin/swath farms import FARMS.geojson && {run}", soft_wrap=True)


def _serve(console: Console, settings: Settings, stores: Stores, *, key: str, days: tuple[dt.date, dt.date]) -> bool:
    """Serve the API: on a terminal until Ctrl-C, else until its two examples are answered; tell whether they were."""
    is_watched = sys.stdin.isatty() and sys.stdout.isatty()
    with served_api(stores, settings) as (url, crew):
        if is_watched:
            _show_explain(console, settings, stores)
        until = " until Ctrl-C" if is_watched else ""
        console.print(f"\nThe API answers at {url}, its contract at {url}/docs{until}:", soft_wrap=True)
        is_answered = show_examples(console, examples(stores, url, key, days=days), is_asked=not is_watched)
        if is_watched:
            with contextlib.suppress(KeyboardInterrupt):
                crew.keep()
    return is_answered


def _show_explain(console: Console, settings: Settings, stores: Stores) -> None:
    """Say how to ask about a number; the archive is served for as long as the demo stays."""
    with stores.engine.connect() as connection:
        farm = next(iter(stored_farms(connection)))
    environment = f"SWATH_HOME={_quoted(settings.home)} SWATH_STAC_URL={settings.stac_url}"
    console.print("\nWhy a number is what it is, from another terminal:")
    command = f"{environment} .venv/bin/swath explain {farm.external_farm_id} DAY --png pixels.png"
    console.print(f"  {command}", soft_wrap=True)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _seasons(
    connection: Any, names: dict[Any, tuple[str, float]], settings: Settings
) -> list[tuple[FarmSeason, float]]:
    rows: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in export_observations(connection, start=None, end=None, mask_policy=settings.mask_policy.name):
        rows[row["external_farm_id"]].append(row)
    seasons = []
    for farm_id, own in rows.items():
        clear = [
            (row["day"], row["ndvi"], row["clear_fraction"])
            for row in own
            if row["status"] == Status.OBSERVED and row["clear_fraction"] >= CLEAR_ENOUGH
        ]
        name, area_ha = names[farm_id]
        seasons.append((FarmSeason(name, clear, own[-1]["status"]), area_ha))
    return seasons


def _cells(season: FarmSeason, area_ha: float, days: tuple[dt.date, dt.date]) -> list[str]:
    size = f"{area_ha:.1f}" if area_ha >= 0.1 else f"{area_ha:.3f}"
    if not season.clear:
        return [season.name, size, f"none ({season.last_status})", "", "", "", ""]
    day, ndvi, clear_fraction = season.clear[-1]
    trend = ""
    if len(season.clear) > 1:
        change = ndvi - season.clear[-2][1]
        colour, arrow = ("green", "↑") if change > 0.02 else ("red", "↓") if change < -0.02 else ("dim", "→")
        trend = f"[{colour}]{arrow} {change:+.2f}[/{colour}]"
    return [season.name, size, str(day), f"{ndvi:.2f}", trend, f"{clear_fraction:.0%}", _sparkline(season, days)]


def _sparkline(season: FarmSeason, days: tuple[dt.date, dt.date]) -> str:
    """NDVI over the season as bars from 0 to 0.9, blank where no day of that span was clear."""
    spans: dict[int, list[float]] = defaultdict(list)
    length = (days[1] - days[0]).days + 1
    for day, ndvi, _ in season.clear:
        spans[(day - days[0]).days * SEASON_WIDTH // length].append(ndvi)
    return "".join(_bar(sum(span) / len(span)) if (span := spans.get(n)) else " " for n in range(SEASON_WIDTH))


def _bar(ndvi: float) -> str:
    return _BARS[min(7, max(0, int(ndvi / 0.9 * 8)))]
