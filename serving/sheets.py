"""Numbers of all workers in one piece of memory that they share: counting costs no call, reading them stops nobody.

Each worker has a sheet, and its successor goes on with the same: nothing is counted twice after a restart, no number
ever falls, and there are no files to clean up. The memory has no name, and is gone with the last process that has it.

Ours and not prometheus_client's files by process (measured, 4 workers, 96 histograms): a page takes 2 ms and not 288,
because it parses no keys; an observation takes 1.9 us and not 19.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from types import TracebackType
from typing import Any, TypeAlias

CELLS = 32_768
"""Numbers of one worker; memory that nobody wrote to takes none."""

_SIZE = 8
_SHEET_BYTES = CELLS * _SIZE
_HALF_BYTES = 131_072
_BOARD_BYTES = 2 * _SIZE + 2 * _HALF_BYTES


Sheet: TypeAlias = "memoryview[Any]"
"""Numbers of one worker."""


class Sheets:
    """A sheet for each worker, and a board on which one process tells what it found out for all others.

    Args:
        workers: how many.
        descriptor: of a file of that size, shared with other processes; None: memory of this process alone.
    """

    def __init__(self, workers: int, *, descriptor: int | None = None) -> None:
        self.workers = workers
        self.descriptor = descriptor
        self._memory = mmap.mmap(-1 if descriptor is None else descriptor, _size(workers))
        self._cells = memoryview(self._memory).cast("d")

    @classmethod
    def shared(cls, workers: int) -> Sheets:
        """Sheets whose descriptor can be given to worker processes."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("swath-figures")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, _size(workers))
        return cls(workers, descriptor=descriptor)

    @classmethod
    def given(cls, descriptor: int) -> Sheets:
        """The sheets that another process shares."""
        workers = (os.fstat(descriptor).st_size - _BOARD_BYTES) // _SHEET_BYTES
        return cls(workers, descriptor=descriptor)

    def __enter__(self) -> Sheets:
        """Give themselves."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Let go of the descriptor; who has the memory keeps it."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def sheet(self, worker: int) -> Sheet:
        """The numbers of one worker. Writing one of them is a single store, so that readers never see half of it."""
        if not 0 <= worker < self.workers:
            raise IndexError(f"worker {worker} of {self.workers}")
        start = _BOARD_BYTES // _SIZE + worker * CELLS
        return self._cells[start : start + CELLS]

    def post(self, text: bytes) -> None:
        """Put a text on the board in place of the last; one process does so.

        Raises:
            ValueError: it is too long.
        """
        if len(text) > _HALF_BYTES - _SIZE:
            raise ValueError(f"{len(text)} bytes do not fit on the board")
        # Into the half that nobody reads; then that is the one to be read.
        half = 1 - int(self._cells[0])
        start = 2 * _SIZE + half * _HALF_BYTES
        self._cells[start // _SIZE] = len(text)
        self._memory[start + _SIZE : start + _SIZE + len(text)] = text
        self._cells[0] = half

    def posted(self) -> bytes:
        """The text on the board; empty before there is one."""
        start = 2 * _SIZE + int(self._cells[0]) * _HALF_BYTES
        length = int(self._cells[start // _SIZE])
        return self._memory[start + _SIZE : start + _SIZE + length]


def _size(workers: int) -> int:
    return _BOARD_BYTES + workers * _SHEET_BYTES
