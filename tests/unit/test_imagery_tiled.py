"""Headers and blocks of tiled TIFFs, judged by GDAL: each file is written and read by rasterio as well."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import from_origin

from tasks.imagery.tiled import HEADER_BYTES, HeaderCutShort, OtherKind, Tiling, Undecodable, tiling_of

BASE: dict[str, Any] = {
    "driver": "GTiff",
    "count": 1,
    "crs": "EPSG:32633",
    "transform": from_origin(499980, 5200020, 10, 10),
    "tiled": True,
    "compress": "deflate",
}


def written(path: Path, numbers: np.ndarray, **options: Any) -> Path:
    """A file of these numbers."""
    height, width = numbers.shape
    settings = BASE | {"height": height, "width": width, "dtype": numbers.dtype, "blockxsize": 64, "blockysize": 32}
    with rasterio.open(path, "w", **settings | options) as file:
        for band in range(1, file.count + 1):
            file.write(numbers, band)
    return path


def numbers_of(shape: tuple[int, int], dtype: str = "uint16") -> np.ndarray:
    """Numbers over the whole range of the type, so that differences wrap around."""
    return np.random.default_rng(7).integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)


def whole(path: Path, tiling: Tiling) -> np.ndarray:
    """All pixels of a file, block by block."""
    content = memoryview(path.read_bytes())
    found = np.zeros([-(-size // side) * side for size, side in zip(tiling.shape, tiling.block, strict=True)])
    for (row, col), start in np.ndenumerate(tiling.offsets):
        pixels = tiling.pixels(content[start : start + tiling.sizes[row, col]])
        if tiling.is_differenced:
            pixels = np.cumsum(pixels, axis=1, dtype=pixels.dtype)
        height, width = tiling.block
        found[row * height : (row + 1) * height, col * width : (col + 1) * width] = pixels
    return found[: tiling.shape[0], : tiling.shape[1]]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    "options", [{}, {"predictor": 2}, {"BIGTIFF": "YES"}, {"predictor": 2, "BIGTIFF": "YES"}], ids=str
)
def test_every_pixel_is_what_gdal_reads(dtype: str, options: dict[str, Any], tmp_path: Path) -> None:
    numbers = numbers_of((100, 150), dtype)
    path = written(tmp_path / "file.tif", numbers, **options)
    tiling = tiling_of(path.read_bytes()[:HEADER_BYTES])
    assert np.array_equal(whole(path, tiling), numbers)
    with rasterio.open(path) as file:
        assert (tiling.shape, tiling.block, tiling.epsg) == (file.shape, file.block_shapes[0], file.crs.to_epsg())
        assert (tiling.bounds, tiling.resolution) == (tuple(file.bounds), file.res)


@pytest.mark.parametrize(
    "options",
    [
        {"compress": "lzw"},
        {"compress": "zstd"},
        {"tiled": False},
        {"count": 2, "interleave": "pixel"},
        {"ENDIANNESS": "BIG"},
        {"transform": rasterio.Affine(10, 1, 0, 1, -10, 0)},
        {"crs": "EPSG:4326"},
        {"crs": None},
        {"NBITS": 12},
    ],
    ids=str,
)
def test_other_kinds_of_file_are_left_to_gdal(options: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path / "file.tif", numbers_of((64, 64)) % 4096, **options)
    with pytest.raises(OtherKind):
        tiling_of(path.read_bytes())


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_other_numbers_are_left_to_gdal(dtype: str, tmp_path: Path) -> None:
    path = written(tmp_path / "file.tif", numbers_of((64, 64)).astype(dtype))
    with pytest.raises(OtherKind):
        tiling_of(path.read_bytes())


def test_a_header_says_how_much_of_it_is_missing(tmp_path: Path) -> None:
    content = written(tmp_path / "file.tif", numbers_of((1000, 1000))).read_bytes()
    whole_header = tiling_of(content)
    known = 8
    while (needed := missing(content[:known])) is not None:
        assert known < needed <= len(content)
        known = needed
    found = tiling_of(content[:known])
    assert np.array_equal(found.offsets, whole_header.offsets)


def missing(header: bytes) -> int | None:
    """How many bytes a header says it needs; None when it is complete."""
    try:
        tiling_of(header)
    except HeaderCutShort as error:
        return error.needed
    return None


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: b"II*\0" + rest))
def test_foreign_bytes_are_refused_not_believed(content: bytes) -> None:
    with pytest.raises((OtherKind, HeaderCutShort)):
        tiling_of(content)


@given(at=st.integers(0, 2000), value=st.binary(min_size=1, max_size=8))
def test_a_header_with_other_bytes_is_refused_or_read_within_bounds(
    at: int, value: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "sound.tif"
    if not path.exists():
        written(path, numbers_of((100, 150)))
    content = bytearray(path.read_bytes()[:HEADER_BYTES])
    content[at : at + len(value)] = value
    try:
        tiling = tiling_of(bytes(content))
    except (OtherKind, HeaderCutShort):
        return
    assert tiling.offsets.shape == tuple(
        -(-size // side) for size, side in zip(tiling.shape, tiling.block, strict=True)
    )
    assert tiling.sizes.max() <= 2 * tiling.block[0] * tiling.block[1] * tiling.dtype.itemsize + 65_536


@given(at=st.integers(0, 2000), value=st.binary(min_size=1, max_size=9))
def test_so_is_one_of_a_large_file(at: int, value: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "large.tif"
    if not path.exists():
        written(path, numbers_of((100, 150)), BIGTIFF="YES")
    content = bytearray(path.read_bytes()[:HEADER_BYTES])
    content[at : at + len(value)] = value
    try:
        tiling = tiling_of(bytes(content))
    except (OtherKind, HeaderCutShort):
        return
    assert tiling.offsets.min() >= 0
    assert tiling.sizes.max() <= 2 * tiling.block[0] * tiling.block[1] * tiling.dtype.itemsize + 65_536


def test_blocks_further_away_than_files_are_large_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "large.tif", numbers_of((100, 150)), BIGTIFF="YES")
    header = path.read_bytes()[:HEADER_BYTES]
    offsets = b"".join(struct.pack("<Q", at) for at in tiling_of(header).offsets.ravel().tolist())
    assert offsets in header
    with pytest.raises(OtherKind):
        tiling_of(header.replace(offsets, b"\xff" * len(offsets)))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no deflate stream",
        zlib.compress(bytes(32 * 64 * 2 - 1)),
        zlib.compress(bytes(32 * 64 * 2 + 1)),
        zlib.compress(bytes(50_000_000)),
        zlib.compress(bytes(32 * 64 * 2))[:-3],
        zlib.compress(bytes(32 * 64 * 2))[:-4] + struct.pack(">I", 7),
    ],
    ids=["empty", "junk", "one byte short", "one byte long", "a bomb", "cut", "checksum"],
)
def test_a_block_that_is_not_what_the_header_says_is_refused(body: bytes, tmp_path: Path) -> None:
    tiling = tiling_of(written(tmp_path / "file.tif", numbers_of((64, 64))).read_bytes())
    with pytest.raises(Undecodable):
        tiling.pixels(memoryview(body))
