"""Where pixels of a file are wanted: strips one pixel high, small enough to be sent along with every read."""

from __future__ import annotations

import math
import zlib

import numpy as np
import numpy.typing as npt

from tasks.imagery.runs import Runs, spread

CELL = 256
"""Width of a strip, pixels."""

Strips = npt.NDArray[np.bool_]
"""(height of the grid, strips across)."""


def wanted_strips(runs: Runs, shape: tuple[int, int]) -> Strips:
    """Mark the strips, one pixel high and `CELL` wide, of a grid that hold any of the given pixels.

    Args:
        runs: on the grid, none beyond its edges.
        shape: (height, width) of the grid in pixels.

    Returns:
        (height, strips across) of bool.
    """
    height, across = shape[0], -(-shape[1] // CELL)
    strips = np.zeros(height * across, dtype=np.bool_)
    first, last = runs.cols // CELL, (runs.cols + runs.counts - 1) // CELL
    strips[spread(runs.rows.astype(np.intp, copy=False) * across + first, last - first + 1)] = True
    return strips.reshape(height, across)


def packed(strips: Strips) -> tuple[bytes, tuple[int, ...]]:
    """Strips as few bytes, and their shape."""
    return zlib.compress(np.packbits(strips).tobytes(), 1), strips.shape


def unpacked(content: bytes, shape: tuple[int, ...]) -> Strips:
    """The strips that `packed` made these bytes of."""
    bits = np.unpackbits(np.frombuffer(zlib.decompress(content), np.uint8), count=math.prod(shape))
    return bits.astype(np.bool_).reshape(shape)
