"""The newest observation cut out of a farm's state is the one that parsing it gives, whatever texts are in it."""

from __future__ import annotations

import datetime as dt
import uuid
from collections import defaultdict
from typing import Any

import orjson
import pytest

from models.state import OBSERVATION, latest_of, read_model

NASTY = ("S2A_32ULB_20260514_0_L2A", ',"last_pass":', '"latest":', ',"index":', "\\", 'a,"', ',"revision":')


@pytest.mark.parametrize("text", NASTY)
def test_it_is_what_parsing_gives(text: str) -> None:
    at = dt.datetime(2026, 5, 14, 10, 36, 12, tzinfo=dt.UTC)
    row: dict[str, Any] = defaultdict(lambda: None)
    row |= dict.fromkeys(OBSERVATION, 0.5) | {
        "acquired_at": at,
        "day": at.date(),
        "status": "observed",
        "rule": "inner",
    }
    row |= {"item_ids": [text, text], "catalog": text, "external_farm_id": uuid.UUID(int=5), "revision": 7}
    row |= {"is_active": True, "boundary_version": 1, "told_index": "ndvi", "told_mask_policy": text}
    row |= {"pass_status": "cloud", "pass_platform": text, "pass_day": at.date(), "pass_acquired_at": at}

    body = read_model(row).body

    state = orjson.loads(body)
    data = {name: state[name] for name in ("external_farm_id", "index", "mask_policy")} | {
        "observation": state["latest"]
    }
    assert state["latest"]["item_ids"] == [text, text]
    assert latest_of(body) == orjson.dumps(data)
