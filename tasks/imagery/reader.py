"""A plain reader for stackstac: windows of a file that already lies on the wanted grid, only the blocks in use.

stackstac's own reader goes through a warp even where the file lies on the grid, which costs about twice the time.
This one reads windows as they are, in runs of neighbouring blocks that come with one request. Files of the kind that
catalogs keep Sentinel-2 in are fetched and decoded by ourselves, of each block only the rows in use; others by GDAL.

What could not be read is never made to look like nodata: such pixels carry a number at the very top of their type
that says why (`Unread`), through Dask and back, while the blocks that could be read stay good.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from tasks.imagery.blocks import Blocks, find_tiling
from tasks.imagery.files import (
    HttpLimits,
    NotRead,
    Unread,
    gdal_options,
    gdal_path,
    open_raster,
    use_gdal_options,
    why_unread,
)
from tasks.imagery.signing import sign
from tasks.imagery.wanted import CELL, Strips, packed, unpacked

__all__ = [
    "BlockReader",
    "HttpLimits",
    "ReaderMaker",
    "Unread",
    "decode",
    "encode",
    "gdal_options",
    "gdal_path",
    "use_gdal_options",
    "why_unread",
]

log = structlog.get_logger(__name__)

Read = Callable[[Window, npt.NDArray[Any]], None]

PATIENCE = 2
"""A file is given up once reads that failed one after the other have cost this many times the longest wait.

A stalled file would otherwise be waited for block by block, for an hour and more, and the whole scene with it.
"""


def encode(why: Unread, dtype: np.dtype[Any]) -> int:
    """The number that stands for an unread pixel in an unsigned array: max - 5 for -1 down to max - 8 for -4.

    Reflectance uses 15 bits and scene classes stop at 11, so no number of theirs lies there; 65535 itself is left
    out because Sentinel-2 marks saturation with it. Staying in the file's own type saves a fifth of the reading time.
    """
    return int(np.iinfo(dtype).max) - 4 + int(why)


def decode(values: npt.NDArray[np.unsignedinteger[Any]]) -> npt.NDArray[np.int32]:
    """Numbers as int32 with `Unread` as its negative values; any shape."""
    top = int(np.iinfo(values.dtype).max) - 4
    numbers = values.astype(np.int32)
    if values.max(initial=0) < top - len(Unread):
        return numbers
    unread = (numbers >= top - len(Unread)) & (numbers < top)
    return np.where(unread, numbers - top, numbers)


_thread = threading.local()


def _memory_for(shape: tuple[int, int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """An array with anything in it, in the memory of this thread's last window when nobody holds that any more.

    Memory fresh from the system costs more than filling it: a twentieth of all processor time of a scene.
    """
    size = shape[0] * shape[1] * dtype.itemsize
    memory = getattr(_thread, "memory", None)
    # held by three when free: the thread, the name above, and the question itself
    if memory is None or len(memory) < size or sys.getrefcount(memory) > 3:
        memory = _thread.memory = np.empty(size, dtype=np.uint8)
    array: npt.NDArray[Any] = memory[:size].view(dtype).reshape(shape)
    return array


class BlockReader:
    """Reads one single-band file on its own grid; safe for threads, lazy, and picklable.

    Implements stackstac's reader protocol. The array that stackstac builds must lie on the file's grid exactly:
    `spec` with the file's bounds and resolution, so that a window of the array is a window of the file. Returned
    windows have the dtype asked for (unsigned), nodata as 0, and `encode`d numbers where a block could not be read.
    """

    def __init__(
        self,
        *,
        url: str,
        spec: Any,
        dtype: np.dtype[Any],
        wanted: Strips,
        limits: HttpLimits,
        signer: str | None = None,
        **_: object,
    ) -> None:
        self.url = url
        self.epsg: int = spec.epsg
        self.shape: tuple[int, int] = spec.shape
        self.bounds: tuple[float, float, float, float] = spec.bounds
        self.dtype = np.dtype(dtype)
        self.wanted = wanted
        self.limits = limits
        self.signer = signer
        self._set_up()

    def _set_up(self) -> None:
        self._idle: list[Any] = []
        self._lock = threading.Lock()
        self._failed: Unread | None = None
        self._address: str | None = None
        self._path: str | None = None
        self._blocks: Blocks | None = None
        self._lost_s = 0.0

    def __getstate__(self) -> dict[str, Any]:
        names = ("url", "epsg", "shape", "bounds", "dtype", "limits", "signer")
        return {**{name: getattr(self, name) for name in names}, "strips": packed(self.wanted)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, wanted=unpacked(*state.pop("strips")))
        self._set_up()

    def read(self, window: Window, **_: object) -> npt.NDArray[Any]:
        """Read the wanted blocks inside `window`; what is not wanted is 0 or what the file has."""
        out = _memory_for((int(window.height), int(window.width)), self.dtype)
        try:
            with self._source() as (read, block):
                runs = self._runs(window, block)
                if sum(int(run.width * run.height) for run in runs) < out.size:
                    out[:] = 0
                for run in runs:
                    self._read_run(read, block[1], run, window, out)
        except RasterioIOError as error:
            out[:] = encode(self._note(error), self.dtype)
        return out

    def _read_run(self, read: Read, block_width: int, run: Window, window: Window, out: npt.NDArray[Any]) -> None:
        """Read one run, and where that fails each of its blocks alone, so that only what is lost counts as lost."""
        top, left = int(run.row_off - window.row_off), int(run.col_off - window.col_off)
        part = out[top : top + int(run.height), left : left + int(run.width)]
        try:
            with self._patience():
                read(run, part)
        except RasterioIOError as error:
            part[:] = encode(self._note(error), self.dtype)
            alone = _blocks(run, block_width)
            for block in alone if len(alone) > 1 else ():
                self._read_run(read, block_width, block, window, out)

    @contextlib.contextmanager
    def _source(self) -> Iterator[tuple[Read, tuple[int, int]]]:
        """How to read a part of the file for the time of one window, and the size of its blocks."""
        address, blocks = self._learn()
        if blocks is not None:
            yield blocks.fetch, blocks.tiling.block
            return
        use_gdal_options(self.limits)
        dataset = self._take(address)
        try:
            yield lambda run, part: dataset.read(1, window=run, out=part), dataset.block_shapes[0]
        finally:
            self._give_back(dataset)

    def _learn(self) -> tuple[str, Blocks | None]:
        """Where the file is, signed, and its blocks if we read them ourselves; asked once for all threads."""
        with self._lock:
            if self._address is None:
                with self._patience():
                    address = sign(self.url, self.signer, limits=self.limits)
                    tiling = find_tiling(address, self.limits)
                    if tiling is not None:
                        self._check(tiling.shape, tiling.bounds, tiling.resolution, tiling.epsg)
                        self._blocks = Blocks(address=address, tiling=tiling, wanted=self.wanted, limits=self.limits)
                self._address = address
            return self._address, self._blocks

    @contextlib.contextmanager
    def _patience(self) -> Iterator[None]:
        """Count the time that goes by without success, and ask no more when it was too much."""
        if self._lost_s > PATIENCE * self.limits.timeout_s:
            raise RasterioIOError("given up: too much time lost on this file")
        started = time.monotonic()
        try:
            yield
        except RasterioIOError:
            self._lost_s += time.monotonic() - started
            raise
        self._lost_s = 0.0

    def _runs(self, window: Window, block: tuple[int, int]) -> list[Window]:
        """Windows of neighbouring wanted blocks, row of blocks by row of blocks, cut to `window`."""
        bottom, right = int(window.row_off + window.height), int(window.col_off + window.width)
        runs: list[Window] = []
        for top in range(int(window.row_off) // block[0] * block[0], bottom, block[0]):
            start: int | None = None
            for left in range(int(window.col_off) // block[1] * block[1], right + block[1], block[1]):
                is_wanted = left < right and self._wants(top, left, block)
                if is_wanted and start is None:
                    start = left
                elif not is_wanted and start is not None:
                    runs.append(_cut((top, start, top + block[0], left), window))
                    start = None
        return runs

    def _wants(self, top: int, left: int, block: tuple[int, int]) -> bool:
        return bool(self.wanted[top : top + block[0], left // CELL : -(-(left + block[1]) // CELL)].any())

    def _take(self, address: str) -> Any:
        """An open dataset of our own for the time of one read; datasets are not safe for threads.

        The first one is opened under the lock, so that the others find its header in GDAL's cache.
        """
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._path is None:
                path = gdal_path(address)
                dataset = self._open(path)
                self._path = path
                return dataset
        return self._open(self._path)

    def _open(self, path: str) -> Any:
        with self._patience():
            # A read looks at the mask flags, for which GDAL goes through all directories of the file, also those of
            # overviews at its far end, while the interpreter lock is held. Named so, they are gone through on opening,
            # the lock released: nobody waits for a server with the lock in hand.
            dataset = open_raster(path, OVERVIEW_LEVEL="NONE")
            try:
                # GDAL opens a file whose header was cut short without the tags that were cut, some of which come later
                if dataset.transform.is_identity or dataset.crs is None:
                    raise RasterioIOError("the header does not say where the pixels lie")
                self._check(dataset.shape, dataset.bounds, dataset.res, dataset.crs.to_epsg())
                if not np.issubdtype(dataset.dtypes[0], np.integer):
                    raise NotRead(f"holds {dataset.dtypes[0]}, not digital numbers", why=Unread.UNREADABLE)
            except RasterioIOError:
                dataset.close()
                raise
        return dataset

    def _check(
        self, shape: tuple[int, int], bounds: Iterable[float], resolution: tuple[float, float], epsg: int | None
    ) -> None:
        """Hold a file to its item: windows are cut by the item's grid, and numbers are kept as whole ones."""
        off = max(abs(one - other) for one, other in zip(bounds, self.bounds, strict=True))
        # so said that a place which is no number does not pass
        if shape != self.shape or not off <= 0.01 * resolution[0] or epsg not in (self.epsg, None):
            told = f"{shape} pixels of EPSG:{epsg} at {tuple(bounds)}, the item says otherwise"
            raise NotRead(told, why=Unread.UNREADABLE)

    def _give_back(self, dataset: Any) -> None:
        with self._lock:
            self._idle.append(dataset)

    def _note(self, error: RasterioIOError) -> Unread:
        why = why_unread(error)
        with self._lock:
            is_first, self._failed = self._failed is None, why
        if is_first:
            log.warning("imagery not read", url=self.url, why=why.name.lower(), error=str(error.__cause__ or error))
        return why

    def close(self) -> None:
        """Close all open datasets."""
        with self._lock:
            idle, self._idle = self._idle, []
        for dataset in idle:
            dataset.close()

    def __del__(self) -> None:
        if hasattr(self, "_idle"):
            self.close()


class ReaderMaker:
    """Makes the readers of one stack, for stackstac; pickles small."""

    def __init__(self, *, wanted: Strips, limits: HttpLimits, signer: str | None) -> None:
        self._wanted = wanted
        self._limits = limits
        self._signer = signer
        self._number = uuid.uuid4().hex

    def __call__(self, **spec: Any) -> BlockReader:
        return BlockReader(**spec, wanted=self._wanted, limits=self._limits, signer=self._signer)

    def __dask_tokenize__(self) -> str:
        """Another name for each stack: a cluster must not give a further try the reader that has given up its file."""
        return self._number

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_wanted": packed(self._wanted)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _wanted=unpacked(*state["_wanted"]))


def _blocks(run: Window, width: int) -> list[Window]:
    """The parts of a run that lie in one block each, from left to right."""
    left, right = int(run.col_off), int(run.col_off + run.width)
    edges = [left, *range((left // width + 1) * width, right, width), right]
    return [Window(a, run.row_off, b - a, run.height) for a, b in itertools.pairwise(edges)]


def _cut(bounds: tuple[int, int, int, int], window: Window) -> Window:
    top, left = max(bounds[0], int(window.row_off)), max(bounds[1], int(window.col_off))
    bottom = min(bounds[2], int(window.row_off + window.height))
    right = min(bounds[3], int(window.col_off + window.width))
    return Window(left, top, right - left, bottom - top)
