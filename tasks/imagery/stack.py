"""Lazy arrays of a scene's bands on the grid of its own files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import stackstac
import xarray as xr

from models.domain import Asset, Scene
from tasks.imagery.reader import HttpLimits, ReaderMaker

CHUNK = (1024, 4096)
"""Rows and columns of one chunk: a multiple of the blocks of 256, 512 and 1,024 pixels that catalogs use, and wide
enough that neighbouring blocks come with one request."""


def stack(
    scene: Scene,
    bands: Sequence[str],
    *,
    wanted: npt.NDArray[np.bool_],
    limits: HttpLimits,
    chunk: tuple[int, int] = CHUNK,
) -> xr.DataArray:
    """One lazy array of some bands of a scene that share a grid.

    Args:
        scene: where the files are and how they lie.
        bands: of `red`, `nir`, `scl`; all on one grid.
        wanted: strips (see `wanted_strips`) of the grid that hold wanted pixels; no other block is fetched.
        limits: how patient to be with the file server.
        chunk: rows and columns of a chunk.

    Returns:
        Lazy, dims (time: 1, band, y, x), digital numbers as uint16 (uint8 for scene classes): 0 is nodata or not
        wanted; what could not be read is marked, see `reader.decode`. Each band of a place is a chunk.
        Coordinates are indices; the grid says where they lie.
    """
    dtype = np.dtype(np.uint8 if set(bands) == {"scl"} else np.uint16)
    assets: dict[str, Asset] = {band: getattr(scene, band) for band in bands}
    grid = assets[bands[0]].grid
    array: xr.DataArray = stackstac.stack(
        [_plain_item(scene, assets)],
        assets=list(bands),
        epsg=grid.epsg,
        resolution=grid.resolution_m,
        bounds=grid.bounds,
        snap_bounds=False,
        chunksize=(1, 1, *chunk),
        dtype=dtype,
        fill_value=dtype.type(0),
        rescale=False,  # scale and offset are ours to decide, scene by scene
        xy_coords=False,
        properties=False,
        band_coords=False,
        errors_as_nodata=(),  # an outage must never look like nodata
        reader=ReaderMaker(wanted=wanted, limits=limits, signer=scene.signer),
    )
    if array.shape[2:] != grid.shape:
        raise ValueError(f"stack of {scene.item_id} has shape {array.shape[2:]}, its grid {grid.shape}")
    return array


def _plain_item(scene: Scene, assets: dict[str, Asset]) -> dict[str, Any]:
    """The item as stackstac wants it, from the grid we checked; whatever form the catalog used."""
    return {
        "id": scene.item_id,
        "properties": {"datetime": scene.acquired_at.isoformat()},
        "assets": {
            band: {
                "href": asset.href,
                "proj:epsg": asset.grid.epsg,
                "proj:shape": list(asset.grid.shape),
                "proj:transform": [
                    asset.grid.resolution_m,
                    0,
                    asset.grid.left,
                    0,
                    -asset.grid.resolution_m,
                    asset.grid.top,
                ],
            }
            for band, asset in assets.items()
        },
    }
