from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon

from models.boundaries import is_same_boundary
from models.domain import FarmDraft
from models.errors import BadInput
from tasks.farms.boundaries import MAX_REPAIR_FRACTION, AreaLimits, boundary_from, geodesic_area_ha
from tasks.farms.files import read_farms
from tests.support.shapes import ANY_AREA, feature, field, write_geojson

LON = st.floats(-179.9, 179.9)
LAT = st.floats(-79, 83)
RINGS = st.lists(
    st.tuples(st.integers(0, 12).map(lambda x: 15 + x / 1000), st.integers(0, 12).map(lambda y: 46 + y / 1000)),
    min_size=3,
    max_size=12,
)
"""Rings on a coarse grid: most cross, touch or cover themselves."""

FIELDS = st.builds(
    field,
    lon=LON,
    lat=LAT,
    width_m=st.floats(10, 3_000),
    height_m=st.floats(10, 3_000),
    turned_deg=st.floats(0, 90),
)


@given(RINGS, st.lists(RINGS, max_size=2))
@settings(max_examples=200, deadline=None)
def test_what_is_accepted_is_valid_and_as_large_as_it_was_drawn(
    shell: list[tuple[float, float]], holes: list[list[tuple[float, float]]]
) -> None:
    drawn = Polygon(shell, holes)
    try:
        boundary = boundary_from(drawn, limits=ANY_AREA)
    except BadInput:
        assert not drawn.is_valid
        return
    shape = shapely.from_wkb(boundary.wkb)
    assert shape.is_valid
    assert shape.geom_type in {"Polygon", "MultiPolygon"}
    assert abs(shape.area - drawn.area) <= MAX_REPAIR_FRACTION * shape.area * 1.01
    assert bool(boundary.repairs) == (not drawn.is_valid)
    for part in shapely.get_parts(shape):
        assert part.exterior.is_ccw
        assert not any(ring.is_ccw for ring in part.interiors)


@given(FIELDS)
@settings(max_examples=50, deadline=None)
def test_a_boundary_made_again_is_the_same_bytes(drawn: Polygon) -> None:
    once = boundary_from(drawn, limits=ANY_AREA)
    again = boundary_from(shapely.from_wkb(once.wkb), limits=ANY_AREA)
    assert (again.wkb, again.bbox, again.area_ha, again.repairs) == (once.wkb, once.bbox, once.area_ha, ())


@given(FIELDS)
@settings(max_examples=50, deadline=None)
def test_the_area_is_that_of_a_map_that_keeps_areas(drawn: Polygon) -> None:
    boundary = boundary_from(drawn, limits=ANY_AREA)
    west, _south, east, _north = boundary.bbox
    assert west <= east or (west > 170 and east < -170)
    around = pyproj.CRS.from_proj4(
        f"+proj=laea +lon_0={drawn.exterior.coords[0][0]} +lat_0={drawn.exterior.coords[0][1]}"
    )
    flat = pyproj.Transformer.from_crs(4326, around, always_xy=True)
    projected = shapely.transform(
        shapely.from_wkb(boundary.wkb), lambda at: np.column_stack(flat.transform(at[:, 0], at[:, 1]))
    )
    # Edges are straight in degrees here and on the map there, which differ a little far from the equator.
    assert boundary.area_ha == pytest.approx(projected.area / 1e4, rel=2e-3)


@given(FIELDS, st.floats(0.001, 2_000), st.floats(0.001, 2_000))
@settings(max_examples=50, deadline=None)
def test_a_farm_is_accepted_exactly_within_the_limits(drawn: Polygon, one: float, other: float) -> None:
    limits = AreaLimits(min_ha=min(one, other), max_ha=max(one, other))
    area_ha = boundary_from(drawn, limits=ANY_AREA).area_ha
    try:
        boundary_from(drawn, limits=limits)
        is_accepted = True
    except BadInput:
        is_accepted = False
    assert is_accepted == (limits.min_ha <= area_ha <= limits.max_ha)


@given(FIELDS, st.integers(0, 3), st.booleans(), st.floats(-9e-10, 9e-10))
@settings(max_examples=50, deadline=None)
def test_where_a_ring_starts_how_it_turns_and_its_last_bits_make_no_other_boundary(
    drawn: Polygon, start: int, is_turned: bool, nudge: float
) -> None:
    ring = list(drawn.exterior.coords)[:-1]
    ring = ring[start:] + ring[:start]
    other = shapely.transform(Polygon(ring[::-1] if is_turned else ring), lambda at: at + nudge * 0.99)
    one, two = boundary_from(drawn, limits=ANY_AREA), boundary_from(other, limits=ANY_AREA)
    assert is_same_boundary(one.wkb, two.wkb) or one.bbox[0] > one.bbox[2]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_the_order_of_features_does_not_matter(numbers: list[int], dice: random.Random) -> None:
    shuffled = list(numbers)
    dice.shuffle(shuffled)
    with tempfile.TemporaryDirectory() as folder:
        for with_id in (True, False):
            one, two = (
                {draft.external_farm_id: draft.boundary for draft in _drafts(Path(folder), order, with_id=with_id)}
                for order in (numbers, shuffled)
            )
            assert one == two
            assert len(one) == len(numbers)


def _drafts(folder: Path, order: list[int], *, with_id: bool) -> tuple[FarmDraft, ...]:
    features = [feature(field(lon=10 + n / 10), **({"id": n} if with_id else {})) for n in order]
    return read_farms(write_geojson(folder / "farms.geojson", features), limits=ANY_AREA).drafts


@given(FIELDS)
@settings(max_examples=50, deadline=None)
def test_area_does_not_depend_on_orientation(drawn: Polygon) -> None:
    shape: Any = shapely.from_wkb(boundary_from(drawn, limits=ANY_AREA).wkb)
    assert geodesic_area_ha(shapely.reverse(shape)) == pytest.approx(geodesic_area_ha(shape), rel=1e-6)
