"""Pixels joined to runs are the same pixels, in the same order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from tasks.imagery.runs import Runs, spread

PLACES = st.lists(st.tuples(st.integers(-3, 12), st.integers(-3, 12), st.integers(1, 9)), max_size=12)
"""Row, first column and number of pixels."""


def pixels_of(runs: Runs) -> list[tuple[int, int]]:
    rows, cols = np.repeat(runs.rows, runs.counts), spread(runs.cols, runs.counts)
    return list(zip(rows.tolist(), cols.tolist(), strict=True))


def drawn(places: list[tuple[int, int, int]]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Rows and columns of all pixels."""
    pixels = [(row, col + step) for row, col, count in places for step in range(count)]
    return np.array([row for row, _ in pixels], np.int32), np.array([col for _, col in pixels], np.int32)


@given(PLACES)
def test_joining_loses_no_pixel_and_leaves_no_neighbours_apart(places: list[tuple[int, int, int]]) -> None:
    rows, cols = drawn(places)
    runs = Runs.of(rows, cols)
    assert pixels_of(runs) == list(zip(rows.tolist(), cols.tolist(), strict=True))
    assert runs.size == len(rows)
    ends = list(zip(runs.rows.tolist(), (runs.cols + runs.counts).tolist(), strict=True))
    assert all(end != begin for end, begin in zip(ends, list(zip(runs.rows, runs.cols, strict=True))[1:], strict=False))
    assert pixels_of(runs.moved(-2, 5)) == [(row - 2, col + 5) for row, col in pixels_of(runs)]


@given(PLACES, st.integers(1, 10), st.integers(1, 10))
def test_pixels_inside_a_grid_are_those_with_a_row_and_a_column_of_it(
    places: list[tuple[int, int, int]], height: int, width: int
) -> None:
    rows, cols = drawn(places)
    inside = Runs.of(rows, cols).inside((height, width))
    assert inside.tolist() == ((rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)).tolist()


@given(PLACES, st.randoms(use_true_random=False))
def test_chosen_pixels_are_those_with_a_flag_in_their_order(places: list[tuple[int, int, int]], rng: Any) -> None:
    rows, cols = drawn(places)
    flags = np.array([rng.random() < 0.7 for _ in rows], np.bool_)
    chosen = Runs.of(rows, cols).where(flags)
    assert pixels_of(chosen) == list(zip(rows[flags].tolist(), cols[flags].tolist(), strict=True))
    assert (chosen.counts > 0).all()


@given(PLACES, st.lists(st.integers(1, 7), min_size=4, max_size=20))
def test_runs_are_cut_where_parts_of_the_grid_begin_and_nowhere_else(
    places: list[tuple[int, int, int]], widths: list[int]
) -> None:
    places = [(row, col + 3, count) for row, col, count in places]
    part_of = np.repeat(np.arange(len(widths) + 1, dtype=np.uint8), [*widths, 30])
    edges = np.cumsum([0, *widths])
    runs = Runs.of(*drawn(places))
    cut = runs.cut(part_of, edges)
    assert pixels_of(cut) == pixels_of(runs)
    assert (part_of[cut.cols] == part_of[cut.cols + cut.counts - 1]).all()
    parts = part_of[runs.cols + runs.counts - 1].astype(int) - part_of[runs.cols] + 1
    assert len(cut.rows) == parts.sum()
