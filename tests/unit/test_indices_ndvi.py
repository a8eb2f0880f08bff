"""NDVI and reflectance by worked examples, and at the dark end where digital numbers end before the offset does."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.indices.ndvi import ndvi, reflectance

SCALE, OFFSET = 0.0001, -0.1


def index_of(red: int, nir: int, *, offset: float) -> tuple[float, bool]:
    """NDVI of one pixel of digital numbers, and whether it was clipped."""
    values, is_clipped = ndvi(*(reflectance(np.array([dn], np.int32), SCALE, offset) for dn in (red, nir)))
    return float(values[0]), bool(is_clipped[0])


@pytest.mark.parametrize(("red", "nir", "without", "with_offset"), [(1500, 4000, 0.45, 0.71), (1400, 3000, 0.36, 0.67)])
def test_an_offset_left_in_the_pixels_moves_the_index(red: int, nir: int, without: float, with_offset: float) -> None:
    assert index_of(red, nir, offset=0)[0] == pytest.approx(without, abs=0.01)
    assert index_of(red, nir, offset=OFFSET)[0] == pytest.approx(with_offset, abs=0.01)


def test_digital_number_1000_is_zero_reflectance_with_the_offset() -> None:
    numbers = np.array([1, 1000, 11000], np.int32)
    assert reflectance(numbers, SCALE, OFFSET) == pytest.approx([-0.0999, 0, 1])
    assert reflectance(numbers, SCALE, 0).tolist() == [0.0001, 0.1, 1.1]


def test_a_negative_reflectance_is_clipped_and_counted() -> None:
    assert index_of(950, 3000, offset=OFFSET) == (1.0, True)
    assert index_of(3000, 950, offset=OFFSET) == (-1.0, True)


def test_a_reflectance_of_zero_is_an_index_of_one_and_not_clipped() -> None:
    assert index_of(1000, 3000, offset=0) != (1.0, True)
    values, is_clipped = ndvi(np.array([0.0, 0.2]), np.array([0.3, 0.0]))
    assert values.tolist() == [1, -1]
    assert not is_clipped.any()


def test_reflectances_that_do_not_sum_above_zero_have_no_index() -> None:
    values, is_clipped = ndvi(np.array([0.0, -0.01, -0.02, 0.01]), np.array([0.0, 0.005, -0.03, 0.0]))
    assert np.isnan(values[:3]).all()
    assert values[3] == -1
    assert not is_clipped.any()


def test_no_pair_of_numbers_that_cancel_out_has_an_index_whatever_rounding_makes_of_their_sum() -> None:
    red = np.arange(1, 2000, dtype=np.int32)
    pair = reflectance(red, SCALE, OFFSET), reflectance(2000 - red, SCALE, OFFSET)
    assert (sum(pair) > 0).any()  # the trap is there
    values, is_clipped = ndvi(*pair)
    assert np.isnan(values).all()
    assert not is_clipped.any()


def test_the_smallest_step_above_zero_counts() -> None:
    red = np.arange(1, 2000, dtype=np.int32)
    values, _ = ndvi(reflectance(red, SCALE, OFFSET), reflectance(2001 - red, SCALE, OFFSET))
    assert not np.isnan(values).any()
    assert np.abs(values).max() <= 1
