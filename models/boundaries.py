"""Boundaries as bytes: what they draw, and whether two draw the same. Standard library alone, for serving to load."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import Any

SAME_WITHIN_DEG = 1e-9
"""Boundaries that differ by less are the same: a tenth of a millimetre, less than any writer rounds to."""

Ring = list[tuple[float, float]]

_POLYGON, _MULTIPOLYGON = 3, 6


def is_same_boundary(one: bytes, other: bytes) -> bool:
    """Whether two canonical boundaries (little endian WKB) draw the same shape, wherever their rings start."""
    if one == other:
        return True
    rings, others = list(_rings(one)), list(_rings(other))
    return len(rings) == len(others) and all(
        is_outer == other_is_outer and _is_same_ring(ring, other_ring)
        for (is_outer, ring), (other_is_outer, other_ring) in zip(rings, others, strict=True)
    )


def geojson(wkb: bytes) -> dict[str, Any]:
    """Return a boundary as a GeoJSON geometry, each coordinate to the last bit."""
    polygons = _polygons(wkb)
    (kind,) = struct.unpack_from("<xI", wkb)
    if kind == _POLYGON:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def centroid(wkb: bytes, *, crosses_antimeridian: bool) -> tuple[float, float]:
    """Return longitude and latitude of a boundary's centre of area, edges taken as straight in degrees."""
    area = moment_lon = moment_lat = 0.0
    polygons = _polygons(wkb)
    first_lon, first_lat = polygons[0][0][0]  # near it, so that no digits are lost
    for ring in (ring for polygon in polygons for ring in polygon):  # holes run the other way and count against
        places = [
            (((lon + 360) if crosses_antimeridian and lon < 0 else lon) - first_lon, lat - first_lat)
            for lon, lat in ring
        ]
        for (lon, lat), (next_lon, next_lat) in itertools.pairwise(places):
            cross = lon * next_lat - next_lon * lat
            area += cross
            moment_lon += (lon + next_lon) * cross
            moment_lat += (lat + next_lat) * cross
    lon, lat = first_lon + moment_lon / (3 * area), first_lat + moment_lat / (3 * area)
    return (lon - 360 if lon > 180 else lon), lat


def _polygons(wkb: bytes) -> list[list[Ring]]:
    polygons: list[list[Ring]] = []
    for is_outer, ring in _rings(wkb):
        if is_outer:
            polygons.append([])
        polygons[-1].append(ring)
    return polygons


def _is_same_ring(ring: Ring, other: Ring) -> bool:
    """Compare two closed rings, from the first vertex of the other that lies where this one starts."""
    if len(ring) != len(other):
        return False
    open_ring, open_other = ring[:-1], other[:-1]
    starts = (place for place, vertex in enumerate(open_other) if _is_near(open_ring[0], vertex))
    return any(all(map(_is_near, open_ring, open_other[start:] + open_other[:start])) for start in starts)


def _is_near(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return abs(one[0] - other[0]) <= SAME_WITHIN_DEG and abs(one[1] - other[1]) <= SAME_WITHIN_DEG


def _rings(wkb: bytes) -> Iterator[tuple[bool, Ring]]:
    """Yield every ring of a Polygon or MultiPolygon in order, and whether it is an outer one."""
    kind, count = struct.unpack_from("<xII", wkb)
    if kind == _POLYGON:
        yield from _polygon(wkb, 0)[0]
        return
    if kind != _MULTIPOLYGON:
        raise ValueError(f"a boundary is a Polygon or a MultiPolygon, not WKB type {kind}")
    at = 9
    for _ in range(count):
        rings, at = _polygon(wkb, at)
        yield from rings


def _polygon(wkb: bytes, at: int) -> tuple[list[tuple[bool, Ring]], int]:
    _kind, count = struct.unpack_from("<xII", wkb, at)
    at += 9
    rings: list[tuple[bool, Ring]] = []
    for index in range(count):
        (vertices,) = struct.unpack_from("<I", wkb, at)
        numbers = struct.unpack_from(f"<{2 * vertices}d", wkb, at + 4)
        rings.append((index == 0, list(zip(numbers[::2], numbers[1::2], strict=True))))
        at += 4 + 16 * vertices
    return rings, at
