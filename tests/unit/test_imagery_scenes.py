"""Items become scenes, or are skipped with a reason; none vanishes."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from models.domain import Grid, Scene, SkippedItem
from tasks.imagery.catalogs import CDSE, KNOWN_CATALOGS, PLANETARY_COMPUTER, Catalog, catalogs_from
from tasks.imagery.passes import pieces_of
from tasks.imagery.scenes import scene_from, solar_day
from tests.support.archives import archive_items
from tests.support.items import made_item, planetary_computer_table, recorded_items

L2A = KNOWN_CATALOGS["earth-search-l2a"]
[ANY] = catalogs_from((), stac_url="https://stac.example.org/v1")


def scene_of(item: dict[str, Any], catalog: Catalog = L2A) -> Scene:
    scene = scene_from(item, catalog)
    assert isinstance(scene, Scene), scene
    return scene


def reason_of(item: dict[str, Any], catalog: Catalog = L2A) -> str:
    skipped = scene_from(item, catalog)
    assert isinstance(skipped, SkippedItem), skipped
    return skipped.reason


def without(item: dict[str, Any], *path: str) -> dict[str, Any]:
    """The item with one of its parts removed."""
    part = item
    for name in path[:-1]:
        part = part[name]
    del part[path[-1]]
    return item


def changed(item: dict[str, Any], asset: str, **fields: Any) -> dict[str, Any]:
    """The item with fields of one asset changed; `a__b` stands for `a:b`."""
    item["assets"][asset] |= {name.replace("__", ":"): value for name, value in fields.items()}
    return item


def test_a_scene_holds_what_reading_it_needs() -> None:
    scene = scene_of(made_item())
    assert (scene.catalog, scene.collection, scene.item_id) == (L2A.name, L2A.collection, "S2B_33TWM_20230813_0_L2A")
    assert (scene.tile, scene.platform, scene.pass_id) == ("33TWM", "sentinel-2b", "sentinel-2b/20230813T100559")
    assert (scene.datastrip, scene.processing_baseline) == ("S20230813T100600", "05.09")
    assert scene.acquired_at == dt.datetime(2023, 8, 13, 10, 8, tzinfo=dt.UTC)
    assert scene.day == dt.date(2023, 8, 13)
    assert scene.red.grid == scene.nir.grid
    assert scene.red.grid == Grid(epsg=32633, left=499980, top=5200020, resolution_m=10, width=10980, height=10980)
    assert scene.scl.grid.resolution_m == 20
    assert len(scene.footprint) == 1
    assert scene.signer is None


OTHER_GRID = [10, 0, 499990, 0, -10, 5200020]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (lambda item: without(item, "id"), "no id"),
        (lambda item: without(item, "assets"), "no assets"),
        (lambda item: {**item, "properties": []}, "no properties"),
        (lambda item: without(item, "assets", "red"), "no asset for red"),
        (lambda item: without(item, "assets", "scl"), "no asset for scl"),
        (lambda item: without(item, "assets", "nir", "href"), "nir: address missing"),
        (lambda item: changed(item, "red", href="file:///etc/passwd"), "red: address is a file"),
        (lambda item: changed(item, "nir", href="s3://bucket/B08.tif"), "nir: addresses in bucket s3://bucket"),
        (
            lambda item: without(item, "assets", "scl", "proj:shape"),
            "no grid for scl: proj:shape or proj:transform missing",
        ),
        (lambda item: changed(item, "scl", proj__transform=[20, 1, 0, 1, -20, 0]), "no grid for scl: grid is rotated"),
        (lambda item: changed(item, "scl", proj__epsg=32632), "assets of different CRS"),
        (lambda item: changed(item, "nir", proj__transform=OTHER_GRID), "red and nir lie on different grids"),
        (lambda item: changed(item, "nir", raster__scale=0.001), "red and nir differ in scale or offset"),
        (lambda item: changed(item, "nir", raster__scale="x"), "published scale is not a usable number"),
    ],
)
def test_an_item_that_lacks_something_is_skipped_with_the_reason(
    broken: Callable[[dict[str, Any]], dict[str, Any]], reason: str
) -> None:
    assert reason_of(broken(made_item())).startswith(reason)


@pytest.mark.parametrize(
    "properties",
    [
        {"platform": "landsat-8"},
        {"platform": "sentinel-1a", "constellation": "sentinel-1"},
        {"platform": "sentinel-3a"},
        {"s2__product_type": "S2MSI1C"},
        {"product__type": "S2MSI1C"},
    ],
)
def test_other_products_are_skipped(properties: dict[str, Any]) -> None:
    assert reason_of(made_item(**properties)) == "not Sentinel-2 L2A"


def test_items_without_time_or_tile_are_skipped() -> None:
    assert reason_of(made_item(datetime=None)) == "no time of acquisition"
    assert reason_of(made_item(datetime="yesterday")) == "no time of acquisition"
    assert reason_of({**made_item(grid__code=None), "id": "somewhere"}) == "no MGRS tile"
    assert scene_of(made_item(datetime=None, start_datetime="2023-08-13T12:08:00+02:00")).acquired_at.hour == 10


@pytest.mark.parametrize(
    ("item_id", "properties", "tile"),
    [
        ("a", {"grid__code": "MGRS-33TWL"}, "33TWL"),
        ("a", {"grid__code": "MGRS-1WCR"}, "01WCR"),
        ("a", {"grid__code": None, "s2__mgrs_tile": "06VVN"}, "06VVN"),
        ("a", {"grid__code": "WRS2-033032", "tileId": "T31UES"}, "31UES"),
        (
            "a",
            {"grid__code": None, "mgrs__utm_zone": 4, "mgrs__latitude_band": "Q", "mgrs__grid_square": "FJ"},
            "04QFJ",
        ),
        ("S2A_33TWL_20230815_0_L2A", {"grid__code": None}, "33TWL"),
        ("S2A_MSIL2A_20200301T090901_N0500_R050_T35UPU_20230630T033416.SAFE", {"grid__code": None}, "35UPU"),
    ],
)
def test_the_tile_is_found_wherever_it_is_told(item_id: str, properties: dict[str, Any], tile: str) -> None:
    assert scene_of({**made_item(**properties), "id": item_id}).tile == tile


@pytest.mark.parametrize(
    ("item_id", "properties", "platform"),
    [
        ("a", {"platform": "Sentinel-2A"}, "sentinel-2a"),
        ("a", {"platform": "S2C"}, "sentinel-2c"),
        ("a", {"platform": "sentinel-2d"}, "sentinel-2d"),
        ("S2B_33TWL_20230815_0_L2A", {"platform": None, "constellation": "sentinel-2"}, "sentinel-2b"),
        ("S2_33TWL_20230815_0_L2A", {"platform": None, "constellation": "Sentinel 2"}, "sentinel-2"),
        ("S2_33TWL_20230815_0_L2A", {"platform": None}, "sentinel-2"),
    ],
)
def test_the_platform_has_one_name_in_all_catalogs(item_id: str, properties: dict[str, Any], platform: str) -> None:
    assert scene_of({**made_item(**properties), "id": item_id}).platform == platform


BARE = {"s2__datatake_id": None, "s2__datastrip_id": None}
PRODUCT = "S2B_MSIL2A_20230813T100559_N0509_R122_T33TWM_20230813T140000"


@pytest.mark.parametrize(
    ("item_id", "properties"),
    [
        ("a", {"s2__datatake_id": "GS2B_20230813T100559_033612_N04.00"}),
        ("a", {**BARE, "eopf__datatake_id": "GS2B_20230813T100559_033612_N05.00"}),
        ("a", {**BARE, "s2__product_uri": f"{PRODUCT}.SAFE"}),
        ("a", {**BARE, "sentinel2__product_title": PRODUCT}),
        (PRODUCT, BARE),
    ],
)
def test_one_pass_has_one_key_however_it_is_told(item_id: str, properties: dict[str, Any]) -> None:
    assert scene_of({**made_item(**properties), "id": item_id}).pass_id == "sentinel-2b/20230813T100559"


def test_without_a_datatake_the_pass_is_the_day_and_the_orbit() -> None:
    assert scene_of(made_item(**BARE)).pass_id == "sentinel-2b/2023-08-13"
    assert scene_of(made_item(**BARE, sat__relative_orbit=22)).pass_id == "sentinel-2b/2023-08-13/R022"
    assert scene_of(made_item(**BARE)).datastrip == "S20230813T100800"


def test_the_day_is_the_one_under_the_sun() -> None:
    moment = dt.datetime(2023, 8, 13, 23, 0, tzinfo=dt.UTC)
    assert solar_day(moment, longitude=0) == dt.date(2023, 8, 13)
    assert solar_day(moment, longitude=16) == dt.date(2023, 8, 14)
    assert solar_day(dt.datetime(2023, 8, 13, 1, tzinfo=dt.UTC), longitude=-16) == dt.date(2023, 8, 12)


def test_a_cog_is_preferred_to_its_jpeg_2000_twin() -> None:
    item = made_item()
    item["assets"]["red-jp2"] = {**item["assets"]["red"], "href": "https://files.example.org/B04.jp2"}
    assert scene_of(item).red.href.endswith("B04.tif")
    item["assets"]["red"]["href"], item["assets"]["red-jp2"]["href"] = "https://a.org/B04.jp2", "https://a.org/B04.tif"
    assert scene_of(item).red.href.endswith("B04.tif")
    item["assets"]["red-jp2"]["href"] = "s3://bucket/B04.tif"
    assert scene_of(item).red.href.endswith("B04.jp2")


@pytest.mark.parametrize("names", [("red", "nir", "scl"), ("B04", "B08", "SCL"), ("B04_10m", "B08_10m", "SCL_20m")])
def test_a_generic_catalog_may_use_any_of_the_known_names(names: tuple[str, str, str]) -> None:
    item = made_item()
    item["assets"] = dict(zip(names, item["assets"].values(), strict=True))
    assert scene_of(item, ANY).red.href.endswith("B04.tif")


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("pattern", "scenes", "skipped"),
    [
        ("cdse/*.json", 5, {}),
        ("earth-search-v1/*.json", 1, {}),
        (
            "earth-search-v1/items-by-baseline/*.json",
            14,
            {"red: address is relative and the item has no link to itself": 1},
        ),
        ("earth-search-v1/items-c1-l2a/*.json", 10, {}),
        (
            "earth-search-v1/items-jp2-antimeridian/*.json",
            0,
            {"red: addresses in bucket s3://sentinel-s2-l2a are not read here": 7},
        ),
        ("earth-search-v1/search-fields-c1/*.json", 0, {"no assets": 10}),
        ("earth-search-v1/search-filter-mixed/*.json", 12, {"not Sentinel-2 L2A": 8}),
        ("earth-search-v1/search-multi-collection/*.json", 1, {"not Sentinel-2 L2A": 1}),
        ("planetary-computer/items/*.json", 7, {}),
        ("planetary-computer/odc-stac/*json", 24, {}),
        ("planetary-computer/search-paged/*.json", 5, {}),
    ],
)
def test_every_recorded_item_becomes_a_scene_or_says_why_not(
    pattern: str, scenes: int, skipped: dict[str, int]
) -> None:
    items = recorded_items(pattern)
    results = [scene_from(item, ANY) for item in items]
    reasons = Counter(result.reason for result in results if isinstance(result, SkippedItem))
    assert reasons == skipped
    assert sum(isinstance(result, Scene) for result in results) == scenes
    assert len(results) == len(items)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("archive", "count"),
    [("be-antwerp-2023q4", 19), ("at-si-33TW-2023", 4), ("fi-qvidja-2023", 3), ("it-barbellino", 2)],
)
def test_every_item_of_the_archives_becomes_a_scene(archive: str, count: int) -> None:
    scenes = [scene_of(item, ANY) for item in archive_items(archive, "https://files.example.org")]
    assert len(scenes) == count
    assert len({(scene.pass_id, scene.tile) for scene in scenes}) == count


@pytest.mark.shared_data
def test_the_scene_classes_keep_their_own_grid() -> None:
    [scene, *_] = [scene_of(item) for item in archive_items("be-antwerp-2023q4", "https://files.example.org")]
    assert (scene.red.grid.top, scene.scl.grid.top) == (5685430, 5685440)


@pytest.mark.shared_data
def test_both_collections_of_earth_search_tell_the_same_pass_and_piece() -> None:
    pages = recorded_items("earth-search-v1/search-filter-mixed/*.json")
    by_piece: dict[tuple[str, str, str], set[str]] = {}
    for item in pages:
        if item["collection"] in ("sentinel-2-l2a", "sentinel-2-c1-l2a"):
            scene = scene_of(item, ANY)
            by_piece.setdefault((scene.pass_id, scene.tile, scene.datastrip), set()).add(scene.collection)
    assert {"sentinel-2-l2a", "sentinel-2-c1-l2a"} in by_piece.values()


@pytest.mark.shared_data
def test_planetary_computer_and_earth_search_tell_the_same_passes_and_pieces() -> None:
    """Ten acquisitions of tile 13TDE that both catalogs recorded."""
    here = [scene_of(item, ANY) for item in recorded_items("earth-search-v1/items-c1-l2a/10*.json")]
    items = planetary_computer_table("100-sentinel-2-items.parquet")
    there = [scene_of(item, KNOWN_CATALOGS["planetary-computer"]) for item in items]
    assert len(there) == 100
    pieces = {(scene.pass_id, scene.tile, scene.datastrip, scene.day) for scene in there}
    assert {(scene.pass_id, scene.tile, scene.datastrip, scene.day) for scene in here} <= pieces


@pytest.mark.shared_data
def test_real_split_datastrips_stay_together() -> None:
    items = planetary_computer_table("1000-sentinel-2-items.parquet")
    scenes = [scene_of(item, KNOWN_CATALOGS["planetary-computer"]) for item in items]
    assert len(scenes) == 1000
    pieces = pieces_of(scenes)
    strips = [scene.datastrip for scene in pieces["sentinel-2a/20240820T173901", "13TDE"]]
    assert strips == ["S20240820T174100", "S20240820T175258"]


@pytest.mark.shared_data
def test_one_pass_read_from_another_catalog_keeps_its_key() -> None:
    """A pass recorded from Earth Search, told once more as Planetary Computer and CDSE tell theirs."""
    [first] = recorded_items("earth-search-v1/*.migrated-proj-code.json")
    told = first["properties"]
    here = scene_of(first)
    product = told["s2:product_uri"].removesuffix(".SAFE")

    planetary = recorded_items("planetary-computer/items/2-items-2024.json")[0]
    planetary["id"] = product.replace("_N0509", "")
    planetary["properties"] |= {
        "s2:mgrs_tile": "32TPS",
        "platform": "Sentinel-2A",
        "s2:datatake_id": told["s2:datatake_id"],
        "s2:datastrip_id": told["s2:datastrip_id"].replace("2APS", "MSFT"),
    }
    cdse = recorded_items("cdse/get-item*.json")[0]
    cdse["id"] = product
    cdse["properties"] |= {
        "grid:code": "MGRS-32TPS",
        "eopf:datatake_id": told["s2:datatake_id"].replace("N05.09", "N05.10"),
        "eopf:datastrip_id": told["s2:datastrip_id"].replace("2APS", "S2RP"),
    }
    for item, profile in ((planetary, PLANETARY_COMPUTER), (cdse, CDSE)):
        there = scene_of(item, KNOWN_CATALOGS[profile.name])
        assert (there.pass_id, there.tile, there.datastrip) == (here.pass_id, here.tile, here.datastrip)


@pytest.mark.shared_data
def test_only_planetary_computer_files_are_signed_and_never_stored_signed() -> None:
    scenes = [scene_of(item, ANY) for item in recorded_items("planetary-computer/items/*.json")]
    assert {scene.signer for scene in scenes} == {"planetary-computer"}
    assert not any("?" in scene.red.href for scene in scenes)
    assert scene_of(made_item(), KNOWN_CATALOGS["earth-search-l2a"]).signer is None


@pytest.mark.shared_data
def test_copies_of_planetary_computer_files_elsewhere_are_not_signed() -> None:
    [item, *_] = recorded_items("planetary-computer/items/2*.json")
    for name in ("B04", "B08", "SCL"):
        item["assets"][name]["href"] = f"https://files.example.org/{name}.tif"
    assert scene_of(item, ANY).signer is None


ODD_TEXTS = ["a\x00b", "a\nb", "\x85", "\ud800", "x" * 257, "x" * 100_000]


@pytest.mark.parametrize("text", ODD_TEXTS)
@pytest.mark.parametrize("name", ["id", "collection"])
def test_a_name_that_no_store_takes_is_skipped_under_one_that_it_takes(name: str, text: str) -> None:
    skipped = scene_from({**made_item(), name: text}, L2A)
    assert isinstance(skipped, SkippedItem)
    assert skipped.reason.startswith(name)
    kept = (skipped.item_id, skipped.collection, skipped.reason)
    assert all(part.isprintable() and 0 < len(part) <= 300 for part in kept)
    assert "\ufffd" in "".join(kept) or "…" in "".join(kept)


def test_a_reason_that_repeats_the_item_is_cut_and_printable() -> None:
    long = scene_from(changed(made_item(), "red", href=f"{'x' * 4000}://a/B04.tif"), L2A)
    assert isinstance(long, SkippedItem)
    assert len(long.reason) <= 300
    assert long.reason.endswith("…")


@pytest.mark.parametrize("updated", ["yesterday", "2023-08-14\x0000:00:00Z", "2023-08-14T00:00:00Z" + " " * 100, 17])
def test_a_time_of_change_that_is_none_is_left_out(updated: object) -> None:
    item = made_item()
    item["properties"]["updated"] = updated
    assert scene_of(item).updated is None


def test_a_scene_at_the_end_of_time_has_a_reason() -> None:
    item = made_item()
    item["properties"]["datetime"] = "9999-12-31T23:59:59Z"
    assert reason_of(item) == "no time of acquisition"
