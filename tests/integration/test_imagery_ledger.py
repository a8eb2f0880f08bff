"""Odd items of a catalog are noted in the ledger beside the good ones; none of them costs the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, text

from models.domain import Scene, SkippedItem
from models.ledger import record_scenes
from tasks.imagery.catalogs import KNOWN_CATALOGS
from tasks.imagery.scenes import scene_from
from tests.support.facts import engine_for
from tests.support.items import made_item

CATALOG = KNOWN_CATALOGS["earth-search-l2a"]
ODD = ["a\x00b", "line\nfeed", "\ud800", "x" * 257, "ø" * 9_000, "\U0010ffff"]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    yield made
    made.dispose()


def odd_items() -> list[dict[str, Any]]:
    named = [{**made_item(), "id": name} for name in ODD]
    named += [{**made_item(), "id": f"collection-{place}", "collection": name} for place, name in enumerate(ODD)]
    for place, name in enumerate(ODD):
        item = {**made_item(), "id": f"texts-{place}"}
        texts = {key: name for key, value in item["properties"].items() if isinstance(value, str)}
        for key in texts:
            named.append({**item, "id": f"{item['id']}-{key}", "properties": item["properties"] | {key: name}})
        red = item["assets"]["red"] | {"href": f"https://files.example.org/{name}"}
        named.append({**item, "id": f"{item['id']}-href", "assets": item["assets"] | {"red": red}})
    return named


def test_odd_texts_are_noted_as_skipped_and_the_good_item_lands(engine: Engine) -> None:
    found = [scene_from(item, CATALOG) for item in [*odd_items(), made_item()]]
    scenes = [each for each in found if isinstance(each, Scene)]
    skipped = [each for each in found if isinstance(each, SkippedItem)]
    with engine.begin() as connection:
        record_scenes(connection, scenes, skipped)
        stored = connection.execute(text("SELECT item_id, skipped_reason FROM scenes")).all()
    assert (made_item()["id"], None) in [tuple(row) for row in stored]
    assert len(stored) == len({each.item_id for each in (*scenes, *skipped)})
