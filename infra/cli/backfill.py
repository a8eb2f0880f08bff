"""`swath backfill`: days of the past, NDVI and weather."""

from __future__ import annotations

import datetime as dt
import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import orjson
import typer
from rich.console import Console

from infra.cli.given import parse_bbox, parse_day, parse_farms, parse_words
from infra.settings import load_settings
from models.days import FIRST_ANALYSIS, FIRST_SCENE
from models.errors import BadInput

if TYPE_CHECKING:
    from infra.cli.backfill_cost import Wanted

WHAT = ("ndvi", "weather")


def backfill(
    start: Annotated[str, typer.Option(help="First day, YYYY-MM-DD.")],
    end: Annotated[str | None, typer.Option(help="Last day, YYYY-MM-DD. Default: today.")] = None,
    farm: Annotated[list[str] | None, typer.Option(help="external_farm_id; may be given several times.")] = None,
    bbox: Annotated[
        str | None, typer.Option(metavar="W,S,E,N", help="Only farms that touch this box, in degrees.")
    ] = None,
    what: Annotated[str, typer.Option(help="ndvi, weather or both.")] = ",".join(WHAT),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what it would cost.")] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave the work to the workers of Prefect, and end at once.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it starts.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line for programs; do not ask.")] = False,
) -> None:
    """Fill past days, the newest first: NDVI a month at a time, weather a year at a time. Tells the cost beforehand.

    Interrupt it at any moment and start it again: only what is missing is done, also beside the daily runs. Exit code 0
    when all that was due was done (or handed over), 1 when something could not be, 2 on bad input.
    """
    # Loaded here: they bring the raster stack, which no other command needs to start.
    from infra.cli.backfill_cost import estimate, print_costs
    from infra.cli.backfill_detached import hand_over
    from infra.cli.backfill_here import print_outcome, run_here

    wanted = _wanted(start, end, farms=farm, bbox=bbox, what=what)
    console = Console(highlight=False)
    costs = estimate(load_settings(), wanted)
    if not as_json:
        print_costs(console, wanted, costs)
    facts: dict[str, Any] = {"start": wanted.days.first, "end": wanted.days.last, "what": wanted.what}
    facts |= {"dry_run": dry_run, **costs.facts()}
    if dry_run or not costs.is_anything_due:
        _end(facts, is_loss=bool(costs.problems), as_json=as_json)
    if not as_json and not yes and sys.stdin.isatty() and not typer.confirm("Start?", default=True):
        raise typer.Exit(0)
    if detach:
        handed = hand_over(load_settings(), wanted, costs)
        for run in () if as_json else handed:
            console.print(f"{run.name}: {run.url}", soft_wrap=True)
        _end(facts | {"detached": handed}, is_loss=False, as_json=as_json)
    outcome = run_here(load_settings(), wanted, costs)
    if not as_json:
        print_outcome(console, outcome)
    _end(facts | {"done": outcome.facts()}, is_loss=outcome.is_loss, as_json=as_json)


def _end(facts: dict[str, Any], *, is_loss: bool, as_json: bool) -> NoReturn:
    if as_json:
        typer.echo(orjson.dumps(facts).decode())
    raise typer.Exit(1 if is_loss else 0)


def _wanted(start: str, end: str | None, *, farms: list[str] | None, bbox: str | None, what: str) -> Wanted:
    """What the options ask for.

    Raises:
        BadInput: naming the option.
    """
    from infra.cli.backfill_cost import Wanted

    today = dt.datetime.now(dt.UTC).date()
    first, last = parse_day(start, field="--start"), parse_day(end, field="--end") or today
    assert first is not None
    if last > today:
        raise BadInput("--end", f"{last} is ahead", allowed=f"to {today}")
    if first > last:
        raise BadInput("--start", f"{first} is after the end, {last}")
    kinds = parse_words(what, field="--what", allowed=WHAT)
    if "weather" in kinds and first < FIRST_ANALYSIS:
        raise BadInput("--start", f"{first} is too early", allowed=f"from {FIRST_ANALYSIS} on")
    if last < FIRST_SCENE and kinds == ("ndvi",):
        raise BadInput("--end", f"{last} is before the first images", allowed=f"from {FIRST_SCENE} on")
    return Wanted.of(first, last, farms=parse_farms(farms), bbox=parse_bbox(bbox), what=kinds)
