"""Which pixels were seen clearly, by the scene classification (SCL) that comes with Sentinel-2 L2A.

Classes: 0 no data, 1 saturated or defective, 2 dark or topographic shadow, 3 cloud shadow, 4 vegetation, 5 bare,
6 water, 7 unclassified, 8 cloud medium probability, 9 cloud high probability, 10 thin cirrus, 11 snow or ice.
Source: Sentinel-2 L2A product definition, scene classification.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.domain import MaskPolicy

CLASS_COUNT = 12
CLOUDY_CLASSES = (3, 8, 9, 10)
"""Classes around which a dilation is drawn: cloud shadow, cloud and cirrus."""


def is_clear_class(policy: MaskPolicy) -> npt.NDArray[np.bool_]:
    """Lookup table (12,) of bool: whether a pixel of each scene class counts."""
    table = np.zeros(CLASS_COUNT, dtype=np.bool_)
    table[sorted(policy.clear_classes)] = True
    return table


def near_cloud(classes: npt.NDArray[np.int32], *, distance_m: float, resolution_m: float) -> npt.NDArray[np.bool_]:
    """Pixels whose centre lies within a distance of the centre of a cloudy pixel.

    Args:
        classes: (height, width) scene classes; values outside 0 to 11 are neither cloudy nor clear.
        distance_m: radius of the dilation, metres.
        resolution_m: size of a pixel, metres.

    Returns:
        (height, width) of bool, cloudy pixels included.
    """
    cloudy = np.isin(classes, CLOUDY_CLASSES)
    near = cloudy.copy()
    reach = int(distance_m // resolution_m)
    height, width = classes.shape
    reach_down, reach_right = min(reach, height - 1), min(reach, width - 1)
    for down in range(-reach_down, reach_down + 1):
        for right in range(-reach_right, reach_right + 1):
            if (down or right) and (down**2 + right**2) * resolution_m**2 <= distance_m**2:
                to = near[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
                to |= cloudy[max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)]
    return near
