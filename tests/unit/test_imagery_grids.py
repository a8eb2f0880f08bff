"""Grids from `proj:*`, whichever way they are told."""

from __future__ import annotations

from typing import Any

import pytest

from models.domain import Grid
from models.errors import ItemUnusable
from tasks.imagery.grids import asset_grid
from tests.support.items import made_item, recorded_item, recorded_items

SHAPE, TRANSFORM = [10980, 5490], [10, 0, 499980, 0, -10, 5200020]
GRID = Grid(epsg=32633, left=499980, top=5200020, resolution_m=10, width=5490, height=10980)


@pytest.mark.parametrize(
    "asset",
    [
        {"proj:shape": SHAPE, "proj:transform": TRANSFORM},
        {"proj:shape": SHAPE, "proj:transform": [*TRANSFORM, 0, 0, 1]},
        {"proj:shape": SHAPE, "proj:transform": [float(number) for number in TRANSFORM]},
        {"proj:shape": SHAPE, "proj:bbox": [499980, 5090220, 554880, 5200020]},
        {"proj:transform": TRANSFORM, "proj:bbox": [499980, 5090220, 554880, 5200020]},
    ],
)
def test_two_of_transform_shape_and_bbox_are_enough(asset: dict[str, Any]) -> None:
    assert asset_grid(made_item(), asset) == GRID


@pytest.mark.parametrize(
    ("item_fields", "asset_fields"),
    [
        ({"proj__epsg": 32633}, {}),
        ({"proj__epsg": None, "proj__code": "EPSG:32633"}, {}),
        ({"proj__epsg": None, "proj__code": "epsg:32633"}, {}),
        ({"proj__epsg": None}, {"proj:code": "EPSG:32633"}),
        ({"proj__epsg": 32632}, {"proj:epsg": 32633}),
    ],
)
def test_the_coordinate_system_is_told_in_two_ways_by_item_or_asset(
    item_fields: dict[str, Any], asset_fields: dict[str, Any]
) -> None:
    asset = {"proj:shape": SHAPE, "proj:transform": TRANSFORM, **asset_fields}
    assert asset_grid(made_item(**item_fields), asset) == GRID


@pytest.mark.parametrize(
    ("asset", "problem"),
    [
        ({}, "proj:shape or proj:transform missing"),
        ({"proj:shape": SHAPE}, "proj:shape or proj:transform missing"),
        ({"proj:shape": SHAPE, "proj:transform": TRANSFORM[:5]}, "proj:shape or proj:transform missing"),
        ({"proj:shape": SHAPE, "proj:transform": [10, 0, float("nan"), 0, -10, 0]}, "missing"),
        ({"proj:shape": SHAPE, "proj:transform": [10, 1, 0, 1, -10, 0]}, "grid is rotated"),
        ({"proj:shape": SHAPE, "proj:transform": [10, 0, 0, 0, 10, 0]}, "grid is rotated"),
        ({"proj:shape": SHAPE, "proj:transform": [10, 0, 0, 0, -20, 0]}, "pixels are not square"),
        ({"proj:shape": SHAPE, "proj:bbox": [0, 0, 10, 10]}, "pixels are not square"),
        ({"proj:shape": [0, 10], "proj:transform": TRANSFORM}, "are not a tile"),
        ({"proj:shape": [10, 10**6], "proj:transform": TRANSFORM}, "are not a tile"),
        ({"proj:shape": [10.5, 10], "proj:transform": TRANSFORM}, "do not fit"),
        ({"proj:shape": SHAPE, "proj:transform": TRANSFORM, "proj:epsg": 4326}, "EPSG:4326 is not a UTM zone"),
        ({"proj:shape": SHAPE, "proj:transform": TRANSFORM, "proj:epsg": 32661}, "is not a UTM zone"),
    ],
)
def test_what_is_not_a_north_up_grid_of_a_zone_is_refused_with_the_reason(asset: dict[str, Any], problem: str) -> None:
    with pytest.raises(ItemUnusable, match=problem):
        asset_grid(made_item(), asset)


def test_an_item_without_coordinate_system_is_refused() -> None:
    with pytest.raises(ItemUnusable, match="proj:epsg or proj:code missing"):
        asset_grid(made_item(proj__epsg=None), {"proj:shape": SHAPE, "proj:transform": TRANSFORM})


@pytest.mark.shared_data
def test_an_item_migrated_to_proj_code_has_the_same_grid() -> None:
    [migrated] = recorded_items("earth-search-v1/*.migrated-proj-code.json")
    assert "proj:epsg" not in migrated["properties"]
    grid = asset_grid(migrated, migrated["assets"]["red"])
    assert grid == Grid(epsg=32632, left=600000, top=5200020, resolution_m=10, width=10980, height=10980)


@pytest.mark.shared_data
def test_stac_1_1_items_tell_the_grid_asset_by_asset() -> None:
    item = recorded_item("cdse/search-4*.json", "S2B_MSIL2A_20200705T101559_N0500_R065_T32TNT_20230530T175912")
    assert item["stac_version"] == "1.1.0"
    red, scl = (asset_grid(item, item["assets"][name]) for name in ("B04_10m", "SCL_20m"))
    assert red == Grid(epsg=32632, left=499980, top=5300040, resolution_m=10, width=10980, height=10980)
    assert scl == Grid(epsg=32632, left=499980, top=5300040, resolution_m=20, width=5490, height=5490)
    assert red.bounds == scl.bounds
