from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyproj
import pytest
import shapely
from shapely.geometry import GeometryCollection, LineString, MultiPolygon, Point, Polygon, box

from models.boundaries import is_same_boundary
from models.errors import BadInput
from tasks.farms.boundaries import MAX_VERTICES, AreaLimits, Boundary, boundary_from
from tasks.farms.projection import WGS84, crs_from, projection_from
from tests.support.shapes import ANY_AREA, field

BOW_TIE = Polygon([(15, 46), (15.002, 46.002), (15.002, 46), (15, 46.002)])

with np.errstate(invalid="ignore"):  # GEOS remarks on them while they are made
    NOT_A_NUMBER = shapely.from_wkt("POLYGON ((15 46, 15.1 NaN, 15.1 46.1, 15 46))")
    INFINITE = shapely.from_wkt("POLYGON ((15 46, Inf 46, 15.1 46.1, 15 46))")


def made(geometry: object, **options: object) -> Boundary:
    return boundary_from(geometry, limits=ANY_AREA, **options)  # type: ignore[arg-type]


def shape(boundary: Boundary) -> Any:
    return shapely.from_wkb(boundary.wkb)


def test_the_area_is_that_of_the_ellipsoid() -> None:
    for lat in (-60, 0, 46, 70):
        assert made(field(lat=lat, width_m=300, height_m=200)).area_ha == pytest.approx(6, rel=1e-6)


def test_a_large_area_is_that_of_the_shape_whose_edges_are_straight_in_degrees() -> None:
    boundary = made(box(10, 60, 12, 60.5))
    # Exact area of a rectangle between two meridians and two parallels.
    e2 = 0.0066943799901413165
    e = math.sqrt(e2)

    def q(lat: float) -> float:
        sine = math.sin(math.radians(lat))
        return sine / (1 - e2 * sine**2) + math.atanh(e * sine) / e

    exact_m2 = math.radians(2) * 6378137.0**2 * (1 - e2) / 2 * (q(60.5) - q(60))
    assert boundary.area_ha == pytest.approx(exact_m2 / 1e4, rel=1e-7)


def test_a_boundary_is_flat_little_endian_and_turns_counter_clockwise_with_clockwise_holes() -> None:
    drawn = Polygon(
        [(15, 46, 300), (15, 46.01, 300), (15.01, 46.01, 310), (15.01, 46, 310)],
        [[(15.002, 46.002, 1), (15.004, 46.002, 1), (15.004, 46.004, 1), (15.002, 46.004, 1)]],
    )
    boundary = made(drawn)
    back = shape(boundary)
    assert isinstance(back, Polygon)
    assert boundary.wkb[0] == 1
    assert not back.has_z
    assert back.exterior.is_ccw
    assert not back.interiors[0].is_ccw
    assert boundary.repairs == ()


def test_vertices_in_longitude_and_latitude_are_kept_to_the_last_bit() -> None:
    drawn = field(turned_deg=17)
    assert {*drawn.exterior.coords} == {*shape(made(drawn)).exterior.coords}


def test_the_same_shape_has_the_same_bytes_wherever_it_starts_and_whichever_way_it_turns() -> None:
    one, two = field(turned_deg=3), field(lon=15.01)
    rolled = Polygon([*one.exterior.coords[2:-1], *one.exterior.coords[:2]][::-1])
    assert made(MultiPolygon([one, two])).wkb == made(MultiPolygon([two, rolled])).wkb


def test_a_multipolygon_of_one_part_is_a_polygon() -> None:
    assert made(MultiPolygon([field()])).wkb == made(field()).wkb


@pytest.mark.parametrize(
    ("drawn", "reason"),
    [
        (None, "is empty"),
        (Polygon(), "is empty"),
        (Point(15, 46), "is a Point"),
        (LineString([(15, 46), (16, 46)]), "is a LineString"),
        (GeometryCollection([Point(15, 46)]), "without a polygon"),
        (NOT_A_NUMBER, "not a finite number"),
        (INFINITE, "not a finite number"),
        (Polygon([(15, 46), (15.5, 46.5), (16, 47)]), "has no area"),
        (BOW_TIE, "repairing it would change its area by 100.00%"),
        (box(46, 114, 46.001, 114.001), "look swapped"),
        (box(-38, 144, -37.999, 144.001), "look swapped"),
        (box(550_000, 96_000, 550_100, 96_100), "--crs EPSG"),
        (box(190, 46, 190.1, 46.1), "out of range"),
        (box(15, 84.5, 15.1, 84.6), "nearer to a pole"),
        (box(15, -82, 15.1, -81.9), "nearer to a pole"),
    ],
)
def test_a_shape_that_is_no_farm_is_refused_with_its_reason(drawn: shapely.Geometry | None, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        made(drawn)


def test_a_boundary_with_too_many_vertices_is_refused() -> None:
    angles = np.linspace(0, 2 * np.pi, MAX_VERTICES + 1)
    with pytest.raises(BadInput, match="vertices"):
        made(Polygon(np.column_stack([15 + np.cos(angles) / 100, 46 + np.sin(angles) / 100])))


def test_area_limits_are_included_and_named() -> None:
    area_ha = made(field()).area_ha
    assert boundary_from(field(), limits=AreaLimits(min_ha=area_ha, max_ha=area_ha)).area_ha == area_ha
    with pytest.raises(BadInput, match="SWATH_MIN_FARM_AREA_HA"):
        boundary_from(field(), limits=AreaLimits(min_ha=1.01, max_ha=2))
    with pytest.raises(BadInput, match=r"0\.1 to 0\.9 ha"):
        boundary_from(field(), limits=AreaLimits(min_ha=0.1, max_ha=0.9))


def test_a_ring_that_touches_itself_is_repaired_and_said() -> None:
    hollow = [(15.002, 46.004), (15.004, 46.002), (15.006, 46.004)]  # entered and left at the same vertex
    drawn = Polygon([(15, 46), (15.004, 46), *hollow, (15.004, 46), (15.01, 46), (15.005, 46.01)])
    assert not drawn.is_valid
    boundary = made(drawn)
    assert shape(boundary).is_valid
    assert "made valid" in boundary.repairs[0]
    assert shape(boundary).area == pytest.approx(drawn.area, rel=1e-3)


def test_overlapping_equal_and_adjoining_parts_are_joined_and_counted_once() -> None:
    one, overlapping, adjoining = (
        box(15, 46, 15.01, 46.01),
        box(15.005, 46, 15.015, 46.01),
        box(15.015, 46, 15.02, 46.01),
    )
    boundary = made(MultiPolygon([one, one, overlapping, adjoining]))
    assert shape(boundary).equals(box(15, 46, 15.02, 46.01))
    assert boundary.area_ha == pytest.approx(made(box(15, 46, 15.02, 46.01)).area_ha)
    assert boundary.repairs == ("joined overlapping or adjoining parts: 4 became 1",)


def test_the_polygons_of_a_nested_collection_are_taken_and_the_rest_is_said() -> None:
    inner = GeometryCollection([field(lon=15.1), Point(15, 46)])
    boundary = made(GeometryCollection([field(), inner, LineString([(15, 46), (15, 47)])]))
    assert shapely.get_num_geometries(shape(boundary)) == 2
    assert boundary.repairs == ("took the polygons of a geometry collection, left 2 other parts",)


class TestAntimeridian:
    # 0.2 degrees wide over the line at 17 degrees south, as files draw it.
    AS_A_JUMP = Polygon([(179.9, -17), (-179.9, -17), (-179.9, -16.9), (179.9, -16.9)])
    AS_A_JUMP_FROM_THE_EAST = Polygon([(-179.9, -17), (-179.9, -16.9), (179.9, -16.9), (179.9, -17)])
    RUNNING_ON = box(179.9, -17, 180.1, -16.9)
    RUNNING_ON_WESTWARD = box(-180.1, -17, -179.9, -16.9)
    SPLIT = MultiPolygon([box(179.9, -17, 180, -16.9), box(-180, -17, -179.9, -16.9)])

    @pytest.mark.parametrize("drawn", [AS_A_JUMP, AS_A_JUMP_FROM_THE_EAST, RUNNING_ON, RUNNING_ON_WESTWARD, SPLIT])
    def test_a_farm_across_the_line_is_split_at_it_however_it_was_drawn(self, drawn: shapely.Geometry) -> None:
        boundary = made(drawn)
        assert is_same_boundary(boundary.wkb, made(self.SPLIT).wkb)
        west, south, east, north = boundary.bbox
        assert west > east
        assert (west, south, east, north) == pytest.approx((179.9, -17, -179.9, -16.9))
        assert boundary.area_ha == pytest.approx(2 * made(box(179, -17, 179.1, -16.9)).area_ha)

    def test_a_hole_across_the_line_stays_a_hole(self) -> None:
        hole = [(179.95, -16.98), (-179.95, -16.98), (-179.95, -16.92), (179.95, -16.92)]
        drawn = Polygon(self.AS_A_JUMP.exterior.coords, [hole])
        whole, hollow = made(self.AS_A_JUMP), made(drawn)
        assert hollow.area_ha == pytest.approx(whole.area_ha - made(box(179, -16.98, 179.1, -16.92)).area_ha, rel=1e-6)
        assert hollow.bbox == pytest.approx(whole.bbox)

    def test_a_hole_on_one_side_of_the_line_stays_where_it_was(self) -> None:
        hole = [(-179.97, -16.98), (-179.95, -16.98), (-179.95, -16.92), (-179.97, -16.92)]
        drawn = Polygon(self.AS_A_JUMP.exterior.coords, [hole])
        assert not shape(made(drawn)).intersects(Point(-179.96, -16.95))
        assert shape(made(drawn)).intersects(Point(179.96, -16.95))

    def test_a_farm_in_the_utm_zone_beside_the_line_is_split_too(self) -> None:
        to_utm = pyproj.Transformer.from_crs(4326, 32701, always_xy=True)
        x, y = to_utm.transform(-180, -17)
        boundary = made(
            box(x - 100, y - 100, x + 100, y + 100), projection=projection_from(pyproj.CRS.from_epsg(32701))
        )
        assert boundary.bbox[0] > boundary.bbox[2]
        assert boundary.area_ha == pytest.approx(4, rel=2e-3)

    def test_parts_on_both_sides_have_the_narrow_box(self) -> None:
        assert made(MultiPolygon([box(179.5, -17, 179.6, -16.9), box(-179.1, -17, -179, -16.9)])).bbox[0] == 179.5

    def test_other_parts_do_not(self) -> None:
        drawn = MultiPolygon([box(20, -17, 20.1, -16.9), box(19, -17, 19.1, -16.9)])
        assert made(drawn).bbox == (19, -17, 20.1, -16.9)

    def test_a_ring_around_the_pole_is_refused(self) -> None:
        with pytest.raises(BadInput, match="around a pole"):
            made(Polygon([(0, 80), (120, 80), (-120, 80)]))


class TestProjection:
    def test_short_edges_get_no_vertices(self) -> None:
        projection = projection_from(pyproj.CRS.from_epsg(32633))
        assert len(shape(made(box(5e5, 5e6, 5e5 + 999, 5e6 + 999), projection=projection)).exterior.coords) == 5

    def test_long_edges_stay_straight_within_centimetres(self) -> None:
        utm = pyproj.CRS.from_epsg(32633)
        drawn = Polygon([(420_000, 5_600_000), (430_000, 5_603_000), (428_000, 5_612_000)])
        boundary = shape(made(drawn, projection=projection_from(utm)))
        back = pyproj.Transformer.from_crs(4326, utm, always_xy=True)
        fine = shapely.segmentize(boundary, 1e-4)
        returned = shapely.transform(fine, lambda at: np.column_stack(back.transform(at[:, 0], at[:, 1])))
        assert shapely.hausdorff_distance(returned.exterior, shapely.segmentize(drawn.exterior, 10)) < 10
        distances = shapely.distance(shapely.points(shapely.get_coordinates(returned)), drawn.exterior)
        assert distances.max() < 0.05

    def test_an_edge_longer_than_any_farm_is_refused_before_it_fills_the_memory(self) -> None:
        with pytest.raises(BadInput, match="perimeter"):
            made(box(0, 0, 1e15, 1e15), projection=projection_from(pyproj.CRS.from_epsg(32633)))

    def test_feet_are_feet(self) -> None:
        feet = pyproj.CRS.from_epsg(2263)
        x, y = pyproj.Transformer.from_crs(4326, feet, always_xy=True).transform(-73.9, 40.8)
        boundary = made(box(x, y, x + 1_000, y + 1_000), projection=projection_from(feet))
        assert boundary.area_ha == pytest.approx((1_000 * 0.3048006) ** 2 / 1e4, rel=1e-3)
        assert len(shape(boundary).exterior.coords) == 5

    @pytest.mark.parametrize(
        "code", ["EPSG:4326", "EPSG:4979", "OGC:CRS84", "urn:ogc:def:crs:OGC:1.3:CRS84", "EPSG:9518"]
    )
    def test_systems_that_are_wgs84_are_taken_as_they_are(self, code: str) -> None:
        assert projection_from(crs_from(code, field="crs")) == WGS84

    def test_a_compound_system_is_read_by_its_map_part(self) -> None:
        x, y = pyproj.Transformer.from_crs(4326, 28992, always_xy=True).transform(5.4, 52.2)
        boundary = made(box(x, y, x + 100, y + 100), projection=projection_from(pyproj.CRS.from_epsg(7415)))
        assert boundary.bbox[:2] == pytest.approx((5.4, 52.2), abs=1e-4)

    def test_places_where_a_projection_is_not_defined_are_refused(self) -> None:
        lambert = projection_from(pyproj.CRS.from_proj4("+proj=ortho +lon_0=0 +lat_0=0"))
        with pytest.raises(BadInput, match="not defined"):
            made(box(7e6, 7e6, 7.001e6, 7.001e6), projection=lambert)

    def test_a_local_grid_is_refused(self) -> None:
        local = pyproj.CRS.from_wkt(
            'ENGCRS["plan of the yard",EDATUM["gate post"],CS[Cartesian,2],'
            'AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
        )
        with pytest.raises(BadInput, match="no known place on the Earth"):
            projection_from(local)

    def test_nonsense_is_no_system(self) -> None:
        with pytest.raises(BadInput, match="crs: is not a coordinate reference system"):
            crs_from("EPSG:123456789", field="crs")


class TestSameBoundary:
    def test_less_than_a_billionth_of_a_degree_is_the_same(self) -> None:
        drawn = field(turned_deg=11)
        moved = shapely.transform(drawn, lambda at: at + 5e-10)
        farther = shapely.transform(drawn, lambda at: at + 2e-9)
        assert is_same_boundary(made(drawn).wkb, made(moved).wkb)
        assert not is_same_boundary(made(drawn).wkb, made(farther).wkb)

    def test_a_ring_that_starts_elsewhere_after_rounding_is_the_same(self) -> None:
        upright = Polygon([(15, 46), (15.001, 46), (15.001, 46.001), (15, 46.001)])
        leaning = Polygon([(15 + 1e-13, 46), (15.001, 46), (15.001, 46.001), (15 - 1e-13, 46.001)])
        assert shape(made(upright)).exterior.coords[0] != pytest.approx(shape(made(leaning)).exterior.coords[0])
        assert is_same_boundary(made(upright).wkb, made(leaning).wkb)

    def test_a_hole_is_not_a_part(self) -> None:
        outer, inner = box(15, 46, 15.1, 46.1), box(15.02, 46.02, 15.03, 46.03)
        hollow = shapely.orient_polygons(Polygon(outer.exterior.coords, [inner.exterior.coords]))
        both = MultiPolygon([Polygon(outer.exterior.coords), shapely.reverse(Polygon(inner.exterior.coords))])
        assert not is_same_boundary(shapely.to_wkb(hollow, byte_order=1), shapely.to_wkb(both, byte_order=1))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((55.5, -21.1), (-30.0, -21.1)),
        ((55.5, -21.1), (-61.5, 16.2)),
        ((15.0, 46.0), (15.0, 47.9)),
        ((15.0, 0.0), (16.9, 0.0)),
        ((179.0, 10.0), (-179.0, 10.0)),
    ],
)
def test_parts_that_lie_far_apart_are_no_farm(one: tuple[float, float], other: tuple[float, float]) -> None:
    parts = MultiPolygon([field(lon=lon, lat=lat) for lon, lat in (one, other)])
    with pytest.raises(BadInput, match=r"reaches over [\d,]+ km; allowed: parts within 200 km"):
        made(parts)


def test_many_parts_around_the_globe_are_no_farm() -> None:
    with pytest.raises(BadInput, match="reaches over"):
        made(MultiPolygon([field(lon=lon, lat=0) for lon in range(-179, 180)]))


@pytest.mark.parametrize(
    ("one", "other"),
    [((15.0, 46.0), (15.0, 47.7)), ((15.0, 60.0), (18.0, 60.0)), ((179.5, 10.0), (-179.5, 10.0))],
)
def test_parts_within_the_limit_are_one_farm(one: tuple[float, float], other: tuple[float, float]) -> None:
    parts = MultiPolygon([field(lon=lon, lat=lat) for lon, lat in (one, other)])
    assert made(parts).area_ha == pytest.approx(2, rel=1e-6)
