"""Which of the 143 orbits of Sentinel-2 an item was taken from, as far as it says."""

from __future__ import annotations

import re

from tasks.imagery.items import Item, texts

ORBITS = 143
"""Orbits of one repeat of 10 days."""

_ORBIT_IN_NAME = re.compile(r"^S2[A-D]_MSIL[12][AC]_\d{8}T\d{6}_(?:N\d{4}_)?R(\d{3})(?=_|\.|$)")


def relative_orbit(item: Item) -> int | None:
    """Relative orbit, 1 to 143, by its property or else by the name of the product; None where neither tells.

    It is not worked out from the absolute orbit in the datatake: that relation changes when a satellite is moved to
    another place on its orbit, as Sentinel-2A was in 2025.
    """
    for name in ("sat:relative_orbit", "sentinel2:relative_orbit_number"):
        told = item["properties"].get(name)
        if isinstance(told, int) and not isinstance(told, bool) and 1 <= told <= ORBITS:
            return told
    for name in (*texts(item, "s2:product_uri", "sentinel2:product_title"), str(item["id"])):
        if (match := _ORBIT_IN_NAME.match(name)) and 1 <= int(match[1]) <= ORBITS:
            return int(match[1])
    return None
