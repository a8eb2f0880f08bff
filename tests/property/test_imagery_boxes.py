"""Search boxes hold every farm, stay small, and are few."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import BadInput
from tasks.imagery.boxes import LONGEST_SIDE_DEG, Box, search_boxes

LONGITUDES, LATITUDES = st.floats(-180, 180), st.floats(-90, 90)


@st.composite
def farms(draw: st.DrawFn) -> Box:
    """A bbox anywhere in the world; west > east one time in two, and then it crosses the antimeridian."""
    south, north = sorted((draw(LATITUDES), draw(LATITUDES)))
    return draw(LONGITUDES), south, draw(LONGITUDES), north


@st.composite
def small_farms(draw: st.DrawFn) -> Box:
    west, south = draw(st.floats(-179, 178)), draw(st.floats(-89, 88))
    return west, south, west + draw(st.floats(0, 0.4)), south + draw(st.floats(0, 0.4))


def holds(box: Box, part: Box) -> bool:
    return box[0] <= part[0] and box[1] <= part[1] and part[2] <= box[2] and part[3] <= box[3]


@settings(deadline=None)
@given(st.lists(small_farms(), max_size=40))
def test_a_farm_lies_within_one_box(some: list[Box]) -> None:
    boxes = search_boxes(some)
    assert all(any(holds(box, farm) for box in boxes) for farm in some)
    assert len(boxes) <= len(some)


@settings(deadline=None, max_examples=20)
@given(st.lists(farms(), max_size=3), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
def test_every_place_of_a_farm_of_any_size_lies_in_a_box(some: list[Box], shares: list[tuple[float, float]]) -> None:
    boxes = search_boxes(some)
    for west, south, east, north in some:
        width = east - west if west <= east else east - west + 360
        for across, up in shares:
            x, y = west + across * width, south + up * (north - south)
            x = x - 360 if x > 180 else x
            assert any(box[0] <= x <= box[2] and box[1] <= y <= box[3] for box in boxes)


@settings(deadline=None, max_examples=20)
@given(st.lists(farms(), max_size=3))
def test_boxes_stay_small_and_within_the_world(some: list[Box]) -> None:
    for west, south, east, north in search_boxes(some):
        assert -180 <= west <= east <= 180
        assert -90 <= south <= north <= 90
        assert east - west <= LONGEST_SIDE_DEG + 0.03
        assert north - south <= LONGEST_SIDE_DEG + 0.03


@settings(deadline=None)
@given(st.lists(small_farms(), max_size=20), st.randoms(use_true_random=False))
def test_boxes_do_not_depend_on_the_order_of_the_farms(some: list[Box], random: object) -> None:
    shuffled = list(some)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert search_boxes(shuffled) == search_boxes(some)


def test_thousands_of_farms_of_one_region_are_one_search() -> None:
    region = [(4 + i % 100 / 60, 50 + i // 100 / 60, 4.01 + i % 100 / 60, 50.01 + i // 100 / 60) for i in range(10_000)]
    assert len(search_boxes(region)) == 1


def test_a_farm_over_the_antimeridian_is_searched_on_both_sides() -> None:
    west, east = search_boxes([(179.9, -17.0, -179.9, -16.9)])
    assert (west[0], east[2]) == (-180, 180)
    assert west[2] < -179.8
    assert east[0] > 179.8


def test_no_farms_need_no_search() -> None:
    assert search_boxes([]) == ()


@pytest.mark.parametrize(
    "bbox", [(float("nan"), 0, 1, 1), (0, 2, 1, 1), (-181, 0, 1, 1), (0, 0, 1, 91), (0, 0, float("inf"), 1)]
)
def test_a_place_that_is_not_on_earth_is_refused(bbox: Box) -> None:
    with pytest.raises(BadInput, match="not within the world"):
        search_boxes([bbox])
