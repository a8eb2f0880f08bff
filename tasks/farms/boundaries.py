"""What a farm's boundary may be, and how a drawn shape becomes one.

A boundary is a valid Polygon or MultiPolygon in longitude and latitude (WGS84), without height, outer rings counter
clockwise (RFC 7946), cut at the antimeridian, in one canonical order of parts and first vertices, so that the same
shape always has the same bytes. Vertices that need no projection are kept to the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon

from models.errors import BadInput
from models.places import ALLOWED_PLACES
from tasks.farms.antimeridian import in_one_piece, shortest_bbox, split_at_antimeridian
from tasks.farms.projection import WGS84, Projection

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

MAX_VERTICES = 100_000
"""Most vertices of one boundary. The largest parcels of national registers have some thousands."""

MAX_REPAIR_FRACTION = 0.001
"""A repair may change a polygon's area by this much at most; more means that we would be guessing what was drawn.

Rings that touch themselves are repaired without any change. A bow-tie is not: its drawn area is the difference of its
two lobes, the repaired one their sum.
"""

MAX_SPAN_KM = 200
"""Farthest that a farm may reach from north to south or from east to west, all its parts together.

Two tiles of Sentinel-2 side by side. A farm is one piece of work on one UTM zone, which parts in different countries
do not share; what lies farther apart is several farms.
"""

NORTHERNMOST = 84.0
SOUTHERNMOST = -80.0
"""Sentinel-2 tiles lie on the UTM zones of the MGRS grid, which ends at these latitudes."""

# Edges are straight in longitude and latitude, Geod takes them for geodesics: for pieces of 0.02 degrees (2 km) the
# two differ by less than 0.1 m at 60 degrees north.
_AREA_EDGE_DEG = 0.02

_GEOD = pyproj.Geod(ellps="WGS84")
_KM_PER_DEG = 111.2


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaLimits:
    """Smallest and largest farm that is accepted, hectares, both included."""

    min_ha: float
    max_ha: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """A boundary that keeps every rule of this module."""

    wkb: bytes
    """Polygon or MultiPolygon, two dimensions, little endian."""
    bbox: tuple[float, float, float, float]
    """west, south, east, north in degrees; west > east across the antimeridian."""
    area_ha: float
    repairs: tuple[str, ...]
    """What was done to make it valid, in words."""


def boundary_from(geometry: BaseGeometry | None, *, limits: AreaLimits, projection: Projection = WGS84) -> Boundary:
    """Make a farm's boundary of a drawn shape.

    Args:
        geometry: what was drawn, in the coordinates that `projection` takes.
        limits: areas that are accepted.
        projection: the way from there to longitude and latitude.

    Raises:
        BadInput: with the rule that the shape breaks, when it cannot be repaired safely.
    """
    repairs: list[str] = []
    try:
        shape = _shape(geometry, projection=projection, repairs=repairs)
    except shapely.errors.GEOSException as error:
        raise BadInput("geometry", f"cannot be made valid: {str(error)[:200]}") from error
    area_ha = geodesic_area_ha(shape)
    _check_area(area_ha, limits=limits)
    bbox = shortest_bbox(shape)
    _check_span(bbox)
    return Boundary(
        wkb=shapely.to_wkb(shape, output_dimension=2, byte_order=1),
        bbox=bbox,
        area_ha=area_ha,
        repairs=tuple(repairs),
    )


def _shape(geometry: BaseGeometry | None, *, projection: Projection, repairs: list[str]) -> Polygon | MultiPolygon:
    """Return the valid shape in longitude and latitude, in canonical order, and write down its repairs."""
    drawn = _polygons(geometry, repairs=repairs)
    _check_vertices(drawn)
    drawn = [shapely.force_2d(each) for each in drawn]
    if projection.is_flat:  # where it was drawn: projecting moves the last bits, and may hide what was wrong
        drawn = [part for each in drawn for part in _repaired(each, repairs=repairs)]
    placed = [projection.to_lon_lat(each, max_vertices=MAX_VERTICES) for each in drawn]
    _check_places(placed)
    whole = [part for each in placed for part in _repaired(in_one_piece(each), repairs=repairs)]
    pieces = [piece for each in whole for piece in split_at_antimeridian(each)]
    return _canonical(_dissolved(pieces, repairs=repairs))


def geodesic_area_ha(shape: Polygon | MultiPolygon) -> float:
    """Area of a shape in longitude and latitude on the WGS84 ellipsoid, hectares."""
    pieces = shapely.orient_polygons(shapely.segmentize(shape, _AREA_EDGE_DEG))
    area_m2, _perimeter = _GEOD.geometry_area_perimeter(pieces)
    return abs(float(area_m2)) / 10_000


def _polygons(geometry: BaseGeometry | None, *, repairs: list[str]) -> list[Polygon]:
    if geometry is None or geometry.is_empty:
        raise BadInput("geometry", "is empty", allowed="Polygon or MultiPolygon")
    if isinstance(geometry, Polygon | MultiPolygon):
        parts = [geometry] if isinstance(geometry, Polygon) else list(geometry.geoms)
        return [part for part in parts if not part.is_empty]
    if geometry.geom_type != "GeometryCollection":
        raise BadInput("geometry", f"is a {geometry.geom_type}", allowed="Polygon or MultiPolygon")
    found, others, left = [], 0, [geometry]
    while left:
        parts = list(shapely.get_parts(left.pop()))
        for part in parts:
            if part.geom_type in ("GeometryCollection", "MultiPolygon"):
                left.append(part)
            elif isinstance(part, Polygon) and not part.is_empty:
                found.append(part)
            else:
                others += 1
    if not found:
        raise BadInput("geometry", "is a GeometryCollection without a polygon", allowed="Polygon or MultiPolygon")
    repairs.append("took the polygons of a geometry collection" + (f", left {others} other parts" if others else ""))
    return found


def _check_vertices(polygons: list[Polygon]) -> None:
    vertices = int(shapely.get_num_coordinates(polygons).sum())
    if vertices > MAX_VERTICES:
        raise BadInput("geometry", f"has {vertices:,} vertices", allowed=f"at most {MAX_VERTICES:,}")
    if not np.isfinite(shapely.get_coordinates(polygons)).all():
        raise BadInput("geometry", "has a coordinate that is not a finite number")


def _check_places(polygons: list[Polygon]) -> None:
    places = shapely.get_coordinates(polygons)
    if not np.isfinite(places).all():
        raise BadInput("geometry", "lies where its coordinate reference system is not defined")
    lon, lat = places[:, 0], places[:, 1]
    if np.abs(lat).max() > 90 or np.abs(lon).max() > 360 or np.abs(lon).min() > 180:
        problem = f"has coordinates out of range, such as {_worst(places)}{_hint(lon, lat)}"
        raise BadInput("geometry", problem, allowed=ALLOWED_PLACES)
    if lat.max() > NORTHERNMOST or lat.min() < SOUTHERNMOST:
        raise BadInput(
            "geometry",
            "lies nearer to a pole than the tiles of Sentinel-2 reach",
            allowed=f"latitude {SOUTHERNMOST:g} to {NORTHERNMOST:g}",
        )


def _worst(places: NDArray[np.float64]) -> str:
    excess = np.maximum(np.abs(places[:, 0]) / 180, np.abs(places[:, 1]) / 90)
    lon, lat = places[int(excess.argmax())]
    return f"({lon:.10g}, {lat:.10g})"


def _hint(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> str:
    if np.abs(lon).max() <= 90 and np.abs(lat).max() <= 180:
        return ": longitude and latitude look swapped"
    if max(np.abs(lon).max(), np.abs(lat).max()) > 1_000:
        return ": these look like metres; name their coordinate reference system with --crs EPSG:..."
    return ""


def _repaired(polygon: Polygon, *, repairs: list[str]) -> list[Polygon]:
    if polygon.is_valid:
        return [polygon]
    reason = shapely.is_valid_reason(polygon)
    mended = shapely.make_valid(polygon, method="structure", keep_collapsed=False)
    parts = [part for part in shapely.get_parts(mended) if isinstance(part, Polygon) and not part.is_empty]
    before, after = polygon.area, sum(part.area for part in parts)
    if not after > 0:
        raise BadInput("geometry", f"has no area ({reason})")
    changed_fraction = abs(after - before) / max(after, before)
    if changed_fraction > MAX_REPAIR_FRACTION:
        raise BadInput(
            "geometry",
            f"is invalid ({reason}) and repairing it would change its area by {changed_fraction:.2%}",
            allowed=f"repairs that change it by at most {MAX_REPAIR_FRACTION:.1%}",
        )
    repairs.append(f"made valid: {reason}; area changed by {changed_fraction:.4%}")
    return parts


def _dissolved(polygons: list[Polygon], *, repairs: list[str]) -> Polygon | MultiPolygon:
    shape = polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)
    if shape.is_valid:
        return shape
    union = shapely.union_all(polygons)
    if not isinstance(union, Polygon | MultiPolygon) or union.is_empty or not union.is_valid:
        raise BadInput("geometry", "has overlapping parts that cannot be joined")
    repairs.append(f"joined overlapping or adjoining parts: {len(polygons)} became {shapely.get_num_geometries(union)}")
    return union


def _canonical(shape: Polygon | MultiPolygon) -> Polygon | MultiPolygon:
    if isinstance(shape, MultiPolygon) and len(shape.geoms) == 1:
        shape = shape.geoms[0]
    canonical = shapely.orient_polygons(shapely.normalize(shape), exterior_cw=False)
    assert isinstance(canonical, Polygon | MultiPolygon)
    return canonical


def _check_area(area_ha: float, *, limits: AreaLimits) -> None:
    if not limits.min_ha <= area_ha <= limits.max_ha or area_ha <= 0:
        raise BadInput(
            "geometry",
            f"has an area of {area_ha:.4g} ha",
            allowed=f"{limits.min_ha:g} to {limits.max_ha:g} ha (SWATH_MIN_FARM_AREA_HA, SWATH_MAX_FARM_AREA_HA)",
        )


def _check_span(bbox: tuple[float, float, float, float]) -> None:
    west, south, east, north = bbox
    width_deg = east - west if west <= east else east - west + 360
    widest_lat = 0.0 if south <= 0 <= north else min(abs(south), abs(north))
    span_km = _KM_PER_DEG * max(north - south, width_deg * math.cos(math.radians(widest_lat)))
    if span_km > MAX_SPAN_KM:
        raise BadInput(
            "geometry",
            f"reaches over {span_km:,.0f} km",
            allowed=f"parts within {MAX_SPAN_KM} km; what lies farther apart is several farms",
        )
