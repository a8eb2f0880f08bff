"""Coverage fractions of polygons against exactextract, which works them out in another way."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry.base import BaseGeometry

from tasks.indices.coverage import Cells, covered_cells

SIDE = 40
FLOAT32 = 2**-22
"""exactextract adds the parts of a fraction in 32 bits."""

FINEST = 2**20
# Corners on the lines between pixels, in their middles and anywhere: lines are where such things go wrong. Anywhere is
# a millionth of a pixel fine: exactextract fills a pixel beside a sliver of no width.
PLACES = st.one_of(
    st.integers(0, SIDE).map(float),
    st.integers(0, 2 * SIDE).map(lambda n: n / 2),
    st.integers(0, FINEST * SIDE).map(lambda n: n / FINEST),
)
CORNERS = st.lists(st.tuples(PLACES, PLACES), min_size=3, max_size=12)


def polygon_of(corners: list[tuple[float, float]]) -> BaseGeometry:
    """Whatever polygons the corners make, with holes and several parts where the ring crosses itself."""
    found = shapely.make_valid(shapely.Polygon(corners))
    parts = [part for part in shapely.get_parts(shapely.GeometryCollection([found])) if part.area > 0]
    polygons = [each for part in parts for each in shapely.get_parts(part) if each.geom_type == "Polygon"]
    return shapely.unary_union(polygons) if polygons else shapely.Polygon()


def shares_of(cells: Cells, number: int) -> np.ndarray:
    """Coverage as a raster, (SIDE + 1, SIDE + 1), row 0 at y = 0."""
    own = slice(cells.offsets[number], cells.offsets[number + 1])
    raster = np.zeros((SIDE + 1, SIDE + 1))
    np.add.at(raster, (cells.rows[own], cells.cols[own]), cells.coverage[own])
    return raster


def exactextracts(shape: BaseGeometry) -> np.ndarray:
    """The same raster by exactextract, whose rows go the other way."""
    raster = np.zeros((SIDE + 1, SIDE + 1))
    if shape.is_empty:
        return raster
    canvas = NumPyRasterSource(np.zeros(raster.shape), xmin=0, ymin=0, xmax=SIDE + 1, ymax=SIDE + 1)
    feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape)}
    [found] = exact_extract(canvas, feature, ["cell_id", "coverage"])
    rows, cols = np.divmod(found["properties"]["cell_id"].astype(int), SIDE + 1)
    raster[SIDE - rows, cols] = found["properties"]["coverage"]
    return raster


@settings(max_examples=300)
@given(st.lists(CORNERS, min_size=1, max_size=4))
def test_every_share_is_the_one_that_exactextract_finds(drawn: list[list[tuple[float, float]]]) -> None:
    shapes = [polygon_of(corners) for corners in drawn]
    cells = covered_cells(np.array(shapes))
    for number, shape in enumerate(shapes):
        found = shares_of(cells, number)
        assert found == pytest.approx(exactextracts(shape), abs=FLOAT32)
        assert found.sum() == pytest.approx(shape.area, abs=1e-8 * (1 + shape.length))
    assert ((cells.coverage > 0) & (cells.coverage <= 1)).all()


@given(st.lists(CORNERS, min_size=2, max_size=5))
def test_a_polygon_has_the_same_pixels_to_the_last_bit_in_any_company(drawn: list[list[tuple[float, float]]]) -> None:
    shapes = [polygon_of(corners) for corners in drawn]
    together = covered_cells(np.array(shapes))
    for number, shape in enumerate(shapes):
        alone = covered_cells(np.array([shape]))
        assert np.array_equal(shares_of(together, number), shares_of(alone, 0))


@given(st.integers(-3_000_000, 3_000_000), st.integers(-3_000_000, 3_000_000), CORNERS)
def test_pixels_move_with_the_polygon(right: int, down: int, corners: list[tuple[float, float]]) -> None:
    shape = polygon_of([(round(x * 1024) / 1024, round(y * 1024) / 1024) for x, y in corners])
    here = covered_cells(np.array([shape]))
    there = covered_cells(np.array([shapely.transform(shape, lambda places: places + np.array([right, down]))]))
    assert np.array_equal(there.rows - here.rows, np.full(len(here.rows), down))
    assert np.array_equal(there.cols - here.cols, np.full(len(here.cols), right))
    # where a ring crosses itself, shapely rounds the place to what can be told so far from the corner
    assert there.coverage == pytest.approx(here.coverage, abs=1e-8)


def test_a_long_strip_across_many_pixels_costs_no_more_than_its_pixels() -> None:
    strip = shapely.Polygon([(0.2, 0), (100_000, 99_999.3), (100_000, 100_000), (0, 0)])
    cells = covered_cells(np.array([strip]))
    assert len(cells.rows) < 400_000
    assert cells.coverage.sum() == pytest.approx(strip.area, abs=1e-3)


@pytest.mark.parametrize(
    "shape",
    [
        shapely.Polygon(),
        shapely.Point(3, 4),
        shapely.LineString([(0, 0), (5, 5)]),
        shapely.Polygon([(1, 1), (4, 1), (1, 1)]),
    ],
    ids=["empty", "point", "line", "collapsed"],
)
def test_what_has_no_area_covers_nothing(shape: BaseGeometry) -> None:
    whole = shapely.box(2, 2, 4, 3)
    cells = covered_cells(np.array([shape, whole, shape]))
    assert cells.offsets.tolist() == [0, 0, 2, 2]
    assert cells.coverage.tolist() == [1, 1]


def test_parts_that_meet_inside_a_pixel_cover_it_whole() -> None:
    parts = shapely.MultiPolygon([shapely.box(0.5, 0, 3.3, 2), shapely.box(3.3, 0, 5, 2)])
    cells = covered_cells(np.array([parts]))
    assert shares_of(cells, 0)[:2, :6].tolist() == [[0.5, 1, 1, 1, 1, 0]] * 2
