"""Which scenes make up a look at a tile does not depend on how they came."""

from __future__ import annotations

import dataclasses
import datetime as dt
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from models.domain import Asset, Grid, Rescale, Scene
from tasks.imagery.passes import choose_catalog, pieces_of

ASSET = Asset(
    href="https://files.example.org/B04.tif",
    grid=Grid(epsg=32633, left=499980, top=5200020, resolution_m=10, width=10980, height=10980),
)
SCENE = Scene(
    catalog="first",
    collection="sentinel-2-l2a",
    item_id="a",
    tile="33TWM",
    platform="sentinel-2b",
    pass_id="sentinel-2b/20230813T100559",
    datastrip="S20230813T100600",
    acquired_at=dt.datetime(2023, 8, 13, 10, 8, tzinfo=dt.UTC),
    day=dt.date(2023, 8, 13),
    processing_baseline="05.09",
    updated="2023-08-14T00:00:00Z",
    red=ASSET,
    nir=ASSET,
    scl=ASSET,
    rescale=Rescale(scale=0.0001, offset=0, rule="test"),
)


def scene(**fields: object) -> Scene:
    return dataclasses.replace(SCENE, **fields)  # type: ignore[arg-type]


SCENES = st.lists(
    st.builds(
        scene,
        catalog=st.sampled_from(["first", "second", "third"]),
        item_id=st.text("abcdef", min_size=3, max_size=6),
        tile=st.sampled_from(["33TWL", "33TWM"]),
        pass_id=st.sampled_from(["sentinel-2b/20230813T100559", "sentinel-2a/20230815T095031"]),
        datastrip=st.sampled_from(["S20230813T100600", "S20230813T101500"]),
        processing_baseline=st.sampled_from([None, "02.14", "05.09", "05.10", "99.99"]),
        updated=st.sampled_from(
            [None, "soon", "2023-08-14T00:00:00Z", "2023-08-14T00:00:00.5Z", "2023-08-15T00:00:00Z"]
        ),
    ),
    max_size=12,
    unique_by=lambda made: (made.catalog, made.item_id),
)
ORDER = ("first", "second")


@given(SCENES, st.randoms(use_true_random=False))
def test_the_choice_does_not_depend_on_order(scenes: list[Scene], random: object) -> None:
    shuffled = list(scenes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert pieces_of(shuffled) == pieces_of(scenes)
    assert choose_catalog(shuffled, ORDER) == choose_catalog(scenes, ORDER)
    assert list(choose_catalog(shuffled, ORDER)) == list(choose_catalog(scenes, ORDER))


@given(SCENES)
def test_choosing_again_changes_nothing(scenes: list[Scene]) -> None:
    once = pieces_of(scenes)
    assert pieces_of(chain.from_iterable(once.values())) == once
    chosen = choose_catalog(scenes, ORDER)
    assert choose_catalog(chain.from_iterable(chosen.values()), ORDER) == chosen


@given(SCENES)
def test_each_datastrip_stays_once_and_in_order(scenes: list[Scene]) -> None:
    for (pass_id, tile), pieces in pieces_of(scenes).items():
        strips = [piece.datastrip for piece in pieces]
        there = {made.datastrip for made in scenes if (made.pass_id, made.tile) == (pass_id, tile)}
        assert strips == sorted(there)


@given(SCENES)
def test_a_pass_comes_from_the_first_catalog_and_what_it_lacks_from_the_next(scenes: list[Scene]) -> None:
    chosen = choose_catalog(scenes, ORDER)
    for key in {(made.pass_id, made.tile) for made in scenes}:
        having = [made for made in scenes if (made.pass_id, made.tile) == key and made.catalog in ORDER]
        best: dict[str, str] = {}
        for made in sorted(having, key=lambda each: ORDER.index(each.catalog)):
            best.setdefault(made.datastrip, made.catalog)
        pieces = chosen.get(key, ())
        assert {piece.datastrip: piece.catalog for piece in pieces} == best
        assert len(pieces) == len(best)
        ranks = [ORDER.index(piece.catalog) for piece in pieces]
        assert ranks == sorted(ranks)


KEY = (SCENE.pass_id, SCENE.tile)


def test_of_two_processings_the_newer_baseline_wins_though_it_was_updated_earlier() -> None:
    old = scene(item_id="z", processing_baseline="02.14", updated="2024-01-01T00:00:00Z")
    new = scene(item_id="a", processing_baseline="05.00", updated="2023-01-01T00:00:00Z")
    assert pieces_of([old, new])[KEY] == (new,)


def test_test_processing_does_not_win_by_its_number() -> None:
    real, test = scene(item_id="a", processing_baseline="05.10"), scene(item_id="z", processing_baseline="99.99")
    assert pieces_of([real, test])[KEY] == (real,)


def test_of_equal_baselines_the_later_change_wins_and_then_the_id() -> None:
    early, late = scene(item_id="z"), scene(item_id="a", updated="2023-08-14T00:00:00.5Z")
    assert pieces_of([early, late])[KEY] == (late,)
    assert pieces_of([scene(item_id="a"), early])[KEY] == (early,)


def test_split_datastrips_are_both_kept() -> None:
    second, first = scene(item_id="a", datastrip="S20230813T101500"), scene(item_id="b")
    assert pieces_of([second, first])[KEY] == (first, second)


def test_a_pass_that_the_first_catalog_lacks_is_taken_from_the_next() -> None:
    here = scene(tile="33TWL")
    there = [scene(catalog="second", tile="33TWL", processing_baseline="05.11"), scene(catalog="second")]
    chosen = choose_catalog([here, *there], ORDER)
    assert chosen == {(here.pass_id, "33TWL"): (here,), KEY: (there[1],)}
