"""A picture of the pixels that made a number: which counted, which did not, and why."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from affine import Affine
from rasterio.features import rasterize
from rasterio.transform import from_origin

from tasks.indices.footprints import Footprints, Lattice
from tasks.indices.ndvi import ndvi
from tasks.look import Seen

PIXEL_SIDE = 24
"""Screen pixels for one image pixel, fewer where the farm is large."""
LARGEST_SIDE = 1600

# Brown to green over NDVI 0 to 0.9, as agronomists know it; below 0 blue-grey for water and snow.
_STOPS = np.array([-1.0, 0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0])
_COLOURS = np.array(
    [
        (84, 110, 140),
        (196, 176, 148),
        (166, 118, 70),
        (214, 184, 96),
        (226, 222, 120),
        (158, 202, 96),
        (82, 160, 66),
        (22, 106, 46),
        (4, 72, 34),
    ],
    dtype=np.float64,
)
_HIDDEN = (236, 238, 242)
_ABSENT = (40, 40, 44)
_PAPER = (255, 255, 255)
_LINE = (20, 20, 20)


def draw_pixels(footprints: Footprints, seen: Seen, *, boundary: shapely.Geometry, lattice: Lattice) -> bytes:
    """Draw one farm's pixels as a PNG.

    Pixels that counted have the colour of their NDVI (brown 0, green 0.9); hidden by cloud, shadow or the mask policy
    are pale and crossed; without data dark. The paler a colour, the smaller the coverage fraction. The line is the
    boundary.

    Args:
        footprints, seen: of one farm, with at least one pixel.
        boundary: in metres of the lattice's zone.
        lattice: on which the footprint lies.
    """
    top, left = int(footprints.rows.min()) - 1, int(footprints.cols.min()) - 1
    height, width = int(footprints.rows.max()) - top + 2, int(footprints.cols.max()) - left + 2
    side = max(1, min(PIXEL_SIDE, LARGEST_SIDE // max(height, width)))
    canvas = np.full((height, width, 3), _PAPER, dtype=np.uint8)
    ink = 0.25 + 0.75 * footprints.coverage[:, None]
    colours = _colours(seen) * ink + np.array(_PAPER) * (1 - ink)
    canvas[footprints.rows - top, footprints.cols - left] = colours.round()
    large = canvas.repeat(side, axis=0).repeat(side, axis=1)
    if side >= 6:
        hidden = np.zeros((height, width), np.bool_)
        hidden[footprints.rows - top, footprints.cols - left] = seen.is_hidden
        large[np.kron(hidden, np.eye(side, dtype=np.bool_))] = (150, 156, 168)
    step = lattice.resolution_m / side
    corner = lattice.x_phase + left * lattice.resolution_m, lattice.y_phase - top * lattice.resolution_m
    outline = rasterize(
        [shapely.boundary(boundary).buffer(step)], out_shape=large.shape[:2], transform=from_origin(*corner, step, step)
    )
    large[outline > 0] = _LINE
    return _png(large, from_origin(*corner, step, step))


def _colours(seen: Seen) -> npt.NDArray[np.float64]:
    """(n, 3) of red, green and blue, 0 to 255."""
    index, _ = ndvi(*seen.reflectances(slice(None)))
    counted = seen.is_present & ~np.isnan(index)
    value = np.where(counted, index, 0)
    colours = np.column_stack([np.interp(value, _STOPS, channel) for channel in _COLOURS.T])
    colours[~counted] = _ABSENT
    colours[seen.is_hidden] = _HIDDEN
    return colours


def _png(image: npt.NDArray[np.uint8], transform: Affine) -> bytes:
    """Encode (height, width, 3)."""
    height, width, _ = image.shape
    size = {"height": height, "width": width, "count": 3, "dtype": "uint8"}
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="PNG", transform=transform, **size) as dataset:
            dataset.write(np.moveaxis(image, 2, 0))
        png: bytes = memory.read()
    return png
