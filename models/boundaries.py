"""Boundaries as bytes: whether two are the same shape. Standard library alone, so that serving may load it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

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
