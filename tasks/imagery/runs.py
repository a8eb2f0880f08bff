"""Pixels as runs along rows.

A field has a run in each row it touches, some fifteen pixels long, and what is worked out for a run need not be worked
out for each of its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.integer[Any]]
Flags = npt.NDArray[np.bool_]


def spread(firsts: Places, counts: Places) -> npt.NDArray[np.intp]:
    """Numbers that go up by one along each run: `firsts[i], firsts[i] + 1, ...`, `counts[i]` of them, run after run.

    Args:
        firsts, counts: (k,), counts not negative.

    Returns:
        (sum of counts,)
    """
    ends = np.cumsum(counts, dtype=np.intp)
    total = int(ends[-1]) if len(ends) else 0
    # by how much the numbers of a run are ahead of their own places
    ahead = np.repeat(firsts - (ends - counts), counts)
    ahead += np.arange(total)
    return ahead


@dataclass(frozen=True, slots=True)
class Runs:
    """Pixels of a grid in some order, neighbours along a row joined. All arrays (k,) of integers."""

    rows: Places
    cols: Places
    """Column of the first pixel."""
    counts: Places
    """Pixels of the run, at least one."""

    @classmethod
    def of(cls, rows: Places, cols: Places) -> Self:
        """Join pixels, (n,) rows and columns, where each is the right neighbour of the one before."""
        if len(rows) == 0:
            return cls(rows, cols, np.zeros(0, np.intp))
        is_first = np.ones(len(rows), np.bool_)
        np.not_equal(np.diff(cols), 1, out=is_first[1:])
        is_first[1:] |= rows[1:] != rows[:-1]
        starts = np.flatnonzero(is_first)
        return cls(rows[starts], cols[starts], np.diff(starts, append=len(rows)))

    @property
    def size(self) -> int:
        """How many pixels."""
        return int(self.counts.sum())

    def moved(self, down: int, right: int) -> Runs:
        """The same pixels counted from another corner."""
        return Runs(self.rows + down, self.cols + right, self.counts)

    def inside(self, shape: tuple[int, int]) -> Flags:
        """Which pixels, (n,), lie on a grid of so many rows and columns."""
        is_row = (self.rows >= 0) & (self.rows < shape[0])
        before = np.clip(-self.cols, 0, self.counts)
        upto = np.clip(shape[1] - self.cols, 0, self.counts)
        if is_row.all() and not before.any() and np.array_equal(upto, self.counts):
            return np.ones(self.size, np.bool_)
        place = spread(np.zeros_like(self.counts), self.counts)
        found: Flags = np.repeat(is_row, self.counts)
        found &= place >= np.repeat(before, self.counts)
        found &= place < np.repeat(upto, self.counts)
        return found

    def where(self, flags: Flags) -> Runs:
        """The pixels whose flag, (n,), is True, in their order."""
        if flags.all():
            return self
        starts = np.cumsum(self.counts) - self.counts
        is_first, is_last = flags.copy(), flags.copy()
        is_first[1:] &= ~flags[:-1]
        is_first[starts] = flags[starts]
        is_last[:-1] &= ~flags[1:]
        is_last[starts[1:] - 1] = flags[starts[1:] - 1]
        firsts, lasts = np.flatnonzero(is_first), np.flatnonzero(is_last)
        own = np.searchsorted(starts, firsts, side="right") - 1
        return Runs(self.rows[own], self.cols[own] + (firsts - starts[own]), lasts - firsts + 1)

    def cut(self, part_of: Places, edges: Places) -> Runs:
        """The same pixels in the same order, no run beyond the part of the grid that it begins in.

        Args:
            part_of: (columns of the grid,) number of the part that each column lies in, ascending.
            edges: (parts,) first column of each.
        """
        first, last = (part_of[each].astype(np.intp) for each in (self.cols, self.cols + self.counts - 1))
        if np.array_equal(first, last):
            return self
        pieces = last - first + 1
        part = spread(first, pieces)
        rows, cols, counts = (np.repeat(each, pieces) for each in (self.rows, self.cols, self.counts))
        begin = np.maximum(cols, edges[part])
        end = np.minimum(cols + counts, np.append(edges[1:], len(part_of))[part])
        return Runs(rows, begin, end - begin)
