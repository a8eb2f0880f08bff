"""What an observation must not depend on: chunks, company, order, and what was done before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.dask import Compute, threaded_compute
from models.domain import Farm, MaskPolicy, Observation, Scene, Status
from tasks.indices.footprints import FootprintCache
from tests.support.sky import (
    GRID,
    RAW,
    REMOVED,
    assert_agrees,
    assert_ordered,
    by_farm,
    circle,
    farm_of,
    look,
    noisy,
    rectangle,
    scl_grid_of,
    true_ndvi,
    true_statistics,
    write,
)

ANY_FOLDER = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])

PLACES = st.tuples(st.floats(-10, 125), st.floats(-10, 105))


@st.composite
def shapes(draw: st.DrawFn) -> shapely.Geometry:
    """A polygon somewhere on the image or over its edge, perhaps with a hole, in two parts or smaller than a pixel."""
    col, row = draw(PLACES)
    kind = draw(st.sampled_from(["disc", "disc", "hole", "parts", "tiny", "strip", "hull"]))
    if kind == "hole":
        return shapely.difference(circle(col, row, draw(st.floats(4, 20))), circle(col + 0.3, row, 2.7))
    if kind == "parts":
        return shapely.union(circle(col, row, draw(st.floats(0.3, 8))), circle(col + 30, row + 4, 5.5))
    if kind == "tiny":
        return rectangle(col, row, draw(st.floats(0.05, 1.5)), draw(st.floats(0.05, 1.5)))
    if kind == "strip":
        return rectangle(col, row, draw(st.floats(1, 60)), 0.02)
    if kind == "hull":
        corners = draw(st.lists(PLACES, min_size=4, max_size=7))
        return shapely.MultiPoint([(GRID.left + 10 * x, GRID.top - 10 * y) for x, y in corners]).convex_hull
    return circle(col, row, draw(st.floats(0.2, 25)))


FARMS = st.lists(shapes().filter(lambda shape: shape.area > 1), min_size=1, max_size=6).map(
    lambda drawn: [farm_of(shape, number) for number, shape in enumerate(drawn, start=1)]
)
POLICIES = st.builds(
    MaskPolicy,
    clear_classes=st.sampled_from([frozenset({4, 5, 6, 7, 11}), frozenset({4, 5}), frozenset({2, 4, 7})]),
    dilation_m=st.sampled_from([0.0, 0.0, 30.0, 61.0]),
)


@pytest.fixture(scope="module")
def compute() -> Iterator[Compute]:
    with threaded_compute(4) as threads:
        yield threads


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, Scene]:
    """Two pieces of one pass: the first with a shifted SCL grid, the second with another offset."""
    folder = tmp_path_factory.mktemp("pieces")
    first = noisy(1, scl_grid=scl_grid_of(GRID, right_m=-10, down_m=-10))
    first.scl[35:] = 0
    return write(first, folder, name="first"), write(noisy(2), folder, name="second", rescale=REMOVED)


def observed(scenes: tuple[Scene, ...], farms: list[Farm], **ways: Any) -> dict[int, Observation]:
    """What each farm is told; nothing fails here."""
    answer = look(scenes, farms, **ways)
    assert not answer.failures
    return {each.farm_id: each for each in answer.observations}


@given(farms=FARMS, policy=POLICIES, seed=st.integers(0, 2**32 - 1), shift=st.sampled_from([0, -10]))
@ANY_FOLDER
def test_every_farm_under_every_sky_is_what_exactextract_says(
    farms: list[Farm], policy: MaskPolicy, seed: int, shift: int, tmp_path: Path, compute: Compute
) -> None:
    rng = np.random.default_rng(seed)
    picture = noisy(seed, cloud=rng.random(), scl_grid=scl_grid_of(GRID, right_m=shift, down_m=shift))
    scene = write(picture, tmp_path, block=16)
    told = observed((scene,), farms, compute=compute, policy=policy)
    area = replace(GRID, left=GRID.left - 800, top=GRID.top + 800, width=280, height=260)
    index = true_ndvi([picture], [RAW], area, policy=policy)
    for farm, true in zip(farms, true_statistics(index, area, farms, folder=tmp_path), strict=True):
        assert_agrees(told[farm.id], true)
        assert sum(told[farm.id].class_counts) == true["touched"]


@given(farms=FARMS, policy=POLICIES, chunk=st.tuples(st.integers(8, 130), st.integers(8, 130)))
@ANY_FOLDER
def test_observations_do_not_depend_on_the_chunks(
    farms: list[Farm], policy: MaskPolicy, chunk: tuple[int, int], pieces: tuple[Scene, Scene], compute: Compute
) -> None:
    whole = observed(pieces, farms, compute=compute, policy=policy)
    assert observed(pieces, farms, compute=compute, policy=policy, chunk=chunk) == whole


@given(farms=FARMS, policy=POLICIES, data=st.data())
@ANY_FOLDER
def test_observations_do_not_depend_on_company_or_order_or_the_cache(
    farms: list[Farm], policy: MaskPolicy, data: st.DataObject, pieces: tuple[Scene, Scene], compute: Compute
) -> None:
    together = observed(pieces, farms, compute=compute, policy=policy, inner_margin_m=5)
    some = data.draw(st.permutations(farms))[: data.draw(st.integers(1, len(farms)))]
    cache = FootprintCache(max_pixels=data.draw(st.sampled_from([1, 500, 10_000_000])))
    for _ in range(2):  # made anew, then from the cache
        again = observed(pieces, some, compute=compute, policy=policy, inner_margin_m=5, cache=cache)
        assert list(again) == [farm.id for farm in some]
        assert again == {farm.id: together[farm.id] for farm in some}


@given(farms=FARMS, policy=POLICIES)
@ANY_FOLDER
def test_statistics_are_ordered_and_statuses_fit_their_numbers(
    farms: list[Farm], policy: MaskPolicy, pieces: tuple[Scene, Scene], compute: Compute
) -> None:
    for each in observed(pieces, farms, compute=compute, policy=policy).values():
        assert (each.status is Status.OBSERVED) == (each.ndvi is not None) == (each.statistics is not None)
        assert sum(each.class_counts) > 0
        assert len(each.class_counts) == 12
        if each.statistics is not None:
            assert_ordered(each)
            assert each.statistics.pixel_count <= sum(each.class_counts[c] for c in policy.clear_classes)
            assert each.statistics.inner_pixel_count <= each.statistics.pixel_count
            assert sum(each.statistics.histogram) / 100 == pytest.approx(each.statistics.clear_area_ha)


@pytest.mark.parametrize("dilation_m", [0, 40])
def test_a_thousand_farms_are_told_what_each_is_told_alone(
    dilation_m: float, pieces: tuple[Scene, Scene], compute: Compute
) -> None:
    rng = np.random.default_rng(0)
    farms = [
        farm_of(circle(rng.uniform(-5, 125), rng.uniform(-5, 105), rng.uniform(0.2, 4)), number)
        for number in range(1, 1101)
    ]
    policy = MaskPolicy(dilation_m=dilation_m)
    together = observed(pieces, farms, compute=compute, policy=policy)
    for farm in [farms[0], farms[511], farms[512], farms[1023], farms[1024], farms[-1], *farms[7::150]]:
        assert observed(pieces, [farm], compute=compute, policy=policy) == {farm.id: together[farm.id]}
    assert {each.status for each in together.values()} >= {Status.OBSERVED, Status.CLOUD, Status.OUTSIDE}


def test_the_same_farm_twice_is_told_the_same_twice(pieces: tuple[Scene, Scene], compute: Compute) -> None:
    farm = farm_of(circle(50, 50, 20))
    twin = replace(farm, id=2)
    told = by_farm(look(pieces, [farm, twin], compute=compute))
    assert replace(told[2], farm_id=1) == told[1]
