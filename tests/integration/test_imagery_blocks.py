"""Blocks fetched by ourselves, judged by rasterio: the right pixels, few requests, nothing believed unseen."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from tasks.imagery.blocks import Blocks, find_tiling
from tasks.imagery.files import HttpLimits, Unread
from tasks.imagery.reader import BlockReader, decode
from tasks.imagery.wanted import CELL, Strips
from tests.support.file_server import FileServer, file_server

LIMITS = HttpLimits(timeout_s=5, retries=0)
SHAPE, BLOCK = (600, 1500), 256
BOUNDS = (500_000, 5_000_000 - 10 * SHAPE[0], 500_000 + 10 * SHAPE[1], 5_000_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def numbers(folder: Path) -> np.ndarray:
    """What is in the file; its last block of the first row is left out, as it is all nodata."""
    found = np.random.default_rng(3).integers(1, 60_000, SHAPE).astype(np.uint16)
    found[:BLOCK, 5 * BLOCK :] = 0
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": SHAPE[0],
        "width": SHAPE[1],
        "count": 1,
        "dtype": "uint16",
        "crs": "EPSG:32633",
        "transform": from_origin(BOUNDS[0], BOUNDS[3], 10, 10),
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "predictor": 2,
        "SPARSE_OK": "TRUE",
        "nodata": 0,
    }
    with rasterio.open(folder / "file.tif", "w", **profile) as file:
        file.write(found, 1)
    return found


@pytest.fixture
def server(folder: Path, numbers: np.ndarray) -> Iterator[FileServer]:
    with file_server(folder) as running:
        yield running


def blocks_of(server: FileServer, wanted: Strips) -> Blocks:
    """The blocks of the file."""
    address = f"{server.url}/file.tif"
    tiling = find_tiling(address, LIMITS)
    assert tiling is not None
    return Blocks(address=address, tiling=tiling, wanted=wanted, limits=LIMITS)


def strips(*rows: int) -> Strips:
    """Strips wanted in these rows, all across."""
    wanted = np.zeros((SHAPE[0], -(-SHAPE[1] // CELL)), bool)
    wanted[list(rows)] = True
    return wanted


def test_wanted_rows_hold_what_the_file_has_and_the_others_nothing(server: FileServer, numbers: np.ndarray) -> None:
    wanted = [3, 100, 255]
    part = np.full((BLOCK, SHAPE[1]), 7, np.uint16)
    blocks_of(server, strips(*wanted)).fetch(Window(0, 0, SHAPE[1], BLOCK), part)
    assert np.array_equal(part[wanted], numbers[wanted])
    assert not np.delete(part, wanted, axis=0).any()


def test_all_rows_of_a_window_that_cuts_through_blocks_are_what_the_file_has(
    server: FileServer, numbers: np.ndarray
) -> None:
    window = Window(100, 520, 1_350, 70)
    part = np.full((70, 1_350), 7, np.uint16)
    blocks_of(server, strips(*range(SHAPE[0]))).fetch(window, part)
    assert np.array_equal(part, numbers[520:590, 100:1_450])


def test_blocks_that_lie_together_come_with_one_request_and_absent_ones_with_none(
    server: FileServer, numbers: np.ndarray
) -> None:
    blocks = blocks_of(server, strips(5))
    assert blocks.tiling.sizes[0, 5] == 0
    server.forget()
    blocks.fetch(Window(0, 0, SHAPE[1], BLOCK), np.empty((BLOCK, SHAPE[1]), np.uint16))
    assert server.requests == 1
    assert server.bytes_sent < int(blocks.tiling.sizes[0].sum()) + 1_000
    server.forget()
    blocks.fetch(Window(5 * BLOCK, 0, SHAPE[1] - 5 * BLOCK, BLOCK), np.empty((BLOCK, SHAPE[1] - 5 * BLOCK), np.uint16))
    assert server.requests == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 500_010.0])
def test_a_file_that_does_not_lie_where_its_item_says_is_not_read(
    value: float, server: FileServer, folder: Path
) -> None:
    content = (folder / "file.tif").read_bytes()
    place = struct.pack("<d", float(BOUNDS[0]))
    assert content.count(place) == 1
    (folder / "moved.tif").write_bytes(content.replace(place, struct.pack("<d", value)))
    spec = SimpleNamespace(epsg=32633, shape=SHAPE, bounds=BOUNDS)
    reader = BlockReader(
        url=f"{server.url}/moved.tif",
        spec=spec,
        dtype=np.dtype("uint16"),
        wanted=strips(*range(SHAPE[0])),
        limits=LIMITS,
    )
    assert (decode(reader.read(Window(0, 0, 64, 64))) == Unread.UNREADABLE).all()
