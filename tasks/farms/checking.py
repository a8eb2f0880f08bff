"""Boundaries checked for another process, which is small and has no time to spare: `python -m tasks.farms.checking`.

One line of JSON in, a list of farms as callers drew them; for each farm one line of JSON out, in their order and as
soon as it is known, so that a shape that takes forever or all of the memory is known by its place. It ends when its
input does, when nothing is asked of it for a while, or when it would need more memory than it may have.
"""

from __future__ import annotations

import base64
import contextlib
import os
import resource
import select
import signal
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

import orjson
from shapely.errors import ShapelyError

from models.errors import BadInput
from models.places import Bbox, bbox_from, place_from
from tasks.farms.boundaries import AreaLimits, Boundary, boundary_from
from tasks.farms.drawing import Reading, rectangle

MEMORY_BYTES = 2 * 1024**3
"""Address space that it may have. 100,000 vertices take a tenth; a ring that crosses itself a million times, more."""

IDLE_S = 300.0
"""It ends itself when nothing was asked for so long: 60 MB that nobody uses."""

NEAR_DEG = 0.001
"""About 100 m: a place that a caller rounded may lie so far off."""


def checked(given: Mapping[str, Any], *, limits: AreaLimits) -> Boundary:
    """Make a boundary of what a caller drew: `geometry`, or `bbox` alone; `bbox` and `centroid` must fit a geometry.

    Raises:
        BadInput: naming the member or coordinate that is wrong, and what is allowed.
    """
    bbox = None if given.get("bbox") is None else bbox_from(given["bbox"])
    place = None if given.get("centroid") is None else place_from(given["centroid"])
    if given.get("geometry") is not None:
        boundary = _drawn(given["geometry"], limits=limits)
        if bbox is not None and not _overlap(bbox, boundary.bbox):
            raise BadInput("bbox", "lies elsewhere than the geometry", allowed="the box around the geometry, or none")
    elif bbox is not None:
        boundary = _box(bbox, limits=limits)
    else:
        raise BadInput("geometry", "is missing", allowed="geometry (GeoJSON Polygon or MultiPolygon) or bbox")
    if place is not None:
        _check_centroid(place, boundary.bbox)
    return boundary


def _drawn(geometry: object, *, limits: AreaLimits) -> Boundary:
    reading = Reading()
    boundary = boundary_from(reading.shape(geometry), limits=limits)
    return Boundary(
        wkb=boundary.wkb,
        bbox=boundary.bbox,
        area_ha=boundary.area_ha,
        repairs=(*reading.repairs, *boundary.repairs),
    )


def _box(bbox: Bbox, *, limits: AreaLimits) -> Boundary:
    try:
        return boundary_from(rectangle(bbox), limits=limits)
    except BadInput as error:
        hint = "; west > east means across the antimeridian" if bbox[0] > bbox[2] else ""
        raise BadInput("bbox", error.problem + hint, allowed=error.allowed) from error


def _overlap(one: Bbox, other: Bbox) -> bool:
    if one[1] > other[3] + NEAR_DEG or other[1] > one[3] + NEAR_DEG:
        return False
    west, east = one[0], one[2] + 360 * (one[0] > one[2])
    other_west, other_east = other[0], other[2] + 360 * (other[0] > other[2])
    return any(
        west <= other_east + turn + NEAR_DEG and other_west + turn <= east + NEAR_DEG for turn in (-360.0, 0.0, 360.0)
    )


def _check_centroid(place: tuple[float, float], bbox: Bbox) -> None:
    lon, lat = place
    if _overlap((lon, lat, lon, lat), bbox):
        return
    hint = ": longitude and latitude look swapped" if _overlap((lat, lon, lat, lon), bbox) else ""
    raise BadInput("centroid", f"lies outside of the farm{hint}", allowed="a place within the farm's box, or none")


def answer(given: Mapping[str, Any], *, limits: AreaLimits) -> dict[str, Any]:
    """Tell a boundary, or what is wrong with it, as JSON can."""
    try:
        boundary = checked(given, limits=limits)
    except BadInput as error:
        return {"error": {"field": error.field, "problem": error.problem, "allowed": error.allowed}}
    except (MemoryError, RecursionError, ShapelyError) as error:
        problem = f"cannot be checked ({type(error).__name__}): it is too complex"
        return {"error": {"field": "geometry", "problem": problem, "allowed": "a simpler shape"}}
    return {
        "wkb": base64.b64encode(boundary.wkb).decode(),
        "bbox": boundary.bbox,
        "area_ha": boundary.area_ha,
        "repairs": boundary.repairs,
    }


def serve(source: BinaryIO, sink: BinaryIO, *, limits: AreaLimits, idle_s: float) -> None:
    """Answer lists of farms until the input ends or nothing comes for a while."""
    sink.write(b'"ready"\n')
    sink.flush()
    while select.select([source], [], [], idle_s)[0]:
        line = source.readline()
        if not line:
            return
        for given in orjson.loads(line):
            sink.write(orjson.dumps(answer(given, limits=limits)) + b"\n")
            sink.flush()


def main(min_ha: float, max_ha: float) -> None:
    """Serve whoever started this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the end of the input ends this
    with contextlib.suppress(ValueError, OSError):  # a limit of the machine that is lower already
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    with contextlib.suppress(BrokenPipeError):
        serve(sys.stdin.buffer, sys.stdout.buffer, limits=AreaLimits(min_ha=min_ha, max_ha=max_ha), idle_s=IDLE_S)
    os._exit(0)  # nothing to tidy up, and nobody to flush to


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]))
