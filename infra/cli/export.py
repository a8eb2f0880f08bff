"""`swath export`: take results out as files."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from sqlalchemy import Connection

from infra.cli.files import Format, Row, Sheet, Type, format_of, write_sheet
from infra.cli.given import output_file, parse_day, parse_farms
from infra.settings import load_settings
from infra.stores import open_stores
from models.domain import Farm
from models.errors import BadInput
from models.farms import stored_farms
from models.observations import EXPORT_COLUMNS, export_observations
from models.weather import Grain
from models.weather_answers import Weather, reconciled_daily, reconciled_soil
from models.weather_rows import SHEETS, SOIL
from tasks.weather.open_meteo_requests import SOIL_LAYERS

app = typer.Typer(no_args_is_help=True, help="Take results out as files.")

FARMS_AT_ONCE = 500
DEFAULT_WEATHER_DAYS = 30
DEFAULT_DAYS_AHEAD = 15

_SPECIAL = {
    "acquired_at": Type.TIME,
    "day": Type.DAY,
    "item_ids": Type.TEXTS,
    **dict.fromkeys(("inner_pixel_count", "pixel_count", "revision"), Type.WHOLE),
    **dict.fromkeys(("external_farm_id", "status", "rule", "processing_baseline", "catalog"), Type.TEXT),
}
NDVI_COLUMNS = {name: _SPECIAL.get(name, Type.REAL) for name in EXPORT_COLUMNS}

Output = Annotated[Path, typer.Option("-o", "--output", help="File to write; replaced when it exists.")]
FormatName = Annotated[
    str | None, typer.Option("--format", help="csv, parquet or geojson; unset, told from the file's name.")
]
Farms = Annotated[list[str] | None, typer.Option(help="external_farm_id; may be given several times.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON line for programs.")]


@app.callback()
def _group() -> None:
    """Take results out as files."""


@app.command("ndvi")
def export_ndvi(
    output: Output,
    format_name: FormatName = None,
    start: Annotated[str | None, typer.Option(help="First day, YYYY-MM-DD.")] = None,
    end: Annotated[str | None, typer.Option(help="Last day, YYYY-MM-DD.")] = None,
    farm: Farms = None,
    as_json: AsJson = False,
) -> None:
    """Write observations to a file: one row for every farm and pass, with numbers or with the reason for none.

    Rows are those of each farm's present boundary and of the mask policy that the settings describe. Times are UTC.
    """
    chosen, target = format_of(output, format_name), output_file(output)
    days = parse_day(start, field="--start"), parse_day(end, field="--end")
    if days[0] and days[1] and days[0] > days[1]:
        raise BadInput("--start", f"{days[0]} is after the end, {days[1]}")
    settings = load_settings()
    with open_stores(settings) as stores, stores.engine.connect() as connection:
        wanted = parse_farms(farm)
        rows = export_observations(
            connection,
            start=days[0],
            end=days[1],
            external_ids=wanted,
            mask_policy=settings.mask_policy.name,
        )
        outlines = {}
        if wanted is not None or chosen is Format.GEOJSON:
            outlines = {each.external_farm_id: each.boundary for each in _farms(connection, wanted)}
        sheet = Sheet(columns=NDVI_COLUMNS, rows=rows, outlines=outlines)
        count = write_sheet(target, sheet, as_format=chosen)
    _say(output, chosen, count, as_json=as_json)


def _farms(connection: Connection, wanted: list[uuid.UUID] | None) -> list[Farm]:
    """The farms that are exported: those named, active or not, else all that are active.

    Raises:
        BadInput: one that is named does not exist.
    """
    farms = list(stored_farms(connection, external_ids=wanted, include_inactive=wanted is not None))
    unknown = sorted(map(str, set(wanted or ()) - {farm.external_farm_id for farm in farms}))
    if unknown:
        raise BadInput("--farm", f"no farm {', '.join(unknown)}", allowed="see `swath farms list --all`")
    return farms


def _say(output: Path, chosen: Format, count: int, *, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps({"file": str(output), "format": chosen, "rows": count}).decode())
    else:
        Console(highlight=False).print(f"{count:,} rows in {escape(str(output))}", soft_wrap=True)


def _weather_columns() -> dict[str, Type]:
    columns = {"external_farm_id": Type.TEXT, "day": Type.DAY}
    for name in SHEETS[Grain.DAILY].above_ground:
        columns |= {name: Type.REAL, f"{name}_source": Type.TEXT, f"{name}_kind": Type.TEXT}
    columns |= dict.fromkeys(SOIL, Type.REAL)
    return columns | dict.fromkeys(("soil_layer", "soil_source", "soil_kind"), Type.TEXT)


WEATHER_COLUMNS = _weather_columns()


@app.command("weather")
def export_weather(
    output: Output,
    format_name: FormatName = None,
    start: Annotated[str | None, typer.Option(help="First UTC day, YYYY-MM-DD. Default: 30 days back.")] = None,
    end: Annotated[str | None, typer.Option(help="Last UTC day, YYYY-MM-DD. Default: 15 days ahead.")] = None,
    farm: Farms = None,
    as_json: AsJson = False,
) -> None:
    """Write weather to a file: one row for every farm and UTC day of which anything is known.

    Each value stands with its source and its kind: observed, reanalysis or forecast. Units stand in the names. The soil
    is that of one layer, the uppermost of SWATH_OPEN_METEO_ARCHIVE_MODEL, because layers of models differ.
    """
    chosen, target = format_of(output, format_name), output_file(output)
    today = dt.datetime.now(dt.UTC).date()
    first = parse_day(start, field="--start") or today - dt.timedelta(days=DEFAULT_WEATHER_DAYS)
    last = parse_day(end, field="--end") or today + dt.timedelta(days=DEFAULT_DAYS_AHEAD)
    if first > last:
        raise BadInput("--start", f"{first} is after the end, {last}")
    settings = load_settings()
    layer = SOIL_LAYERS.get(settings.open_meteo_archive_model)
    with open_stores(settings) as stores, stores.engine.connect() as connection:
        farms = _farms(connection, parse_farms(farm))
        sheet = Sheet(
            columns=WEATHER_COLUMNS,
            rows=_weather_rows(connection, farms, (first, last), soil_layer=layer.depth if layer else None),
            outlines={each.external_farm_id: each.boundary for each in farms},
        )
        count = write_sheet(target, sheet, as_format=chosen)
    _say(output, chosen, count, as_json=as_json)


def _weather_rows(
    connection: Connection, farms: list[Farm], days: tuple[dt.date, dt.date], *, soil_layer: str | None
) -> Iterator[Row]:
    """Rows farm by farm and day by day."""
    first, last = (dt.datetime.combine(day, dt.time(), dt.UTC) for day in days)
    for start in range(0, len(farms), FARMS_AT_ONCE):
        some = {farm.id: farm.external_farm_id for farm in farms[start : start + FARMS_AT_ONCE]}
        told = reconciled_daily(connection, some, start=days[0], end=days[1])
        soils = reconciled_soil(connection, some, grain=Grain.DAILY, start=first, end=last)
        of_layer = (each for each in soils if each.soil_layer == soil_layer)
        for each, soil in _beside(told, of_layer):
            assert each.farm_id is not None
            yield _weather_row(some[each.farm_id], each, soil)


def _beside(told: Iterator[Weather], soils: Iterator[Weather]) -> Iterator[tuple[Weather, Weather | None]]:
    """The soil of the same farm and day beside each day, or None; both come by farm and day."""
    soil = next(soils, None)
    for each in told:
        while soil is not None and (soil.farm_id or 0, soil.at) < (each.farm_id or 0, each.at):
            soil = next(soils, None)
        yield each, soil if soil is not None and (soil.farm_id, soil.at) == (each.farm_id, each.at) else None


def _weather_row(farm_id: uuid.UUID, told: Weather, soil: Weather | None) -> Row:
    row: dict[str, Any] = {**dict.fromkeys(WEATHER_COLUMNS), "external_farm_id": farm_id, "day": told.at.date()}
    for name, value in told.values.items():
        row |= {name: value.value, f"{name}_source": value.source.value, f"{name}_kind": value.kind.value}
    if soil is not None:
        row["soil_layer"] = soil.soil_layer
        for name, value in soil.values.items():
            row |= {name: value.value, "soil_source": value.source.value, "soil_kind": value.kind.value}
    return row
