"""The recorded imagery and items that lie beside the checkout, ready to be served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHARED_DATA = ROOT.parent / "shared" / "data"
"""Real recorded data; absent on most machines, so tests that read it are marked `shared_data`."""
ARCHIVES = SHARED_DATA / "s2-archive"


def archive_items(name: str, url: str) -> list[dict[str, Any]]:
    """The items of one recorded archive, with the assets' addresses below `url`, where its folder is served.

    Args:
        name: A folder of `s2-archive`, e.g. `be-antwerp-2023q4`.
        url: Address of a file server over that folder (`ARCHIVES / name`).
    """
    document = json.loads((ARCHIVES / name / "items.json").read_text())
    items: list[dict[str, Any]] = document["features"]
    return [with_asset_addresses(item, url) for item in items]


def with_asset_addresses(item: dict[str, Any], url: str) -> dict[str, Any]:
    """A copy of the item with each relative asset address made absolute below `url`."""
    assets = {
        key: {**asset, "href": f"{url.rstrip('/')}/{asset['href'].removeprefix('./')}"}
        for key, asset in item["assets"].items()
    }
    return {**item, "assets": assets}
