"""`swath weather`: fetch the weather of farms."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
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
    from flows.weather import WeatherSummary
    from tasks.weather_steps import BatchReport

app = typer.Typer(no_args_is_help=True, help="Fetch the weather of farms.")

MAX_LOOKBACK_DAYS = 366
SHOWN = 20


@app.command("run")
def run(
    lookback_days: Annotated[
        int | None, typer.Option(help="How far back to fill missing days. Default: SWATH_WEATHER_LOOKBACK_DAYS.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line for programs.")] = False,
) -> None:
    """Bring the weather of every farm up to date: the last days, the forecast, and what the sources have replaced.

    Run again, it asks only for what is missing. Exit code 0 when all that was due came, 1 when something did not, 2 on
    bad input. No Prefect server need be running; with PREFECT_API_URL set, the run is seen there.
    """
    if lookback_days is not None and not 0 <= lookback_days <= MAX_LOOKBACK_DAYS:
        raise BadInput("--lookback-days", f"{lookback_days} is out of range", allowed=f"0 to {MAX_LOOKBACK_DAYS}")
    _tell(run_daily(load_settings(), lookback_days=lookback_days), as_json=as_json)


@app.command("backfill")
def backfill(
    start: Annotated[str, typer.Option(help="First day, YYYY-MM-DD.")],
    end: Annotated[str | None, typer.Option(help="Last day, YYYY-MM-DD. Default: today.")] = None,
    farm: Annotated[list[str] | None, typer.Option(help="external_farm_id; may be given several times.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line for programs.")] = False,
) -> None:
    """Fill the weather of the past, newest year first. Kill it at any time and start it again: only the rest is done.

    Live work comes first: a quarter of what Open-Meteo allows is left to it. Where the day's allowance is used up, the
    command ends with exit code 1 and says when it may go on. Exit code 0 when all that was due came, 2 on bad input.
    """
    last = parse_day(end, field="--end") or dt.datetime.now(dt.UTC).date()
    first = parse_day(start, field="--start")
    assert first is not None
    if first > last:
        raise BadInput("--start", f"{first} is after the end, {last}")
    _tell(run_backfill(load_settings(), first, last, farms=parse_farms(farm)), as_json=as_json)


def run_daily(settings: Settings, *, lookback_days: int | None = None) -> WeatherSummary:
    """Run the daily flow here, with a progress bar on a terminal, and give its summary.

    Raises:
        ServerTrouble: the flow ended before it could tell how it came out.
    """

    def start() -> Any:
        from flows.weather import daily_weather

        return daily_weather(lookback_days=lookback_days, return_state=True)

    return _run(settings, start)


def run_backfill(
    settings: Settings, start: dt.date, end: dt.date, *, farms: list[uuid.UUID] | None = None
) -> WeatherSummary:
    """Run the backfill here, as `run_daily`."""

    def begin() -> Any:
        from flows.weather import backfill_weather

        return backfill_weather(start, end, farms=farms, return_state=True)

    return _run(settings, begin)


def _run(settings: Settings, flow: Callable[[], Any]) -> WeatherSummary:
    with prefect_server(settings):
        # Loaded here: Prefect reads its settings when it is imported, and takes a second for it.
        from flows.weather import WeatherSummary, watching

        with progress_bar("batches") as advance:

            def watch(batch: BatchReport, done: int, total: int) -> None:
                advance(batch.label, done, total)

            with watching(watch):
                state = flow()
        return summary_of(state, WeatherSummary)


def _tell(summary: WeatherSummary, *, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps(_facts(summary)).decode())
    else:
        print_weather_summary(Console(highlight=False), summary)
    if summary.is_loss:
        raise typer.Exit(1)


def _facts(summary: WeatherSummary) -> dict[str, Any]:
    return {
        "start": summary.start,
        "end": summary.end,
        "farms": summary.farms,
        "batches": len(summary.batches),
        "inserted": summary.inserted,
        "replaced": summary.replaced,
        "failed": summary.failed,
        "asked": {
            source.value: {"requests": asked.requests, "weighted_calls": round(asked.weight, 1)}
            for source, asked in summary.asked.items()
        },
        "problems": summary.problems,
    }


def print_weather_summary(console: Console, summary: WeatherSummary) -> None:
    """Say in a few lines how a run came out."""
    console.print(
        f"Weather {summary.start} to {summary.end}: {summary.farms:,} farms, {len(summary.batches):,} batches"
    )
    for problem in summary.problems[:SHOWN]:
        console.print(f"  [red]{escape(problem)}[/red]", soft_wrap=True)
    if not summary.batches:
        nothing = "Nothing was asked." if summary.is_loss else "Nothing was due."
        console.print(nothing if summary.farms else "Nothing was due: there are no farms yet.")
        return
    table = Table("source", "requests", "weighted calls", "new", "replaced", "unchanged", "failed", box=SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    for source, asked in summary.asked.items():
        own = [batch for batch in summary.batches if batch.source is source]
        failed = sum(batch.failed for batch in own)
        table.add_row(
            source.value,
            f"{asked.requests:,}",
            f"{asked.weight:,.1f}",
            *(f"{sum(getattr(batch, name) for batch in own):,}" for name in ("inserted", "replaced", "unchanged")),
            f"[red]{failed:,}[/red]" if failed else "0",
        )
    console.print(table)
    console.print("New, replaced and unchanged are days of cells; failed are cells, asked for again at the next run.")
