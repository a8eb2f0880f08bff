"""How digital numbers become reflectance: the one place that knows which catalog left the offset in the pixels.

Since processing baseline 04.00 zero reflectance is stored as 1000. The baseline decides and not the date, for scenes
from before 2022 were processed again with it. Applied twice or left out, the offset moves NDVI by 0.1 to 0.3.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

from models.domain import Rescale
from models.errors import ItemUnusable
from tasks.imagery.catalogs import EARTH_SEARCH_C1, EARTH_SEARCH_L2A, GENERIC, PLANETARY_COMPUTER, Profile
from tasks.imagery.items import Item, acquired_at, baseline_number, processing_baseline

_DEFAULT_SCALE = 0.0001
_OFFSET_DN = -1000
_LARGEST = 1000.0
_FIRST_BASELINE_WITH_OFFSET = (4, 0)
_FIRST_DAY_WITH_OFFSET = dt.datetime(2022, 1, 25, tzinfo=dt.UTC)


def reflectance_rule(item: Item, asset: Mapping[str, Any], profile: Profile) -> Rescale:
    """Scale and offset for the pixels of this asset, by the row of the table that fits the item.

    | catalog | applied |
    | --- | --- |
    | Earth Search L2A, `earthsearch:boa_offset_applied` true | scale (`raster:bands` may still say -0.1) |
    | the same, flag false or absent, baseline before 04.00 | scale |
    | the same, baseline 04.00 or later | scale and offset, uncertain: wrong flags are known |
    | Earth Search C1, CDSE, generic | scale and offset as published, by baseline where they are not |
    | Planetary Computer | scale, and -1000 DN from baseline 04.00 on |

    Where the baseline is unknown, a scene from before 2022-01-25 has no offset, and a later one has it, uncertain.

    Raises:
        ItemUnusable: the published scale or offset is not a usable number.
    """
    scale = _published(asset, "scale")
    offset = _published(asset, "offset")
    scale = _DEFAULT_SCALE if scale is None else scale
    if scale <= 0:
        raise ItemUnusable(f"published scale {scale:g} is not positive")
    if profile is EARTH_SEARCH_L2A and item["properties"].get("earthsearch:boa_offset_applied") is True:
        return Rescale(scale=scale, offset=0.0, rule=f"{profile.name}: offset already removed")
    if profile in (EARTH_SEARCH_L2A, PLANETARY_COMPUTER) or offset is None:
        return _by_baseline(item, scale, profile)
    return Rescale(scale=scale, offset=offset, rule=f"{profile.name}: as published")


def _by_baseline(item: Item, scale: float, profile: Profile) -> Rescale:
    """With the offset from baseline 04.00 on, without it before."""
    number = baseline_number(processing_baseline(item))
    if number is None:
        return _by_date(item, scale, profile)
    if number < _FIRST_BASELINE_WITH_OFFSET:
        return Rescale(scale=scale, offset=0.0, rule=f"{profile.name}: baseline before 04.00")
    if profile is EARTH_SEARCH_L2A:
        rule, is_certain = "offset not removed, by the flag", False
    else:
        # A generic catalog that tells no offset may have removed it without a word.
        rule, is_certain = "baseline 04.00 or later", profile is not GENERIC
    return Rescale(scale=scale, offset=_OFFSET_DN * scale, rule=f"{profile.name}: {rule}", is_certain=is_certain)


def _by_date(item: Item, scale: float, profile: Profile) -> Rescale:
    """Without a baseline: Collection 1 always has the offset, other scenes when they are recent enough."""
    moment = acquired_at(item)
    is_early = moment is not None and moment < _FIRST_DAY_WITH_OFFSET
    if is_early and profile is not EARTH_SEARCH_C1:
        return Rescale(scale=scale, offset=0.0, rule=f"{profile.name}: baseline unknown, before 2022-01-25")
    rule = f"{profile.name}: baseline unknown, offset assumed"
    return Rescale(scale=scale, offset=_OFFSET_DN * scale, rule=rule, is_certain=False)


def _published(asset: Mapping[str, Any], name: str) -> float | None:
    """`scale` or `offset` as the asset tells it, in the words of STAC 1.0 or 1.1; None when it does not."""
    for value in _told(asset, name):
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
            raise ItemUnusable(f"published {name} is not a usable number")
        return float(value)
    return None


def _told(asset: Mapping[str, Any], name: str) -> Iterator[object]:
    for bands in (asset.get("raster:bands"), asset.get("bands")):
        if isinstance(bands, list) and bands and isinstance(bands[0], Mapping):
            yield from (bands[0][key] for key in (f"raster:{name}", name) if bands[0].get(key) is not None)
    if asset.get(f"raster:{name}") is not None:
        yield asset[f"raster:{name}"]
