"""Who is observed on which tile, and what is due."""

from __future__ import annotations

import dataclasses
import datetime as dt
import random

import shapely

from models.domain import Farm, Scene
from tasks.imagery.boxes import part_boxes
from tasks.plan import plan
from tests.support.scenes import NOON, farm_at, made_scene, tile_grid
from tests.support.shapes import draft, field

WEST = tile_grid()
"""33TWL: 499,980 to 609,780."""
EAST = tile_grid(left=600_000)
"""33TXL: 600,000 to 709,800; shares 9,780 m with its neighbour."""


def pieces(**scenes: Scene) -> dict[tuple[str, str], tuple[Scene, ...]]:
    return {(scene.pass_id, tile): (scene,) for tile, scene in scenes.items()}


def both_tiles() -> dict[tuple[str, str], tuple[Scene, ...]]:
    return pieces(WL=made_scene("WL", WEST), XL=made_scene("XL", EAST))


def in_overlap(number: int, *, left: float, width: float = 100) -> Farm:
    return farm_at(number, epsg=32633, left=left, bottom=5_040_000, width=width)


def test_a_farm_in_the_overlap_is_observed_once_on_the_tile_with_the_widest_margin() -> None:
    near_west, near_east = in_overlap(1, left=601_000), in_overlap(2, left=609_000)
    works = plan([near_west, near_east], both_tiles())
    assert {(work.tiles, work.farm_ids) for work in works} == {(("WL",), (1,)), (("XL",), (2,))}


def test_a_farm_is_observed_on_the_tile_there_is_when_the_better_one_is_missing_in_the_pass() -> None:
    [work] = plan([in_overlap(1, left=601_000)], pieces(XL=made_scene("XL", EAST)))
    assert work.tiles == ("XL",)


def test_a_farm_that_no_tile_holds_whole_is_observed_on_all_it_touches_the_fullest_first() -> None:
    wide = in_overlap(1, left=590_000, width=25_000)
    [work] = plan([wide], both_tiles())
    assert work.tiles == ("WL", "XL")
    assert [scene.tile for scene in work.scenes] == ["WL", "XL"]
    [work] = plan([in_overlap(1, left=598_000, width=25_000)], both_tiles())
    assert work.tiles == ("XL", "WL")


def test_a_farm_that_sticks_out_of_the_only_tile_is_observed_on_it() -> None:
    [work] = plan([in_overlap(1, left=499_900, width=300)], both_tiles())
    assert work.tiles == ("WL",)


def test_a_farm_beside_all_tiles_is_not_planned() -> None:
    assert plan([in_overlap(1, left=400_000)], both_tiles()) == []


def test_tiles_whose_pixels_do_not_line_up_are_not_mosaicked() -> None:
    shifted = tile_grid(left=600_005)
    scenes = pieces(WL=made_scene("WL", WEST), XL=made_scene("XL", shifted))
    [work] = plan([in_overlap(1, left=590_000, width=25_000)], scenes)
    assert work.tiles == ("WL",)


def test_tiles_of_another_zone_compete_but_are_not_mixed() -> None:
    """The same ground lies in zone 33 and, with other pixels, in zone 34."""
    there = farm_at(1, epsg=32633, left=709_000, bottom=5_040_000)
    zone34 = tile_grid(epsg=32634, left=199_980, top=5_100_000)
    scenes = pieces(XL=made_scene("XL", EAST), BR=made_scene("BR", zone34))
    [work] = plan([there], scenes)
    assert work.tiles == ("BR",)
    assert {scene.red.grid.epsg for scene in work.scenes} == {32634}


def test_what_was_observed_from_the_same_scenes_is_not_due_again() -> None:
    farms = [in_overlap(1, left=601_000), in_overlap(2, left=601_500)]
    [work] = plan(farms, both_tiles())
    assert plan(farms, both_tiles(), observed=lambda _pass, _farms: {(1, 1): work.inputs, (2, 1): work.inputs}) == []
    [rest] = plan(farms, both_tiles(), observed=lambda _pass, _farms: {(1, 1): work.inputs})
    assert rest.farm_ids == (2,)


def test_a_new_boundary_or_a_reprocessed_item_makes_it_due_again() -> None:
    farms = [in_overlap(1, left=601_000)]
    [work] = plan(farms, both_tiles())
    assert plan(farms, both_tiles(), observed=lambda _pass, _farms: {(1, 2): work.inputs}) != []
    reprocessed = pieces(WL=made_scene("WL", WEST, processing_baseline="05.11"), XL=made_scene("XL", EAST))
    assert plan(farms, reprocessed, observed=lambda _pass, _farms: {(1, 1): work.inputs}) != []


def test_a_neighbour_that_changes_does_not_make_others_due() -> None:
    farms = [in_overlap(1, left=601_000)]
    [work] = plan(farms, both_tiles())
    changed = pieces(WL=made_scene("WL", WEST), XL=made_scene("XL", EAST, updated="2024-09-09T00:00:00Z"))
    assert plan(farms, changed, observed=lambda _pass, _farms: {(1, 1): work.inputs}) == []


def test_newest_passes_of_a_tile_come_first() -> None:
    later = made_scene(
        "WL",
        WEST,
        pass_id="sentinel-2b/20240606T095031",
        acquired_at=NOON + dt.timedelta(days=5),
        day=dt.date(2024, 6, 6),
    )
    earlier = made_scene("WL", WEST)
    scenes = {(scene.pass_id, "WL"): (scene,) for scene in (earlier, later)}
    works = plan([in_overlap(1, left=550_000)], scenes)
    assert [work.day for work in works] == [dt.date(2024, 6, 6), dt.date(2024, 6, 1)]


def test_the_plan_does_not_depend_on_the_order_of_the_farms() -> None:
    farms = [in_overlap(number, left=590_000 + 977 * number, width=50 + 400 * number) for number in range(1, 40)]
    expected = {(work.tiles, frozenset(work.farm_ids)) for work in plan(farms, both_tiles())}
    random.Random(4).shuffle(farms)
    assert {(work.tiles, frozenset(work.farm_ids)) for work in plan(farms, both_tiles())} == expected
    assert sum(len(members) for _, members in expected) == len(farms)


def test_a_farm_across_the_antimeridian_is_found_on_its_tile() -> None:
    drawn = draft(1, field(lon=180.0, lat=-16.7, width_m=300))
    assert drawn.bbox[0] > drawn.bbox[2]
    across = dataclasses.replace(
        farm_at(1, epsg=32701, left=500_000, bottom=8_150_000), boundary=drawn.boundary, bbox=drawn.bbox
    )
    [work] = plan([across], pieces(KA=made_scene("KA", tile_grid(epsg=32701, left=99_960, top=8_200_000))))
    assert work.farm_ids == (1,)


def test_far_apart_parts_of_a_farm_are_searched_apart() -> None:
    parts = shapely.MultiPolygon([shapely.box(5, 51, 5.01, 51.01), shapely.box(15, 46, 15.01, 46.01)])
    assert sorted(part_boxes([shapely.to_wkb(parts)])) == [(5, 51, 5.01, 51.01), (15, 46, 15.01, 46.01)]
