"""`swath status`: what is there, what is late, what failed and why, and what needs a person."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.cli.status_report import Report, as_json, gather
from infra.cli.status_tables import SHOWN, ago, calls, failed, gaps, hanging, regions, runs, sources
from infra.settings import load_settings
from infra.stores import open_stores


def status(
    as_json_: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show how things stand: what needs a person, freshness by region, missing passes, failures, runs and sources.

    Where there are many observations their numbers are estimated, and said to be. JSON also lists up to a hundred
    of the items that were skipped.

    Exit code 1 when something needs a person; what heals by itself does not.
    """
    settings = load_settings()
    with open_stores(settings) as stores:
        report = gather(stores, settings, now=dt.datetime.now(dt.UTC))
    if as_json_:
        typer.echo(as_json(report))
    else:
        show(Console(highlight=False), report)
    if report.needs_person:
        raise typer.Exit(1)


def show(console: Console, report: Report) -> None:
    """Print the report on one screen, the verdict first; parts with nothing to tell are left out."""
    if report.needs_person:
        console.print(hanging([("[bold red]![/]", escape(words)) for words in report.needs_person]))
    else:
        console.print("[bold green]✓[/] Nothing needs a person.")
    console.print(_facts(report))
    for part in (
        regions(report, console),
        gaps(report),
        failed(report),
        sources(report),
        calls(report),
        runs(report),
    ):
        if part is not None:
            console.print()
            console.print(part)


def _facts(report: Report) -> Table:
    work, queue, stores = report.work, report.queue, report.stores
    observations = ", ".join(f"{number:,} {each}" for each, number in work.observations.items()) or "none yet"
    waiting = [
        f"{number:,} {name}"
        for name, number in [
            ("at work", queue.at_work),
            ("left behind", queue.left_behind),
            ("to be tried again", queue.due),
            ("resting", queue.resting),
            ("given up", queue.given_up),
        ]
        if number
    ]
    done = work.work.get("done", 0)
    table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in [
        ("farms", f"{work.farms:,} active"),
        ("observations", f"about {observations}" if work.is_estimated else observations),
        ("newest pass", _instant(work.newest_acquired_at, report.at)),
        ("newest clear day", str(work.newest_observed_day or "none yet")),
        ("scenes", ", ".join([f"{work.scenes:,} known", f"{done:,} done", *waiting])),
        ("last finished", _instant(work.last_finished_at, report.at)),
        ("Postgres", f"{stores.postgres_version.partition(' ')[0]}, {_bytes(stores.postgres_bytes)}"),
        ("Redis", f"{stores.redis_version}, {_bytes(stores.redis_bytes or 0)}" if stores.redis_version else "away"),
        ("Prefect", f"{stores.prefect}, {stores.late_runs or 0} runs late" if stores.prefect else ""),
    ]:
        if value:
            table.add_row(f"[dim]{name}[/]", escape(value))
    for reason, number in list(work.skipped.items())[:SHOWN]:
        table.add_row("[dim]items skipped[/]", f"{number:,}: {escape(reason)}")
    return table


def _instant(instant: dt.datetime | None, now: dt.datetime) -> str:
    return "never" if instant is None else f"{instant:%Y-%m-%d %H:%M} UTC, {ago(instant, now)}"


def _bytes(number: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:,.0f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"
