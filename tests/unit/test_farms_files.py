from __future__ import annotations

import json
import uuid
import warnings
import zipfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from shapely.geometry import MultiPolygon, Polygon

from models.errors import BadInput
from tasks.farms import layers
from tasks.farms.boundaries import AreaLimits
from tasks.farms.files import FarmFile, read_farms
from tasks.farms.identity import text_of
from tests.support.shapes import ANY_AREA, feature, field, write_geojson

A, B, C = field(lon=15.0), field(lon=15.1), field(lon=15.2)
OWN = [uuid.UUID(int=number) for number in (1, 2, 3)]


def read(path: Path, **options: str) -> FarmFile:
    return read_farms(path, limits=ANY_AREA, **options)


def frame(**columns: list[object]) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(columns, geometry=[A, B, C], crs="EPSG:4326")


def ids(file: FarmFile) -> list[uuid.UUID]:
    return [draft.external_farm_id for draft in file.drafts]


def zipped(shapefile: Path, *, folder: str = "") -> Path:
    path = shapefile.parent / "delivery.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for part in sorted(shapefile.parent.glob(f"{shapefile.stem}.*")):
            archive.write(part, folder + part.name)
    return path


def save(table: gpd.GeoDataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_file(path, engine="pyogrio")
    return path


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32633", "EPSG:3794", "EPSG:3857"])
@pytest.mark.parametrize("ending", [".geojson", ".gpkg", ".shp", ".parquet"])
def test_every_format_and_system_gives_the_same_farms(tmp_path: Path, ending: str, crs: str) -> None:
    path = save(frame(id=["a", "b", "c"], name=["Á", "Brod", "Čež"]).to_crs(crs), tmp_path / f"farms{ending}")
    file = read(path, layer="farms") if ending == ".gpkg" else read(path)
    assert file.rejected == ()
    assert [draft.name for draft in file.drafts] == ["Á", "Brod", "Čež"]
    for draft, drawn in zip(file.drafts, (A, B, C), strict=True):
        assert shapely.hausdorff_distance(shapely.from_wkb(draft.boundary), drawn) < 1e-8
        assert draft.area_ha == pytest.approx(1, rel=1e-6)
        assert draft.bbox == pytest.approx(drawn.bounds, abs=1e-8)


class TestIdentity:
    def test_an_own_uuid_is_kept(self, tmp_path: Path) -> None:
        path = save(frame(External_Farm_ID=[str(each) for each in OWN]), tmp_path / "farms.gpkg")
        assert ids(read(path)) == OWN

    def test_an_own_id_that_is_no_uuid_costs_that_farm_alone(self, tmp_path: Path) -> None:
        path = save(frame(external_farm_id=[str(OWN[0]), "F-2", str(OWN[2])]), tmp_path / "farms.parquet")
        file = read(path)
        assert ids(file) == [OWN[0], OWN[2]]
        [lost] = file.rejected
        assert (lost.file, lost.feature) == ("farms.parquet", "feature 2 (F-2)")
        assert lost.reason.startswith("external_farm_id: 'F-2' is not a UUID")

    def test_an_own_id_that_is_no_uuid_is_a_source_id_when_asked_for(self, tmp_path: Path) -> None:
        path = save(frame(external_farm_id=[str(OWN[0]), "F-2", "F-3"]), tmp_path / "farms.parquet")
        file = read(path, id_field="external_farm_id")
        assert len(file.drafts) == 3
        assert ids(file)[0] == OWN[0]

    def test_a_missing_own_id_is_made_from_the_next_best(self, tmp_path: Path) -> None:
        path = save(frame(external_farm_id=[str(OWN[0]), None, None], id=[1, 2, 3]), tmp_path / "farms.geojson")
        plain = save(frame(id=[1, 2, 3]), tmp_path / "plain.geojson")
        assert ids(read(path))[1:] == ids(read(plain, dataset="farms"))[1:]

    def test_the_id_does_not_depend_on_format_folder_order_or_other_fields(self, tmp_path: Path) -> None:
        table = frame(id=[7, 8, 9], crop=["x", "y", "z"])
        (tmp_path / "other").mkdir()
        read_once = ids(read(save(table, tmp_path / "farms.geojson")))
        for path in (tmp_path / "other" / "farms.shp", tmp_path / "farms.parquet"):
            assert ids(read(save(table[::-1].drop(columns="crop"), path)))[::-1] == read_once
        assert ids(read(zipped(tmp_path / "other" / "farms.shp", folder="in/side/")))[::-1] == read_once

    def test_another_file_with_the_same_numbers_holds_other_farms_unless_it_is_the_same_dataset(
        self, tmp_path: Path
    ) -> None:
        one, other = (save(frame(id=[1, 2, 3]), tmp_path / name) for name in ("a.geojson", "b.geojson"))
        assert not set(ids(read(one))) & set(ids(read(other)))
        assert ids(read(one, dataset="register")) == ids(read(other, dataset="register"))

    def test_accents_spelt_in_other_bytes_are_the_same_dataset(self, tmp_path: Path) -> None:
        (tmp_path / "mac").mkdir()
        composed = save(frame(id=[1, 2, 3]), tmp_path / "\u017eito.geojson")
        apart = save(frame(id=[1, 2, 3]), tmp_path / "mac" / "z\u030cito.geojson")
        assert ids(read(composed)) == ids(read(apart))

    def test_the_id_beside_the_properties_of_geojson_counts(self, tmp_path: Path) -> None:
        features = [feature(shape) | {"id": number} for number, shape in enumerate((A, B, C))]
        once = read(write_geojson(tmp_path / "farms.geojson", features))
        turned = read(write_geojson(tmp_path / "farms.geojson", features[::-1]))
        assert once.identified_by == "field id of the feature"
        assert ids(once) == ids(turned)[::-1]

    def test_without_any_id_the_shape_is_the_id_whatever_its_order_and_start(self, tmp_path: Path) -> None:
        rolled = Polygon([*B.exterior.coords[2:-1], *B.exterior.coords[:2]][::-1])
        once = read(write_geojson(tmp_path / "farms.geojson", [feature(each) for each in (A, B, C)]))
        again = read(write_geojson(tmp_path / "farms.geojson", [feature(each) for each in (C, rolled, A)]))
        assert once.identified_by == "the shape itself"
        assert ids(once) == ids(again)[::-1]

    def test_a_field_that_repeats_is_no_id_of_its_own_accord(self, tmp_path: Path) -> None:
        file = read(save(frame(farm_id=[4, 4, 4], gid=[1, 2, 3]), tmp_path / "farms.gpkg"))
        assert file.identified_by == "field gid"

    def test_one_id_given_twice_costs_the_later_farm_and_names_both(self, tmp_path: Path) -> None:
        path = save(frame(id=["a", "b", "a"]), tmp_path / "farms.geojson")
        file = read(path)
        assert [draft.feature for draft in file.drafts] == ["feature 1 (a)", "feature 2 (b)"]
        [lost] = file.rejected
        assert lost.feature == "feature 3 (a)"
        assert lost.reason.startswith("id: feature 3 (a) is the same farm as feature 1 (a), which came first")

    def test_a_farm_without_the_id_that_the_user_named_is_rejected(self, tmp_path: Path) -> None:
        file = read(save(frame(id=[1, 2, 3], ref=["x", None, "z"]), tmp_path / "farms.gpkg"), id_field="REF")
        assert [each.reason for each in file.rejected] == [
            "ref: is empty; allowed: a value of its own for every feature"
        ]

    def test_the_key_of_a_geopackage_is_an_id_when_asked_for(self, tmp_path: Path) -> None:
        file = read(save(frame(crop=["x", "x", "x"]), tmp_path / "farms.gpkg"), id_field="fid")
        assert [draft.feature for draft in file.drafts] == ["feature 1 (1)", "feature 2 (2)", "feature 3 (3)"]

    def test_a_field_that_is_not_there_is_refused_with_those_that_are(self, tmp_path: Path) -> None:
        path = save(frame(crop=["x", "y", "z"], year=[1, 2, 3]), tmp_path / "farms.gpkg")
        for option in ("id_field", "name_field", "user_field"):
            with pytest.raises(BadInput, match="the file has no field 'nosuch'; allowed: crop, year"):
                read(path, **{option: "nosuch"})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        (float("nan"), None),
        (pd.NA, None),
        (pd.NaT, None),
        ("  ", None),
        (7, "7"),
        (7.0, "7"),
        (np.int64(7), "7"),
        (np.float64(7), "7"),
        (7.5, "7.5"),
        (2**63 + 1, "9223372036854775809"),
        (" 7 ", "7"),
        (OWN[0], str(OWN[0])),
        (OWN[0].bytes, str(OWN[0])),
    ],
)
def test_a_value_reads_the_same_however_a_format_keeps_it(value: object, text: str | None) -> None:
    assert text_of(value) == text


@pytest.mark.parametrize("value", [[1], {"a": 1}, np.array([1, 2]), b"\x00"])
def test_what_is_not_one_value_is_no_text(value: object) -> None:
    with pytest.raises(BadInput, match="is not one value"):
        text_of(value)


class TestText:
    def test_names_and_owners_come_from_the_fields_named(self, tmp_path: Path) -> None:
        path = save(frame(plot=["North  field", "B", None], owner=["u1", None, " "]), tmp_path / "farms.gpkg")
        file = read(path, name_field="PLOT", user_field="owner")
        assert [draft.name for draft in file.drafts][:2] == ["North field", "B"]
        assert [draft.external_user_id for draft in file.drafts] == ["u1", None, None]

    def test_a_farm_without_a_name_is_called_by_its_source_and_id(self, tmp_path: Path) -> None:
        assert read(save(frame(id=[1, 2, 3]), tmp_path / "plots.parquet")).drafts[0].name == "plots 1"

    @pytest.mark.parametrize("name", ["x" * 201, "a\x1b[31mb"])
    def test_a_name_that_cannot_be_shown_costs_its_farm(self, tmp_path: Path, name: str) -> None:
        file = read(write_geojson(tmp_path / "f.geojson", [feature(A, name=name), feature(B, name="B")]))
        assert [draft.name for draft in file.drafts] == ["B"]
        assert file.rejected[0].reason.startswith("name: cannot be stored")


class TestBadFiles:
    def test_a_malformed_feature_costs_one_farm(self, tmp_path: Path) -> None:
        bad = [
            feature({"type": "Polygon", "coordinates": [[[15, 46], ["x", 46], [15, 47], [15, 46]]]}),
            feature({"type": "Polygon", "coordinates": 7}),
            feature({"type": "Pentagon", "coordinates": []}),
            feature({"type": "Polygon"}),
            feature("POLYGON"),
            feature(None),
            {"type": "Polygon", "coordinates": []},
            feature({"type": "Polygon", "coordinates": [[[15, 46], [16, 46]]]}),
        ]
        file = read(write_geojson(tmp_path / "farms.geojson", [feature(A), *bad, feature(B)]))
        assert len(file.drafts) == 2
        assert [each.feature for each in file.rejected] == [f"feature {number}" for number in range(2, 10)]

    def test_a_ring_that_is_not_closed_is_closed(self, tmp_path: Path) -> None:
        ring = [list(place) for place in A.exterior.coords][:-1]
        [draft] = read(
            write_geojson(tmp_path / "f.geojson", [feature({"type": "Polygon", "coordinates": [ring]})])
        ).drafts
        assert shapely.from_wkb(draft.boundary).equals(A)

    def test_a_repair_is_said(self, tmp_path: Path) -> None:
        both = MultiPolygon([A, A])
        [draft] = read(write_geojson(tmp_path / "f.geojson", [feature(both)])).drafts
        assert draft.repairs == ("joined overlapping or adjoining parts: 2 became 1",)

    def test_one_feature_alone_is_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "one.json"
        path.write_bytes(b"\xef\xbb\xbf" + json.dumps(feature(A, id="x")).encode())
        assert len(read(path).drafts) == 1

    @pytest.mark.parametrize(
        ("name", "content", "problem"),
        [
            ("farms.kml", b"<kml/>", "of a kind that is not read; allowed: .geojson"),
            ("farms.geojson", b"{", "is not JSON"),
            ("farms.geojson", b"[1]", "is not GeoJSON with features"),
            ("farms.geojson", b'{"type": "FeatureCollection", "features": []}', "has no features"),
            ("farms.geojson", b'{"type": "FeatureCollection", "features": [NaN]}', "is not JSON"),
            ("farms.gpkg", b"<OGRVRTDataSource/>", "is not a .gpkg file inside"),
            ("farms.gpkg", b"SQLite format 3\0", "cannot be read"),
            ("farms.shp", b"not a shapefile", "is not a .shp file inside"),
            ("farms.shp", b"\x00\x00\x27\x0a", "has no farms.shx beside it"),
            ("farms.zip", b"PK\x03\x04 and no more", "cannot be unpacked"),
            ("farms.parquet", b"PAR1", "cannot be read as GeoParquet"),
            ("farms.parquet", b"id,name", "is not a .parquet file inside"),
        ],
    )
    def test_a_file_that_cannot_be_read_is_refused_with_its_problem(
        self, tmp_path: Path, name: str, content: bytes, problem: str
    ) -> None:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(BadInput, match=problem):
            read(path)

    def test_a_file_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="there is no file"):
            read(tmp_path / "farms.geojson")

    def test_a_table_without_geometries_is_refused(self, tmp_path: Path) -> None:
        frame(id=[1, 2, 3]).drop(columns="geometry").to_parquet(tmp_path / "farms.parquet")
        with pytest.raises(BadInput, match="it has no geo metadata"):
            read(tmp_path / "farms.parquet")

    def test_a_zip_without_a_shapefile_is_refused(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "farms.zip", "w") as archive:
            archive.writestr("readme.txt", "nothing here")
        with pytest.raises(BadInput, match="holds no Shapefile"):
            read(tmp_path / "farms.zip")

    def test_what_unpacks_to_more_than_the_limit_is_refused_unread(self, tmp_path: Path) -> None:
        path = zipped(save(frame(id=[1, 2, 3]), tmp_path / "farms.shp"))
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("bomb", b"")
            archive.getinfo("bomb").file_size = layers.MAX_FILE_BYTES
        with pytest.raises(BadInput, match="at most 1,073,741,824"):
            read(path)

    def test_sizes_and_counts_at_the_limit_are_read_and_beyond_it_refused(self) -> None:
        layers.check_size(layers.MAX_FILE_BYTES, features=layers.MAX_FEATURES)
        with pytest.raises(BadInput, match="import it in parts"):
            layers.check_size(layers.MAX_FILE_BYTES + 1)
        with pytest.raises(BadInput, match="import it in parts"):
            layers.check_size(0, features=layers.MAX_FEATURES + 1)


class TestLayersAndSystems:
    def test_of_several_layers_one_is_chosen(self, tmp_path: Path) -> None:
        path = tmp_path / "farms.gpkg"
        for layer in ("winter", "summer"):
            frame(id=[1, 2, 3]).to_file(path, layer=layer, engine="pyogrio")
        with pytest.raises(BadInput, match="choose one with --layer; allowed: winter, summer"):
            read(path)
        with pytest.raises(BadInput, match="has no layer 'spring'; allowed: winter, summer"):
            read(path, layer="spring")
        assert not set(ids(read(path, layer="winter"))) & set(ids(read(path, layer="summer")))

    @pytest.mark.parametrize("ending", [".shp", ".parquet", ".gpkg"])
    def test_a_file_that_does_not_say_its_system_needs_to_be_told(self, tmp_path: Path, ending: str) -> None:
        table = frame(id=[1, 2, 3]).to_crs("EPSG:32633").set_crs(None, allow_override=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the writers remark on it
            path = save(table, tmp_path / f"farms{ending}")
        with pytest.raises(BadInput, match=r"crs: the file does not say .*; allowed: --crs EPSG"):
            read(path)
        [first, *_rest] = read(path, crs="EPSG:32633").drafts
        assert shapely.hausdorff_distance(shapely.from_wkb(first.boundary), A) < 1e-8

    def test_a_system_told_against_the_file_is_refused(self, tmp_path: Path) -> None:
        path = save(frame(id=[1, 2, 3]).to_crs("EPSG:32633"), tmp_path / "farms.gpkg")
        with pytest.raises(BadInput, match=r"crs: the file says .*33N.*, not .*34N"):
            read(path, crs="EPSG:32634")
        assert len(read(path, crs="EPSG:32633").drafts) == 3

    def test_geojson_in_metres_without_a_word_about_it_gets_a_hint(self, tmp_path: Path) -> None:
        table = frame(id=[1, 2, 3]).to_crs("EPSG:32633")
        path = write_geojson(tmp_path / "f.geojson", [feature(each) for each in table.geometry])
        assert "--crs" in read(path).rejected[0].reason
        assert len(read(path, crs="EPSG:32633").drafts) == 3


def test_area_limits_reject_with_the_area(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "f.geojson", [feature(A), feature(field(lon=16, width_m=10, height_m=4))])
    file = read_farms(path, limits=AreaLimits(min_ha=0.005, max_ha=10))
    assert len(file.drafts) == 1
    assert file.rejected[0].reason.startswith("geometry: has an area of 0.004 ha; allowed: 0.005 to 10 ha")
