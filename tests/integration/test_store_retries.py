"""Failed scenes rest for longer and longer, are read from elsewhere where that is possible, and are given up."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from infra.leases import run_lease
from models.domain import Scene, SceneWork
from models.ledger import finish_work, left_behind, pending_farms, plan_work, record_scenes
from models.retries import LONGEST_REST, Patience, Verdict, awake, given_up_items, hold, note_failed_run, resting
from tests.support.facts import NOON, POLICY, engine_for, scene, work

DAY = dt.timedelta(days=1)
HOUR = dt.timedelta(hours=1)
METHOD: dict[str, Any] = {"index": "ndvi", "mask_policy": POLICY}
LONG_AGO = (dt.date(2020, 1, 1), dt.date(2020, 1, 2))
CATALOGS = ("earth-search-c1", "earth-search-l2a")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    yield made
    made.dispose()


def plan(engine: Engine, *works: SceneWork, **run: Any) -> None:
    with engine.begin() as connection:
        plan_work(connection, works, **METHOD, **run)


def finish(engine: Engine, each: SceneWork, *failed: int) -> None:
    outcome = {"observed": 1, "not_observed": {}, "problem": "gone" if failed else None, "is_retryable": None}
    with engine.begin() as connection:
        finish_work(connection, each, failed_farm_ids=failed, **outcome, **METHOD)


def fail(
    engine: Engine,
    each: SceneWork,
    *,
    now: dt.datetime = NOON,
    runs: int = 3,
    unread: bool = True,
    catalogs: Any = CATALOGS,
) -> Verdict:
    """A run in which all farms of a scene failed."""
    plan(engine, each)
    finish(engine, each, *each.farm_ids)
    items = {(one.catalog, one.item_id) for one in each.scenes} if unread else set()
    with engine.begin() as connection:
        return note_failed_run(
            connection,
            each,
            unread=items,
            catalogs=catalogs,
            now=now,
            patience=Patience(runs=runs, first_rest=HOUR),
            **METHOD,
        )


def asleep(engine: Engine, each: SceneWork, now: dt.datetime) -> bool:
    with engine.connect() as connection:
        found = resting(connection, [each.pass_id], now=now, **METHOD)
    return not awake([each], found)[0]


def left(engine: Engine, now: dt.datetime = NOON) -> dict[str, set[int]]:
    with engine.connect() as connection:
        return left_behind(connection, *LONG_AGO, now=now, **METHOD)


def on_record(engine: Engine, *scenes: Scene) -> None:
    with engine.begin() as connection:
        record_scenes(connection, scenes, [])


@given(st.integers(1, 200), st.timedeltas(min_value=dt.timedelta(0), max_value=7 * DAY))
def test_rests_grow_and_have_a_bound(failed_runs: int, first: dt.timedelta) -> None:
    patience = Patience(first_rest=first)
    rests = [patience.rest_after(number) for number in range(1, failed_runs + 1)]
    assert rests == sorted(rests)
    assert max(rests) <= LONGEST_REST
    assert rests[0] == min(first, LONGEST_REST)


def test_a_scene_rests_three_times_as_long_after_each_run_and_is_then_given_up(engine: Engine) -> None:
    each, now = work([1, 2]), NOON
    on_record(engine, *each.scenes)
    for number, hours in [(1, 1), (2, 3)]:
        verdict = fail(engine, each, now=now)
        assert verdict == Verdict(failed_runs=number, not_before=now + hours * HOUR, is_given_up=False, replaced=())
        assert asleep(engine, each, verdict.not_before - dt.timedelta(seconds=1))
        assert left(engine, verdict.not_before - dt.timedelta(seconds=1)) == {}
        assert not asleep(engine, each, verdict.not_before)
        assert left(engine, verdict.not_before) == {each.pass_id: {1, 2}}
        now = verdict.not_before
    assert fail(engine, each, now=now).is_given_up
    assert asleep(engine, each, now + 1000 * DAY)
    assert left(engine, now + 1000 * DAY) == {}


def test_success_forgets_all_failures(engine: Engine) -> None:
    each = work([1])
    assert fail(engine, each, runs=1).is_given_up
    plan(engine, each)
    finish(engine, each)
    assert fail(engine, each, runs=2).failed_runs == 1


def test_imagery_that_changed_is_tried_at_once_and_counted_anew(engine: Engine) -> None:
    each = work([1])
    on_record(engine, *each.scenes)
    assert fail(engine, each, runs=1).is_given_up
    newer = dataclasses.replace(each, scenes=(dataclasses.replace(each.scenes[0], updated="2024-07-01T00:00:00Z"),))
    assert asleep(engine, each, NOON)
    assert not asleep(engine, newer, NOON)
    assert fail(engine, newer, runs=3).failed_runs == 1


def test_files_never_delivered_are_taken_from_the_next_catalog_that_has_the_same_piece(engine: Engine) -> None:
    first, second = scene(1), scene(2, catalog="earth-search-l2a")
    on_record(engine, first, second)
    each = work([1])
    assert each.scenes == (first,)
    assert not fail(engine, each, runs=2).replaced
    verdict = fail(engine, each, runs=2)
    lost = (first.catalog, first.item_id)
    assert verdict == Verdict(failed_runs=2, not_before=NOON, is_given_up=False, replaced=(lost,))
    assert left(engine) == {each.pass_id: {1}}, "the next run reads the other"
    with engine.connect() as connection:
        assert given_up_items(connection, [first.pass_id]) == {lost}
    other = dataclasses.replace(each, scenes=(second,))
    assert fail(engine, other, runs=2).failed_runs == 1
    assert fail(engine, other, runs=2).is_given_up, "now there is nobody else left"


@pytest.mark.parametrize(
    "other",
    [
        {"catalog": "planetary-computer"},
        {"catalog": "earth-search-l2a", "datastrip": "another"},
        {"catalog": "earth-search-l2a", "tile": "33TWL"},
        {"catalog": "earth-search-l2a", "pass_id": "another"},
    ],
)
def test_another_piece_or_a_catalog_that_is_not_read_is_no_replacement(engine: Engine, other: dict[str, str]) -> None:
    each = work([1])
    on_record(engine, *each.scenes, scene(2, **other))
    verdict = fail(engine, each, runs=1)
    assert (verdict.is_given_up, verdict.replaced) == (True, ())


def test_without_files_to_blame_nothing_is_replaced(engine: Engine) -> None:
    each = work([1])
    on_record(engine, *each.scenes, scene(2, catalog="earth-search-l2a"))
    assert fail(engine, each, runs=1, unread=False).is_given_up


def test_an_item_that_its_catalog_changes_is_believed_again(engine: Engine) -> None:
    first, second = scene(1), scene(2, catalog="earth-search-l2a")
    on_record(engine, first, second)
    assert fail(engine, work([1]), runs=1).replaced
    on_record(engine, first)
    with engine.connect() as connection:
        assert len(given_up_items(connection, [first.pass_id])) == 1
    on_record(engine, dataclasses.replace(first, updated="2024-07-01T00:00:00Z"))
    with engine.connect() as connection:
        assert given_up_items(connection, [first.pass_id]) == set()


def test_a_farm_that_joins_a_resting_scene_is_not_forgotten(engine: Engine) -> None:
    each = work([1])
    verdict = fail(engine, each)
    with engine.begin() as connection:
        hold(connection, [dataclasses.replace(each, farm_ids=(1, 2))], **METHOD)
        assert pending_farms(connection, [each.pass_id], **METHOD) == {each.pass_id: {1, 2}}
    assert left(engine) == {}
    assert left(engine, verdict.not_before) == {each.pass_id: {1, 2}}


def test_what_a_living_run_has_planned_is_left_to_it(engine: Engine) -> None:
    mine, theirs = work([1], pass_id="mine"), work([2], pass_id="theirs")
    plan(engine, mine)
    with run_lease(engine, kind="other") as run_id:
        plan(engine, theirs, run_id=run_id)
        assert left(engine) == {"mine": {1}}
        finish(engine, theirs, 2)
        assert left(engine) == {"mine": {1}, "theirs": {2}}, "what failed there may be tried by anybody"
        plan(engine, theirs, run_id=run_id)
    assert left(engine) == {"mine": {1}, "theirs": {2}}, "what it left behind as well"


def test_an_item_that_other_work_has_given_up_is_read_from_elsewhere_as_well(engine: Engine) -> None:
    on_record(engine, scene(1), scene(2, catalog="earth-search-l2a"))
    single, mosaic = work([1]), work([2], tiles=("33TWL", "33TWM"))
    assert len(fail(engine, single, runs=1).replaced) == 1
    assert len(fail(engine, mosaic, runs=1).replaced) == 1
