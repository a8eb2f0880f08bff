"""`swath status`: what is there, what is late, what failed and why."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Annotated

import orjson
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.settings import load_settings
from infra.stores import open_stores
from models.status import WorkStatus, work_status

SHOWN = 15


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show how things stand: farms, observations, freshness, and what failed.

    Where there are many observations their numbers are estimated, and said to be. JSON also lists up to a hundred
    of the items that were skipped.

    Exit code 1 when work failed and waits for another try.
    """
    with open_stores(load_settings()) as stores, stores.engine.connect() as connection:
        found = work_status(connection)
    if as_json:
        facts = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
        typer.echo(orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode())
    else:
        _show(Console(highlight=False), found, now=dt.datetime.now(dt.UTC))
    if found.failed:
        raise typer.Exit(1)


def _show(console: Console, found: WorkStatus, *, now: dt.datetime) -> None:
    table = Table("", "", box=None, show_header=False, padding=(0, 2))
    observations = ", ".join(f"{number:,} {status}" for status, number in found.observations.items()) or "none yet"
    if found.is_estimated:
        observations = f"about {observations}"
    work = ", ".join(f"{number:,} {state}" for state, number in found.work.items()) or "none yet"
    newest = "none yet"
    if found.newest_acquired_at is not None:
        age = now - found.newest_acquired_at
        newest = f"{found.newest_acquired_at:%Y-%m-%d %H:%M} UTC, {_age(age)} ago"
    for name, value in [
        ("farms", f"{found.farms:,} active"),
        ("observations", observations),
        ("newest pass", newest),
        ("newest clear day", str(found.newest_observed_day or "none yet")),
        ("scenes known", f"{found.scenes:,}"),
        ("scenes of work", work),
        ("last finished", f"{found.last_finished_at:%Y-%m-%d %H:%M} UTC" if found.last_finished_at else "never"),
    ]:
        table.add_row(f"[dim]{name}[/dim]", value)
    console.print(table)
    for reason, number in list(found.skipped.items())[:SHOWN]:
        console.print(f"  [dim]{number:,} items skipped:[/dim] {escape(reason)}", soft_wrap=True)
    if not found.failed:
        return
    failed = Table("day", "tile", "farms", "tries", "problem", box=SIMPLE_HEAD, title="Failed, to be tried again")
    for each in found.failed[:SHOWN]:
        row = (str(each.day), each.tile_set, f"{each.pending_farms:,}", str(each.attempts), each.problem or "")
        failed.add_row(*map(escape, row))
    console.print(failed)
    if len(found.failed) > SHOWN:
        console.print(f"and {len(found.failed) - SHOWN:,} more; --json lists up to a hundred")


def _age(age: dt.timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"
