"""`swath export`: take results out as files."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import enum
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from sqlalchemy import Connection

from infra.cli.given import parse_day, parse_farms
from infra.settings import load_settings
from infra.stores import open_stores
from models.errors import BadInput
from models.farms import stored_farms
from models.observations import EXPORT_COLUMNS, export_observations

app = typer.Typer(no_args_is_help=True, help="Take results out as files.")

ROWS_AT_ONCE = 10_000

Row = dict[str, Any]


class Format(enum.StrEnum):
    """File formats of an export."""

    CSV = "csv"
    PARQUET = "parquet"
    GEOJSON = "geojson"


@app.callback()
def _group() -> None:
    """Take results out as files."""


@app.command("ndvi")
def export_ndvi(
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write; replaced when it exists.")],
    format_name: Annotated[
        str | None, typer.Option("--format", help="csv, parquet or geojson; unset, told from the file's name.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="First day, YYYY-MM-DD.")] = None,
    end: Annotated[str | None, typer.Option(help="Last day, YYYY-MM-DD.")] = None,
    farm: Annotated[list[str] | None, typer.Option(help="external_farm_id; may be given several times.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line for programs.")] = False,
) -> None:
    """Write observations to a file: one row for every farm and pass, with numbers or with the reason for none.

    Rows are those of each farm's present boundary and of the mask policy that the settings describe. Times are UTC.
    """
    chosen = _format_of(output, format_name)
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
            outlines = _outlines(connection, wanted)
        count = _written(output, lambda file: _WRITERS[chosen](file, rows, outlines))
    if as_json:
        typer.echo(orjson.dumps({"file": str(output), "format": chosen, "rows": count}).decode())
    else:
        Console(highlight=False).print(f"{count:,} rows in {escape(str(output))}", soft_wrap=True)


def _outlines(connection: Connection, wanted: list[uuid.UUID] | None) -> dict[uuid.UUID, bytes]:
    """Boundaries of the farms that are exported: those named, active or not, else all that are active."""
    farms = stored_farms(connection, external_ids=wanted, include_inactive=wanted is not None)
    outlines = {farm.external_farm_id: farm.boundary for farm in farms}
    unknown = sorted(map(str, set(wanted or ()) - set(outlines)))
    if unknown:
        raise BadInput("--farm", f"no farm {', '.join(unknown)}", allowed="see `swath farms list --all`")
    return outlines


def _format_of(path: Path, name: str | None) -> Format:
    if name is not None:
        try:
            return Format(name.lower())
        except ValueError:
            raise BadInput("--format", f"{name!r} is not one", allowed=", ".join(Format)) from None
    endings = {".csv": Format.CSV, ".parquet": Format.PARQUET, ".geojson": Format.GEOJSON, ".json": Format.GEOJSON}
    try:
        return endings[path.suffix.lower()]
    except KeyError:
        raise BadInput("--format", f"not told by {path.name!r}", allowed=", ".join(Format)) from None


def _written(path: Path, write: Callable[[IO[bytes]], int]) -> int:
    """Write a file whole or not at all.

    Raises:
        BadInput: it cannot be written there.
    """
    try:
        return _written_beside(path, write)
    except OSError as error:
        raise BadInput("--output", f"cannot write to {path}: {error.strerror}") from error


def _written_beside(path: Path, write: Callable[[IO[bytes]], int]) -> int:
    """Write under another name beside the file, then rename."""
    descriptor, name = tempfile.mkstemp(dir=path.resolve().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            count = write(file)
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    return count


def _write_csv(file: IO[bytes], rows: Iterable[Row], _outlines: dict[Any, bytes]) -> int:
    import io

    count = 0
    with io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True) as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(EXPORT_COLUMNS)
        for count, row in enumerate(rows, start=1):  # noqa: B007
            writer.writerow([_plain(row[name]) for name in EXPORT_COLUMNS])
    return count


def _plain(value: Any) -> Any:
    """A value as CSV has it: RFC 3339 UTC times, item ids separated by a space, nothing for None."""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return value


def _write_parquet(file: IO[bytes], rows: Iterable[Row], _outlines: dict[Any, bytes]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    real, whole, text = pa.float64(), pa.int64(), pa.string()
    special = {
        "acquired_at": pa.timestamp("us", tz="UTC"),
        "day": pa.date32(),
        "item_ids": pa.list_(text),
        "inner_pixel_count": whole,
        "pixel_count": whole,
        "revision": whole,
    }
    words = {"external_farm_id", "status", "rule", "processing_baseline", "catalog"}
    schema = pa.schema([(name, special.get(name, text if name in words else real)) for name in EXPORT_COLUMNS])
    count = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in _batches(rows):
            plain = [{**row, "external_farm_id": str(row["external_farm_id"])} for row in batch]
            writer.write_table(pa.Table.from_pylist(plain, schema=schema))
            count += len(batch)
    return count


def _batches(rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, ROWS_AT_ONCE)):
        yield batch


def _write_geojson(file: IO[bytes], rows: Iterable[Row], outlines: dict[Any, bytes]) -> int:
    import shapely

    outline, shape, count = None, b"null", 0
    file.write(b'{"type":"FeatureCollection","features":[')
    for count, row in enumerate(rows, start=1):
        if row["external_farm_id"] != outline:  # rows come farm by farm
            outline = row["external_farm_id"]
            shape = shapely.to_geojson(shapely.from_wkb(outlines[outline])).encode()
        properties = orjson.dumps({name: row[name] for name in EXPORT_COLUMNS}, option=orjson.OPT_UTC_Z)
        file.write(b",\n" if count > 1 else b"\n")
        file.write(b'{"type":"Feature","geometry":' + shape + b',"properties":' + properties + b"}")
    file.write(b"\n]}\n")
    return count


_WRITERS: dict[Format, Callable[[IO[bytes], Iterable[Row], dict[Any, bytes]], int]] = {
    Format.CSV: _write_csv,
    Format.PARQUET: _write_parquet,
    Format.GEOJSON: _write_geojson,
}
