"""Blocks of a tiled file over HTTP, fetched and decoded by ourselves: several with one request, only the strips in use.

Against GDAL on blocks of 1,024 x 1,024 pixels of 16 bits this takes 7 ms of processor time a block, fetching included,
instead of 10.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from tasks.imagery.files import HttpLimits, NotRead, Unread
from tasks.imagery.ranges import NoRanges, RangeBody, with_range
from tasks.imagery.tiled import HEADER_BYTES, HeaderCutShort, OtherKind, Tiling, Undecodable, tiling_of
from tasks.imagery.wanted import CELL, Strips

GAP_BYTES = 65_536
"""Bytes between two blocks that are rather fetched too than asked around."""
RUN_BYTES = 16 << 20
"""Most bytes of one request."""

_decoding = threading.BoundedSemaphore(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
"""Held while a block is decoded. More threads than processors read, since reading waits; were they all to decode as
well, the one that holds the interpreter lock would seldom be the one that runs: with 16 of them that cost half again
as much time as with 2."""


def find_tiling(address: str, limits: HttpLimits) -> Tiling | None:
    """How the blocks of a file lie; None for what is not a web address or not the kind of file that we read ourselves.

    Raises:
        NotRead: the header did not come.
    """
    if not address.startswith(("http://", "https://")):
        return None
    size = HEADER_BYTES
    for _ in range(3):
        try:
            return tiling_of(with_range(address, 0, size, limits=limits, read=RangeBody.rest, may_end=True))
        except HeaderCutShort as error:
            if error.needed <= size:  # the file itself is cut
                return None
            size = error.needed
        except (OtherKind, NoRanges):
            return None
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """The blocks of one file."""

    address: str
    """Signed, where that is needed."""
    tiling: Tiling
    wanted: Strips
    limits: HttpLimits

    def fetch(self, run: Window, part: npt.NDArray[Any]) -> None:
        """Read the blocks of a run into its place, those that lie together in the file with one request.

        Args:
            run: pixels of the file, within one row of blocks.
            part: (height, width) of the run, in the file's type. Strips without a wanted pixel become 0.

        Raises:
            NotRead: what is in `part` then is of no use.
        """
        tiling = self.tiling
        row = int(run.row_off) // tiling.block[0]
        first, last = int(run.col_off) // tiling.block[1], int(run.col_off + run.width - 1) // tiling.block[1]
        cols = sorted(range(first, last + 1), key=lambda col: int(tiling.offsets[row, col]))
        together: list[int] = []
        for col in cols:
            if tiling.sizes[row, col] == 0:  # left out, as it is all nodata
                self._place(None, (row, col), run, part)
                continue
            if together and not self._is_near(row, together, col):
                self._fetch_together(row, together, run, part)
                together = []
            together.append(col)
        if together:
            self._fetch_together(row, together, run, part)

    def _fetch_together(self, row: int, cols: list[int], run: Window, part: npt.NDArray[Any]) -> None:
        offsets, sizes = self.tiling.offsets[row].tolist(), self.tiling.sizes[row].tolist()
        start, end = offsets[cols[0]], offsets[cols[-1]] + sizes[cols[-1]]

        def read(body: RangeBody) -> None:
            for col in cols:
                content = body.take(offsets[col], sizes[col])
                with _decoding:
                    self._place(content, (row, col), run, part)

        try:
            with_range(self.address, start, end - start, limits=self.limits, read=read)
        except Undecodable as error:
            raise NotRead(str(error), why=Unread.UNREADABLE) from error
        except NoRanges as error:
            raise NotRead("a whole file or page where a part was asked for", why=Unread.UNAVAILABLE) from error

    def _is_near(self, row: int, together: list[int], col: int) -> bool:
        """Whether a block follows closely enough on others to come with the same request."""
        offsets, sizes = self.tiling.offsets[row], self.tiling.sizes[row]
        start, end = int(offsets[together[0]]), int(offsets[together[-1]] + sizes[together[-1]])
        offset, size = int(offsets[col]), int(sizes[col])
        return 0 <= offset - end <= GAP_BYTES and offset + size - start <= RUN_BYTES

    def _place(self, body: memoryview | None, at: tuple[int, int], run: Window, part: npt.NDArray[Any]) -> None:
        """Put one block into its place in a run: the strips that hold wanted pixels, and 0 elsewhere."""
        tiling = self.tiling
        (height, width), top, left = tiling.block, at[0] * tiling.block[0], at[1] * tiling.block[1]
        y, x = max(top, int(run.row_off)), max(left, int(run.col_off))
        bottom = min(top + height, int(run.row_off + run.height))
        right = min(left + width, int(run.col_off + run.width))
        target = part[y - int(run.row_off) : bottom - int(run.row_off), x - int(run.col_off) : right - int(run.col_off)]
        target[:] = 0
        if body is None:
            return
        pixels = tiling.pixels(body)[y - top : bottom - top]
        strips = range(left // CELL, -(-right // CELL))
        edges = [max(strip * CELL - left, 0) for strip in strips]
        if tiling.is_differenced:  # the pixel to the left of a strip, of which its first is the difference
            sums = np.add.reduceat(pixels, edges, axis=1, dtype=pixels.dtype)
            before = np.add.accumulate(sums, axis=1, dtype=sums.dtype) - sums
        for number, (strip, edge) in enumerate(zip(strips, edges, strict=True)):
            first, last = left + edge, min((strip + 1) * CELL, right)
            rows = np.flatnonzero(self.wanted[y:bottom, strip]) if last > x else ()
            if len(rows):
                wanted = pixels[:, edge : last - left].take(rows, axis=0)
                if tiling.is_differenced:
                    wanted[:, 0] += before[rows, number]
                    np.add.accumulate(wanted, axis=1, dtype=wanted.dtype, out=wanted)
                target[rows, max(first, x) - x : last - x] = wanted[:, max(x - first, 0) :]
