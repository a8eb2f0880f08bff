"""The main job on real imagery, from the command line, judged by exactextract."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
import shapely

from infra.local.prefect import PrefectServer
from tests.support.archives import ARCHIVES, SHARED_DATA, archive_items
from tests.support.command import Swath, export_to, rows_of
from tests.support.file_server import file_server
from tests.support.oracle import QUANTILES, Truth, judge, masked_ndvi, solar_day
from tests.support.stac_server import stac_server

pytestmark = [pytest.mark.shared_data, pytest.mark.slow, pytest.mark.timeout(300)]

COLUMNS = (
    "external_farm_id,acquired_at,day,status,ndvi,rule,clear_fraction,mean,std,min,max,median,p10,p25,p75,p90,inner_mean,"
    "inner_pixel_count,clear_area_ha,pixel_count,item_ids,processing_baseline,catalog,revision"
)


@pytest.fixture
def swath(database_url: str, redis_url: str, prefect_api: PrefectServer) -> Swath:
    return Swath(
        {"SWATH_DATABASE_URL": database_url, "SWATH_REDIS_URL": redis_url, "SWATH_LOG_LEVEL": "WARNING"}
        | prefect_api.environment
    )


def agree(row: dict[str, str], truth: Truth) -> None:
    """Every number of a row is what exactextract says."""
    if truth.numbers is None:
        assert row["status"] != "observed"
        assert row["mean"] == row["ndvi"] == row["p10"] == ""
        return
    assert row["status"] == "observed"
    for name in ("mean", "std", "min", "max"):
        assert float(row[name]) == pytest.approx(truth.numbers[name], abs=1e-6), name
    for name in QUANTILES:
        assert float(row[name]) == pytest.approx(truth.numbers[name], abs=1e-4), name
    assert float(row["clear_fraction"]) == pytest.approx(truth.clear_fraction, abs=1e-5)


def raw_items(name: str) -> dict[str, dict[str, Any]]:
    document = json.loads((ARCHIVES / name / "items.json").read_text())
    return {item["id"]: item for item in document["features"]}


def test_every_farm_and_date_of_a_real_autumn_has_its_numbers_or_its_reason(swath: Swath, tmp_path: Path) -> None:
    name = "be-antwerp-2023q4"
    farms = gpd.read_file(SHARED_DATA / "farms/antwerp.geojson")
    with file_server(ARCHIVES / name) as files, stac_server(archive_items(name, files.url)) as stac_url:
        here = Swath(swath.environment | {"SWATH_STAC_URL": stac_url})
        run = ["ndvi", "run", "--start", "2023-10-01", "--end", "2023-12-31", "--json"]
        file = SHARED_DATA / "farms/antwerp.geojson"
        imported, ran, _ = here.all_ok(["farms", "import", file, "--json"], run, export_to(tmp_path / "first.csv"))
        assert imported.json()["created"] == 7
        first, rows = ran.json(), rows_of(tmp_path / "first.csv")
        asked = files.requests
        ran_again, _ = here.all_ok(run, export_to(tmp_path / "second.csv"))
        again = ran_again.json()
        assert files.requests == asked, "a second run reads no imagery"
        assert rows_of(tmp_path / "second.csv") == rows, "a second run writes nothing"
    items = raw_items(name)
    assert (tmp_path / "first.csv").read_text().splitlines()[0] == COLUMNS
    assert first["scenes"] == len(items) == 19
    assert first["failed"] == 0
    assert first["observed"] + sum(first["not_observed"].values()) == 7 * 19
    assert again == {"scenes": 0, "observed": 0, "not_observed": {}, "failed": 0}
    assert Counter((row["external_farm_id"], row["day"]) for row in rows) == {
        (farm_id, str(solar_day(item))): 1 for farm_id in farms["external_farm_id"] for item in items.values()
    }
    by_item: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_item.setdefault(row["item_ids"], []).append(row)
    for item_id, own in by_item.items():
        raster = masked_ndvi(items[item_id], ARCHIVES / name, tmp_path / f"{item_id}.tif", offset=0)
        truths = judge(raster, farms, key="external_farm_id")
        for row in own:
            assert row["day"] == str(solar_day(items[item_id]))
            agree(row, truths[row["external_farm_id"]])
    # three clear days; on one of them five of the seven farms
    assert Counter(row["status"] for row in rows) == {"observed": 19, "cloud": 114}


def test_parcels_on_two_overlapping_tiles_have_one_observation_a_date(swath: Swath, tmp_path: Path) -> None:
    name = "at-si-33TW-2023"
    file = SHARED_DATA / "fields/slovenia-33TW/SI_2021.zip"
    parcels = gpd.read_file(file)
    with file_server(ARCHIVES / name) as files, stac_server(archive_items(name, files.url)) as stac_url:
        here = Swath(swath.environment | {"SWATH_STAC_URL": stac_url})
        imported, ran, *_ = here.all_ok(
            ["farms", "import", file, "--json"],
            ["ndvi", "run", "--start", "2023-08-13", "--end", "2023-08-15", "--json"],
            export_to(tmp_path / "rows.csv"),
            ["farms", "export", "-o", tmp_path / "farms.geojson"],
        )
        assert imported.json()["created"] == len(parcels) == 100
        assert ran.json()["failed"] == 0
        rows = rows_of(tmp_path / "rows.csv")
    items = raw_items(name)
    farms = gpd.read_file(tmp_path / "farms.geojson")
    per_farm_day = Counter((row["external_farm_id"], row["day"]) for row in rows)
    assert set(per_farm_day.values()) == {1}
    assert len(per_farm_day) == 2 * len(farms)
    truths = {}
    for item_id, item in items.items():
        # Earth Search says -0.1 in raster:bands, and has taken the offset out of these pixels
        raster = masked_ndvi(item, ARCHIVES / name, tmp_path / f"{item_id}.tif", offset=0)
        truths[item_id] = judge(raster, farms, key="external_farm_id")
    for row in rows:
        agree(row, truths[row["item_ids"]][row["external_farm_id"]])
    assert_widest_margin(rows, farms, items)


def assert_widest_margin(rows: list[dict[str, str]], farms: gpd.GeoDataFrame, items: dict[str, dict[str, Any]]) -> None:
    """Each parcel was observed on the tile that holds it with the widest margin."""
    outlines = farms.to_crs(32633).set_index("external_farm_id").geometry
    for row in rows:
        margins = {}
        for item_id, item in items.items():
            if str(solar_day(item)) != row["day"]:
                continue
            red = item["assets"]["red"]
            step, _, left, _, _, top = red["proj:transform"][:6]
            height, width = red["proj:shape"]
            tile = shapely.box(left, top - height * step, left + width * step, top)
            outline = outlines[row["external_farm_id"]]
            margins[item_id] = tile.exterior.distance(outline.envelope) if tile.contains(outline.envelope) else -1.0
        assert margins[row["item_ids"]] == max(margins.values()) >= 0
