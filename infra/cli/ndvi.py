"""`swath ndvi`: observe farms."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from infra.settings import Settings, load_settings
from infra.stores import open_stores
from models.errors import BadInput, ServerTrouble

if TYPE_CHECKING:
    from flows.ndvi import RunSummary
    from tasks.steps import SceneReport

app = typer.Typer(no_args_is_help=True, help="Observe farms.")

DEFAULT_LOOKBACK_DAYS = 10
SHOWN = 20


def parse_day(text: str | None, *, field: str) -> dt.date | None:
    """A day as a user writes it.

    Raises:
        BadInput: it is not a day of the calendar.
    """
    if text is None:
        return None
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise BadInput(field, f"{text!r} is not a day", allowed="YYYY-MM-DD, such as 2024-05-14") from error


def parse_farms(texts: list[str] | None, *, field: str = "--farm") -> list[uuid.UUID] | None:
    """External farm ids as a user writes them.

    Raises:
        BadInput: one is not a UUID.
    """
    return [_farm_id(text, field=field) for text in texts] if texts else None


def _farm_id(text: str, *, field: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError as error:
        problem = f"{text!r} is not a UUID"
        raise BadInput(field, problem, allowed="external_farm_id, see `swath farms list`") from error


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
    last = parse_day(end, field="--end") or dt.datetime.now(dt.UTC).date()
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

        with progress_bar() as watch, watching(watch):
            state: Any = ndvi_days(start, end, farms=farms, again=again, return_state=True)
        result = state.result(raise_on_failure=False)
    if isinstance(result, RunSummary):
        return result
    if isinstance(result, BaseException):
        raise result
    raise ServerTrouble(f"the flow run ended as {state.name}: {state.message}")


@contextlib.contextmanager
def prefect_server(settings: Settings) -> Iterator[None]:
    """See that there is a Prefect API: the one that is set, or an embedded one for the time of the block."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
    # What failed is said by us, once; Prefect would print a traceback for it. Its own API is still told.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    if url := os.environ.get("PREFECT_API_URL"):
        _see_that_it_answers(url)
        yield
        return
    from infra.local.prefect import local_prefect

    with open_stores(settings) as stores, local_prefect(stores.database_url, settings.home, services=False) as server:
        before = {name: os.environ.get(name) for name in server.environment}
        os.environ.update(server.environment)
        try:
            yield
        finally:
            _send_the_last_events()
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _see_that_it_answers(url: str) -> None:
    """Ask the user's own Prefect server for its version, which needs the password where it has one.

    Raises:
        ServerTrouble: it does not answer, or not as it should.
    """
    import httpx
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            client.raise_for_api_version_mismatch()
    except (RuntimeError, httpx.HTTPError) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise ServerTrouble(
            f"Prefect's server at {url} (PREFECT_API_URL) is of no use: {reason}; "
            "start it, or unset the variable for an embedded one"
        ) from error


def _send_the_last_events() -> None:
    """Let Prefect's client send what it still holds, while there is a server to take it: else it waits a minute."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=10)
    APILogWorker.drain_all(timeout=10)


@contextlib.contextmanager
def progress_bar() -> Iterator[Any]:
    """A bar on standard error that moves with every finished scene; nothing where there is no terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("[bold]scenes"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[scene]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("scenes", total=None, scene="")

        def watch(scene: SceneReport, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, scene=f"{scene.tile_set} {scene.day}")

        yield watch


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
