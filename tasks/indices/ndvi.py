"""The normalised difference vegetation index."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Reflectance = npt.NDArray[np.float64]

SMALLEST_SUM = 1e-6
"""Reflectance comes in steps of 0.0001, so a sum nearer to zero is zero but for rounding.

Of the 1,999 pairs of digital numbers that cancel out exactly with an offset of -1000, 316 come to a sum of about
1e-17, and would read NDVI 1 or -1.
"""


def ndvi(red: Reflectance, nir: Reflectance) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """NDVI = (nir - red) / (nir + red) of surface reflectance, clipped to [-1, 1].

    Source: Rouse et al. 1974, "Monitoring vegetation systems in the Great Plains with ERTS". With an offset a dark
    pixel can have a reflectance below zero: where the sum is not above zero the index means nothing, and where one
    of the two is negative it leaves [-1, 1] and is clipped.

    Args:
        red, nir: surface reflectance, unitless, any shape, no nodata inside.

    Returns:
        (index, is_clipped), both of the same shape; the index is NaN where the reflectances do not sum above zero.
    """
    total = nir + red
    raw = np.full(total.shape, np.nan)
    np.divide(nir - red, total, out=raw, where=total > SMALLEST_SUM)
    return np.clip(raw, -1.0, 1.0), np.abs(raw) > 1.0


def reflectance(
    digital_numbers: npt.NDArray[np.integer[Any]], scale: float | Reflectance, offset: float | Reflectance
) -> Reflectance:
    """Surface reflectance = DN x scale + offset. Nodata (DN 0) must be kept out by the caller.

    Since processing baseline 04.00 zero reflectance is stored as 1000. With that offset left in, a pixel of red 1500
    and nir 4000 reads NDVI 0.45 instead of 0.71; scale and offset come from the item, scene by scene.

    Args:
        digital_numbers: any shape.
        scale, offset: of all, or of each as an array of that shape.
    """
    return digital_numbers.astype(np.float64) * scale + offset
