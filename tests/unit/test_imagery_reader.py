"""Reading windows of a file: only wanted blocks, in runs, every number as it stands in the file."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import pytest
import rasterio.transform
from hypothesis import given
from hypothesis import strategies as st
from rasterio.windows import Window

from models.domain import Grid
from tasks.imagery.pixels import gather, place_on
from tasks.imagery.reader import BlockReader, HttpLimits, Unread, decode, encode, gdal_path
from tasks.imagery.runs import Runs
from tasks.imagery.wanted import CELL, wanted_strips
from tests.support.sky import GRID, QUICK, noisy, transform_of, write

ALL = np.ones((1, 1), bool)


def reader_of(path: str, grid: Grid, wanted: np.ndarray = ALL, dtype: str = "uint16") -> BlockReader:
    """A reader of a file that lies on a grid."""
    spec = SimpleNamespace(epsg=grid.epsg, shape=grid.shape, bounds=grid.bounds)
    strips = np.repeat(wanted, CELL, axis=0)[: grid.height]
    return BlockReader(url=path, spec=spec, dtype=np.dtype(dtype), wanted=strips, limits=QUICK)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_why_a_pixel_was_not_read_survives_the_files_own_type(dtype: str) -> None:
    marks = np.array([encode(why, np.dtype(dtype)) for why in Unread], dtype)
    assert decode(marks).tolist() == [-1, -2, -3, -4]


def test_no_number_of_sentinel_2_is_taken_for_an_unread_pixel() -> None:
    numbers = np.concatenate([np.arange(65_000), [65_535]]).astype(np.uint16)
    assert np.array_equal(decode(numbers), numbers)
    classes = np.concatenate([np.arange(240), [255]]).astype(np.uint8)
    assert np.array_equal(decode(classes), classes)


def test_only_what_passes_within_a_run_is_tried_again_within_it() -> None:
    assert [why for why in Unread if why.is_retryable] == [Unread.UNAVAILABLE]


def with_neighbours(
    data: st.DataObject, places: list[tuple[int, int]], width: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of the places and of some pixels to the right of each."""
    upto = [data.draw(st.integers(col + 1, width)) for _, col in places]
    pixels = [(row, each) for (row, col), end in zip(places, upto, strict=True) for each in range(col, end)]
    rows, cols = np.array(pixels, np.intp).reshape(-1, 2).T
    return rows, cols


@given(st.data())
def test_a_strip_is_wanted_when_it_holds_a_wanted_pixel(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 1200)), data.draw(st.integers(1, 1200))
    places = data.draw(st.lists(st.tuples(st.integers(0, height - 1), st.integers(0, width - 1)), max_size=10))
    rows, cols = with_neighbours(data, places, width)
    strips = wanted_strips(Runs.of(rows, cols), (height, width))
    is_wanted = np.zeros((height, width), bool)
    is_wanted[rows, cols] = True
    expected = [[is_wanted[row, left : left + CELL].any() for left in range(0, width, CELL)] for row in range(height)]
    assert strips.tolist() == expected


@given(st.data())
def test_runs_cover_wanted_blocks_once_and_no_block_that_is_not(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 1500)), data.draw(st.integers(1, 1500))
    block = data.draw(st.sampled_from([(256, 256), (512, 512), (128, 128), (1, width), (64, 320)]))
    cells = np.zeros((-(-height // CELL), -(-width // CELL)), bool)
    cells[...] = data.draw(st.lists(st.booleans(), min_size=cells.size, max_size=cells.size).map(np.array)).reshape(
        cells.shape
    )
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    window = Window(left, top, data.draw(st.integers(1, width - left)), data.draw(st.integers(1, height - top)))
    reader = reader_of("nowhere.tif", replace(GRID, width=width, height=height), cells)
    times = np.zeros((height, width), int)
    for run in reader._runs(window, block):
        times[run.row_off : run.row_off + run.height, run.col_off : run.col_off + run.width] += 1
    inside = np.zeros((height, width), bool)
    inside[top : top + window.height, left : left + window.width] = True
    assert times.max() <= 1
    assert not times[~inside].any()
    wanted = np.kron(cells, np.ones((CELL, CELL), bool))[:height, :width]
    assert (times[inside & wanted] == 1).all()
    for row in range(0, height, block[0]):  # a block none of whose cells is wanted stays unread
        for col in range(0, width, block[1]):
            cell_rows = slice(row // CELL, -(-(row + block[0]) // CELL))
            if not cells[cell_rows, col // CELL : -(-(col + block[1]) // CELL)].any():
                assert not times[row : row + block[0], col : col + block[1]].any()


def test_neighbouring_blocks_are_one_run() -> None:
    wanted = np.array([[True, True, False, True]])
    reader = reader_of("nowhere.tif", replace(GRID, width=1024, height=256), wanted)
    runs = reader._runs(Window(0, 0, 1024, 256), (256, 256))
    assert [(run.col_off, run.width) for run in runs] == [(0, 512), (768, 256)]


@given(left=st.integers(0, 119), top=st.integers(0, 99), width=st.integers(1, 120), height=st.integers(1, 100))
def test_a_window_holds_the_numbers_of_the_file(
    left: int, top: int, width: int, height: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "window"
    picture = noisy(3)
    path = folder / "scene" / "B04.tif"
    if not path.exists():
        write(picture, folder)
    window = Window(left, top, min(width, 120 - left), min(height, 100 - top))
    reader = reader_of(str(path), GRID)
    found = reader.read(window)
    assert np.array_equal(found, picture.red[top : top + window.height, left : left + window.width])
    reader.close()


def test_a_reader_that_was_pickled_reads_the_same(tmp_path: Path) -> None:
    picture = noisy(4)
    scene = write(picture, tmp_path)
    reader = reader_of(scene.red.href, GRID)
    before = reader.read(Window(0, 0, 120, 100))
    other = pickle.loads(pickle.dumps(reader))
    assert np.array_equal(other.read(Window(0, 0, 120, 100)), before)
    assert np.array_equal(before, picture.red)
    assert (other.limits, other.url, other.shape) == (reader.limits, reader.url, reader.shape)


def test_a_name_is_never_given_twice_and_tells_the_same_address() -> None:
    first, second = gdal_path("https://a.example/b.tif?token=1"), gdal_path("https://a.example/b.tif?token=1")
    assert first != second
    assert {name.partition("#")[0] for name in (first, second)} == {"/vsicurl/https://a.example/b.tif?token=1"}
    assert gdal_path("s3://bucket/b.tif") == "/vsis3/bucket/b.tif"
    assert gdal_path("file:///data/b.tif") == gdal_path("/data/b.tif") == "/data/b.tif"


def test_patience_is_part_of_what_makes_two_limits_equal() -> None:
    assert HttpLimits() == HttpLimits()
    assert HttpLimits(retries=1) != HttpLimits()


@given(
    st.integers(-60, 60), st.integers(-60, 60), st.sampled_from([10, 20, 60, 120]), st.sampled_from([10, 20, 60, 120])
)
def test_a_pixel_is_placed_on_another_grid_by_its_centre(
    right_m: int, down_m: int, resolution_m: float, other_resolution_m: float
) -> None:
    grid = replace(GRID, resolution_m=resolution_m)
    other = replace(GRID, left=GRID.left + right_m, top=GRID.top - down_m, resolution_m=other_resolution_m)
    rows, cols = (each.ravel() for each in np.indices((13, 17)))
    found = place_on(rows, cols, of=corner(grid), to=corner(other))
    x, y = rasterio.transform.xy(transform_of(grid), rows, cols, offset="center")
    expected = rasterio.transform.rowcol(transform_of(other), x, y)
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])


def corner(grid: Grid) -> tuple[float, float, float]:
    return grid.left, grid.top, grid.resolution_m


def test_halving_an_index_would_be_wrong_on_a_shifted_grid() -> None:
    rows, cols = place_on(np.arange(4), np.arange(4), of=(1000, 2000, 10), to=(990, 2010, 20))
    assert rows.tolist() == cols.tolist() == [0, 1, 1, 2]


@given(st.data())
def test_gathered_pixels_are_those_asked_for_in_their_order(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    chunk = data.draw(st.tuples(st.integers(1, 45), st.integers(1, 45)))
    values = np.random.default_rng(0).integers(0, 65_535, (2, height, width), dtype=np.uint16)
    places = data.draw(st.lists(st.tuples(st.integers(0, height - 1), st.integers(0, width - 1)), max_size=30))
    rows, cols = with_neighbours(data, places, width)
    array = da.from_array(values, chunks=(2, *chunk))
    found = gather(array, Runs.of(rows, cols), compute=lambda tasks: dask.compute(*tasks, scheduler="synchronous"))
    assert np.array_equal(found, decode(values)[:, rows, cols])


def test_only_chunks_that_hold_a_pixel_are_computed() -> None:
    computed = []

    def note(block: np.ndarray, block_info: dict | None = None) -> np.ndarray:
        computed.append(block_info[0]["chunk-location"][1:])
        return block

    array = da.zeros((1, 40, 40), chunks=(1, 10, 10), dtype=np.uint8).map_blocks(note, meta=np.empty(0, np.uint8))
    rows, cols = np.array([5, 35, 5]), np.array([5, 15, 6])
    gather(array, Runs.of(rows, cols), compute=lambda tasks: dask.compute(*tasks, scheduler="synchronous"))
    assert sorted(computed) == [(0, 0), (3, 1)]
