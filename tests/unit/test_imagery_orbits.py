"""The relative orbit, as each catalog tells it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.imagery.orbits import relative_orbit

NAME = "S2B_MSIL2A_20240610T100559_N0510_R022_T33TWM_20240610T141245"


def item(item_id: str = "S2B_33TWM_20240610_0_L2A", **properties: Any) -> dict[str, Any]:
    return {"id": item_id, "properties": {name.replace("__", ":"): value for name, value in properties.items()}}


@pytest.mark.parametrize(
    ("given", "orbit"),
    [
        (item(sat__relative_orbit=108), 108),
        (item(sentinel2__relative_orbit_number=7), 7),
        (item(s2__product_uri=f"{NAME}.SAFE"), 22),
        (item("S2B_MSIL2A_20240610T100559_R022_T33TWM_20240610T141245"), 22),
        (item(f"{NAME}.SAFE", sat__relative_orbit="22"), 22),
        (item(sat__relative_orbit=144, s2__product_uri=f"{NAME}.SAFE"), 22),
        (item(sat__relative_orbit=True), None),
        (item(s2__product_uri=NAME.replace("R022", "R000")), None),
        (item(s2__datatake_id="GS2B_20240610T100559_037931_N05.10"), None),
        (item(), None),
    ],
)
def test_it_is_told_by_the_property_or_the_product_name(given: dict[str, Any], orbit: int | None) -> None:
    assert relative_orbit(given) == orbit


@pytest.mark.shared_data
def test_catalogs_of_today_tell_it(shared_data: Path) -> None:
    found = [
        each
        for file in (shared_data / "stac").rglob("*.json")
        for document in [json.loads(file.read_text())]
        for each in (document.get("features", [document]) if isinstance(document, dict) else [])
        if each.get("type") == "Feature" and str(each.get("collection", "")).startswith("sentinel-2")
    ]
    names = [
        each for each in found if "s2:product_uri" in each["properties"] or "sat:relative_orbit" in each["properties"]
    ]
    assert len(names) > 20
    assert all(relative_orbit(each) for each in names)
