from __future__ import annotations

import dataclasses
import datetime as dt
import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain import Asset, Grid, Rescale, Scene
from models.scene_json import scene_from_json, scene_to_json
from tests.support.facts import scene

reals = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=20)
zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
grids = st.builds(
    Grid,
    epsg=st.integers(1024, 32767),
    left=reals,
    top=reals,
    resolution_m=reals,
    width=st.integers(1, 10**6),
    height=st.integers(1, 10**6),
)
assets = st.builds(Asset, href=texts, grid=grids)
rings = st.lists(st.lists(st.tuples(reals, reals), max_size=4).map(tuple), max_size=3).map(tuple)
scenes = st.builds(
    Scene,
    **dict.fromkeys(("catalog", "collection", "item_id", "tile", "platform", "pass_id", "datastrip"), texts),
    acquired_at=st.datetimes(timezones=zones | st.just(dt.UTC)),
    day=st.dates(),
    processing_baseline=st.none() | texts,
    updated=st.none() | texts,
    red=assets,
    nir=assets,
    scl=assets,
    rescale=st.builds(Rescale, scale=reals, offset=reals, rule=texts, is_certain=st.booleans()),
    footprint=rings,
    signer=st.none() | texts,
)


@given(scenes)
def test_a_scene_comes_back_from_json_as_it_was(given_scene: Scene) -> None:
    found = scene_from_json(json.loads(json.dumps(scene_to_json(given_scene))))
    assert found == given_scene
    assert found.acquired_at.utcoffset() == given_scene.acquired_at.utcoffset()


@given(scenes)
def test_every_fact_of_a_scene_is_in_its_document_under_its_own_name(given_scene: Scene) -> None:
    facts = dataclasses.asdict(given_scene)
    facts |= {"acquired_at": given_scene.acquired_at.isoformat(), "day": given_scene.day.isoformat()}
    assert json.dumps(scene_to_json(given_scene), sort_keys=True) == json.dumps(facts, sort_keys=True)


def test_numbers_that_a_store_wrote_whole_are_real_again() -> None:
    document = json.loads(json.dumps(scene_to_json(scene())).replace("10.0", "10").replace("16.4", "16"))
    found = scene_from_json(document)
    assert isinstance(found.red.grid.resolution_m, float)
    assert all(isinstance(part, float) for ring in found.footprint for point in ring for part in point)


@pytest.mark.parametrize("name", [each.name for each in fields(Scene) if each.name not in {"signer", "relative_orbit"}])
def test_a_document_that_lacks_something_is_refused(name: str) -> None:
    document = scene_to_json(scene())
    del document[name]
    with pytest.raises((KeyError, TypeError)):
        scene_from_json(document)
