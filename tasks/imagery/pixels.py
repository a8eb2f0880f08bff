"""From lazy arrays to the numbers of chosen pixels, chunk by chunk: what leaves a chunk is small."""

from __future__ import annotations

import itertools
import uuid
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Self

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.blockwise import BlockwiseDepDict, blockwise
from dask.highlevelgraph import HighLevelGraph

from tasks.imagery.reader import decode
from tasks.imagery.runs import Places, Runs, spread

Compute = Callable[[Sequence[Any]], Sequence[Any]]
"""Runs delayed values and gives their results in order: threads of this process, or a cluster."""


def gather(array: da.Array, runs: Runs, *, compute: Compute) -> npt.NDArray[np.int32]:
    """The numbers of an array at the given pixels, computing only chunks that hold any of them.

    Args:
        array: lazy, dims (band, y, x), unsigned, in any chunks.
        runs: of n pixels of the array, none beyond its edges.
        compute: runs the graph.

    Returns:
        (band, n) int32, run after run: 0 nodata, negative `reader.Unread`.
    """
    bands, blocks_down, blocks_across = array.numblocks
    # numpy sorts 16 bits by counting, ten times as fast as wider numbers
    dtype = np.min_scalar_type(blocks_down * blocks_across)
    (down, tops), (right, lefts) = (_chunk_table(chunks, dtype) for chunks in array.chunks[1:])
    runs = runs.cut(right, lefts)
    found = np.zeros((array.shape[0], runs.size), dtype=np.int32)
    if len(runs.rows) == 0:
        return found
    number = down[runs.rows] * dtype.type(blocks_across) + right[runs.cols]
    order = np.argsort(number, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(number[order])) + 1)
    wanted = {}
    for members in groups:
        y, x = divmod(int(number[members[0]]), blocks_across)
        own = runs.rows[members] - tops[y], runs.cols[members] - lefts[x], runs.counts[members]
        wanted[y, x] = PixelsOfBlock(Runs(*own))
    picks = _picks(array, wanted).to_delayed(optimize_graph=True)
    values = compute([picks[band, y, x] for y, x in wanted for band in range(bands)])
    starts = np.cumsum(runs.counts) - runs.counts
    for group, members in enumerate(groups):
        places = spread(starts[members], runs.counts[members])
        for band, numbers in enumerate(itertools.chain.from_iterable(values[group * bands : (group + 1) * bands])):
            found[band][places] = decode(numbers)
    return found


def _chunk_table(chunks: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
    """Which chunk each row or column lies in, and where each chunk begins."""
    return np.repeat(np.arange(len(chunks), dtype=dtype), chunks), np.cumsum([0, *chunks[:-1]], dtype=np.intp)


class PixelsOfBlock:
    """Which pixels of a block are wanted, counted from its upper left corner; pickles to a tenth."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[bytes, ...]]:
        return self._made_of, tuple(_packed(each) for each in (self.runs.rows, self.runs.cols, self.runs.counts))

    @classmethod
    def _made_of(cls, *packed: bytes) -> Self:
        return cls(Runs(*(_unpacked(each) for each in packed)))


def _packed(places: Places) -> bytes:
    """Rows or columns as the steps from each to the next: along a farm these are small, and the same again."""
    return zlib.compress(np.diff(places.astype(np.int32), prepend=np.int32(0)).tobytes(), 1)


def _unpacked(packed: bytes) -> Places:
    return np.cumsum(np.frombuffer(zlib.decompress(packed), np.int32), dtype=np.int32)


def _picks(array: da.Array, wanted: dict[tuple[int, int], PixelsOfBlock]) -> da.Array:
    """Lazy, as `array`, but each block (band, n): its numbers at the wanted pixels. Blocks without any cannot be run.

    One layer over the array, so that Dask joins the reading of a block and the picking into one task: a block that was
    a result of its own might be sent from one worker of a cluster to another, or wait there for its turn.
    """
    name = f"pick-{uuid.uuid4().hex}"  # each try reads anew
    _, down, across = array.numblocks
    by_block = _ByBlock({at: wanted.get(at) for at in np.ndindex(down, across)}, numblocks=(down, across))
    layer = blockwise(_pick, name, "byx", array.name, "byx", by_block, "yx", numblocks={array.name: array.numblocks})
    graph = HighLevelGraph.from_collections(name, layer, dependencies=[array])
    return da.Array(graph, name, array.chunks, dtype=array.dtype)


class _ByBlock(BlockwiseDepDict):  # type: ignore[misc]
    """An argument that each block has its own of. Dask names it by a hash of all of it, unless it is told a name."""

    def __dask_tokenize__(self) -> str:
        return uuid.uuid4().hex


def _pick(block: npt.NDArray[Any], pixels: PixelsOfBlock) -> npt.NDArray[Any]:
    bands, _, width = block.shape
    runs = pixels.runs
    places = spread(runs.rows * np.intp(width) + runs.cols, runs.counts)
    found: npt.NDArray[Any] = block.reshape(bands, -1).take(places, axis=1)
    return found


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
    return (
        _by_table(rows, lambda row: (to[1] - (of[1] - (row + 0.5) * of[2])) / to[2]),
        _by_table(cols, lambda col: (of[0] + (col + 0.5) * of[2] - to[0]) / to[2]),
    )


def _by_table(places: Places, position: Callable[[Places], npt.NDArray[np.floating[Any]]]) -> Places:
    """Where each row or column comes to lie: worked out once for each number, as a farm's pixels share their rows."""
    if len(places) == 0:
        return places
    low = int(places.min())
    table: Places = np.floor(position(np.arange(low, int(places.max()) + 1))).astype(np.int32)
    found: Places = table[places - low]
    return found
