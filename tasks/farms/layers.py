"""Layers of features as GeoJSON, GeoPackage, Shapefile and GeoParquet hold them, read into one shape.

Files are foreign: their kind is told from their first bytes as well as from their name, so that GDAL never tries its
other drivers (some of which follow links), and their size and number of features are checked before they are read.
"""

from __future__ import annotations

import unicodedata
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import geopandas as gpd
import numpy as np
import orjson
import pyarrow
import pyarrow.parquet as pq
import pyogrio
import pyproj
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from shapely.geometry.base import BaseGeometry

from models.errors import BadInput
from tasks.farms.identity import Columns, Wanted

MAX_FILE_BYTES = 1 << 30
"""Largest file that is read, unpacked: 1 GiB, about a million parcels. Larger registers come in parts."""

MAX_FEATURES = 500_000
"""Most features of one file."""

FIRST_BYTES = {
    ".gpkg": b"SQLite format 3\0",
    ".shp": b"\x00\x00\x27\x0a",
    ".zip": b"PK\x03\x04",
    ".parquet": b"PAR1",
    ".geoparquet": b"PAR1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Features of one layer, as they were drawn."""

    dataset: str
    """What identifies the source: the file's name, and the layer's where there may be several."""
    crs: pyproj.CRS | None
    """None where the file does not say."""
    columns: Columns
    fields: Mapping[str, Sequence[object]]
    """One value a feature, by field; the fields of `columns` alone."""
    geometries: Sequence[BaseGeometry | str | None]
    """What was drawn; text says why it cannot be read."""
    feature_ids: Sequence[object] | None = None
    """Ids that stand beside the fields, as in GeoJSON."""
    warnings: tuple[str, ...] = field(default=())


def dataset_name(stem: str, layer: str | None = None) -> str:
    """Name a source by its file and layer, the same on systems that spell accents in other bytes."""
    return unicodedata.normalize("NFC", stem if layer is None else f"{stem}/{layer}")


def check_size(size: int, *, features: int = 0) -> None:
    """Refuse what is larger than the limits of this module.

    Raises:
        BadInput: naming the limit.
    """
    if size > MAX_FILE_BYTES:
        raise BadInput("file", f"holds {size:,} bytes", allowed=f"at most {MAX_FILE_BYTES:,}; import it in parts")
    if features > MAX_FEATURES:
        raise BadInput("file", f"has {features:,} features", allowed=f"at most {MAX_FEATURES:,}; import it in parts")


def check_first_bytes(path: Path) -> None:
    """Refuse a file that is not what its name says.

    Raises:
        BadInput: naming the kind that was expected.
    """
    expected = FIRST_BYTES[path.suffix.lower()]
    with path.open("rb") as file:
        if file.read(len(expected)) != expected:
            raise BadInput("file", f"{path.name} is not a {path.suffix.lower()} file inside, whatever its name says")


def read_geopackage(path: Path, *, layer: str | None, wanted: Wanted) -> Layer:
    """Read one layer of a GeoPackage."""
    check_first_bytes(path)
    return _read_ogr(str(path), layer=layer, wanted=wanted, stem=path.stem)


def read_shapefile(path: Path, *, layer: str | None, wanted: Wanted) -> Layer:
    """Read a Shapefile, which is several files of one name."""
    check_first_bytes(path)
    parts = {each.suffix.lower(): each for each in path.parent.iterdir() if each.stem == path.stem}
    if ".shx" not in parts:
        raise BadInput("file", f"{path.name} has no {path.stem}.shx beside it", allowed="all files of the Shapefile")
    check_size(sum(parts[suffix].stat().st_size for suffix in (".shp", ".dbf") if suffix in parts))
    _check_layer(layer, [path.stem])
    return _read_ogr(str(path), layer=None, wanted=wanted, stem=None)


def read_zipped_shapefile(path: Path, *, layer: str | None, wanted: Wanted) -> Layer:
    """Read a Shapefile from a zip archive, in whichever folder of it."""
    check_first_bytes(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except zipfile.BadZipFile as error:
        raise BadInput("file", f"{path.name} cannot be unpacked: {error}") from error
    check_size(sum(member.file_size for member in members))
    names = [PurePosixPath(member.filename) for member in members if not member.filename.startswith("__MACOSX/")]
    shapes = {name.stem: name for name in names if name.suffix.lower() == ".shp"}
    if not shapes:
        raise BadInput("file", f"{path.name} holds no Shapefile", allowed="a zip archive with a .shp in it")
    chosen = shapes[_check_layer(layer, list(shapes))]
    if not any(name.suffix.lower() == ".shx" and name.with_suffix("") == chosen.with_suffix("") for name in names):
        raise BadInput("file", f"{path.name} lacks {chosen.stem}.shx", allowed="all files of the Shapefile")
    return _read_ogr(f"/vsizip/{{{path.resolve()}}}/{chosen}", layer=None, wanted=wanted, stem=None)


def _check_layer(layer: str | None, names: Sequence[str]) -> str:
    listed = ", ".join(names[:50])
    if layer is not None and layer not in names:
        raise BadInput("layer", f"the file has no layer {layer[:100]!r}", allowed=listed)
    if layer is None and len(names) > 1:
        raise BadInput("layer", f"the file has {len(names)} layers; choose one with --layer", allowed=listed)
    return layer if layer is not None else names[0]


def _read_ogr(source: str, *, layer: str | None, wanted: Wanted, stem: str | None) -> Layer:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            names = [str(name) for name, kind in pyogrio.list_layers(source) if kind is not None]
            if not names:
                raise BadInput("file", "has no layer with geometries")
            chosen = _check_layer(layer, names)
            about = pyogrio.read_info(source, layer=chosen, force_feature_count=True)
            check_size(0, features=int(about["features"]))
            key = about["fid_column"] if wanted.id_field and wanted.id_field == about["fid_column"] else None
            columns = wanted.among([*about["fields"], *([key] if key else [])])
            plain = [each for each in columns.all if each != key]
            frame = pyogrio.read_dataframe(
                source, layer=chosen, columns=plain, fid_as_index=True, on_invalid="fix", use_arrow=False
            )
        except (DataSourceError, DataLayerError, shapely.errors.GEOSException) as error:
            raise BadInput("file", f"cannot be read: {error}") from error
    fields: dict[str, Sequence[object]] = {name: list(frame[name]) for name in plain}
    if key:
        fields[key] = list(frame.index)
    return Layer(
        dataset=dataset_name(stem, chosen) if stem is not None else dataset_name(chosen),
        crs=None if frame.crs is None else pyproj.CRS(frame.crs),
        columns=columns,
        fields=fields,
        geometries=list(frame.geometry),
        # GDAL says of many national files that it reads `TEXT (96)` as text: nothing to act on.
        warnings=tuple({str(each.message): None for each in heard if "Field format" not in str(each.message)}),
    )


def read_geoparquet(path: Path, *, layer: str | None, wanted: Wanted) -> Layer:
    """Read a GeoParquet file, its primary geometry."""
    check_first_bytes(path)
    _check_layer(layer, [path.stem])
    try:
        with pq.ParquetFile(path) as file:
            about = file.metadata
            check_size(sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups)))
            check_size(0, features=about.num_rows)
            available = [str(name) for name in file.schema_arrow.names]
        columns = wanted.among(available)
        with np.errstate(invalid="ignore"):  # a coordinate that is not a number costs its farm, later
            frame: Any = gpd.read_parquet(path, columns=[*columns.all, *_geometry_columns(about, available)])
    except (pyarrow.ArrowException, ValueError, shapely.errors.GEOSException, OSError) as error:
        raise BadInput("file", f"cannot be read as GeoParquet: {error}") from error
    return Layer(
        dataset=dataset_name(path.stem),
        crs=None if frame.crs is None else pyproj.CRS(frame.crs),
        columns=columns,
        fields={name: list(frame[name]) for name in columns.all},
        geometries=list(frame.geometry),
    )


def _geometry_columns(about: Any, available: Sequence[str]) -> list[str]:
    """Names of the primary geometry; none when the file is Parquet without `geo` metadata, which the reader refuses."""
    try:
        primary = orjson.loads((about.metadata or {})[b"geo"])["primary_column"]
    except (KeyError, TypeError, orjson.JSONDecodeError) as error:
        raise ValueError("it has no geo metadata") from error
    return [primary] if primary in available else []
