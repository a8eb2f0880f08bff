from __future__ import annotations

import io
import os
import threading
from typing import Any

import orjson
import pytest
import shapely
from shapely.geometry import Polygon, box, mapping

from models.errors import BadInput
from models.texts import MAX_TEXT, clean_text
from tasks.farms.boundaries import MAX_VERTICES, AreaLimits, boundary_from
from tasks.farms.checking import answer, checked, serve
from tests.support.shapes import ANY_AREA, field

SQUARE = [[15.0, 46.0], [15.001, 46.0], [15.001, 46.001], [15.0, 46.001], [15.0, 46.0]]


def polygon(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def with_vertex(number: int, vertex: Any) -> dict[str, Any]:
    return polygon([vertex if place == number else each for place, each in enumerate(SQUARE)])


def as_json(shape: Any) -> Any:
    return orjson.loads(orjson.dumps(mapping(shape)))


class TestWhatIsTaken:
    @pytest.mark.parametrize(
        "drawn",
        [
            field(turned_deg=33),
            field(lon=17, width_m=500, height_m=500).difference(field(lon=17, width_m=50, height_m=50)),
            shapely.MultiPolygon([field(lon=17), field(lon=17.01)]),
        ],
    )
    def test_a_shape_becomes_the_boundary_that_an_import_makes_of_it(self, drawn: Any) -> None:
        assert checked({"geometry": as_json(drawn)}, limits=ANY_AREA) == boundary_from(drawn, limits=ANY_AREA)

    def test_a_box_alone_is_a_rectangle(self) -> None:
        made = checked({"bbox": [15, 46, 15.01, 46.02]}, limits=ANY_AREA)
        assert shapely.from_wkb(made.wkb).equals(box(15, 46, 15.01, 46.02))
        assert made.bbox == (15, 46, 15.01, 46.02)

    def test_a_box_across_the_antimeridian_is_two_pieces(self) -> None:
        made = checked({"bbox": [179.99, -17, -179.99, -16.99]}, limits=ANY_AREA)
        assert made.bbox == pytest.approx((179.99, -17, -179.99, -16.99))
        assert shapely.from_wkb(made.wkb).area == pytest.approx(0.02 * 0.01)

    def test_heights_are_left_out(self) -> None:
        high = polygon([[*place, 300] for place in SQUARE])
        assert checked({"geometry": high}, limits=ANY_AREA) == checked({"geometry": polygon(SQUARE)}, limits=ANY_AREA)

    def test_an_open_ring_is_closed_and_said(self) -> None:
        made = checked({"geometry": polygon(SQUARE[:-1])}, limits=ANY_AREA)
        assert made.wkb == checked({"geometry": polygon(SQUARE)}, limits=ANY_AREA).wkb
        assert made.repairs == ("closed a ring that was open: geometry.coordinates[0]",)

    def test_a_ring_that_touches_itself_is_repaired_and_said(self) -> None:
        spike = [*SQUARE[:2], [15.002, 46.0], [15.001, 46.0], *SQUARE[2:]]
        [said] = checked({"geometry": polygon(spike)}, limits=ANY_AREA).repairs
        assert said.startswith("made valid: ")

    @pytest.mark.parametrize(
        "centroid",
        [
            {"type": "Point", "coordinates": [15.0005, 46.0005]},
            [15.0005, 46.0005],
            {"lat": 46.0005, "lon": 15.0005},
            [15.0015, 46.0],
        ],
    )
    def test_a_centroid_and_a_box_that_fit_change_nothing(self, centroid: Any) -> None:
        given = {"geometry": polygon(SQUARE), "centroid": centroid, "bbox": [15, 46, 15.001, 46.001]}
        assert checked(given, limits=ANY_AREA) == checked({"geometry": polygon(SQUARE)}, limits=ANY_AREA)


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({}, "geometry", "is missing"),
    ({"geometry": []}, "geometry", "is not an object"),
    ({"geometry": {"type": "Point", "coordinates": [15, 46]}}, "geometry.type", "is a Point"),
    ({"geometry": {"type": ["Polygon"], "coordinates": []}}, "geometry.type", "no text"),
    ({"geometry": {**polygon(SQUARE), "crs": {}}}, "geometry.crs", "not a known field"),
    ({"geometry": {"type": "Polygon"}}, "geometry.coordinates", "is not a list"),
    ({"geometry": polygon()}, "geometry.coordinates", "is empty"),
    ({"geometry": polygon([])}, "geometry.coordinates[0]", "is empty"),
    ({"geometry": polygon(SQUARE, "hole")}, "geometry.coordinates[1]", "is not a list"),
    ({"geometry": {"type": "MultiPolygon", "coordinates": [[SQUARE], [[]]]}}, "geometry.coordinates[1][0]", "is empty"),
    ({"geometry": {"type": "MultiPolygon", "coordinates": [SQUARE]}}, "geometry.coordinates[0][0][0]", "a position"),
    ({"geometry": polygon(SQUARE[:2])}, "geometry.coordinates[0]", "has 2 corners"),
    ({"geometry": with_vertex(2, [15.001, "46"])}, "geometry.coordinates[0][2]", "is not a position"),
    ({"geometry": with_vertex(2, [15.001, True])}, "geometry.coordinates[0][2]", "is not a position"),
    ({"geometry": with_vertex(2, [15.001])}, "geometry.coordinates[0][2]", "is not a position"),
    ({"geometry": with_vertex(2, [15.001, None])}, "geometry.coordinates[0][2]", "is not a position"),
    ({"geometry": with_vertex(2, [15.001, float("nan")])}, "geometry.coordinates[0][2]", "is not a position"),
    ({"geometry": with_vertex(2, [10**400, 46.0])}, "geometry.coordinates[0][2]", "is not a position"),
    ({"geometry": with_vertex(3, [46.0, 115.0])}, "geometry.coordinates[0][3]", "look swapped"),
    ({"geometry": with_vertex(3, [500_000, 5_000_000])}, "geometry.coordinates[0][3]", "look like metres"),
    ({"geometry": polygon([[15, 46], [15.001, 46], [15.002, 46], [15, 46]])}, "geometry", "has no area"),
    ({"geometry": polygon([[15, 46], [15.01, 46.01], [15.01, 46], [15, 46.01], [15, 46]])}, "geometry", "is invalid"),
    ({"geometry": polygon(SQUARE), "bbox": [16, 46, 16.1, 46.1]}, "bbox", "lies elsewhere"),
    ({"geometry": polygon(SQUARE), "centroid": [46.0005, 15.0005]}, "centroid", "look swapped"),
    ({"geometry": polygon(SQUARE), "centroid": [17, 46]}, "centroid", "lies outside"),
    ({"geometry": polygon(SQUARE), "centroid": "middle"}, "centroid", "is not a place"),
    ({"geometry": polygon(SQUARE), "centroid": [15, 91]}, "centroid", "out of range"),
    ({"bbox": [15, 46, 15.01]}, "bbox", "four numbers"),
    ({"bbox": [15, 46, 15.01, "x"]}, "bbox[3]", "is not a number"),
    ({"bbox": [46, 115, 46.01, 115.01]}, "bbox[1]", "look swapped"),
    ({"bbox": [15, 46.01, 15.01, 46]}, "bbox", "not below its north"),
    ({"bbox": [15, 46, 15, 46.1]}, "bbox", "has no width"),
    ({"bbox": [15.01, 46, 15, 46.01]}, "bbox", "means across the antimeridian"),
    ({"bbox": [0, 0, 20, 20]}, "bbox", "has an area of"),
]


class TestWhatIsRefused:
    @pytest.mark.parametrize(("given", "field_name", "problem"), REFUSED)
    def test_what_is_wrong_is_named_to_the_coordinate(
        self, given: dict[str, Any], field_name: str, problem: str
    ) -> None:
        with pytest.raises(BadInput) as caught:
            checked(given, limits=AreaLimits(min_ha=0.001, max_ha=1e5))
        assert caught.value.field == field_name
        assert problem in caught.value.problem

    def test_too_many_vertices_are_refused_before_they_become_a_shape(self) -> None:
        ring = [[15.0, 46.0]] * (MAX_VERTICES + 1)
        with pytest.raises(BadInput, match="has more than 100,000 vertices"):
            checked({"geometry": polygon(ring)}, limits=ANY_AREA)

    def test_vertices_count_over_all_rings(self) -> None:
        ring = [[15.0, 46.0]] * (MAX_VERTICES // 2)
        with pytest.raises(BadInput, match="vertices"):
            checked({"geometry": polygon(SQUARE, ring, ring)}, limits=ANY_AREA)


def test_lists_are_answered_in_order_one_line_each_until_the_input_ends() -> None:
    given = [{"geometry": polygon(SQUARE)}, {"bbox": [1]}, {"bbox": [15, 46, 15.001, 46.001]}]
    out, into = os.pipe()
    sink = io.BytesIO()
    with os.fdopen(out, "rb") as source:
        reader = threading.Thread(target=lambda: serve(source, sink, limits=ANY_AREA, idle_s=10))
        reader.start()
        with os.fdopen(into, "wb") as pipe:
            pipe.write(orjson.dumps(given) + b"\n")
        reader.join(10)
    ready, *answers = [orjson.loads(line) for line in sink.getvalue().splitlines()]
    assert ready == "ready"
    assert answers == [orjson.loads(orjson.dumps(answer(each, limits=ANY_AREA))) for each in given]
    assert [list(each) for each in answers][1] == ["error"]


def test_serving_ends_when_nothing_is_asked_for_a_while() -> None:
    out, into = os.pipe()
    with os.fdopen(out, "rb") as source, os.fdopen(into, "wb"):
        serve(source, io.BytesIO(), limits=ANY_AREA, idle_s=0.01)


class TestTexts:
    def test_white_space_is_one_space(self) -> None:
        assert clean_text("  Lower \t field\n ") == "Lower field"
        assert clean_text(" \n ") is None

    @pytest.mark.parametrize("text", ["a\x00b", "a\u202eb", "x" * (MAX_TEXT + 1), "\ud800", " " * 20_000])
    def test_what_cannot_be_seen_or_is_too_long_is_refused(self, text: str) -> None:
        with pytest.raises(BadInput, match="200 printable characters"):
            clean_text(text)


def test_a_hole_is_kept() -> None:
    hole = [[15.0002, 46.0002], [15.0004, 46.0002], [15.0004, 46.0004], [15.0002, 46.0002]]
    made = shapely.from_wkb(checked({"geometry": polygon(SQUARE, hole)}, limits=ANY_AREA).wkb)
    assert made.equals(Polygon(SQUARE, [hole]))
