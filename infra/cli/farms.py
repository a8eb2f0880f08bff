"""`swath farms`: bring farms in, list them, take them out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from redis.exceptions import RedisError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.cli.given import output_file
from infra.settings import Settings, load_settings
from infra.stores import Stores, open_stores
from models.clients import client_id_of
from models.domain import Farm
from models.farms import ImportOutcome, count_farms, list_farms, stored_farms, upsert_farms
from models.readmodel import newest_revision, publish_changed

if TYPE_CHECKING:
    from tasks.farms.files import FarmFile

app = typer.Typer(no_args_is_help=True, help="Bring farms in, list them, take them out.")

SHOWN = 20
"""Repairs, rejections and remarks shown to a person; `--json` has them all."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command("import")
def import_farms(
    file: Annotated[Path, typer.Argument(help="GeoJSON, GeoPackage, Shapefile (also zipped) or GeoParquet.")],
    id_field: Annotated[str | None, typer.Option(help="Field with the source's own id of each farm.")] = None,
    name_field: Annotated[str | None, typer.Option(help="Field with the farm's name.")] = None,
    user_field: Annotated[str | None, typer.Option(help="Field with the farm's owner.")] = None,
    layer: Annotated[str | None, typer.Option(help="Layer to read, where the file has several.")] = None,
    crs: Annotated[str | None, typer.Option(help="CRS of a file that does not say it, as EPSG:32633.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Name of the source, where the file's name does not tell it from others.")
    ] = None,
    reactivate: Annotated[bool, typer.Option(help="Bring back farms that were deactivated.")] = False,
    client: Annotated[
        str | None,
        typer.Option(help="Client of the API that the farms are to belong to; unset, they stay whose they are."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Store the farms of a file; run again, it changes only what the file changed.

    Exit code 0 when every feature became a farm, 1 when some were rejected, 2 when the file cannot be used.
    """
    # Loaded here: reading files takes a second to import, which `swath --help` need not wait for.
    from tasks.farms.boundaries import AreaLimits
    from tasks.farms.files import read_farms

    settings = load_settings()
    found = read_farms(
        file,
        limits=AreaLimits(min_ha=settings.min_farm_area_ha, max_ha=settings.max_farm_area_ha),
        id_field=id_field,
        name_field=name_field,
        user_field=user_field,
        layer=layer,
        crs=crs,
        dataset=dataset,
    )
    outcome = _stored(found, settings=settings, reactivate=reactivate, is_named=dataset is not None, client=client)
    if as_json:
        typer.echo(orjson.dumps(_report(file, found, outcome), option=orjson.OPT_INDENT_2).decode())
    else:
        _print_report(file, found, outcome)
    if found.rejected:
        raise typer.Exit(1)


def _stored(
    found: FarmFile, *, settings: Settings, reactivate: bool, is_named: bool, client: str | None
) -> ImportOutcome:
    from tasks.farms.identity import check_same_source

    with open_stores(settings) as stores:
        with stores.engine.begin() as connection:
            since = newest_revision(connection)
            if not is_named:  # who names the dataset says that it is the same source
                known = stored_farms(connection, include_inactive=True, external_ids=found.made_ids)
                given = {each.external_farm_id: each.boundary for each in found.drafts}
                check_same_source(
                    found.dataset,
                    stored=((farm.external_farm_id, farm.boundary) for farm in known),
                    given={identity: given[identity] for identity in found.made_ids},
                )
            client_id = None if client is None else client_id_of(connection, client)
            outcome = upsert_farms(connection, found.drafts, reactivate=reactivate, client_id=client_id)
        _publish(stores, settings, since=since)
    return outcome


def _publish(stores: Stores, settings: Settings, *, since: int) -> None:
    """Give readers the farms as they are now; with a word on standard error when Redis does not take them."""
    try:
        with stores.engine.connect() as connection:
            publish_changed(connection, stores.redis, since=since, mask_policy=settings.mask_policy.name)
    except RedisError as error:
        sys.stderr.write(
            f"swath: stored, but Redis does not answer ({error}): until the next run of the flows, readers may be "
            "given these farms as they were, and as whose they were\n"
        )


def _report(file: Path, found: FarmFile, outcome: ImportOutcome) -> dict[str, Any]:
    return {
        "file": str(file),
        "identified_by": found.identified_by,
        "created": outcome.created,
        "updated": outcome.updated,
        "unchanged": outcome.unchanged,
        "new_boundaries": outcome.new_boundaries,
        "reactivated": outcome.reactivated,
        "inactive": outcome.inactive,
        "repaired": [
            {"external_farm_id": str(draft.external_farm_id), "feature": draft.feature, "repairs": draft.repairs}
            for draft in found.drafts
            if draft.repairs
        ],
        "rejected": [{"file": each.file, "feature": each.feature, "reason": each.reason} for each in found.rejected],
        "warnings": found.warnings,
    }


def _print_report(file: Path, found: FarmFile, outcome: ImportOutcome) -> None:
    console = Console(highlight=False)
    repaired = [f"{each.feature}: {'; '.join(each.repairs)}" for each in found.drafts if each.repairs]
    table = Table("farms", "", box=None, show_header=False)
    table.columns[1].justify = "right"
    console.print(f"Farms of {escape(file.name)}", soft_wrap=True)
    for label, number in [
        ("created", outcome.created),
        ("updated", outcome.updated),
        ("unchanged", outcome.unchanged),
        ("repaired", len(repaired)),
        ("rejected", len(found.rejected)),
    ]:
        table.add_row(label, f"{number:,}")
    console.print(table)
    console.print(f"Identity from {escape(found.identified_by)}.")
    if outcome.inactive:
        console.print(f"{outcome.inactive:,} of them are deactivated and stay so; --reactivate brings them back.")
    _print_lines(console, "Repaired", repaired)
    _print_lines(console, "Rejected", [f"{each.feature}: {each.reason}" for each in found.rejected])
    _print_lines(console, "Remarks of the reader", found.warnings)


def _print_lines(console: Console, title: str, lines: list[str] | tuple[str, ...]) -> None:
    if not lines:
        return
    console.print(f"\n{title}:")
    for line in lines[:SHOWN]:
        console.print(f"  {escape(line)}", soft_wrap=True)
    if len(lines) > SHOWN:
        console.print(f"  and {len(lines) - SHOWN:,} more; --json lists them all")


@app.command("list")
def list_stored(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most farms to show.")] = 100,
    include_inactive: Annotated[bool, typer.Option("--all", help="Deactivated farms too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the farms there are."""
    with open_stores(load_settings()) as stores, stores.engine.connect() as connection:
        farms = list_farms(connection, limit=limit, include_inactive=include_inactive)
        total = count_farms(connection, include_inactive=include_inactive)
    if as_json:
        listed = {"total": total, "farms": [_facts(farm) for farm in farms]}
        typer.echo(orjson.dumps(listed, option=orjson.OPT_INDENT_2).decode())
        return
    console = Console(highlight=False)
    table = Table("external_farm_id", "name", "hectares", "where", box=SIMPLE_HEAD)
    table.columns[2].justify = table.columns[3].justify = "right"
    for column in (table.columns[0], *table.columns[2:]):
        column.no_wrap = True
    for farm in farms:
        lon, lat = _middle(farm)
        name = escape(farm.name) + ("" if farm.is_active else " (inactive)")
        table.add_row(str(farm.external_farm_id), name, f"{farm.area_ha:,.2f}", f"{lon:.3f} {lat:.3f}")
    console.print(table)
    console.print(f"{len(farms):,} of {total:,} farms" + ("" if len(farms) == total else "; --limit shows more"))


def _facts(farm: Farm) -> dict[str, Any]:
    return {
        "external_farm_id": str(farm.external_farm_id),
        "external_user_id": farm.external_user_id,
        "name": farm.name,
        "area_ha": farm.area_ha,
        "bbox": farm.bbox,
        "boundary_version": farm.boundary_version,
        "is_active": farm.is_active,
    }


def _middle(farm: Farm) -> tuple[float, float]:
    west, south, east, north = farm.bbox
    lon = (west + east) / 2 if west <= east else (west + east + 360) / 2
    return (lon - 360 if lon > 180 else lon), (south + north) / 2


@app.command("export")
def export_farms(
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write; replaced when it is there.")],
    format_name: Annotated[
        str | None, typer.Option("--format", help="geojson, gpkg or parquet; unset, told from the file's name.")
    ] = None,
    include_inactive: Annotated[bool, typer.Option("--all", help="Deactivated farms too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the farms to a file, which an import takes back without changing anything."""
    # Loaded here: see `import_farms`.
    from tasks.farms.export import format_of, write_farms

    settings = load_settings()
    chosen, target = format_of(output, format_name), output_file(output)
    with open_stores(settings) as stores, stores.engine.connect() as connection:
        count = write_farms(target, stored_farms(connection, include_inactive=include_inactive), format_name=chosen)
    if as_json:
        typer.echo(orjson.dumps({"file": str(output), "format": chosen, "farms": count}).decode())
    else:
        typer.echo(f"{count:,} farms written to {output}")
