"""Items are foreign data: whatever is in them, the answer is a scene or a reason."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain import Scene, SkippedItem
from tasks.imagery.catalogs import KNOWN_CATALOGS, catalogs_from
from tasks.imagery.scenes import scene_from
from tests.support.items import made_item

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
CATALOGS = [*KNOWN_CATALOGS.values(), *catalogs_from((), stac_url="http://127.0.0.1:1")]


NUMBERS = st.sampled_from([10**400, -(10**400), 1e308, float("inf"), float("nan"), -0.0, 2**63])


def paths(part: Any, start: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    inner = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    return [path for key, value in inner for path in [(*start, key), *paths(value, (*start, key))]]


EXTRA: list[tuple[Any, ...]] = [
    ("properties", "processing:software"),
    ("properties", "proj:code"),
    ("properties", "sat:relative_orbit"),
    ("properties", "constellation"),
    ("properties", "start_datetime"),
    ("assets", "red", "raster:bands"),
    ("assets", "red", "bands"),
    ("assets", "red", "proj:bbox"),
    ("assets", "red", "type"),
    ("assets", "B04"),
]


@settings(max_examples=400, deadline=None)
@given(
    changes=st.lists(st.tuples(st.sampled_from([*paths(made_item()), *EXTRA]), JSON | NUMBERS), min_size=1, max_size=3),
    catalog=st.sampled_from(CATALOGS),
)
def test_any_item_is_a_scene_or_has_a_reason(changes: list[tuple[tuple[Any, ...], Any]], catalog: Any) -> None:
    item = made_item()
    for path, value in changes:
        part: Any = item
        for key in path[:-1]:
            is_there = (isinstance(part, dict) and key in part) or (isinstance(part, list) and key in range(len(part)))
            part = part[key] if is_there else None
        if isinstance(part, dict) or (isinstance(part, list) and path[-1] in range(len(part))):
            part[path[-1]] = value
    result = scene_from(item, catalog)
    if isinstance(result, Scene):
        assert result.red.grid.width > 0
        assert not result.red.href.lower().startswith(("/vsi", "ftp", "gs"))
    else:
        assert isinstance(result, SkippedItem)
        assert result.reason
        assert result.item_id
