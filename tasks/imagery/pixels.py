"""From lazy arrays to the numbers of chosen pixels, chunk by chunk: what leaves a chunk is small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt

from tasks.imagery.reader import decode

Compute = Callable[[Sequence[Any]], Sequence[Any]]
"""Runs delayed values and gives their results in order: threads of this process, or a cluster."""

Places = npt.NDArray[np.intp]


def gather(array: da.Array, rows: Places, cols: Places, *, compute: Compute) -> npt.NDArray[np.int32]:
    """The numbers of an array at the given pixels, computing only chunks that hold any of them.

    Args:
        array: lazy, dims (band, y, x), unsigned, all bands in one chunk.
        rows, cols: (n,) pixel positions.
        compute: runs the graph.

    Returns:
        (band, n) int32: 0 nodata, negative `reader.Unread`.
    """
    found = np.zeros((array.shape[0], len(rows)), dtype=np.int32)
    if len(rows) == 0:
        return found
    tops, lefts = (np.cumsum((0, *chunks)) for chunks in array.chunks[1:])
    down = np.searchsorted(tops, rows, side="right") - 1
    right = np.searchsorted(lefts, cols, side="right") - 1
    chunk = down * (len(lefts) - 1) + right
    order = np.argsort(chunk, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(chunk[order])) + 1)
    blocks = array.to_delayed(optimize_graph=True)
    pick = dask.delayed(_pick, pure=False)
    tasks = [
        pick(blocks[0, y, x], rows[members] - tops[y], cols[members] - lefts[x])
        for members in groups
        for y, x in [(int(down[members[0]]), int(right[members[0]]))]
    ]
    for members, values in zip(groups, compute(tasks), strict=True):
        found[:, members] = values
    return found


def _pick(block: npt.NDArray[Any], rows: Places, cols: Places) -> npt.NDArray[np.int32]:
    return decode(block[:, rows, cols])


def place_on(
    rows: Places, cols: Places, *, of: tuple[float, float, float], to: tuple[float, float, float]
) -> tuple[Places, Places]:
    """Which pixel of another grid holds the centre of each given pixel, by the grids' transforms.

    Args:
        rows, cols: (n,) pixels of the first grid.
        of, to: (left, top, resolution) of the first and of the other grid, metres, both north-up in one CRS.

    Returns:
        (n,) rows and columns of the other grid; may lie outside of it.
    """
    x, y = of[0] + (cols + 0.5) * of[2], of[1] - (rows + 0.5) * of[2]
    return (
        np.floor((to[1] - y) / to[2]).astype(np.intp),
        np.floor((x - to[0]) / to[2]).astype(np.intp),
    )
