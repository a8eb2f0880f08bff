"""`swath status`: what is there, what is late, what failed and why, and what needs a person."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.cli.status_report import Quota, Report, as_json, gather
from infra.settings import load_settings
from infra.stores import open_stores
from models.gaps import Gap
from models.quota import Span
from models.status import FailedWork

SHOWN = 12
GAPS_SHOWN = 8

_OUTCOMES = {"running": "cyan", "ended": "green", "broken": "yellow", "died": "red"}
_FRESH = dt.timedelta(days=6)
"""Of a zone: two satellites look every five days."""


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
    for words in report.needs_person:
        console.print(f"[bold red]![/] {escape(words)}", soft_wrap=True)
    if not report.needs_person:
        console.print("[bold green]✓[/] Nothing needs a person.")
    console.print(_facts(report))
    for reason, number in list(report.work.skipped.items())[:SHOWN]:
        console.print(f"  [dim]{number:,} items skipped:[/] {escape(reason)}", soft_wrap=True)
    for table in (_regions(report), _gaps(report), _failed(report), _sources(report), _runs(report)):
        if table.row_count:
            console.print(table)


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
    table = Table(box=None, show_header=False, padding=(0, 2))
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
    return table


def _regions(report: Report) -> Table:
    table = _table("Regions, last 30 days")
    table.collapse_padding = True  # so that the usual catalogs fit into 80 columns
    catalogs = sorted({name for region in report.regions for name in region.seen})
    for name, justify in [("zone", "left"), ("tiles", "right"), ("last pass", "left"), ("last value", "left")]:
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=True)
    for name in (*catalogs, "used", "clear", "open", "missing"):
        label = name.rpartition("/")[2].replace("sentinel-2", "S2")
        table.add_column(label, justify="right", overflow="fold")
    for region in report.regions:
        colour = "green" if report.at - region.newest_pass <= _FRESH else "yellow"
        table.add_row(
            region.zone,
            f"{region.tiles:,}",
            f"[{colour}]{region.newest_pass:%Y-%m-%d}[/]",
            str(region.newest_value_day or "-"),
            *(f"{region.seen.get(name, 0):,}" for name in catalogs),
            f"{region.used:,}",
            f"{region.clear:,}",
            f"{region.unfinished:,}" if region.unfinished else "-",
            f"[yellow]{region.missing:,}[/]" if region.missing else "-",
        )
    return table


def _gaps(report: Report) -> Table:
    table = _table("Passes in no catalog")
    for name in ("day", "tile", "satellite", "orbit"):
        table.add_column(name, no_wrap=True)
    table.add_column("farms", justify="right")
    table.add_column("")
    marked = [("late", "dim", report.late), ("missing", "yellow", report.gaps), ("lost", "dim", report.lost)]
    rows = [(word, colour, gap) for word, colour, gaps in marked for gap in gaps]
    for word, colour, gap in rows[:GAPS_SHOWN]:
        orbit = f"R{gap.relative_orbit:03}" if gap.relative_orbit else "-"
        facts = (str(gap.day), gap.tile, gap.platform, orbit, f"{gap.farms:,}")
        table.add_row(*map(escape, facts), f"[{colour}]{word}, {_asked(word, gap, report.at)}[/]")
    if len(rows) > GAPS_SHOWN:
        table.caption = f"and {len(rows) - GAPS_SHOWN:,} more; --json lists all of the last 30 days"
    return table


def _asked(word: str, gap: Gap, now: dt.datetime) -> str:
    asked = f"asked for {_age(now - gap.asked_at)} ago"
    return "not asked for any more" if word == "lost" else asked


def _failed(report: Report) -> Table:
    table = _table("Failed")
    for name in ("day", "tile"):
        table.add_column(name, no_wrap=True)
    for name in ("farms", "runs"):
        table.add_column(name, justify="right")
    table.add_column("next try", no_wrap=True)
    table.add_column("problem", overflow="fold")
    failed = report.work.failed
    for each in failed[:SHOWN]:
        facts = (str(each.day), each.tile_set, f"{each.pending_farms:,}", f"{each.failed_runs or 1:,}")
        table.add_row(*map(escape, facts), _next_try(each, report.at), escape(each.problem or ""))
    if len(failed) > SHOWN:
        table.caption = f"and {len(failed) - SHOWN:,} more; --json lists up to a hundred"
    return table


def _next_try(each: FailedWork, now: dt.datetime) -> str:
    if each.given_up_at is not None:
        return "[red]given up[/]"
    if each.not_before is not None and each.not_before > now:
        return f"in {_age(each.not_before - now)}"
    return "next run"


def _sources(report: Report) -> Table:
    table = _table("Sources")
    for name in ("source", "last answer", ""):
        table.add_column(name, overflow="fold")
    for search in report.catalogs:
        gave = f"{search.scenes:,} scenes of {search.first_day} to {search.last_day}" if search.answered_at else ""
        said = f"[yellow]{escape(search.problem)}[/]" if search.problem else escape(gave)
        table.add_row(escape(search.catalog), _instant(search.answered_at, report.at), said)
    for model in report.weather:
        name = f"{model.model} ({model.kind})"
        table.add_row(escape(name), _instant(model.told_at, report.at), f"weather to {model.newest_day}")
    services: dict[str, list[Quota]] = {}
    for quota in report.quotas:
        services.setdefault(quota.service, []).append(quota)
    for service, quotas in services.items():
        left = [
            f"{each.used:,.0f} calls {'today' if each.span is Span.DAY else f'this {each.span.value}'}"
            + (f", {max(0.0, each.limit - each.used):,.0f} left" if each.limit is not None else "")
            for each in quotas
        ]
        table.add_row(escape(service), "", escape("; ".join(left)))
    return table


def _runs(report: Report) -> Table:
    table = _table("Last runs")
    for name in ("run", "began", "took", "came out"):
        table.add_column(name, no_wrap=name != "came out", overflow="fold")
    for run in report.runs:
        took = _age((run.ended_at or report.at) - run.started_at)
        state = run.prefect_state or run.outcome
        colour = {"Failed": "red", "Crashed": "red", "Completed": "green"}.get(state, _OUTCOMES[run.outcome])
        said = f": {run.message}" if run.message and state != "Completed" else ""
        table.add_row(
            escape(run.kind), _instant(run.started_at, report.at), took, f"[{colour}]{state}[/]{escape(said)}"
        )
    return table


def _table(title: str) -> Table:
    return Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", caption_justify="left")


def _instant(instant: dt.datetime | None, now: dt.datetime) -> str:
    return "never" if instant is None else f"{instant:%Y-%m-%d %H:%M} UTC, {_age(now - instant)} ago"


def _age(age: dt.timedelta) -> str:
    seconds = max(0.0, age.total_seconds())
    for unit, length, below in [("s", 1, 90), ("min", 60, 90), ("hours", 3600, 48)]:
        if seconds < length * below:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86_400:,.0f} days"


def _bytes(number: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:,.0f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"
