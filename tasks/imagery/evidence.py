"""A look at the pixels where a catalog's word about the offset cannot be trusted."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import RasterioIOError

from models.domain import Rescale, Scene
from models.errors import (
    UpstreamError,
    UpstreamMissing,
    UpstreamRejected,
    UpstreamUnavailable,
    UpstreamUnreadable,
)
from tasks.imagery.reader import HttpLimits, Unread, gdal_path, sign, use_gdal_options, why_unread

SAMPLE_SIDE = 512
"""The whole scene is read at about this many pixels a side, from an overview where the file has one."""

OFFSET_DN = 1000
REMOVED_SHARE = 0.02
"""Above this share of pixels darker than the offset, the offset has been taken out.

With the offset still in, a value below 1,000 is a reflectance below zero, which is rare. Without it, red values of
200 to 900 are what vegetation, water and forest look like.
"""

_ERRORS: dict[Unread, type[UpstreamError]] = {
    Unread.UNAVAILABLE: UpstreamUnavailable,
    Unread.MISSING: UpstreamMissing,
    Unread.REJECTED: UpstreamRejected,
    Unread.UNREADABLE: UpstreamUnreadable,
}


def settle_rescale(scene: Scene, *, limits: HttpLimits) -> Rescale:
    """Decide a doubtful offset by looking at the red band of the whole scene, independent of the farms on it.

    Earth Search marks some `sentinel-2-l2a` items of baseline 04.00 and later as still holding the offset although
    it has been taken out (Element84/earth-search #66, #71).

    Returns:
        The rescale to use; its rule says what the pixels showed.

    Raises:
        UpstreamError: the band could not be read; of the kind that says why.
    """
    use_gdal_options(limits)
    try:
        with rasterio.open(gdal_path(sign(scene.red.href, scene.signer)), sharing=False) as dataset:
            sample = _whole(dataset)
    except RasterioIOError as error:
        raise _ERRORS[why_unread(error)](scene.catalog, "cannot look at the red band", url=scene.red.href) from error
    present = sample[sample > 0]
    dark = float(np.mean(present < OFFSET_DN)) if present.size else 0.0
    if dark > REMOVED_SHARE:
        return dataclasses.replace(
            scene.rescale, offset=0.0, rule=f"{scene.rescale.rule}; pixels show it removed ({dark:.0%} below 1000)"
        )
    return dataclasses.replace(
        scene.rescale, rule=f"{scene.rescale.rule}; pixels do not contradict ({dark:.0%} below 1000)"
    )


def _whole(dataset: Any) -> np.ndarray[Any, Any]:
    height, width = (min(side, SAMPLE_SIDE) for side in dataset.shape)
    sample: np.ndarray[Any, Any] = dataset.read(1, out_shape=(height, width))
    return sample
