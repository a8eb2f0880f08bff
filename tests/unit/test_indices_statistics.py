"""Weighted statistics against exactextract, on rasters and polygons made for each example."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.domain import Statistics
from tasks.indices.statistics import HISTOGRAM_BINS, zonal_statistics

OPERATIONS = ["mean", "stdev", "min", "max", "median", "count", "values", "coverage"]
OPERATIONS += [f"quantile(q={q})" for q in (0.1, 0.25, 0.75, 0.9)]

VALUES = st.one_of(st.sampled_from([-1.0, -0.5, 0.0, 0.3, 0.30000000000000004, 0.7, 1.0]), st.floats(-1, 1, width=64))
WEIGHTS = st.one_of(st.sampled_from([1.0, 0.5, 1e-6]), st.floats(1e-6, 1))
FARMS = st.lists(st.tuples(VALUES, WEIGHTS), min_size=1, max_size=40)


def exact(pixels: list[tuple[float, float]]) -> dict[str, Any]:
    """What exactextract says of one row of pixels, each covered from below by its weight."""
    raster = NumPyRasterSource(np.array([[value for value, _ in pixels]]), 0, 0, len(pixels), 1)
    shape = shapely.MultiPolygon([shapely.box(at, 0, at + 1, weight) for at, (_, weight) in enumerate(pixels)])
    feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape)}
    [found] = exact_extract(raster, [feature], OPERATIONS)
    properties: dict[str, Any] = found["properties"]
    return properties


def ours(*farms: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]) -> list[Statistics | None]:
    """Our statistics of some farms, the fully covered pixels of which are inner ones."""
    coverage = np.concatenate([weights for _, weights in farms])
    return zonal_statistics(
        np.concatenate([values for values, _ in farms]),
        coverage,
        is_inner=coverage >= 1,
        is_clipped=np.zeros(len(coverage), bool),
        offsets=np.cumsum([0, *(len(values) for values, _ in farms)]),
        pixel_area_ha=0.01,
    )


def farm(pixels: list[tuple[float, float]]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return np.array([value for value, _ in pixels]), np.array([weight for _, weight in pixels])


def quantiles(found: Statistics) -> list[float]:
    return [found.p10, found.p25, found.median, found.p75, found.p90]


@given(FARMS)
@example([(0.3, 1e-6)])
@example([(0.5, 1.0), (0.5, 1e-6), (-1.0, 1e-6), (1.0, 1e-6)])
@example([(0.2, 1.0)] * 7)
@settings(max_examples=150)
def test_every_statistic_is_the_one_of_exactextract(pixels: list[tuple[float, float]]) -> None:
    true = exact(pixels)
    [found] = ours((np.asarray(true["values"], float), np.asarray(true["coverage"], float)))
    assert found is not None
    assert found.mean == pytest.approx(true["mean"], abs=1e-9)
    assert found.std == pytest.approx(true["stdev"], abs=1e-7)
    assert (found.min, found.max) == (true["min"], true["max"])
    names = ("quantile_10", "quantile_25", "median", "quantile_75", "quantile_90")
    # where a weight of 1e-6 decides, rounding of a sum of weights (1e-16) moves the place by 1e-10 of the gap
    assert quantiles(found) == pytest.approx([true[name] for name in names], abs=1e-8)
    assert found.clear_area_ha == pytest.approx(true["count"] / 100)
    assert found.pixel_count == len(pixels)


@given(FARMS)
@settings(max_examples=150)
def test_statistics_are_ordered(pixels: list[tuple[float, float]]) -> None:
    [found] = ours(farm(pixels))
    assert found is not None
    ordered = [found.min, *quantiles(found), found.max]
    assert ordered == sorted(ordered)
    assert found.min <= found.mean <= found.max
    assert found.std >= 0


@given(FARMS)
def test_the_histogram_sums_to_the_covered_area_and_keeps_each_value_in_its_bin(
    pixels: list[tuple[float, float]],
) -> None:
    values, weights = farm(pixels)
    [found] = ours((values, weights))
    assert found is not None
    assert len(found.histogram) == HISTOGRAM_BINS
    assert sum(found.histogram) == pytest.approx(weights.sum(), rel=1e-12)
    expected, edges = np.histogram(values, bins=HISTOGRAM_BINS, range=(-1, 1), weights=weights)
    is_between = np.abs(values[:, None] - edges[None, :]).min(axis=1) > 1e-12  # on an edge either bin is right
    if is_between.all():
        assert found.histogram == pytest.approx(expected.tolist(), abs=1e-12)


def test_the_ends_of_the_range_are_in_the_first_and_the_last_bin() -> None:
    [found] = ours((np.array([-1.0, 1.0]), np.array([0.25, 0.75])))
    assert found is not None
    assert (found.histogram[0], found.histogram[-1]) == (0.25, 0.75)


@given(st.lists(st.one_of(FARMS, st.just([])), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_a_farms_numbers_depend_on_its_own_pixels_alone(farms: list[list[tuple[float, float]]], rng: Any) -> None:
    alone = [ours(farm(pixels))[0] if pixels else None for pixels in farms]
    order = list(range(len(farms)))
    rng.shuffle(order)
    together = ours(*(farm(farms[number]) for number in order))
    assert together == [alone[number] for number in order]


@given(FARMS)
def test_inner_statistics_are_the_plain_ones_of_the_wholly_covered_pixels(pixels: list[tuple[float, float]]) -> None:
    values, weights = farm(pixels)
    [found] = ours((values, weights))
    assert found is not None
    inner = values[weights >= 1]
    assert found.inner_pixel_count == len(inner)
    if len(inner) == 0:
        assert (found.inner_mean, found.inner_median) == (None, None)
    else:
        assert found.inner_mean == pytest.approx(inner.mean(), abs=1e-12)
        assert found.inner_median == pytest.approx(np.median(inner), abs=1e-12)
        assert -1 <= found.inner_mean <= 1


@pytest.mark.parametrize("step", [2**-53, 1e-11, 0.0001])
def test_quantiles_do_not_depend_on_the_order_of_pixels_however_near_their_values_are(step: float) -> None:
    ascending = 0.5 + step * np.arange(3000)
    rng = np.random.default_rng(0)
    farms = [ascending, rng.permutation(ascending), ascending[::-1], rng.permutation(ascending)]
    found = ours(*((values, np.ones(len(values))) for values in farms))
    assert len(set(map(str, (each and (quantiles(each), each.inner_median) for each in found)))) == 1
    assert found[0] is not None
    assert quantiles(found[0]) == pytest.approx(np.quantile(ascending, [0.1, 0.25, 0.5, 0.75, 0.9]), abs=1e-12)


def test_clipped_pixels_are_counted_by_farm() -> None:
    found = zonal_statistics(
        np.array([1.0, 0.2, 1.0, -1.0]),
        np.ones(4),
        is_inner=np.ones(4, bool),
        is_clipped=np.array([True, False, True, True]),
        offsets=np.array([0, 2, 2, 4]),
        pixel_area_ha=0.01,
    )
    assert [each and each.clipped_count for each in found] == [1, None, 2]


def test_farms_without_any_pixel_have_no_statistics() -> None:
    empty = np.empty(0)
    flags = np.empty(0, bool)
    found = zonal_statistics(
        empty, empty, is_inner=flags, is_clipped=flags, offsets=np.array([0, 0, 0]), pixel_area_ha=0.01
    )
    assert found == [None, None]
