from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, text

from models.domain import Rescale, SceneWork, SkippedItem, Status
from models.ledger import (
    begin_work,
    finish_work,
    known_scenes,
    plan_work,
    record_scenes,
    skipped_items,
    work_lock,
)
from models.observations import save_observations
from models.status import WorkStatus, work_status
from tests.support.facts import NOON, POLICY, engine_for, observed, scene, store_farms, table, unseen, work
from tests.support.other_process import Program

DAY = dt.timedelta(days=1)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    yield made
    made.dispose()


def rows(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def record(engine: Engine, *given: Any) -> None:
    usable = [each for each in given if not isinstance(each, SkippedItem)]
    with engine.begin() as connection:
        record_scenes(connection, usable, [each for each in given if isinstance(each, SkippedItem)])


def known(engine: Engine, start: dt.datetime = NOON - DAY, end: dt.datetime = NOON + DAY) -> list[Any]:
    with engine.connect() as connection:
        return known_scenes(connection, start.date(), end.date())


def skipped(number: int = 1, reason: str = "no red asset") -> SkippedItem:
    given = scene(number)
    return SkippedItem(catalog=given.catalog, collection=given.collection, item_id=given.item_id, reason=reason)


class TestScenes:
    def test_scenes_come_back_as_they_went_in_by_instant(self, engine: Engine) -> None:
        given = [
            scene(1, acquired_at=NOON + DAY, processing_baseline=None, updated=None, footprint=()),
            scene(2, signer="planetary-computer", rescale=Rescale(scale=1e-4, offset=-0.1, rule="x", is_certain=False)),
            scene(3, acquired_at=NOON - DAY, catalog="cdse", item_id="tab\t'\"\\ Ž"),
        ]
        record(engine, *given)
        assert known(engine) == [given[2], given[1], given[0]]

    def test_days_bound_what_is_known_both_included(self, engine: Engine) -> None:
        record(engine, *(scene(number, acquired_at=NOON + number * DAY) for number in range(5)))
        found = known(engine, NOON + DAY, NOON + 3 * DAY)
        assert [each.day for each in found] == [(NOON + number * DAY).date() for number in (1, 2, 3)]

    def test_recording_twice_changes_nothing(self, engine: Engine) -> None:
        given = [*(scene(number) for number in range(3)), skipped(9)]
        record(engine, *given)
        before = rows(engine, "SELECT ctid::text, xmin::text, s.* FROM scenes AS s ORDER BY item_id")
        record(engine, *given[::-1])
        assert rows(engine, "SELECT ctid::text, xmin::text, s.* FROM scenes AS s ORDER BY item_id") == before

    def test_a_reprocessed_item_takes_the_place_of_what_was_known(self, engine: Engine) -> None:
        record(engine, scene(1), scene(2))
        [first] = rows(engine, "SELECT first_seen_at, changed_at FROM scenes WHERE item_id LIKE '%1'")
        newer = scene(1, processing_baseline="05.11")
        record(engine, newer)
        assert known(engine) == [newer, scene(2)]
        [now] = rows(engine, "SELECT first_seen_at, changed_at FROM scenes WHERE item_id LIKE '%1'")
        assert now[0] == first[0]
        assert now[1] > first[1]

    def test_an_item_may_become_usable_and_unusable_again(self, engine: Engine) -> None:
        for given, usable, unusable in [
            (skipped(), [], [skipped()]),
            (scene(1), [scene(1)], []),
            (skipped(reason="other"), [], [skipped(reason="other")]),
        ]:
            record(engine, given)
            assert known(engine) == usable
            with engine.connect() as connection:
                assert skipped_items(connection, limit=9) == unusable

    def test_an_item_given_both_ways_is_usable(self, engine: Engine) -> None:
        record(engine, skipped(), scene(1))
        assert known(engine) == [scene(1)]

    def test_two_searches_at_once_both_land(self, engine: Engine) -> None:
        given = [scene(number) for number in range(300)]
        threads = [threading.Thread(target=record, args=(engine, *order)) for order in (given, given[::-1])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(known(engine)) == 300


def plan(engine: Engine, *works: SceneWork) -> None:
    with engine.begin() as connection:
        plan_work(connection, works, index="ndvi", mask_policy=POLICY)


def begin(engine: Engine, each: SceneWork) -> int:
    with engine.begin() as connection:
        return begin_work(connection, each, index="ndvi", mask_policy=POLICY)


def finish(engine: Engine, each: SceneWork, *failed: int, problem: str | None = None) -> None:
    with engine.begin() as connection:
        finish_work(
            connection,
            each,
            index="ndvi",
            mask_policy=POLICY,
            observed=2,
            not_observed={Status.CLOUD: 1},
            failed_farm_ids=failed,
            problem=problem,
            is_retryable=True if failed else None,
        )


def states(engine: Engine) -> dict[str, tuple[str, int, list[int]]]:
    query = "SELECT tile_set, state, attempts, pending_farm_ids FROM work"
    return {row[0]: row[1:] for row in rows(engine, query)}


def status(engine: Engine) -> WorkStatus:
    with engine.connect() as connection:
        return work_status(connection)


class TestWork:
    def test_planned_then_done(self, engine: Engine) -> None:
        each = work([3, 1, 2])
        plan(engine, each)
        assert states(engine) == {"33TWM": ("planned", 0, [1, 2, 3])}
        assert begin(engine, each) == 1
        finish(engine, each)
        assert states(engine) == {"33TWM": ("done", 1, [])}
        assert rows(engine, "SELECT observed, not_observed, problem, finished_at IS NOT NULL FROM work") == [
            (2, {"cloud": 1}, None, True)
        ]

    def test_farms_that_failed_stay_pending_with_the_problem(self, engine: Engine) -> None:
        each = work([1, 2, 3])
        plan(engine, each)
        begin(engine, each)
        finish(engine, each, 3, 2, problem="red: 503")
        assert states(engine) == {"33TWM": ("failed", 1, [2, 3])}
        again = work([2, 3])
        plan(engine, again)
        assert states(engine) == {"33TWM": ("planned", 1, [2, 3])}
        assert rows(engine, "SELECT problem FROM work") == [("red: 503",)]
        assert begin(engine, again) == 2
        finish(engine, again)
        assert states(engine) == {"33TWM": ("done", 2, [])}
        assert rows(engine, "SELECT problem, is_retryable FROM work") == [(None, None)]

    def test_a_plan_for_one_farm_does_not_forget_the_others(self, engine: Engine) -> None:
        plan(engine, work([1, 2, 3]))
        finish(engine, work([1, 2, 3]), 1, 2, problem="x")
        plan(engine, work([1]))
        assert states(engine) == {"33TWM": ("planned", 0, [1, 2])}
        finish(engine, work([1]))
        assert states(engine) == {"33TWM": ("planned", 0, [2])}
        finish(engine, work([2]))
        assert states(engine) == {"33TWM": ("done", 0, [])}

    def test_a_farm_is_pending_on_one_tile_of_a_pass_only(self, engine: Engine) -> None:
        plan(engine, work([1, 2, 3]), work([4], tiles=("33TWL",)), work([1], acquired_at=NOON + DAY, tiles=("33TWM",)))
        finish(engine, work([1, 2, 3]), 1, 2, problem="x")
        plan(engine, work([1, 2, 4], tiles=("33TWL", "33TWM")), work([5], tiles=("33TWN",)))
        assert rows(engine, "SELECT tile_set, day, state, pending_farm_ids FROM work ORDER BY day, tile_set") == [
            ("33TWL", NOON.date(), "done", []),
            ("33TWL+33TWM", NOON.date(), "planned", [1, 2, 4]),
            ("33TWM", NOON.date(), "done", []),
            ("33TWN", NOON.date(), "planned", [5]),
            ("33TWM", (NOON + DAY).date(), "planned", [1]),
        ]

    def test_tiles_of_one_pass_are_planned_again_without_taking_from_each_other(self, engine: Engine) -> None:
        both = [work([1, 2], tiles=("33TWL",)), work([3, 4], tiles=("33TWM",))]
        plan(engine, *both)
        plan(engine, *both[::-1])
        assert states(engine) == {"33TWL": ("planned", 0, [1, 2]), "33TWM": ("planned", 0, [3, 4])}

    def test_mask_policies_have_work_of_their_own(self, engine: Engine) -> None:
        plan(engine, work([1]))
        with engine.begin() as connection:
            plan_work(connection, [work([1])], index="ndvi", mask_policy="other")
            finish_work(
                connection,
                work([1]),
                index="ndvi",
                mask_policy="other",
                observed=1,
                not_observed={},
                failed_farm_ids=[],
                problem=None,
                is_retryable=None,
            )
        assert rows(engine, "SELECT mask_policy, state FROM work ORDER BY 1") == [
            ("other", "done"),
            (POLICY, "planned"),
        ]

    def test_what_was_never_planned_cannot_begin_or_finish(self, engine: Engine) -> None:
        for step in (begin, finish):
            with pytest.raises(LookupError, match="33TWM 2024-06-10: 1 farm was never planned"):
                step(engine, work([1]))

    def test_many_farms_are_planned_and_finished_at_once(self, engine: Engine) -> None:
        each = work(range(20_000))
        plan(engine, each)
        finish(engine, each, *range(10_000), problem="x")
        plan(engine, each, work(range(20_000, 40_000), tiles=("33TWL",)))
        finish(engine, each)
        assert {name: (state, len(pending)) for name, (state, _, pending) in states(engine).items()} == {
            "33TWM": ("done", 0),
            "33TWL": ("planned", 20_000),
        }


class TestStatus:
    def test_an_empty_store_has_nothing_to_tell(self, engine: Engine) -> None:
        assert status(engine) == WorkStatus(
            farms=0,
            scenes=0,
            skipped={},
            skipped_items=(),
            observations={},
            is_estimated=False,
            newest_acquired_at=None,
            newest_observed_day=None,
            work={},
            failed=(),
            last_finished_at=None,
        )

    def test_everything_is_counted(self, engine: Engine) -> None:
        ids = store_farms(engine, 3)
        record(engine, scene(1), scene(2), skipped(3), skipped(4), skipped(5, "no grid"))
        with engine.begin() as connection:
            given = [observed(ids[0]), observed(ids[1]), unseen(ids[0], acquired_at=NOON + DAY)]
            save_observations(connection, given)
        done, failed = work(ids), work(ids, acquired_at=NOON + DAY)
        plan(engine, done, failed)
        finish(engine, done)
        begin(engine, failed)
        finish(engine, failed, ids[0], ids[2], problem="red: 503")
        found = status(engine)
        assert (found.farms, found.scenes, found.skipped) == (3, 2, {"no red asset": 2, "no grid": 1})
        assert [each.item_id for each in found.skipped_items] == [skipped(each).item_id for each in (3, 4, 5)]
        assert (found.observations, found.is_estimated) == ({"cloud": 1, "observed": 2}, False)
        assert (found.newest_acquired_at, found.newest_observed_day) == (NOON + DAY, NOON.date())
        assert found.work == {"done": 1, "failed": 1}
        [problem] = found.failed
        assert (problem.tile_set, problem.day, problem.attempts) == ("33TWM", (NOON + DAY).date(), 1)
        assert (problem.pending_farms, problem.problem, problem.is_retryable) == (2, "red: 503", True)
        assert found.last_finished_at == problem.finished_at

    def test_what_is_told_one_by_one_is_bounded(self, engine: Engine) -> None:
        ids = store_farms(engine, 1)
        record(engine, *(skipped(number) for number in range(5)))
        works = [work(ids, acquired_at=NOON + number * DAY) for number in range(4)]
        for each in works:
            plan(engine, each)
            finish(engine, each, *ids, problem="x")
        with engine.connect() as connection:
            found = work_status(connection, limit=2)
        assert (found.skipped, len(found.skipped_items)) == ({"no red asset": 5}, 2)
        assert [each.day for each in found.failed] == [(NOON + number * DAY).date() for number in (3, 2)]

    def test_many_observations_are_estimated_from_a_sample(self, engine: Engine) -> None:
        [farm_id] = store_farms(engine, 1)
        minute = dt.timedelta(minutes=1)
        instants = [NOON + number * minute for number in range(4_000)]
        made = [
            (unseen if number % 4 == 0 else observed)(farm_id, acquired_at=instant, pass_id=f"p{number}")
            for number, instant in enumerate(instants)
        ]
        with engine.begin() as connection:
            save_observations(connection, made)
        with engine.connect() as connection:
            counted = work_status(connection)
            sampled = work_status(connection, counted_bytes=500_000)
        assert (counted.observations, counted.is_estimated) == ({"cloud": 1_000, "observed": 3_000}, False)
        assert sampled.is_estimated
        assert sampled.observations["observed"] == pytest.approx(3_000, rel=0.4)
        assert sampled.observations["cloud"] == pytest.approx(1_000, rel=0.4)
        assert all(number % 100 == 0 or number < 1_000 for number in sampled.observations.values())

    def test_farms_that_were_deactivated_are_not_waited_for(self, engine: Engine) -> None:
        [only] = store_farms(engine, 1)
        plan(engine, work([only]))
        finish(engine, work([only]), only, problem="x")
        assert len(status(engine).failed) == 1
        with engine.begin() as connection:
            connection.execute(text("UPDATE farms SET is_active = false"))
        assert status(engine).failed == ()


HOLDER = """
import sys
from sqlalchemy import create_engine
from models.ledger import work_lock
with work_lock(create_engine(sys.argv[1]), "pass", "33TWM") as is_ours:
    print("mine" if is_ours else "not mine", flush=True)
    sys.stdin.readline()
"""


class TestWorkLock:
    def test_only_one_at_a_time_has_a_scene_in_hand(self, engine: Engine) -> None:
        with work_lock(engine, "pass", "33TWM") as first, work_lock(engine, "pass", "33TWM") as second:
            assert (first, second) == (True, False)
            with work_lock(engine, "pass", "33TWL") as elsewhere, work_lock(engine, "other", "33TWM") as other:
                assert elsewhere
                assert other
            with work_lock(engine, "pass", "33TWM") as third:
                assert not third
        with work_lock(engine, "pass", "33TWM") as again:
            assert again

    def test_an_error_lets_go_of_it(self, engine: Engine) -> None:
        with pytest.raises(KeyError), work_lock(engine, "pass", "33TWM"):
            raise KeyError
        with work_lock(engine, "pass", "33TWM") as again:
            assert again

    def test_it_holds_between_processes_and_ends_with_one_that_is_killed(self, engine: Engine) -> None:
        with Program(HOLDER, engine.url.render_as_string(hide_password=False)) as holder:
            assert holder.says("mine")
            with work_lock(engine, "pass", "33TWM") as is_ours:
                assert not is_ours
            holder.kill()
            for _ in range(100):
                with work_lock(engine, "pass", "33TWM") as is_ours:
                    if is_ours:
                        break
                threading.Event().wait(0.05)
            assert is_ours

    def test_a_connection_that_is_lost_meanwhile_is_no_error(self, engine: Engine) -> None:
        with work_lock(engine, "pass", "33TWM"), engine.begin() as connection:
            query = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            assert connection.execute(text(query)).scalars().all() == [True]
            connection.execute(text("SELECT pg_sleep(0.1)"))
        with work_lock(engine, "pass", "33TWM") as again:
            assert again

    def test_it_holds_no_transaction_open(self, engine: Engine) -> None:
        with work_lock(engine, "pass", "33TWM"):
            query = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
            assert rows(engine, query) == [(0,)]


def test_a_whole_row_is_compared_with_where_and_when_it_was_written(engine: Engine) -> None:
    """The tests of writing nothing rest on this: an update of the same values shows."""
    store_farms(engine, 1)
    with engine.connect() as connection:
        before = table(connection, "farms")
        connection.execute(text("UPDATE farms SET name = name"))
        assert table(connection, "farms") != before
