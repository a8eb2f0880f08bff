"""Coverage fractions by halving: the shares that geometry gives, without exactextract."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry.base import BaseGeometry

from tasks.indices.halving import Box, shares_by_halving

BOX = Box(0, 0, 9, 12)


def as_canvas(shape: BaseGeometry, box: Box = BOX) -> np.ndarray:
    rows, cols, coverage = shares_by_halving(shape, box)
    canvas = np.zeros((box.bottom, box.right))
    canvas[rows, cols] = coverage
    assert (np.diff(rows * box.right + cols) > 0).all(), "row by row, each once"
    assert (coverage > 0).all()
    return canvas


def test_a_triangle_is_measured_as_a_worked_example() -> None:
    triangle = shapely.Polygon([(3, 3), (3, 4), (6, 3)])
    expected = np.zeros((9, 12))
    expected[3, 3:6] = 5 / 6, 1 / 2, 1 / 6
    assert as_canvas(triangle) == pytest.approx(expected, abs=1e-12)


def test_whole_pixels_are_whole_and_nothing_else_is_touched() -> None:
    expected = np.zeros((9, 12))
    expected[2:7, 1:11] = 1
    assert (as_canvas(shapely.box(1, 2, 11, 7)) == expected).all()


def test_a_shape_without_area_has_no_pixels() -> None:
    for shape in (shapely.Polygon(), shapely.Polygon([(1, 1), (4, 4), (1, 1)]), shapely.box(20, 20, 21, 21)):
        assert not as_canvas(shape).any()


def test_a_boundary_that_crosses_itself_counts_what_it_encloses() -> None:
    bow_tie = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    assert as_canvas(bow_tie).sum() == pytest.approx(2)


@given(st.lists(st.tuples(st.floats(0, 12), st.floats(0, 9)), min_size=3, max_size=8))
def test_each_share_is_that_of_the_pixel_by_itself(points: list[tuple[float, float]]) -> None:
    shape = shapely.MultiPoint(points).convex_hull
    pixels = [[shapely.box(col, row, col + 1, row + 1) for col in range(BOX.right)] for row in range(BOX.bottom)]
    expected = shapely.area(shapely.intersection(shape, np.array(pixels)))
    assert as_canvas(shape) == pytest.approx(expected, abs=1e-7)
