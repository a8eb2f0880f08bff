"""Where the blocks of a tiled TIFF lie, told from its header, and their bytes made into pixels.

GDAL reads any file. This reads the one kind that catalogs keep Sentinel-2 in, and nothing else: one unsigned band in
tiles, deflate, little-endian, with or without horizontal differencing. It gains three things: no more is decoded and
copied than the rows that hold farms, the decoder (ISA-L) is faster than that of GDAL and checks the blocks' checksums,
and a file is opened once for all threads.

Source: TIFF 6.0 (tags, predictor), the BigTIFF design, OGC GeoTIFF 1.1 (keys), Adobe's TIFF technical note 3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from isal import igzip_lib, isal_zlib

HEADER_BYTES = 16_384
"""Enough for the header of a file of Sentinel-2's size with tiles of 512 pixels or more, most of which we need."""
MOST_HEADER_BYTES = 1 << 20
_MOST_BYTES = 1 << 62
"""No file is as large; BigTIFF could say so, and a signed number could not hold it."""

_KINDS = {1: "B", 3: "H", 4: "I", 12: "d", 16: "Q"}
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _FILL_ORDER, _SAMPLES, _PREDICTOR = 256, 257, 258, 259, 266, 277, 317
_TILE_WIDTH, _TILE_HEIGHT, _OFFSETS, _BYTE_COUNTS, _SAMPLE_FORMAT = 322, 323, 324, 325, 339
_PIXEL_SCALE, _TIE_POINT, _TRANSFORMATION, _GEO_KEYS = 33550, 33922, 34264, 34735
_DEFLATE = (8, 32946)
_RASTER_TYPE_KEY, _PROJECTED_CRS_KEY = 1025, 3072
_PIXEL_IS_AREA, _USER_DEFINED = 1, 32767


class HeaderCutShort(Exception):
    """The header goes on beyond the bytes given."""

    def __init__(self, needed: int) -> None:
        super().__init__(f"{needed:,} bytes are needed")
        self.needed = needed


class OtherKind(Exception):
    """Not the kind of file that is read here; GDAL may know it."""


class Undecodable(Exception):
    """The bytes of a block are not what the header says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """What the header of a file says."""

    shape: tuple[int, int]
    """Height and width in pixels."""
    block: tuple[int, int]
    """Height and width of a block; those at the right and lower edge reach beyond the file."""
    dtype: np.dtype[Any]
    is_differenced: bool
    """Pixels are kept as the difference to their left neighbour (predictor 2)."""
    offsets: npt.NDArray[np.int64]
    """(block rows, block columns) where each block begins in the file, bytes."""
    sizes: npt.NDArray[np.int64]
    """Its bytes; 0 for a block that was left out because it is all nodata."""
    left: float
    top: float
    resolution: tuple[float, float]
    """Height and width of a pixel, in the unit of the reference system."""
    epsg: int | None
    """None when the file describes its reference system without a number."""

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north."""
        height, width = self.resolution
        return (self.left, self.top - self.shape[0] * height, self.left + self.shape[1] * width, self.top)

    def pixels(self, body: memoryview) -> npt.NDArray[Any]:
        """The numbers of one block as the file keeps them: differences where `is_differenced`. (height, width).

        Raises:
            Undecodable: the bytes are no deflate stream, fail its checksum, or hold more or fewer pixels than a block.
        """
        size = self.block[0] * self.block[1] * self.dtype.itemsize
        stream = isal_zlib.decompressobj()
        try:
            content = stream.decompress(body, size + 1)  # a stream may unpack to a thousand times what it should
        except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub says no more than that it is there
            raise Undecodable(f"Decode: {error}") from error
        if len(content) != size or not stream.eof:
            raise Undecodable(f"Decode: {len(content):,} bytes where a block has {size:,}")
        return np.frombuffer(content, self.dtype).reshape(self.block)


def tiling_of(header: bytes) -> Tiling:
    """Read a header.

    Args:
        header: the first bytes of a file.

    Raises:
        HeaderCutShort: more bytes are needed.
        OtherKind: not a file that is read here.
    """
    tags = _Tags(header)
    bits, height, width = tags.one(_BITS), tags.one(_HEIGHT), tags.one(_WIDTH)
    block = tags.one(_TILE_HEIGHT), tags.one(_TILE_WIDTH)
    predictor = tags.one(_PREDICTOR, 1)
    is_ours = (
        bits in (8, 16)
        and tags.one(_SAMPLES, 1) == tags.one(_SAMPLE_FORMAT, 1) == tags.one(_FILL_ORDER, 1) == 1
        and tags.one(_COMPRESSION) in _DEFLATE
        and predictor in (1, 2)
        and 0 < block[0] <= 8192
        and 0 < block[1] <= 8192
        and 0 < height < 1 << 24
        and 0 < width < 1 << 24
    )
    if not is_ours:
        raise OtherKind("another layout, number type or compression")
    grid = -(-height // block[0]), -(-width // block[1])
    starts, counts = tags.all(_OFFSETS), tags.all(_BYTE_COUNTS)
    if not len(starts) == len(counts) == grid[0] * grid[1] or max(starts, default=0) >= _MOST_BYTES:
        raise OtherKind("the list of blocks does not fit the size")
    if max(counts) > 2 * block[0] * block[1] * bits // 8 + 65_536:
        raise OtherKind("blocks larger than their pixels")
    offsets, sizes = np.array(starts, np.int64), np.array(counts, np.int64)
    left, top, resolution = _place(tags)
    return Tiling(
        shape=(height, width),
        block=block,
        dtype=np.dtype(f"<u{bits // 8}"),
        is_differenced=predictor == 2,
        offsets=offsets.reshape(grid),
        sizes=sizes.reshape(grid),
        left=left,
        top=top,
        resolution=resolution,
        epsg=_epsg(tags),
    )


def _place(tags: _Tags) -> tuple[float, float, tuple[float, float]]:
    scale, tie = tags.all(_PIXEL_SCALE), tags.all(_TIE_POINT)
    if len(scale) != 3 or len(tie) != 6 or tie[0] or tie[1] or tags.has(_TRANSFORMATION):
        raise OtherKind("placed in another way than by its upper left corner")
    return tie[3], tie[4], (scale[1], scale[0])


def _epsg(tags: _Tags) -> int | None:
    directory = tags.all(_GEO_KEYS)
    entries = [directory[at : at + 4] for at in range(4, len(directory) - 3, 4)]
    found = {key: value for key, place, _, value in entries if place == 0}  # kept elsewhere: names and parameters
    if found.get(_RASTER_TYPE_KEY, _PIXEL_IS_AREA) != _PIXEL_IS_AREA:
        raise OtherKind("its place is told for the middle of pixels")
    epsg: int | None = found.get(_PROJECTED_CRS_KEY)
    if epsg is None:
        raise OtherKind("not in a projected reference system")
    return None if epsg == _USER_DEFINED else epsg


class _Tags:
    """The entries of the first directory of a little-endian TIFF or BigTIFF."""

    def __init__(self, header: bytes) -> None:
        self._header = header
        match header[:4]:
            case b"II*\0":
                self._word, self._count, self._entry = "I", "H", 12
                directory = self._unpack("I", 4)[0]
            case b"II+\0":
                self._word, self._count, self._entry = "Q", "Q", 20
                if self._unpack("HH", 4) != (8, 0):
                    raise OtherKind("an odd BigTIFF")
                directory = self._unpack("Q", 8)[0]
            case _:
                raise OtherKind("not a little-endian TIFF")
        [number] = self._unpack(self._count, directory)
        if number > 1000:
            raise OtherKind("too many tags")
        first = directory + struct.calcsize("<" + self._count)
        self._places: dict[int, tuple[int, int, int]] = {}
        for at in range(first, first + number * self._entry, self._entry):
            tag, kind, count = self._unpack("HH" + self._word, at)
            self._places[tag] = (kind, count, at + 4 + struct.calcsize("<" + self._word))

    def has(self, tag: int) -> bool:
        """Whether the tag is there."""
        return tag in self._places

    def one(self, tag: int, default: int | None = None) -> int:
        """The only value of a tag; without a default it must be there."""
        values = self.all(tag)
        if not values and default is not None:
            return default
        if len(values) != 1 or not isinstance(values[0], int):
            raise OtherKind(f"tag {tag} has {len(values)} values")
        return values[0]

    def all(self, tag: int) -> tuple[Any, ...]:
        """All values of a tag; none when it is not there."""
        if tag not in self._places:
            return ()
        kind, count, at = self._places[tag]
        if kind not in _KINDS:
            raise OtherKind(f"tag {tag} is of kind {kind}")
        if count > MOST_HEADER_BYTES:
            raise OtherKind(f"tag {tag} has {count:,} values")
        form = f"{count}{_KINDS[kind]}"
        if struct.calcsize("<" + form) > struct.calcsize("<" + self._word):
            [at] = self._unpack(self._word, at)
        return self._unpack(form, at)

    def _unpack(self, form: str, at: int) -> tuple[Any, ...]:
        end = at + struct.calcsize("<" + form)
        if end > MOST_HEADER_BYTES:
            raise OtherKind("the header reaches far into the file")
        if end > len(self._header):
            raise HeaderCutShort(end)
        return struct.unpack_from("<" + form, self._header, at)
