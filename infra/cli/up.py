"""`swath up`: everything on this machine, until Ctrl-C."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from infra.settings import Settings, default_home, load_settings
from infra.telemetry import redact, set_up_logs
from infra.up.running import UI_PORT, Ready
from infra.up.running import up as run_up

_COLOURS = {
    "swath": 1,
    "api": 36,
    "prefect": 34,
    "worker": 32,
    "backfill": 33,
    "deploy": 35,
    "postgres": 31,
    "redis": 31,
}
_NAME_WIDTH = 8


def up(
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of the API; 0 takes a free one. Default: SWATH_SERVE_PORT."),
    ] = None,
    ui_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of Prefect's UI on 127.0.0.1; 0 takes a free one.")
    ] = UI_PORT,
    as_json: Annotated[bool, typer.Option("--json", help="When all is ready, print one JSON line.")] = False,
) -> None:
    """Run everything on this machine until Ctrl-C: stores, Prefect with its UI, schedules, workers and the API.

    The log of all parts goes to standard error. A part that dies is started again. Flow runs at work when it is
    stopped go on at the next start.
    """
    settings = load_settings()
    set_up_logs(settings.log_level, as_json=settings.log_json)

    def tell(ready: Ready) -> None:
        if as_json:
            facts = {**asdict(ready), "auth_file": None if ready.auth_file is None else str(ready.auth_file)}
            typer.echo(orjson.dumps(facts).decode())
        else:
            _print(Console(highlight=False), settings, ready)
        sys.stdout.flush()

    chosen = settings.serve_port if port is None else port
    run_up(settings, api_port=chosen, ui_port=ui_port, say=_say, tell=tell)


def _say(name: str, line: str) -> None:
    """One line of the log: when, who, what."""
    now = dt.datetime.now().astimezone().strftime("%H:%M:%S")
    shown = f"{name:<{_NAME_WIDTH}}"
    if sys.stderr.isatty() and "NO_COLOR" not in os.environ:
        shown = f"\x1b[{_COLOURS.get(name, 0)}m{shown}\x1b[0m"
    with contextlib.suppress(OSError):  # nobody reads it any more, and all goes on
        sys.stderr.write(f"{now} {shown} | {redact(line)}\n")
        sys.stderr.flush()


def _print(console: Console, settings: Settings, ready: Ready) -> None:
    swath = _swath(settings)
    console.print(f"\n[bold]Swath is up[/bold] after {ready.all_s:.0f} s. Ctrl-C stops it.", soft_wrap=True)
    print_addresses(console, ready)
    console.print(f"  First key  {swath} clients create NAME", soft_wrap=True)
    console.print(f"  Farms      {swath} farms import FARMS.geojson --client NAME", soft_wrap=True)
    console.print(f"  How it is  {swath} status\n", soft_wrap=True)


def print_addresses(console: Console, ready: Ready) -> None:
    """Say where the API and Prefect's UI are, and how to log in there."""
    console.print(f"  API        {ready.api_url}   its documentation: {ready.api_url}/docs", soft_wrap=True)
    console.print(f"  Prefect    {ready.ui_url}   runs, schedules, logs", soft_wrap=True)
    if ready.auth_file is not None:
        console.print(
            f"             asks for a login once: paste what  cat {shlex.quote(str(ready.auth_file))}  prints",
            soft_wrap=True,
        )


def _swath(settings: Settings) -> str:
    """How this command is called from another terminal."""
    found = Path(sys.executable).with_name("swath")
    name = str(found) if found.exists() else "swath"
    home = "" if settings.home == default_home() else f"SWATH_HOME={shlex.quote(str(settings.home))} "
    return home + shlex.quote(name)
