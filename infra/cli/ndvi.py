"""`swath ndvi`: observe farms."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.cli.given import parse_day, parse_farms
from infra.cli.running import prefect_server, progress_bar, summary_of
from infra.settings import Settings, load_settings
from models.errors import BadInput

if TYPE_CHECKING:
    from flows.ndvi import RunSummary
    from tasks.steps import SceneReport

app = typer.Typer(no_args_is_help=True, help="Observe farms.")

DEFAULT_LOOKBACK_DAYS = 10
SHOWN = 20


@app.command("run")
def run(
    start: Annotated[str | None, typer.Option(help="First day, YYYY-MM-DD. Default: ten days before the end.")] = None,
    end: Annotated[str | None, typer.Option(help="Last day, YYYY-MM-DD. Default: today.")] = None,
    farm: Annotated[list[str] | None, typer.Option(help="external_farm_id; may be given several times.")] = None,
    again: Annotated[bool, typer.Option(help="Also where an observation from the same scenes exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line for programs.")] = False,
) -> None:
    """Observe every farm in every pass from one day to another that has no up-to-date observation.

    Run again, it does only what is missing. Exit code 0 when everything due was answered, 1 when something could not
    be, 2 on bad input. No Prefect server need be running; with PREFECT_API_URL set, the run is seen there.
    """
    today = dt.datetime.now(dt.UTC).date()
    last = parse_day(end, field="--end") or today
    # Under the sun of the far east it is tomorrow already.
    if last > (newest := today + dt.timedelta(days=1)):
        raise BadInput("--end", f"{last} is ahead, where nothing has been seen yet", allowed=f"to {newest}")
    first = parse_day(start, field="--start") or last - dt.timedelta(days=DEFAULT_LOOKBACK_DAYS)
    if first > last:
        raise BadInput("--start", f"{first} is after the end, {last}")
    summary = run_days(load_settings(), first, last, farms=parse_farms(farm), again=again)
    if as_json:
        counts = {
            "scenes": len(summary.scenes),
            "observed": summary.observed,
            "not_observed": summary.not_observed,
            "failed": summary.failed,
        }
        typer.echo(orjson.dumps(counts).decode())
    else:
        print_summary(Console(highlight=False), summary)
    if summary.is_loss:
        raise typer.Exit(1)


def run_days(
    settings: Settings, start: dt.date, end: dt.date, *, farms: list[uuid.UUID] | None = None, again: bool = False
) -> RunSummary:
    """Run the flow here, with a progress bar on a terminal, and give its summary.

    Raises:
        ServerTrouble: the flow ended before it could tell how it came out.
    """
    with prefect_server(settings):
        # Loaded here: Prefect reads its settings when it is imported, and takes a second for it.
        from flows.ndvi import RunSummary, ndvi_days, watching

        with progress_bar("scenes") as advance:

            def watch(scene: SceneReport, done: int, total: int) -> None:
                advance(f"{scene.tile_set} {scene.day}", done, total)

            with watching(watch):
                state: Any = ndvi_days(start, end, farms=farms, again=again, return_state=True)
        return summary_of(state, RunSummary)


def print_summary(console: Console, summary: RunSummary) -> None:
    """Say in a few lines how a run came out."""
    console.print(f"NDVI {summary.start} to {summary.end}: {summary.farms:,} farms, {len(summary.scenes):,} scenes")
    for name, problem in summary.catalog_problems.items():
        words = f"[red]catalog {escape(name)} could not be searched[/red]: {escape(problem)}"
        console.print(f"  {words}", soft_wrap=True)
    if not summary.scenes:
        console.print(_why_nothing(summary), soft_wrap=True)
        return
    table = Table("", "", box=None, show_header=False)
    table.columns[1].justify = "right"
    table.add_row("observed", f"{summary.observed:,}")
    for reason, number in summary.not_observed.items():
        table.add_row(escape(reason), f"{number:,}")
    if summary.failed:
        table.add_row("[red]failed[/red]", f"{summary.failed:,}")
    console.print(table)
    broken = [scene for scene in summary.scenes if scene.failed]
    if broken:
        table = Table("day", "tile", "failed", "problem", box=SIMPLE_HEAD)
        for scene in broken[:SHOWN]:
            table.add_row(str(scene.day), escape(scene.tile_set), f"{scene.failed:,}", escape(scene.problem or ""))
        console.print(table)
        console.print("What failed is tried again at the next run.")


def _why_nothing(summary: RunSummary) -> str:
    if not summary.farms:
        return "Nothing was due: there are no farms yet."
    if not summary.catalog_problems:
        return "Nothing was due."
    if not summary.catalogs:
        return "No catalog could be searched, so what is due is not known."
    return "Nothing was due in the catalogs that could be searched."
