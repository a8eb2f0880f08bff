"""Which scene classes count, and how far a cloud reaches."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.domain import MaskPolicy
from tasks.indices.clear_sky import is_clear_class, near_cloud


def test_vegetation_bare_water_unclassified_and_snow_count_by_default() -> None:
    assert np.flatnonzero(is_clear_class(MaskPolicy())).tolist() == [4, 5, 6, 7, 11]


@given(st.frozensets(st.integers(0, 11)))
def test_the_classes_that_count_are_those_of_the_policy(classes: frozenset[int]) -> None:
    table = is_clear_class(MaskPolicy(clear_classes=classes))
    assert table.shape == (12,)
    assert set(np.flatnonzero(table).tolist()) == classes


SCENES = arrays(
    np.int32,
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    elements=st.sampled_from([4, 4, 4, 4, 4, 0, 1, 2, 3, 7, 8, 9, 10, 11, 12, 255, -1, -4]),
)


@given(SCENES, st.sampled_from([0, 5, 19, 20, 21, 28, 29, 45, 60, 61, 100, 400, 1000]), st.sampled_from([10, 20, 60]))
def test_a_pixel_is_near_cloud_when_the_centre_of_a_cloudy_one_is_within_the_distance(
    classes: np.ndarray, distance_m: float, resolution_m: float
) -> None:
    rows, cols = np.indices(classes.shape)
    expected = np.zeros(classes.shape, bool)
    for row, col in np.argwhere((classes == 3) | ((classes >= 8) & (classes <= 10))):
        expected |= np.sqrt((rows - row) ** 2 + (cols - col) ** 2) * resolution_m <= distance_m
    found = near_cloud(classes, distance_m=distance_m, resolution_m=resolution_m)
    assert np.array_equal(found, expected)


def test_the_classes_given_stay_as_they_are() -> None:
    classes = np.array([[4, 9, 4]], np.int32)
    near_cloud(classes, distance_m=100, resolution_m=20)
    assert classes.tolist() == [[4, 9, 4]]
