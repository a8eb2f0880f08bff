"""A look at the pixels where a catalog's word about the offset cannot be trusted."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.errors import RasterioIOError

from models.domain import Asset, Grid, Rescale, Scene
from models.errors import (
    UpstreamError,
    UpstreamMissing,
    UpstreamRejected,
    UpstreamUnavailable,
    UpstreamUnreadable,
)
from tasks.imagery.files import HttpLimits, Unread, gdal_path, open_raster, use_gdal_options, why_unread
from tasks.imagery.signing import sign

SAMPLE_SIDE = 512
"""The whole scene is read at about this many pixels a side, from an overview where the file has one."""

VOTERS = (4, 6)
"""Scene classes that have a say: vegetation and water, which are dark in red wherever they are.

Soil, sand, snow and cloud reflect more than a tenth of red light, so their numbers lie above 1,000 with the offset in
and without it: on an arid, snowy or cloudy tile they would outvote the fields.
"""
LOW_DN = 800
"""Red numbers below this are low.

With the offset of 1,000 in, such a number is a reflectance below -0.02, more than a dark lake loses to an atmospheric
correction gone too far. Without it, it is one below 0.08: leaves, which absorb red light, and water, which absorbs all.
"""
REMOVED_SHARE = 0.05
"""At this share of low pixels among the voters and above, the offset has been taken out.

Recorded scenes without the offset have 46 to 99 % of low pixels among vegetation and water, and none once 1,000 is
added.
"""
KEPT_SHARE = 0.01
"""Up to this share of low pixels, noise and wrong classes, nothing speaks against the offset being in."""
FEWEST_VOTERS = 100
"""Fewer pixels of vegetation and water in the sample decide nothing."""

_ERRORS: dict[Unread, type[UpstreamError]] = {
    Unread.UNAVAILABLE: UpstreamUnavailable,
    Unread.MISSING: UpstreamMissing,
    Unread.REJECTED: UpstreamRejected,
    Unread.UNREADABLE: UpstreamUnreadable,
}


def settle_rescale(scene: Scene, *, limits: HttpLimits) -> Rescale:
    """Decide a doubtful offset by looking at red over the vegetation and water of the whole scene.

    Earth Search marks some `sentinel-2-l2a` items of baseline 04.00 and later as still holding the offset although
    it has been taken out (Element84/earth-search #66, #71). The farms on the scene have no part in the decision.

    Returns:
        The rescale to use; its rule says what the pixels showed. Where they show nothing, the catalog's word stands and
        the rule says `undecided`.

    Raises:
        UpstreamUnavailable, UpstreamMissing, UpstreamRejected, UpstreamUnreadable: red or the scene classes could not
            be read, for the reasons of `files.Unread`; only the first is worth another try within the same run.
    """
    use_gdal_options(limits)
    red = _sample(scene, "red", limits)
    votes = red[np.isin(_classes_at(scene, red.shape, limits), VOTERS) & (red > 0)]
    low = float(np.mean(votes < LOW_DN)) if votes.size else 0.0
    told = f"{low:.0%} of vegetation and water below {LOW_DN}"
    if votes.size < FEWEST_VOTERS:
        return _with_rule(scene.rescale, f"undecided, only {votes.size} pixels of vegetation and water")
    if low >= REMOVED_SHARE:
        return dataclasses.replace(_with_rule(scene.rescale, f"pixels show it removed ({told})"), offset=0.0)
    if low > KEPT_SHARE:
        return _with_rule(scene.rescale, f"undecided, {told}")
    return _with_rule(scene.rescale, f"pixels do not contradict ({told})")


def _with_rule(rescale: Rescale, found: str) -> Rescale:
    return dataclasses.replace(rescale, rule=f"{rescale.rule}; {found}")


def _sample(scene: Scene, band: str, limits: HttpLimits) -> npt.NDArray[np.integer[Any]]:
    """A band of the whole scene as (rows, columns) of numbers, at most `SAMPLE_SIDE` each; 0 is nodata."""
    asset: Asset = getattr(scene, band)
    try:
        with open_raster(gdal_path(sign(asset.href, scene.signer, limits=limits))) as dataset:
            height, width = (min(side, SAMPLE_SIDE) for side in dataset.shape)
            sample: npt.NDArray[np.integer[Any]] = dataset.read(1, out_shape=(height, width))
    except RasterioIOError as error:
        problem = f"cannot look at {band} to settle the offset"
        raise _ERRORS[why_unread(error)](scene.catalog, problem, url=asset.href) from error
    return sample


def _classes_at(scene: Scene, shape: tuple[int, int], limits: HttpLimits) -> npt.NDArray[np.integer[Any]]:
    """Scene classes where the pixels of the red sample lie, (rows, columns); 0 beyond the classes' own grid."""
    sample = _sample(scene, "scl", limits)
    red, scl = scene.red.grid, scene.scl.grid
    rows = _places(shape[0], red.height * red.resolution_m, red.top - scl.top, sample.shape[0], scl.height, scl)
    cols = _places(shape[1], red.width * red.resolution_m, scl.left - red.left, sample.shape[1], scl.width, scl)
    padded = np.pad(sample, 1)  # what lies beyond is read from the rim
    found: npt.NDArray[np.integer[Any]] = padded[np.ix_(rows, cols)]
    return found


def _places(
    count: int, length_m: float, ahead_m: float, sampled: int, pixels: int, scl: Grid
) -> npt.NDArray[np.integer[Any]]:
    """Rows (or columns) of the padded sample of classes that hold the middles of `count` equal steps over `length_m`.

    Args:
        ahead_m: by how much the classes' grid begins after the first step, metres.
        sampled: rows of the sample of classes, which stand for so many `pixels` of its grid.
    """
    middles_m = (np.arange(count) + 0.5) * length_m / count - ahead_m
    places = np.floor(middles_m / (pixels * scl.resolution_m / sampled)).astype(np.intp)
    return np.clip(places, -1, sampled) + 1
