"""Few search boxes for many farms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import shapely

from models.errors import BadInput

Box = tuple[float, float, float, float]
"""west, south, east, north in degrees; west <= east."""

LONGEST_SIDE_DEG = 2.0
# Catalogs draw footprints with straight lines between corners. The true edge of a tile bends away from them by up to
# 0.4 km at 60 and 1.4 km at 80 degrees of latitude, so a farm at the very edge is found only with a margin.
_MARGIN_DEG = 0.0125


def search_boxes(bboxes: Iterable[tuple[float, float, float, float]]) -> tuple[Box, ...]:
    """Boxes that together hold all these farms, each at most 2 degrees (and a margin) wide and high.

    Args:
        bboxes: west, south, east, north of each farm in degrees; west > east when it crosses the antimeridian. Such a
            farm is cut there, and one longer than a box is cut into pieces; each piece lies within one box.

    Raises:
        BadInput: a bbox is not within the world.
    """
    pieces = {piece for bbox in bboxes for part in _parts(bbox) for piece in _cut(part)}
    return tuple(sorted(_padded(box) for box in _grouped(sorted(pieces))))


def part_boxes(outlines: Iterable[bytes]) -> list[Box]:
    """Boxes of the parts of these boundaries (WKB in longitude and latitude): they may lie far apart."""
    return [part.bounds for outline in outlines for part in shapely.get_parts(shapely.from_wkb(outline))]


def _parts(bbox: tuple[float, float, float, float]) -> list[Box]:
    west, south, east, north = bbox
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise BadInput("bbox", f"{bbox} is not within the world", allowed="west, south, east, north in degrees")
    return [(west, south, east, north)] if west <= east else [(west, south, 180.0, north), (-180.0, south, east, north)]


def _cut(part: Box) -> list[Box]:
    west, south, east, north = part
    meridians = _steps(west, east)
    parallels = _steps(south, north)
    return [(w, s, e, n) for w, e in meridians for s, n in parallels]


def _steps(start: float, end: float) -> list[tuple[float, float]]:
    """The stretch in equal steps, none longer than a box; the ends are kept to the last bit."""
    count = max(1, math.ceil((end - start) / LONGEST_SIDE_DEG))
    edges = [start, *(start + (end - start) * step / count for step in range(1, count)), end]
    return list(itertools.pairwise(edges))


def _grouped(pieces: list[Box]) -> list[Box]:
    """Halve the pieces along the longer side of what holds them, until each group fits into a box."""
    if not pieces:
        return []
    done: list[Box] = []
    waiting = [pieces]
    while waiting:
        group = waiting.pop()
        hull = _hull(group)
        width, height = hull[2] - hull[0], hull[3] - hull[1]
        # Rounding may leave the steps of a cut farm a hair longer than a box: a single piece is never halved.
        if len(group) == 1 or max(width, height) <= LONGEST_SIDE_DEG:
            done.append(hull)
            continue
        axis = 0 if width >= height else 1
        middles = sorted((box[axis] + box[axis + 2]) / 2 for box in group)
        border = (middles[0] + middles[-1]) / 2
        near = [box for box in group if (box[axis] + box[axis + 2]) / 2 <= border]
        far = [box for box in group if (box[axis] + box[axis + 2]) / 2 > border]
        # Equal middles cannot be told apart; then they share a box that is longer by rounding alone.
        waiting += [near, far] if near and far else []
        done += [] if near and far else [hull]
    return done


def _hull(boxes: list[Box]) -> Box:
    return (
        min(box[0] for box in boxes),
        min(box[1] for box in boxes),
        max(box[2] for box in boxes),
        max(box[3] for box in boxes),
    )


def _padded(box: Box) -> Box:
    west, south, east, north = box
    return (
        max(-180.0, west - _MARGIN_DEG),
        max(-90.0, south - _MARGIN_DEG),
        min(180.0, east + _MARGIN_DEG),
        min(90.0, north + _MARGIN_DEG),
    )
