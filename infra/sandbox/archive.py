"""Write what the passes saw as cloud-optimised GeoTIFFs with their STAC items, one folder a pass, and keep them.

A pass looks the same whatever season it was asked for in, so a longer season later only adds folders. A folder
appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from affine import Affine
from shapely import Polygon

from infra.sandbox.items import C1, COLLECTIONS, L2A, OFFSET_DN, Product, item_of
from infra.sandbox.passes import Pass
from infra.sandbox.places import Tile
from infra.sandbox.world import Look, World, covered

_BLOCK = 512
_HASTE_DN = 60
"""How much too bright the older of two processings saw red: reading the wrong one shows."""
_ABANDONED_S = 3600


def write_passes(world: World, passes: tuple[Pass, ...], folder: Path) -> list[dict[str, Any]]:
    """See to it that the folder holds these passes, and give their items, addresses relative to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    missing = [a_pass for a_pass in passes if not (folder / a_pass.name).is_dir()]
    for district in {a_pass.district.name: a_pass.district for a_pass in missing}.values():
        world.land(district)  # drawn once, before the threads want it
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for done in [pool.submit(_write_pass, world, a_pass, folder) for a_pass in missing]:
            done.result()
    items: list[dict[str, Any]] = []
    for a_pass in passes:
        items += json.loads((folder / a_pass.name / "items.json").read_text())
    return items


def _write_pass(world: World, a_pass: Pass, folder: Path) -> None:
    look = world.look(a_pass)
    with tempfile.TemporaryDirectory(prefix="making-", dir=folder, ignore_cleanup_errors=True) as making:
        archive = Path(making)
        (archive / a_pass.name).mkdir()
        items = []
        for number, piece in enumerate(look.pieces):
            has_data = covered(a_pass.district, piece)
            products = _products(a_pass, number, piece)
            items += [_write_product(product, piece, has_data, look, archive) for product in products]
        (archive / a_pass.name / "items.json").write_text(json.dumps(items))
        with contextlib.suppress(OSError):  # somebody else made the same pass meanwhile: theirs is as good
            (archive / a_pass.name).rename(folder / a_pass.name)


def _products(a_pass: Pass, number: int, piece: Polygon) -> Iterator[Product]:
    """What is delivered of one piece of a pass: nothing of a tile of which it has less than a square kilometre."""
    for tile in a_pass.district.tiles:
        if piece.intersection(tile.outline).area < 1e6:
            continue
        for collection in COLLECTIONS:
            if a_pass.is_missing_in_c1 if collection == C1 else a_pass.is_missing_in_l2a:
                continue
            for is_old in (True, False) if collection == L2A and a_pass.is_processed_twice else (False,):
                yield Product(collection=collection, a_pass=a_pass, tile=tile, piece=number, is_old=is_old)


def _write_product(
    product: Product, piece: Polygon, has_data: npt.NDArray[np.bool_], look: Look, archive: Path
) -> dict[str, Any]:
    """Write the files of a product and give its item; `has_data` says which 20 m pixels of the district it holds."""
    district, tile = product.a_pass.district, product.tile
    fine, coarse = district.window(tile, 10), district.window(tile, 20)
    scl = np.where(has_data[coarse], look.scl[coarse], np.uint8(0))
    has_fine_data = has_data[coarse].repeat(2, axis=0).repeat(2, axis=1)
    offset = OFFSET_DN if product.collection == C1 else 0
    item = item_of(product, shapely.intersection(piece, tile.outline), scl)
    for key, band in (("red", look.red), ("nir", look.nir)):
        haste = _HASTE_DN if product.is_old and key == "red" else 0
        pixels = np.where(has_fine_data, band[fine] + np.uint16(offset + haste), np.uint16(0))
        _write_cog(archive / item["assets"][key]["href"], pixels, tile, 10)
    _write_cog(archive / item["assets"]["scl"]["href"], scl, tile, 20)
    return item


def _write_cog(file: Path, pixels: npt.NDArray[Any], tile: Tile, resolution_m: int) -> None:
    """Write (y, x) pixels, nodata 0, in blocks of 512, header first; the tile is too small to need overviews."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        file,
        "w",
        driver="GTiff",
        height=pixels.shape[0],
        width=pixels.shape[1],
        count=1,
        dtype=pixels.dtype,
        crs=f"EPSG:{tile.grid.epsg}",
        transform=Affine(resolution_m, 0, tile.grid.left, 0, -resolution_m, tile.grid.top),
        nodata=0,
        compress="deflate",
        zlevel=1,
        predictor=2,
        tiled=True,
        blockxsize=_BLOCK,
        blockysize=_BLOCK,
        num_threads=2,
    ) as opened:
        opened.write(pixels, 1)


def _sweep(folder: Path) -> None:
    """Remove what a killed process left half made, an hour later."""
    for left in folder.glob("making-*"):
        if time.time() - left.stat().st_mtime > _ABANDONED_S:
            for path in sorted(left.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
            left.rmdir()
