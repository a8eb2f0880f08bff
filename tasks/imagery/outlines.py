"""The footprint of an item as outer rings on the map, cut where it crosses the antimeridian."""

from __future__ import annotations

import itertools
from typing import Any

import shapely

Ring = tuple[tuple[float, float], ...]


def footprint_rings(geometry: Any) -> tuple[Ring, ...]:
    """Outer rings of a GeoJSON Polygon or MultiPolygon, closed, longitudes within [-180, 180].

    Catalogs draw a footprint over the antimeridian as a ring that jumps from 180 to -180; read as it stands it spans
    the whole world. Such a ring is cut in two. Empty when there is no polygon to be read.
    """
    try:
        kind, coordinates = geometry["type"], geometry["coordinates"]
        polygons = {"Polygon": [coordinates], "MultiPolygon": coordinates}[kind]
        rings = [[_place(point) for point in polygon[0]] for polygon in polygons]
        return tuple(itertools.chain.from_iterable(_on_the_map(ring) for ring in rings))
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, shapely.errors.ShapelyError):
        return ()


def _place(point: Any) -> tuple[float, float]:
    longitude, latitude = float(point[0]), float(point[1])
    if not (abs(longitude) <= 360 and abs(latitude) <= 90):
        raise ValueError("not a place on Earth")
    return longitude, latitude


def _on_the_map(ring: list[tuple[float, float]]) -> list[Ring]:
    """The ring itself, or its parts on both sides of the antimeridian."""
    if all(abs(after[0] - before[0]) <= 180 for before, after in itertools.pairwise(ring)):
        return [tuple(ring)]
    whole = shapely.make_valid(shapely.Polygon(_unrolled(ring)))
    parts: list[Ring] = []
    for turn in (-360, 0, 360):
        piece = shapely.intersection(whole, shapely.box(turn - 180, -90, turn + 180, 90))
        polygons = [part for part in shapely.get_parts(piece) if part.geom_type == "Polygon" and not part.is_empty]
        parts += [tuple((x - turn, y) for x, y in polygon.exterior.coords) for polygon in polygons]
    return sorted(parts)


def _unrolled(ring: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The ring with longitudes that never jump; they may leave [-180, 180]."""
    unrolled = [ring[0]]
    for x, y in ring[1:]:
        turns = round((unrolled[-1][0] - x) / 360)
        unrolled.append((x + 360 * turns, y))
    return unrolled
