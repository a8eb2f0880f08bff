from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from infra.cli.farms import app
from models.errors import BadInput
from tests.support.shapes import feature, field, write_geojson


@pytest.fixture
def farm_file(tmp_path: Path) -> Path:
    features = [feature(field(lon=15 + number / 10), id=number, name=f"[Farm] {number}") for number in range(3)]
    return write_geojson(tmp_path / "farms.geojson", features)


@pytest.fixture(autouse=True)
def stores(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWATH_DATABASE_URL", database_url)
    monkeypatch.setenv("SWATH_REDIS_URL", redis_url)


def swath_farms(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_an_import_says_what_it_did_and_the_second_time_that_nothing_changed(farm_file: Path) -> None:
    first, second = (swath_farms("import", farm_file, "--json") for _ in range(2))
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert json.loads(first.stdout) | {"file": "", "warnings": []} == {
        "file": "",
        "identified_by": "field id",
        "created": 3,
        "updated": 0,
        "unchanged": 0,
        "new_boundaries": 0,
        "reactivated": 0,
        "inactive": 0,
        "repaired": [],
        "rejected": [],
        "warnings": [],
    }
    assert json.loads(second.stdout)["unchanged"] == 3


def test_a_rejected_feature_is_told_with_its_reason_and_the_others_land(tmp_path: Path) -> None:
    flat = {"type": "Point", "coordinates": [15, 46]}
    path = write_geojson(tmp_path / "f.geojson", [feature(field(), id="a"), feature(flat, id="b")])
    told = swath_farms("import", path)
    assert told.exit_code == 1
    assert "feature 2 (b): geometry: is a Point; allowed: Polygon or MultiPolygon" in told.stdout
    again = json.loads(swath_farms("import", path, "--json").stdout)
    assert again["unchanged"] == 1
    assert [(each["file"], each["feature"]) for each in again["rejected"]] == [("f.geojson", "feature 2 (b)")]


def test_a_file_that_cannot_be_used_changes_nothing(farm_file: Path) -> None:
    result = swath_farms("import", farm_file, "--id-field", "nosuch")
    assert isinstance(result.exception, BadInput)
    assert json.loads(swath_farms("list", "--json").stdout) == {"total": 0, "farms": []}


def test_farms_are_listed_for_people_and_for_programs(farm_file: Path) -> None:
    swath_farms("import", farm_file)
    listed = json.loads(swath_farms("list", "--json", "--limit", 2).stdout)
    assert listed["total"] == 3
    assert [farm["name"] for farm in listed["farms"]] == ["[Farm] 0", "[Farm] 1"]
    table = swath_farms("list").stdout
    assert "3 of 3 farms" in table
    assert listed["farms"][0]["external_farm_id"] in table


def test_an_export_comes_back_unchanged(farm_file: Path, tmp_path: Path) -> None:
    swath_farms("import", farm_file)
    written = swath_farms("export", "-o", tmp_path / "out.gpkg", "--json")
    assert json.loads(written.stdout) == {"file": str(tmp_path / "out.gpkg"), "format": "gpkg", "farms": 3}
    assert json.loads(swath_farms("import", tmp_path / "out.gpkg", "--json").stdout)["unchanged"] == 3


def owners_file(folder: Path, *, lat: float, count: int = 4, moved: int = 0) -> Path:
    """A file as many owners have it: `fields.geojson`, ids from 1 on; the first `moved` fields lie elsewhere."""
    folder.mkdir(exist_ok=True)
    places = [(15 + number / 10, lat + (1 if number < moved else 0)) for number in range(count)]
    features = [feature(field(lon=lon, lat=at), id=number) for number, (lon, at) in enumerate(places, start=1)]
    return write_geojson(folder / "fields.geojson", features)


def stored() -> list[dict[str, object]]:
    listed: list[dict[str, object]] = json.loads(swath_farms("list", "--json").stdout)["farms"]
    return listed


def test_another_owners_file_of_the_same_name_does_not_move_the_first_ones_farms(tmp_path: Path) -> None:
    swath_farms("import", owners_file(tmp_path / "one", lat=46))
    before = stored()
    other = owners_file(tmp_path / "other", lat=48, count=6)
    refused = swath_farms("import", other)
    assert isinstance(refused.exception, BadInput)
    assert "--dataset: 4 of 4 farms that are known from 'fields' would move" in str(refused.exception)
    assert stored() == before
    named = json.loads(swath_farms("import", other, "--dataset", "other", "--json").stdout)
    assert (named["created"], named["updated"]) == (6, 0)
    assert stored()[:4] == before


def test_a_source_may_move_some_of_its_farms_and_most_of_them_when_it_is_named(tmp_path: Path) -> None:
    swath_farms("import", owners_file(tmp_path, lat=46))
    half = json.loads(swath_farms("import", owners_file(tmp_path, lat=46, moved=2), "--json").stdout)
    assert half["new_boundaries"] == 2
    all_of_them = owners_file(tmp_path, lat=49)
    assert isinstance(swath_farms("import", all_of_them).exception, BadInput)
    named = json.loads(swath_farms("import", all_of_them, "--dataset", "fields", "--json").stdout)
    assert named["new_boundaries"] == 4


def test_farms_that_bring_their_own_identity_may_move(tmp_path: Path) -> None:
    own = "3f2c4f0e-2f5b-4f5e-9a57-1d1c5f6f7a10"
    for lat in (46, 48):
        path = write_geojson(tmp_path / "farms.geojson", [feature(field(lat=lat), external_farm_id=own)])
        outcome = json.loads(swath_farms("import", path, "--json").stdout)
    assert outcome["new_boundaries"] == 1
