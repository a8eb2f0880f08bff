"""The picture of a farm's pixels: the colour of each says what became of it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import shapely

from models.domain import Rescale
from tasks.indices.footprints import Footprints, Lattice
from tasks.look import Seen
from tasks.picture import LARGEST_SIDE, PIXEL_SIDE, draw_pixels

LATTICE = Lattice(epsg=32633, resolution_m=10, x_phase=0, y_phase=0)
LEFT, TOP = 500_000, 5_200_030
PAPER, LINE, CROSS = (255, 255, 255), (20, 20, 20), (150, 156, 168)
HIDDEN, ABSENT = (236, 238, 242), (40, 40, 44)
BARE, DENSE = (196, 176, 148), (22, 106, 46)
"""NDVI 0 and 0.9."""

Image = npt.NDArray[np.uint8]


def drawn(*, width_m: float, height_m: float, ndvi: list[float], hidden: int, absent: int) -> Image:
    """A rectangle from LEFT, TOP: its pixels row by row have these values, then some are hidden, the last absent."""
    height, width = math.ceil(height_m / 10), math.ceil(width_m / 10)
    rows, cols = np.mgrid[:height, :width].reshape(2, -1)
    last_column = width_m / 10 - (width - 1)
    footprints = Footprints(
        offsets=np.array([0, len(rows)]),
        rows=(rows - TOP // 10).astype(np.int32),
        cols=(cols + LEFT // 10).astype(np.int32),
        coverage=np.where(cols == width - 1, last_column, 1.0),
        is_inner=np.zeros(len(rows), np.bool_),
    )
    seen = Seen.nothing(len(rows), [Rescale(scale=0.0001, offset=0.0, rule="made")])
    clear = slice(0, len(ndvi))
    seen.is_present[clear] = True
    seen.red[clear] = (2000 * (1 - np.array(ndvi))).round()
    seen.nir[clear] = (2000 * (1 + np.array(ndvi))).round()
    seen.is_hidden[len(ndvi) : len(ndvi) + hidden] = True
    assert len(rows) == len(ndvi) + hidden + absent
    boundary = shapely.box(LEFT, TOP - height_m, LEFT + width_m, TOP)
    png = draw_pixels(footprints, seen, boundary=boundary, lattice=LATTICE)
    with rasterio.MemoryFile(png) as file, file.open(driver="PNG") as picture:
        image: Image = np.moveaxis(picture.read(), 0, 2)
    return image


def at(image: Image, row: int, col: int, *, down: float = 0.25, right: float = 0.5) -> tuple[int, ...]:
    """The colour inside a pixel of the farm, rows and columns counted from the first; a margin of one lies around."""
    y, x = (row + 1 + down) * PIXEL_SIDE, (col + 1 + right) * PIXEL_SIDE
    return tuple(image[int(y), int(x)].tolist())


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_every_pixel_has_the_colour_of_what_became_of_it() -> None:
    image = drawn(width_m=30, height_m=20, ndvi=[0.0, 0.9, 0.45], hidden=2, absent=1)
    assert image.shape == (4 * PIXEL_SIDE, 5 * PIXEL_SIDE, 3)
    assert at(image, 0, 0) == BARE
    assert at(image, 0, 1) == DENSE
    assert at(image, 0, 2) == (226, 222, 120)
    assert at(image, 1, 0) == at(image, 1, 1) == HIDDEN
    assert at(image, 1, 0, down=0.5) == CROSS, "hidden pixels are crossed"
    assert at(image, 0, 0, down=0.5) == BARE
    assert at(image, 1, 2) == ABSENT
    assert at(image, 0, -1) == at(image, -1, 0) == at(image, 2, 3) == PAPER
    assert at(image, 0, 0, down=0) == LINE
    assert at(image, 0, 1, right=0) == DENSE, "the line is the boundary, not a grid"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_pixel_half_inside_is_paler() -> None:
    image = drawn(width_m=15, height_m=10, ndvi=[0.9, 0.9], hidden=0, absent=0)
    assert at(image, 0, 0) == DENSE
    half = tuple(round(0.625 * dark + 0.375 * 255) for dark in DENSE)
    assert at(image, 0, 1, right=0.75) == pytest.approx(half, abs=1)
    assert at(image, 0, 1, right=0.5) == LINE, "which is where the boundary goes through"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_large_farm_fits_on_a_screen() -> None:
    image = drawn(width_m=2_000, height_m=50, ndvi=[0.9] * 1000, hidden=0, absent=0)
    assert image.shape == (7 * 7, 202 * 7, 3)
    assert max(image.shape) <= LARGEST_SIDE
