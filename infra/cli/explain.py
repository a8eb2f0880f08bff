"""`swath explain`: why a number is what it is."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.cli.given import output_file, parse_day, parse_farms
from infra.settings import load_settings
from models.domain import Farm, FarmFailure, Observation, SceneWork
from models.errors import BadInput, UpstreamUnavailable
from models.farms import stored_farms
from models.ledger import known_scenes
from models.observation_rows import differences
from models.observations import observation_of

if TYPE_CHECKING:
    from tasks.bench import Bench

CLASS_NAMES = (
    "no data",
    "saturated or defective",
    "dark or topographic shadow",
    "cloud shadow",
    "vegetation",
    "bare",
    "water",
    "unclassified",
    "cloud, medium probability",
    "cloud, high probability",
    "thin cirrus",
    "snow or ice",
)


@dataclass(frozen=True, slots=True)
class Recomputed:
    """The same observation, read and computed again now."""

    observation: Observation | None
    problem: str | None
    """Why it could not be computed again, or why it need not be the same."""
    differences: tuple[str, ...]
    picture: bytes | None = None


def explain(
    farm: Annotated[str, typer.Argument(help="external_farm_id")],
    date: Annotated[str, typer.Argument(help="Local solar day, YYYY-MM-DD.")],
    png: Annotated[Path | None, typer.Option(help="Draw the pixels that counted into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Tell why a farm's number of a day is what it is: read the imagery again, compute again, compare.

    Exit code 0 when the stored and the new numbers are identical, 1 when not, 2 when there is nothing to explain.
    """
    # Loaded here: the raster libraries take a second, which `swath --help` need not wait for.
    from tasks.bench import open_bench

    day = parse_day(date, field="DATE")
    external_id = (parse_farms([farm], field="FARM") or [])[0]
    if day is None:
        raise BadInput("DATE", "missing", allowed="YYYY-MM-DD")
    picture = None if png is None else output_file(png, field="--png")
    with open_bench(load_settings()) as bench:
        policy = bench.settings.mask_policy.name
        with bench.stores.engine.connect() as connection:
            stored = list(observation_of(connection, external_id, day, mask_policy=policy))
            farms = list(stored_farms(connection, external_ids=[external_id], include_inactive=True))
        if not stored or not farms:
            raise BadInput(
                "FARM DATE",
                f"no observation of {external_id} on {day} with mask policy {policy}",
                allowed=f"observed days; `swath ndvi run --farm {external_id} --start {day} --end {day}` observes it",
            )
        explained = [(row, _again(bench, farms[0], day, row, draw=picture is not None)) for row in stored]
    if picture is not None:
        _draw(picture, [again for _, again in explained])
    if as_json:
        report = [_facts(row, again) for row, again in explained]
        typer.echo(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z, default=str).decode())
    else:
        for row, again in explained:
            _tell(Console(highlight=False), row, again)
    if any(again.differences or again.observation is None for _, again in explained):
        raise typer.Exit(1)


def _again(bench: Bench, farm: Farm, day: dt.date, row: dict[str, Any], *, draw: bool) -> Recomputed:
    from tasks.observe import observe

    work = _work(bench, farm, day, row)
    if work is None:
        return Recomputed(None, "its scenes are not in the ledger any more", ())
    try:
        answer = observe(work, [farm], method=bench.method, cache=bench.cache)
    except UpstreamUnavailable as error:
        return Recomputed(None, str(error), ())
    failed: list[FarmFailure] = list(answer.failures)
    if failed:
        return Recomputed(None, failed[0].problem, ())
    [observation] = answer.observations
    note = None
    if work.inputs != row["inputs"]:
        note = "scenes or settings have changed since; the next run over this day observes it again"
    picture = _picture(bench, work, farm) if draw else None
    return Recomputed(observation, note, _differences(row, observation), picture)


def _work(bench: Bench, farm: Farm, day: dt.date, row: dict[str, Any]) -> SceneWork | None:
    """The unit of work that made this observation, from the scenes the ledger knows."""
    from tasks.bench import catalogs_of
    from tasks.imagery.passes import choose_catalog
    from tasks.plan import plan

    catalogs = catalogs_of(bench.settings)
    order = list(dict.fromkeys([row["catalog"], *(catalog.name for catalog in catalogs)]))
    with bench.stores.engine.connect() as connection:
        scenes = known_scenes(connection, day, day)
    works = plan([farm], choose_catalog(scenes, order), method=bench.method.name)
    return next((work for work in works if work.pass_id == row["pass_id"]), None)


def _differences(row: dict[str, Any], again: Observation) -> tuple[str, ...]:
    """In words, everything told that is not the same to the last bit."""
    return tuple(f"{name}: stored {stored}, now {now}" for name, (stored, now) in differences(row, again).items())


def _picture(bench: Bench, work: SceneWork, farm: Farm) -> bytes | None:
    from tasks.indices.footprints import Lattice, project
    from tasks.look import see
    from tasks.picture import draw_pixels

    scenes, footprints, seen = see(work, [farm], method=bench.method, cache=bench.cache)
    if not len(footprints.rows):  # a boundary that collapses on the lattice
        return None
    lattice = Lattice.of(scenes[0].red.grid)
    [boundary] = project([farm.boundary], lattice.epsg)
    return draw_pixels(footprints, seen, boundary=boundary, lattice=lattice)


def _draw(path: Path, explained: list[Recomputed]) -> None:
    pictures = [each.picture for each in explained if each.picture is not None]
    for number, picture in enumerate(pictures, start=1):
        file = path if len(pictures) == 1 else path.with_stem(f"{path.stem}-{number}")
        try:
            file.write_bytes(picture)
        except OSError as error:
            raise BadInput("--png", f"cannot write to {file}: {error.strerror}") from error


def _facts(row: dict[str, Any], again: Recomputed) -> dict[str, Any]:
    classes = {name: number for name, number in zip(CLASS_NAMES, row["class_counts"], strict=True) if number}
    stored = {name: value for name, value in row.items() if name not in ("class_counts", "content", "farm_id")}
    return {
        **stored,
        "pixels_by_class": classes,
        "is_identical": again.observation is not None and not again.differences,
        "differences": again.differences,
        "problem": again.problem,
    }


def _tell(console: Console, row: dict[str, Any], again: Recomputed) -> None:
    headline = f"NDVI {row['ndvi']:.4f} ({row['rule']})" if row["ndvi"] is not None else "no NDVI"
    console.print(f"[bold]{row['external_farm_id']}  {row['day']}: {row['status']}, {headline}[/bold]")
    table = Table("", "", box=None, show_header=False, padding=(0, 2))
    statistics = "no clear pixel"
    if row["mean"] is not None:
        statistics = (
            f"weighted mean {row['mean']:.6f} over {row['pixel_count']} pixels, "
            f"inner mean {_number(row['inner_mean'])} over {row['inner_pixel_count']} inner pixels"
        )
    facts = [
        ("acquired", f"{row['acquired_at']:%Y-%m-%d %H:%M:%S} UTC, pass {row['pass_id']}"),
        ("items", "\n".join(row["item_ids"])),
        ("catalog", row["catalog"]),
        ("baseline", row["processing_baseline"] or "not told"),
        ("reflectance", row["rescale_rule"]),
        ("mask policy", row["mask_policy"]),
        ("clear", f"{row['clear_fraction']:.2%} of the farm"),
        ("statistics", statistics),
        (
            "pixels by class",
            "\n".join(f"{n:>6} {name}" for name, n in zip(CLASS_NAMES, row["class_counts"], strict=True) if n),
        ),
        ("made by", f"swath {row['software_version']}, revision {row['revision']}"),
        ("computed again", _verdict(again)),
    ]
    for name, value in facts:
        table.add_row(f"[dim]{name}[/dim]", escape(value))
    console.print(table)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6f}"


def _verdict(again: Recomputed) -> str:
    if again.observation is None:
        return f"not possible: {again.problem}"
    verdict = "differs: " + "; ".join(again.differences) if again.differences else "identical to the last bit"
    return f"{verdict} ({again.problem})" if again.problem else verdict
