"""Footprints, also over the antimeridian."""

from __future__ import annotations

from typing import Any

import pytest
import shapely

from tasks.imagery.outlines import footprint_rings
from tests.support.items import recorded_items

SQUARE = ((10.0, 50.0), (11.0, 50.0), (11.0, 51.0), (10.0, 51.0), (10.0, 50.0))
HOLE = ((10.2, 50.2), (10.4, 50.2), (10.4, 50.4), (10.2, 50.2))
FAR = tuple((x + 40, y) for x, y in SQUARE)


def test_outer_rings_are_kept_and_holes_are_not() -> None:
    assert footprint_rings({"type": "Polygon", "coordinates": [SQUARE, HOLE]}) == (SQUARE,)
    assert footprint_rings({"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [FAR]]}) == (SQUARE, FAR)


@pytest.mark.parametrize(
    "geometry",
    [
        None,
        {},
        {"type": "Point", "coordinates": [1, 2]},
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon"},
        {"type": "Polygon", "coordinates": [[["a", "b"]]]},
        "POLYGON",
    ],
)
def test_what_is_no_polygon_has_no_rings(geometry: Any) -> None:
    assert footprint_rings(geometry) == ()


def test_a_ring_over_the_antimeridian_is_cut_in_two() -> None:
    ring = [[179, 50], [-179, 50], [-179, 51], [179, 51], [179, 50]]
    west, east = (shapely.Polygon(ring) for ring in footprint_rings({"type": "Polygon", "coordinates": [ring]}))
    assert west.bounds == (-180, 50, -179, 51)
    assert east.bounds == (179, 50, 180, 51)


@pytest.mark.shared_data
def test_recorded_footprints_over_the_antimeridian_keep_the_size_of_a_tile() -> None:
    items = recorded_items("earth-search-v1/items-jp2-antimeridian/*.json")
    assert len(items) == 7
    for item in items:
        parts = [shapely.Polygon(ring) for ring in footprint_rings(item["geometry"])]
        assert parts, item["id"]
        assert sum(part.area for part in parts) < 4, item["id"]
        for part in parts:
            assert part.is_valid
            west, _, east, _ = part.bounds
            assert -180 <= west <= east <= 180
            assert east - west < 4
