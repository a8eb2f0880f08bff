"""Files of an export: CSV, Parquet or GeoJSON, written whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import enum
import io
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson

from models.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 10_000

Row = Mapping[str, Any]


class Format(enum.StrEnum):
    """File formats of an export."""

    CSV = "csv"
    PARQUET = "parquet"
    GEOJSON = "geojson"


class Type(enum.Enum):
    """What a column holds."""

    TEXT = enum.auto()
    REAL = enum.auto()
    WHOLE = enum.auto()
    DAY = enum.auto()
    TIME = enum.auto()
    TEXTS = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Rows to be exported."""

    columns: Mapping[str, Type]
    """In order."""
    rows: Iterable[Row]
    """Farm by farm: one comes whole before the next."""
    outlines: Mapping[uuid.UUID, bytes]
    """Boundaries by `external_farm_id`, as WKB; needed for GeoJSON."""


def format_of(path: Path, name: str | None) -> Format:
    """The format that is named, or told by the file's name.

    Raises:
        BadInput: neither tells one.
    """
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


def write_sheet(path: Path, sheet: Sheet, *, as_format: Format) -> int:
    """Write a file whole or not at all, and return the number of rows.

    Raises:
        BadInput: it cannot be written there.
    """
    try:
        return _written_beside(path, lambda file: _WRITERS[as_format](file, sheet))
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


def _write_csv(file: IO[bytes], sheet: Sheet) -> int:
    count = 0
    with io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True) as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(sheet.columns)
        for count, row in enumerate(sheet.rows, start=1):  # noqa: B007
            writer.writerow([_plain(row[name]) for name in sheet.columns])
    return count


def _plain(value: Any) -> Any:
    """A value as CSV has it: RFC 3339 UTC times, lists separated by a space, nothing for None."""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return value


def _write_parquet(file: IO[bytes], sheet: Sheet) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, _arrow(kind)) for name, kind in sheet.columns.items()])
    count = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in _batches(sheet.rows):
            plain = [{**row, "external_farm_id": str(row["external_farm_id"])} for row in batch]
            writer.write_table(pa.Table.from_pylist(plain, schema=schema))
            count += len(batch)
    return count


def _arrow(kind: Type) -> pa.DataType:
    import pyarrow as pa

    return {
        Type.TEXT: pa.string(),
        Type.REAL: pa.float64(),
        Type.WHOLE: pa.int64(),
        Type.DAY: pa.date32(),
        Type.TIME: pa.timestamp("us", tz="UTC"),
        Type.TEXTS: pa.list_(pa.string()),
    }[kind]


def _batches(rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, ROWS_AT_ONCE)):
        yield batch


def _write_geojson(file: IO[bytes], sheet: Sheet) -> int:
    import shapely

    outline, shape, count = None, b"null", 0
    file.write(b'{"type":"FeatureCollection","features":[')
    for count, row in enumerate(sheet.rows, start=1):
        if row["external_farm_id"] != outline:
            outline = row["external_farm_id"]
            shape = shapely.to_geojson(shapely.from_wkb(sheet.outlines[outline])).encode()
        properties = orjson.dumps({name: row[name] for name in sheet.columns}, option=orjson.OPT_UTC_Z)
        file.write(b",\n" if count > 1 else b"\n")
        file.write(b'{"type":"Feature","geometry":' + shape + b',"properties":' + properties + b"}")
    file.write(b"\n]}\n")
    return count


_WRITERS: dict[Format, Callable[[IO[bytes], Sheet], int]] = {
    Format.CSV: _write_csv,
    Format.PARQUET: _write_parquet,
    Format.GEOJSON: _write_geojson,
}
