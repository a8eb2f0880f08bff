"""Farms written to a file that a GIS opens, and that an import takes back without changing anything."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import geopandas as gpd
import orjson
import pandas as pd
import pyogrio
import shapely

from models.domain import Farm
from models.errors import BadInput

FORMATS = {"geojson": ".geojson", "gpkg": ".gpkg", "parquet": ".parquet"}
"""Formats that are written, and how their files' names end."""

_ENDINGS = {".geojson": "geojson", ".json": "geojson", ".gpkg": "gpkg", ".parquet": "parquet", ".geoparquet": "parquet"}


def format_of(path: Path, name: str | None = None) -> str:
    """Tell the format of a file to write, by its name where none is given.

    Raises:
        BadInput: naming the formats there are.
    """
    found = name if name is not None else _ENDINGS.get(path.suffix.lower())
    if found not in FORMATS:
        problem = f"{name!r} is not a format" if name is not None else f"{path.name} does not end in a known format"
        raise BadInput("format", problem, allowed=", ".join(FORMATS))
    return found


def write_farms(path: Path, farms: Iterable[Farm], *, format_name: str | None = None) -> int:
    """Write farms to a file, whole or not at all, and return how many.

    Coordinates are written as they are stored, to the last bit. A file that is there is replaced once the new one
    is complete.

    Raises:
        BadInput: when the format is unknown or the folder cannot be written to.
    """
    write = _WRITERS[format_of(path, format_name)]
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as folder:
            # GDAL looks at the ending of the name, which may be another than the format's.
            made = Path(folder) / f"farms{FORMATS[format_of(path, format_name)]}"
            count = write(made, farms)
            _settle(made)
            made.replace(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise BadInput("output", f"{path} cannot be written: {error.strerror}") from error
    return count


def _settle(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _facts(farm: Farm) -> dict[str, Any]:
    return {
        "external_farm_id": str(farm.external_farm_id),
        "external_user_id": farm.external_user_id,
        "name": farm.name,
        "area_ha": farm.area_ha,
        "boundary_version": farm.boundary_version,
        "is_active": farm.is_active,
    }


def _write_geojson(path: Path, farms: Iterable[Farm]) -> int:
    """Write GeoJSON (RFC 7946) farm by farm: any number of farms takes the memory of one."""
    count = 0
    with path.open("wb") as file:
        file.write(b'{"type":"FeatureCollection","features":[')
        for farm in farms:
            feature = {
                "type": "Feature",
                "id": str(farm.external_farm_id),
                "bbox": farm.bbox,
                "properties": _facts(farm),
                "geometry": shapely.geometry.mapping(shapely.from_wkb(farm.boundary)),
            }
            file.write((b",\n" if count else b"\n") + orjson.dumps(feature))
            count += 1
        file.write(b"\n]}\n")
    return count


def _frame(farms: Iterable[Farm]) -> Any:
    columns: dict[str, list[object]] = {name: [] for name in _COLUMNS}
    boundaries: list[bytes] = []
    for farm in farms:
        for name, value in _facts(farm).items():
            columns[name].append(value)
        boundaries.append(farm.boundary)
    typed = {name: pd.Series(values, dtype=_COLUMNS[name]) for name, values in columns.items()}
    return gpd.GeoDataFrame(typed, geometry=shapely.from_wkb(boundaries), crs="EPSG:4326")


# Typed, so that a table without farms, or without owners, has the same columns as any other.
_COLUMNS = {
    "external_farm_id": "object",
    "external_user_id": "object",
    "name": "object",
    "area_ha": "float64",
    "boundary_version": "int64",
    "is_active": "bool",
}


def _write_geopackage(path: Path, farms: Iterable[Farm]) -> int:
    frame = _frame(farms)
    pyogrio.write_dataframe(
        frame, path, layer="farms", driver="GPKG", geometry_type="MultiPolygon", promote_to_multi=True
    )
    return len(frame)


def _write_geoparquet(path: Path, farms: Iterable[Farm]) -> int:
    frame = _frame(farms)
    frame.to_parquet(path, index=False)
    return len(frame)


_WRITERS: dict[str, Callable[[Path, Iterable[Farm]], int]] = {
    "geojson": _write_geojson,
    "gpkg": _write_geopackage,
    "parquet": _write_geoparquet,
}
