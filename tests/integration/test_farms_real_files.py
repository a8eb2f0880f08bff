"""Real files of parcels, counted and measured by another route: the reader's own, in the file's own projection."""

from __future__ import annotations

import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import orjson
import pyproj
import pytest
import shapely

from tasks.farms.boundaries import AreaLimits
from tasks.farms.files import FarmFile, read_farms

pytestmark = pytest.mark.shared_data

DEFAULT_AREAS = AreaLimits(min_ha=0, max_ha=100_000)
FLANDERS, SLOVENIA, ZURICH = "fields/flanders", "fields/slovenia-33TW", "fields/zurich-esch"
SHAPE = "ZH_Polygons_2020_ESCH_EPSG32632"


def read(path: Path, **options: str) -> FarmFile:
    return read_farms(path, limits=DEFAULT_AREAS, **options)


def plainly(path: Path) -> Any:
    """Read a file as geopandas does."""
    if path.suffix == ".parquet":
        return gpd.read_parquet(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GDAL remarks on the field types of the GeoPackage
        return gpd.read_file(path, engine="pyogrio")


@pytest.mark.parametrize(
    ("name", "count", "identified_by", "scale"),
    [
        (f"{FLANDERS}/Prc_BEFL_2023_2023-07-24.gpkg", 10, "field UID", None),
        (f"{FLANDERS}/be_vlg_2024_fiboa_0_2.parquet", 100, "field id", None),
        (f"{FLANDERS}/lpis2018_inside_gfmap_optical_cube.geojson", 1, "the shape itself", 32631),
        (f"{SLOVENIA}/SI_2021.zip", 100, "field ID", None),
        (f"{ZURICH}/{SHAPE}.shp", 281, "field GIS_ID", None),
        ("fields/finland-qvidja/qvidja_ec.geojson", 1, "field id", 32634),
        ("farms/antwerp.geojson", 7, "field external_farm_id, where it is empty the shape itself", 32631),
    ],
)
def test_every_parcel_becomes_a_farm_of_its_size_and_place(
    shared_data: Path, name: str, count: int, identified_by: str, scale: int | None
) -> None:
    file, table = read(shared_data / name), plainly(shared_data / name)
    assert len(table) == len(file.drafts) == count
    assert file.rejected == ()
    assert file.identified_by == identified_by
    assert len({draft.external_farm_id for draft in file.drafts}) == count
    drawn = table if scale is None else table.to_crs(scale)
    to_lon_lat = pyproj.Transformer.from_crs(drawn.crs, 4326, always_xy=True)
    for draft, shape in zip(file.drafts, drawn.geometry, strict=True):
        # National grids stretch areas by up to two parts in a thousand.
        assert draft.area_ha == pytest.approx(shape.area / 1e4, rel=2e-3)
        boundary = shapely.from_wkb(draft.boundary)
        assert boundary.is_valid
        assert not boundary.has_z
        centre = to_lon_lat.transform(shape.centroid.x, shape.centroid.y)
        assert (boundary.centroid.x, boundary.centroid.y) == pytest.approx(centre, abs=1e-6)
        assert draft.bbox == boundary.bounds


def test_the_two_invalid_parcels_of_zurich_are_repaired_without_loss(shared_data: Path) -> None:
    path = shared_data / ZURICH / f"{SHAPE}.shp"
    table = plainly(path)
    repaired = {draft.feature: draft.repairs for draft in read(path).drafts if draft.repairs}
    invalid = table[~table.geometry.is_valid]
    assert len(invalid) == 2
    assert set(repaired) == {f"feature {index + 1} ({row.GIS_ID})" for index, row in invalid.iterrows()}
    for repairs in repaired.values():
        assert len(repairs) == 1
        assert repairs[0].startswith("made valid: Ring Self-intersection")
        assert repairs[0].endswith("area changed by 0.0000%")


def test_a_shapefile_is_the_same_farms_zipped_or_not(shared_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared_data / SLOVENIA / "SI_2021.zip") as archive:
        archive.extractall(tmp_path)
    unpacked, packed = read(tmp_path / "SI_2021_EC21.shp"), read(shared_data / SLOVENIA / "SI_2021.zip")
    assert unpacked == packed


def test_a_projected_boundary_comes_back_to_its_vertices_within_a_millimetre(shared_data: Path) -> None:
    path = shared_data / SLOVENIA / "SI_2021.zip"
    table = plainly(path)
    back = pyproj.Transformer.from_crs(4326, 3794, always_xy=True)
    for draft, shape in zip(read(path).drafts, table.geometry, strict=True):
        lon, lat = shapely.get_coordinates(shapely.from_wkb(draft.boundary)).T
        returned = shapely.points(np.column_stack(back.transform(lon, lat)))
        assert shapely.distance(returned, shapely.MultiPoint(shapely.get_coordinates(shape))).max() < 1e-3


def test_coordinates_of_geojson_are_kept_to_the_last_bit(shared_data: Path) -> None:
    path = shared_data / "farms/antwerp.geojson"
    features = orjson.loads(path.read_bytes())["features"]
    for draft, feature in zip(read(path).drafts, features, strict=True):
        drawn = shapely.get_coordinates(shapely.geometry.shape(feature["geometry"]))
        assert {*map(tuple, drawn)} == {*map(tuple, shapely.get_coordinates(shapely.from_wkb(draft.boundary)))}
        properties = feature["properties"]
        assert str(draft.external_farm_id) == properties["external_farm_id"]
        assert (draft.name, draft.external_user_id) == (properties["name"], properties["external_user_id"])


def test_a_shapefile_without_its_projection_is_refused_until_told(shared_data: Path, tmp_path: Path) -> None:
    for ending in (".shp", ".shx", ".dbf", ".cpg"):
        shutil.copyfile(shared_data / ZURICH / f"{SHAPE}{ending}", tmp_path / f"{SHAPE}{ending}")
    told = read(tmp_path / f"{SHAPE}.shp", crs="EPSG:32632")
    assert told == read(shared_data / ZURICH / f"{SHAPE}.shp")
