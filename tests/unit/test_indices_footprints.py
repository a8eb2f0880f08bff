"""Boundaries as pixels: exact shares, one lattice for all tiles of a zone, inner pixels that are inside."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shapely.geometry.base import BaseGeometry

from models.domain import Farm, Grid
from tasks.indices.footprints import Footprint, FootprintCache, Footprints, Lattice, footprints_of
from tests.support.sky import GRID, circle, farm_of, in_metres, rectangle

LATTICE = Lattice.of(GRID)
SOUTH = replace(GRID, epsg=32733, left=300000, top=8000020)
EAST_OF_180 = replace(GRID, epsg=32760, left=799980, top=8000020)


def footprint(shape: BaseGeometry, *, grid: Grid = GRID, inner_margin_m: float = 0) -> Footprint:
    """The pixels of a shape drawn in metres."""
    boundary = farm_of(shape, epsg=grid.epsg).boundary
    [found] = footprints_of([boundary], lattice=Lattice.of(grid), inner_margin_m=inner_margin_m)
    return found


def pixel_boxes(found: Footprint, grid: Grid = GRID) -> list[shapely.Polygon]:
    """The squares of the pixels, in metres, placed from the lattice's own definition."""
    lattice, step = Lattice.of(grid), grid.resolution_m
    left = lattice.x_phase + found.cols.astype(float) * step
    top = lattice.y_phase - found.rows.astype(float) * step
    return list(shapely.box(left, top - step, left + step, top))


def assert_covers(found: Footprint, shape: BaseGeometry, grid: Grid = GRID) -> None:
    """Hold pixels to the shape's area and to the rules of a footprint.

    exactextract keeps a fraction as float32. One is off by at most 2**-25 of itself, whole pixels not at all, so the
    sum is off by no more than 2**-25 times the number of edge pixels, in pixels; the rest, 1e-9 of the area, is for
    sums of doubles at coordinates of eight million metres.
    """
    edge = np.count_nonzero(found.coverage < 1)
    area_px = shape.area / grid.resolution_m**2
    assert abs(found.coverage.sum() - area_px) <= edge * 2**-25 + 1e-9 * max(area_px, 1)
    assert found.coverage.min() > 0
    assert found.coverage.max() <= 1
    places = found.rows.astype(np.int64) * 10_000_000 + found.cols
    assert (np.diff(places) > 0).all()  # row by row, each once


def exact_shape(shape: BaseGeometry, grid: Grid = GRID) -> BaseGeometry:
    """The shape after its way to degrees and back, which moves it by about a nanometre."""
    return in_metres(farm_of(shape, epsg=grid.epsg).boundary, grid.epsg)


HOLED = shapely.difference(circle(60, 50, 30), circle(55, 52, 11.3))
TWO_PARTS = shapely.MultiPolygon([rectangle(2.3, 3.1, 20, 7.7), rectangle(80.5, 60.25, 13, 21)])
SHAPES = {
    "disc": circle(50, 50, 23.4),
    "hole": HOLED,
    "two parts": TWO_PARTS,
    "parts that touch": shapely.MultiPolygon([rectangle(2, 2, 5.5, 5), rectangle(7.5, 7, 5, 5)]),
    "smaller than a pixel": rectangle(10.2, 10.3, 0.25, 0.5),
    "smaller than a pixel, on four": rectangle(9.9, 9.9, 0.2, 0.2),
    "a strip of a centimetre": rectangle(5, 5.5, 60, 0.001),
    "pixels exactly": rectangle(10, 10, 7, 5),
    "larger than a block": circle(600, 600, 530),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("grid", [GRID, SOUTH, replace(GRID, left=499985, top=5200023)], ids=["north", "south", "odd"])
def test_coverage_fractions_sum_to_the_area(shape: BaseGeometry, grid: Grid) -> None:
    moved = shapely.transform(shape, lambda xy: xy + np.array([grid.left - GRID.left, grid.top - GRID.top]))
    assert_covers(footprint(moved, grid=grid), exact_shape(moved, grid), grid)


# Somewhere, or on a line between pixels, off which the way to degrees and back moves it by about a nanometre.
PLACE = st.floats(3, 60) | st.integers(3, 60).map(float)


@given(
    st.lists(st.tuples(PLACE, PLACE), min_size=3, max_size=9),
    st.just(0.0) | st.floats(0, 1),
    st.sampled_from([10, 20, 60, 120]),
)
@example([(3.0, 3.0), (3.0, 4.0), (6.0, 3.0)], 0.0, 10)  # exactextract takes a fourth pixel, outside, for covered
@settings(max_examples=120)
def test_coverage_fractions_are_the_shares_of_the_pixels(
    points: list[tuple[float, float]], turn: float, resolution_m: float
) -> None:
    shape = shapely.MultiPoint([(GRID.left + 10 * x + turn, GRID.top - 10 * y) for x, y in points]).convex_hull
    if shape.area < 1:
        return
    grid = replace(GRID, resolution_m=resolution_m)
    found = footprint(shape, grid=grid)
    shape = exact_shape(shape, grid)
    assert_covers(found, shape, grid)
    shares = shapely.area(shapely.intersection(pixel_boxes(found, grid), shape)) / resolution_m**2
    assert found.coverage == pytest.approx(shares, abs=1e-6)


def test_a_pixel_half_inside_counts_half() -> None:
    found = footprint(rectangle(10, 20, 1.5, 1))
    whole = found.coverage > 1e-6  # a nanometre of the way to degrees may touch the neighbours
    assert found.coverage[whole] == pytest.approx([1, 0.5], abs=1e-6)
    assert (found.rows[whole] - LATTICE.origin(GRID)[0]).tolist() == [20, 20]
    assert (found.cols[whole] - LATTICE.origin(GRID)[1]).tolist() == [10, 11]


def test_a_farm_over_the_antimeridian_is_one_piece_of_pixels() -> None:
    # 180 degrees east at 18 degrees south lies about 817 km east in zone 60
    degrees = in_degrees_unwrapped(shapely.box(817_203, 8_007_004, 818_011, 8_007_502))
    parts = [
        shapely.intersection(degrees, shapely.box(179, -30, 180, 0)),
        shapely.transform(shapely.intersection(degrees, shapely.box(180, -30, 181, 0)), lambda xy: xy - (360, 0)),
    ]
    assert all(part.area > 1e-6 for part in parts)
    boundary = shapely.to_wkb(shapely.MultiPolygon(parts))
    [found] = footprints_of([boundary], lattice=Lattice.of(EAST_OF_180))
    both = shapely.get_parts(in_metres(boundary, EAST_OF_180.epsg))
    assert_covers(found, shapely.MultiPolygon(list(both)), EAST_OF_180)
    boxes = pixel_boxes(found, EAST_OF_180)
    shares = sum(shapely.area(shapely.intersection(boxes, part)) for part in both) / 100
    assert found.coverage == pytest.approx(shares, abs=1e-6)
    # a pixel on the seam lies wholly inside, half in the one part and half in the other
    assert found.is_inner[shares > 1 - 1e-9].all()


def in_degrees_unwrapped(shape: BaseGeometry) -> BaseGeometry:
    """A shape of zone 60 south with longitudes that go on beyond 180."""
    from pyproj import Transformer

    to_degrees = Transformer.from_crs(EAST_OF_180.epsg, 4326, always_xy=True)

    def unwrapped(xy: np.ndarray) -> np.ndarray:
        lon, lat = to_degrees.transform(xy[:, 0], xy[:, 1])
        return np.column_stack([np.where(lon < 0, lon + 360, lon), lat])

    return shapely.transform(shape, unwrapped)


def test_tiles_of_a_zone_share_their_pixels() -> None:
    below = replace(GRID, top=5200020 - 99_960 - 10_000, left=600_000)  # as 33TWL lies to 33TWM, overlapping
    assert Lattice.of(below) == LATTICE
    row, col = LATTICE.origin(GRID)
    below_row, below_col = LATTICE.origin(below)
    assert (below_row - row, below_col - col) == (10_996, 10_002)


@given(st.integers(-300, 300), st.integers(-300, 300), st.sampled_from([10.0, 20.0, 120.0]), st.integers(0, 119))
def test_the_lattice_places_the_first_pixel_of_every_aligned_grid(
    down: int, right: int, resolution_m: float, phase: int
) -> None:
    base = replace(GRID, resolution_m=resolution_m, left=GRID.left + phase, top=GRID.top + phase / 2)
    moved = replace(base, left=base.left + right * resolution_m, top=base.top - down * resolution_m)
    lattice = Lattice.of(base)
    assert Lattice.of(moved) == lattice
    row, col = lattice.origin(base)
    assert lattice.origin(moved) == (row + down, col + right)
    assert lattice.x_phase + col * resolution_m == base.left
    assert lattice.y_phase - row * resolution_m == base.top


def test_the_pixels_of_a_boundary_do_not_depend_on_its_company() -> None:
    shapes = [circle(40, 30, 9.7), HOLED, TWO_PARTS, rectangle(700.3, 15.1, 44, 3), SHAPES["smaller than a pixel"]]
    boundaries = [farm_of(shape).boundary for shape in shapes]
    together = footprints_of(boundaries, lattice=LATTICE, inner_margin_m=10)
    for boundary, found in zip(boundaries, together, strict=True):
        [alone] = footprints_of([boundary], lattice=LATTICE, inner_margin_m=10)
        assert_same(alone, found)


def assert_same(one: Footprint, other: Footprint) -> None:
    for name in ("rows", "cols", "coverage", "is_inner"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("margin_m", [0, 3, 10, 25, 1000])
@pytest.mark.parametrize("shape", [circle(50, 50, 23.4), HOLED, TWO_PARTS, SHAPES["pixels exactly"]])
def test_inner_pixels_are_those_inside_the_margin(shape: BaseGeometry, margin_m: float) -> None:
    found = footprint(shape, inner_margin_m=margin_m)
    shape = exact_shape(shape)
    boxes = pixel_boxes(found)
    is_inside = shapely.contains(shape, boxes)
    depth_m = np.where(is_inside, shapely.distance(shape.boundary, boxes), -1)
    # Arcs around inward corners are drawn as chords (half a percent of the margin); without a margin a pixel that
    # sticks out by nanometres is whole.
    slack_m = max(0.006 * margin_m, 1e-6)
    assert found.is_inner[depth_m > margin_m + slack_m].all()
    must_not = (depth_m < margin_m - slack_m) if margin_m else found.coverage < 1 - 1e-6
    assert not found.is_inner[must_not].any()


def test_a_margin_that_leaves_nothing_leaves_no_inner_pixels_and_the_same_coverage() -> None:
    shape = circle(50, 50, 5)
    plain, none_left = footprint(shape), footprint(shape, inner_margin_m=60)
    assert plain.is_inner.any()
    assert not none_left.is_inner.any()
    assert np.array_equal(plain.coverage, none_left.coverage)


def test_a_boundary_that_collapses_has_no_pixels() -> None:
    line = shapely.Polygon([(15, 46.9), (15, 46.95), (15, 46.9), (15, 46.9)])
    found = footprints_of([shapely.to_wkb(line)], lattice=LATTICE)
    assert [len(each.rows) for each in found] == [0]


@pytest.mark.timeout(20)
def test_parts_that_lie_far_apart_cost_no_more_than_their_pixels() -> None:
    spread = shapely.MultiPolygon([rectangle(3, 4, 10, 8), rectangle(20_003, 4, 10, 8), rectangle(3, 30_004, 10, 8)])
    assert_covers(footprint(spread), exact_shape(spread))


FARMS = [farm_of(circle(20 + 15 * number, 40, 3 + number / 3), number) for number in range(1, 6)]


def test_a_cache_gives_what_it_would_make_anew() -> None:
    cache = FootprintCache()
    for farms in (FARMS[:2], FARMS, FARMS[::-1], [FARMS[3], FARMS[3]], FARMS[4:]):
        found = cache.footprints(farms, LATTICE, inner_margin_m=5)
        made = FootprintCache().footprints(farms, LATTICE, inner_margin_m=5)
        for name in ("offsets", "rows", "cols", "coverage", "is_inner"):
            assert np.array_equal(getattr(found, name), getattr(made, name))


def test_a_cache_tells_versions_lattices_and_margins_apart() -> None:
    cache = FootprintCache()
    farm = FARMS[4]
    first = cache.footprints([farm], LATTICE, inner_margin_m=0)
    larger = replace(farm, boundary_version=2, boundary=farm_of(circle(40, 40, 20)).boundary)
    assert len(cache.footprints([larger], LATTICE, inner_margin_m=0).rows) > len(first.rows)
    assert cache.footprints([farm], LATTICE, inner_margin_m=10).is_inner.sum() < first.is_inner.sum()
    coarse = cache.footprints([farm], Lattice.of(replace(GRID, resolution_m=20)), inner_margin_m=0)
    assert coarse.coverage.sum() == pytest.approx(first.coverage.sum() / 4, rel=1e-6)
    again = cache.footprints([farm], LATTICE, inner_margin_m=0)
    assert np.array_equal(again.coverage, first.coverage)


def test_a_small_cache_forgets_but_never_errs() -> None:
    small = FootprintCache(max_pixels=60)

    def ask(number: int) -> bool:
        farms: list[Farm] = [FARMS[number % 5], FARMS[(number * 2 + 1) % 5]]
        found = small.footprints(farms, LATTICE, inner_margin_m=0)
        made = FootprintCache().footprints(farms, LATTICE, inner_margin_m=0)
        return np.array_equal(found.coverage, made.coverage) and np.array_equal(found.rows, made.rows)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(60)))


def test_the_area_of_a_discs_pixels_is_the_discs() -> None:
    found = footprint(shapely.Point(550_000, 5_150_000).buffer(500, quad_segs=1024))
    assert found.coverage.sum() * 100 == pytest.approx(math.pi * 500**2, rel=1e-5)


def test_those_who_want_the_same_footprints_at_once_are_given_the_same_ones() -> None:
    cache, gate = FootprintCache(), threading.Barrier(4)

    def ask(_: int) -> Footprints:
        gate.wait()
        return cache.footprints(FARMS, LATTICE, inner_margin_m=0)

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(ask, range(4))
    assert all(each is first for each in others), "made once, not by each"
