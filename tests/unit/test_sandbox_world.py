"""The simulated world: its farms, its passes and its truth."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections import Counter

import numpy as np
import pytest
import shapely

from infra.sandbox.crops import CROPS, season
from infra.sandbox.fields import draw_farms, farms_geojson
from infra.sandbox.passes import passes_between
from infra.sandbox.places import NORTH, swath_outline
from infra.sandbox.sky import weather_of
from infra.sandbox.world import Truth, World

SEED = 7
START, END = dt.date(2024, 3, 1), dt.date(2024, 7, 31)


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(World(SEED), START, END)


@pytest.mark.parametrize("seed", [0, 1, SEED])
def test_farms_are_valid_apart_and_of_all_sizes(seed: int) -> None:
    farms = draw_farms(seed)
    areas_ha = [farm.outline.area / 1e4 for farm in farms]
    assert len(farms) == 40
    assert len({farm.external_farm_id for farm in farms}) == 40
    assert all(farm.boundary.is_valid for farm in farms)
    assert min(areas_ha) < 0.01
    assert 59 < max(areas_ha) < 61
    for number, farm in enumerate(farms):
        others = [other.outline for other in farms[number + 1 :] if other.district == farm.district]
        assert all(farm.outline.distance(other) > 20 for other in others), farm.name


def test_each_trait_is_what_it_says() -> None:
    shapes = {farm.trait: farm.outline for farm in draw_farms(SEED)}
    west, east = NORTH.tiles
    assert len(shapely.get_parts(shapes["two parts"])) == 2
    assert len(shapely.get_rings(shapes["hole"])) == 2
    assert shapes["speck"].area < 100
    assert west.outline.contains(shapes["overlap"])
    assert east.outline.contains(shapes["overlap"])
    assert east.outline.contains(shapes["tile edge"])
    assert not west.outline.contains(shapes["tile edge"])
    assert west.outline.intersects(shapes["tile edge"])
    assert not any(tile.outline.contains(shapes["long meadow"]) for tile in NORTH.tiles)
    assert west.outline.union(east.outline).contains(shapes["long meadow"])
    assert 0.2 < swath_outline().intersection(shapes["swath edge"]).area / shapes["swath edge"].area < 0.8
    assert not west.outline.union(east.outline).contains(shapes["rim"])


def test_the_farms_file_says_what_an_import_needs() -> None:
    features = json.loads(farms_geojson(draw_farms(SEED)))["features"]
    assert {feature["geometry"]["type"] for feature in features} == {"Polygon", "MultiPolygon"}
    assert all(feature["properties"]["external_farm_id"] == feature["id"] for feature in features)


def test_a_pass_does_not_depend_on_the_range_asked_for() -> None:
    season_passes = list(passes_between(START, END))
    assert list(passes_between(dt.date(2024, 5, 1), dt.date(2024, 5, 31))) == [
        each for each in season_passes if each.day.month == 5
    ]


def test_a_season_has_every_kind_of_pass() -> None:
    passes = list(passes_between(START, END))
    main = [each for each in passes if each.relative_orbit == 36]
    assert {later.day - earlier.day for earlier, later in itertools.pairwise(main)} == {dt.timedelta(5)}
    for kind in ("is_partial", "is_split", "is_missing_in_c1", "is_missing_in_l2a", "is_missing", "is_processed_twice"):
        assert any(getattr(each, kind) for each in passes), kind
    assert sum(each.is_missing for each in passes) <= 2, "a gap that nobody fills is rare"
    skies = Counter(weather_of(each, SEED) for each in main)
    assert set(skies) == {"clear", "scattered", "broken", "cirrus", "overcast"}


def test_every_crop_rises_from_bare_ground_to_its_peak_and_falls_again() -> None:
    for crop in CROPS:
        year = [float(season(crop, day, 0, 1)) for day in range(1, 366)]
        assert crop.bare - 0.01 <= min(year) < crop.bare + 0.08, crop.name
        assert crop.peak - 0.12 < max(year) <= crop.peak + 0.01, crop.name


def test_the_mixed_pixels_of_a_sliver_hide_its_true_ndvi(truth: Truth) -> None:
    day = dt.date(2024, 6, 14)
    by_trait = {farm.trait: farm.external_farm_id for farm in truth.farms}
    sliver, large = by_trait["sliver"], by_trait["block corner"]
    assert abs(truth.ndvi(large, day) - truth.seen_ndvi(large, day)) < 0.01
    assert abs(truth.ndvi(sliver, day) - truth.seen_ndvi(sliver, day)) > 0.03


def test_pixel_shares_add_up_to_the_area_of_the_farm(truth: Truth) -> None:
    for farm in truth.farms:
        pixels = truth.world.land(farm.district).pixels(farm)
        assert pixels.fraction.sum() * 100 == pytest.approx(farm.outline.area, rel=1e-9)
        assert np.all((pixels.fraction > 0) & (pixels.fraction <= 1))


def test_a_clear_pass_shows_whole_farms_and_an_overcast_one_none(truth: Truth) -> None:
    by_trait = {farm.trait: farm.external_farm_id for farm in truth.farms}
    main = [each for each in truth.passes if each.relative_orbit == 36]
    clear = next(each for each in main if weather_of(each, SEED) == "clear")
    overcast = next(each for each in main if weather_of(each, SEED) == "overcast")
    partial = next(each for each in truth.passes if each.is_partial and weather_of(each, SEED) == "clear")
    assert truth.clear_fraction(by_trait["hole"], clear) == 1
    assert truth.clear_fraction(by_trait["hole"], overcast) < 0.1
    assert 0.3 < truth.clear_fraction(by_trait["rim"], clear) < 0.7
    assert 0.2 < truth.clear_fraction(by_trait["swath edge"], partial) < 0.8
    assert truth.clear_fraction(by_trait["southern"], clear) == 0
