"""STAC items for tests: the recorded ones of every catalog, and a made one that lacks nothing."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator
from typing import Any

import rustac

from tests.support.archives import SHARED_DATA

STAC = SHARED_DATA / "stac"


def recorded_items(pattern: str) -> list[dict[str, Any]]:
    """The items in all recorded documents below `stac` that match, whether alone, in collections or in answers."""
    files = sorted(STAC.glob(pattern))
    return [item for file in files for item in _items(json.loads(file.read_text()))]


def recorded_item(pattern: str, item_id: str) -> dict[str, Any]:
    """One recorded item by its id."""
    return next(item for item in recorded_items(pattern) if item["id"] == item_id)


def planetary_computer_table(name: str) -> list[dict[str, Any]]:
    """The items of one of the recorded GeoParquet tables of Planetary Computer."""

    async def read() -> list[dict[str, Any]]:
        table = await rustac.read(str(STAC / "planetary-computer" / name))
        return list(table["features"])

    return asyncio.run(read())


def _items(document: Any) -> Iterator[dict[str, Any]]:
    if isinstance(document, dict) and document.get("type") == "Feature" and "properties" in document:
        yield document
    elif isinstance(document, dict | list):
        for part in document.values() if isinstance(document, dict) else document:
            yield from _items(part)


_ITEM: dict[str, Any] = {
    "type": "Feature",
    "stac_version": "1.0.0",
    "id": "S2B_33TWM_20230813_0_L2A",
    "collection": "sentinel-2-l2a",
    "geometry": {
        "type": "Polygon",
        "coordinates": [[[15.0, 46.0], [16.4, 46.0], [16.4, 47.0], [15.0, 47.0], [15.0, 46.0]]],
    },
    "bbox": [15.0, 46.0, 16.4, 47.0],
    "links": [{"rel": "self", "href": "https://stac.example.org/collections/a/items/b"}],
    "properties": {
        "datetime": "2023-08-13T10:08:00Z",
        "updated": "2023-08-14T00:00:00Z",
        "platform": "sentinel-2b",
        "proj:epsg": 32633,
        "grid:code": "MGRS-33TWM",
        "s2:processing_baseline": "05.09",
        "s2:datatake_id": "GS2B_20230813T100559_033612_N05.09",
        "s2:datastrip_id": "S2B_OPER_MSI_L2A_DS_2BPS_20230813T120000_S20230813T100600_N05.09",
        "earthsearch:boa_offset_applied": True,
    },
    "assets": {
        "red": {
            "href": "https://files.example.org/B04.tif",
            "proj:shape": [10980, 10980],
            "proj:transform": [10, 0, 499980, 0, -10, 5200020],
        },
        "nir": {
            "href": "https://files.example.org/B08.tif",
            "proj:shape": [10980, 10980],
            "proj:transform": [10, 0, 499980, 0, -10, 5200020],
        },
        "scl": {
            "href": "https://files.example.org/SCL.tif",
            "proj:shape": [5490, 5490],
            "proj:transform": [20, 0, 499980, 0, -20, 5200020],
        },
    },
}


def made_item(**properties: Any) -> dict[str, Any]:
    """An item as Earth Search serves them, with these properties set; None removes one. `a__b` stands for `a:b`."""
    item = copy.deepcopy(_ITEM)
    for name, value in properties.items():
        item["properties"][name.replace("__", ":")] = value
    item["properties"] = {name: value for name, value in item["properties"].items() if value is not None}
    return item
