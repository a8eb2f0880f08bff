"""`swath demo`: `swath up` on simulated imagery and weather, with a first run from farms to tables."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from infra.cli.demo_api import CLIENT, demo_key, examples, show_examples
from infra.cli.demo_runs import first_runs
from infra.cli.demo_season import Days, show_season
from infra.cli.demo_up import DemoUp, demo_up
from infra.cli.demo_weather import show_week
from infra.cli.given import parse_day
from infra.cli.up import print_addresses
from infra.settings import Settings, load_settings
from infra.stores import Stores, open_stores
from infra.up.running import Ready
from models.clients import client_id_of
from models.domain import FarmDraft
from models.errors import BadInput
from models.farms import stored_farms, upsert_farms

if TYPE_CHECKING:
    from infra.sandbox import Sandbox

SEASON_DAYS = 150

# What names the user's own stores, catalogs, servers and webhooks must not reach the demo: its numbers are invented.
_FOREIGN = (
    "SWATH_DATABASE_URL",
    "SWATH_REDIS_URL",
    "SWATH_STAC_PROFILE",
    "SWATH_DASK_ADDRESS",
    "SWATH_OPEN_METEO_KEY",
    "SWATH_OPEN_METEO_FORECAST_MODEL",
    "SWATH_OPEN_METEO_ARCHIVE_MODEL",
    "SWATH_ALERT_URL",
    "PREFECT_API_URL",
    "PREFECT_API_KEY",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_HOME",
    "PREFECT_PROFILE",
)


def demo(
    start: Annotated[
        str | None, typer.Option(help="First day of the season, YYYY-MM-DD. Default: 150 days before the last.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="Last day of the season, YYYY-MM-DD. Default: yesterday.")] = None,
) -> None:
    """Run all of Swath on simulated imagery and weather: a season of farms, this week's weather, the API and the UI.

    On a terminal it stays up until Ctrl-C, else it ends by itself. Everything runs on this machine, on stores of the
    demo's own, so your data are not touched.
    """
    days = _season(start, end)
    console = Console(highlight=False)
    with _demo_environment():
        from infra.sandbox import sandbox

        console.print(
            "[bold]Swath demo.[/bold] All is [bold]simulated[/bold]: fields, clouds, seasons and weather are invented."
        )
        console.print(f"Drawing the archive, {days[0]} to {days[1]} (some 20 s the first time) …")
        with sandbox(load_settings().home / "sandbox", start=days[0], end=days[1]) as world:
            os.environ |= world.settings
            settings = load_settings()
            # The stores are ours as well until the end: what is printed is read from them.
            with open_stores(settings) as stores, demo_up(settings) as up:
                is_done = _run_and_show(console, settings, stores, world, up, days)
    if not is_done:
        raise typer.Exit(1)


def _season(start: str | None, end: str | None) -> Days:
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    last = parse_day(end, field="--end") or yesterday
    if last > yesterday:
        raise BadInput("--end", f"{last} is ahead", allowed=f"to {yesterday}")
    first = parse_day(start, field="--start") or last - dt.timedelta(days=SEASON_DAYS)
    if first > last:
        raise BadInput("--start", f"{first} is after the end, {last}")
    return first, last


@contextlib.contextmanager
def _demo_environment() -> Iterator[None]:
    """For the time of the block: a home of its own, and nothing that leads elsewhere."""
    before = dict(os.environ)
    for name in _FOREIGN:
        os.environ.pop(name, None)
    os.environ["SWATH_HOME"] = str(load_settings().home / "demo")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _run_and_show(console: Console, settings: Settings, stores: Stores, world: Sandbox, up: DemoUp, days: Days) -> bool:
    """Import the farms, have the first runs done, show what came of them; tell whether all was done and answered."""
    console.print("Starting `swath up`: stores, Prefect with its UI, schedules, workers, the API …")
    farms = _farms_of(world, settings)  # while it starts
    ready = up.wait_until_ready()
    key = demo_key(stores, settings)
    console.print(f"All parts answer after {ready.all_s:.0f} s:")
    _show_addresses(console, up, ready)
    with stores.engine.begin() as connection:
        upsert_farms(connection, farms, client_id=client_id_of(connection, CLIENT))
    console.print(f"{len(farms)} farms imported from {world.farms_file.name}, {len(world.items)} STAC items served.")
    console.print("The workers observe all farms, scene by scene, and ask both weather services …")
    is_done = first_runs(console, settings, stores, days, see_that_up_runs=up.see_that_it_runs)
    show_season(console, settings, stores, days)
    show_week(console, stores, today=dt.datetime.now(dt.UTC).date())
    _show_what_next(console, settings)
    return _stay(console, settings, stores, up, ready, key=key, days=days) and is_done


def _farms_of(world: Sandbox, settings: Settings) -> Sequence[FarmDraft]:
    from tasks.farms.boundaries import AreaLimits
    from tasks.farms.files import read_farms

    limits = AreaLimits(min_ha=settings.min_farm_area_ha, max_ha=settings.max_farm_area_ha)
    return read_farms(world.farms_file, limits=limits).drafts


def _show_what_next(console: Console, settings: Settings) -> None:
    home = _quoted(settings.home)
    console.print(f"The data lie in {settings.home}. Take them out, or see how things stand:", soft_wrap=True)
    console.print(f"  SWATH_HOME={home} .venv/bin/swath export ndvi -o season.csv", soft_wrap=True)
    console.print(f"  SWATH_HOME={home} .venv/bin/swath status", soft_wrap=True)
    console.print("[bold]This imagery is simulated.[/bold]")
    console.print("On your own farms, with the public services:", end=" ")
    run = ".venv/bin/swath ndvi run && .venv/bin/swath weather run"
    console.print(f".venv/bin/swath farms import FARMS.geojson && {run}", soft_wrap=True)


def _stay(
    console: Console, settings: Settings, stores: Stores, up: DemoUp, ready: Ready, *, key: str, days: Days
) -> bool:
    """Say where all is: on a terminal stay until Ctrl-C, else ask the API ourselves and tell whether it answered."""
    is_watched = sys.stdin.isatty() and sys.stdout.isatty()
    if is_watched:
        _show_explain(console, settings, stores)
        console.print("\n[bold]Swath is up[/bold] until Ctrl-C:")
        _show_addresses(console, up, ready)
    console.print("\nAsk the API:" if is_watched else "\nThe API is asked; on a terminal all stays up until Ctrl-C:")
    is_answered = show_examples(console, examples(stores, ready.api_url, key, days=days), is_asked=not is_watched)
    if is_watched:
        with contextlib.suppress(KeyboardInterrupt):
            up.process.wait()
            up.see_that_it_runs()
        console.print("\nStopping all parts …")
    return is_answered


def _show_addresses(console: Console, up: DemoUp, ready: Ready) -> None:
    print_addresses(console, ready)
    console.print(f"  Log        {up.log_file}", soft_wrap=True)


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
