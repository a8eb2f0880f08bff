from __future__ import annotations

import datetime as dt
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from models.domain import Observation, Statistics, Status
from models.farms import upsert_farms
from models.observation_rows import content_of
from models.observations import (
    EXPORT_COLUMNS,
    SaveOutcome,
    export_observations,
    observation_of,
    observed_inputs,
    save_observations,
)
from models.revision import lock_revisions
from tests.support.facts import NOON, POLICY, engine_for, observed, statistics, store_farms, table, unseen
from tests.support.shapes import draft, field

TODAY = NOON.date()
HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    yield made
    made.dispose()


@pytest.fixture
def farm_ids(engine: Engine) -> list[int]:
    return store_farms(engine, 5)


def save(engine: Engine, *given: Observation) -> SaveOutcome:
    with engine.begin() as connection:
        return save_observations(connection, given)


def stored(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return table(connection, "observations")


def column(engine: Engine, name: str) -> list[Any]:
    with engine.connect() as connection:
        return list(
            connection.execute(text(f'SELECT "{name}" FROM observations ORDER BY farm_id, acquired_at')).scalars()
        )


def day_of(engine: Engine, number: int, day: dt.date = TODAY) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return observation_of(connection, uuid.UUID(int=number), day, POLICY)


def outcome(inserted: int, replaced: int, unchanged: int, *changed: int) -> SaveOutcome:
    return SaveOutcome(inserted=inserted, replaced=replaced, unchanged=unchanged, changed_farm_ids=changed)


def same(row: dict[str, Any], given: Observation) -> bool:
    """Whether a row tells every field of an observation exactly; bins of the histogram have single precision."""
    facts = {each.name: getattr(given, each.name) for each in fields(Observation) if each.name != "statistics"}
    for each in fields(Statistics):
        facts[each.name] = None if given.statistics is None else getattr(given.statistics, each.name)
    histogram, told = facts.pop("histogram"), row["histogram"]
    assert (told is None) == (histogram is None)
    assert histogram is None or told == pytest.approx(list(histogram), rel=1e-6)
    return all(row[name] == (list(value) if isinstance(value, tuple) else value) for name, value in facts.items())


class TestSave:
    def test_what_is_saved_is_what_is_read(self, engine: Engine, farm_ids: list[int]) -> None:
        seen, cloudy = observed(farm_ids[1]), unseen(farm_ids[0], item_ids=(), processing_baseline=None)
        assert save(engine, seen, cloudy) == outcome(2, 0, 0, farm_ids[0], farm_ids[1])
        [first], [second] = day_of(engine, 1), day_of(engine, 2)
        assert same(first, cloudy)
        assert same(second, seen)
        assert second["content"] == content_of(seen)
        assert second["acquired_at"].tzinfo is dt.UTC

    def test_saving_twice_writes_nothing(self, engine: Engine, farm_ids: list[int]) -> None:
        given = [*(observed(farm_id) for farm_id in farm_ids), unseen(farm_ids[0], acquired_at=NOON + 3 * DAY)]
        save(engine, *given)
        before = stored(engine)
        assert len(before) == 6
        assert save(engine, *reversed(given)) == outcome(0, 0, 6)
        assert stored(engine) == before

    def test_a_reprocessed_item_replaces_what_it_made(self, engine: Engine, farm_ids: list[int]) -> None:
        save(engine, *(observed(farm_id) for farm_id in farm_ids))
        before = column(engine, "revision")
        newer = observed(farm_ids[2], ndvi=0.7, inputs="newer", processing_baseline="05.11")
        given = [observed(farm_id) for farm_id in farm_ids if farm_id != farm_ids[2]] + [newer]
        assert save(engine, *given) == outcome(0, 1, 4, farm_ids[2])
        after = column(engine, "revision")
        assert [now > then for now, then in zip(after, before, strict=True)] == [False, False, True, False, False]
        assert after[2] > max(before)
        [row] = day_of(engine, 3)
        assert same(row, newer)

    def test_a_clear_farm_may_turn_out_cloudy(self, engine: Engine, farm_ids: list[int]) -> None:
        save(engine, observed(farm_ids[0]))
        assert save(engine, unseen(farm_ids[0])).replaced == 1
        [row] = day_of(engine, 1)
        assert (row["status"], row["ndvi"], row["mean"], row["histogram"]) == ("cloud", None, None, None)

    def test_the_same_numbers_from_other_inputs_are_noted_and_nothing_else(
        self, engine: Engine, farm_ids: list[int]
    ) -> None:
        save(engine, observed(farm_ids[0]), observed(farm_ids[1]))
        names = ("revision", "updated_at", "content", "software_version")
        before = {name: column(engine, name) for name in names}
        given = [observed(farm_ids[0], inputs="touched", software_version="9"), observed(farm_ids[1])]
        assert save(engine, *given) == outcome(0, 0, 2)
        assert {name: column(engine, name) for name in names} == before
        assert column(engine, "inputs") == ["touched", "0123456789abcdef"]

    def test_the_order_of_a_sum_does_not_make_a_new_revision(self, engine: Engine, farm_ids: list[int]) -> None:
        save(engine, observed(farm_ids[0], ndvi=0.1 + 0.2))
        assert save(engine, observed(farm_ids[0], ndvi=0.3)).unchanged == 1

    @pytest.mark.parametrize("away", [dt.timedelta(seconds=1), -dt.timedelta(minutes=14), dt.timedelta(hours=14)])
    def test_a_pass_told_at_another_instant_takes_the_place_of_the_first(
        self, engine: Engine, farm_ids: list[int], away: dt.timedelta
    ) -> None:
        first = observed(farm_ids[0], pass_id="one")
        save(engine, first, observed(farm_ids[1], pass_id="one"), observed(farm_ids[0], acquired_at=NOON + 5 * DAY))
        before = max(column(engine, "revision"))
        moved = replace(first, acquired_at=NOON + away, catalog="planetary-computer")
        assert save(engine, moved) == outcome(0, 1, 0, farm_ids[0])
        with engine.connect() as connection:
            query = "SELECT farm_id, acquired_at, revision > :before FROM observations WHERE pass_id = 'one' ORDER BY 1"
            rows = [tuple(row) for row in connection.execute(text(query), {"before": before})]
        assert rows == [(farm_ids[0], NOON + away, True), (farm_ids[1], NOON, False)]
        assert save(engine, moved) == outcome(0, 0, 1)

    def test_a_pass_that_moves_over_midnight_of_new_year_is_still_one(
        self, engine: Engine, farm_ids: list[int]
    ) -> None:
        eve = dt.datetime(2024, 12, 31, 23, 59, 50, tzinfo=dt.UTC)
        save(engine, observed(farm_ids[0], acquired_at=eve, pass_id="one"))
        assert save(engine, observed(farm_ids[0], acquired_at=eve + 30 * dt.timedelta(seconds=1), pass_id="one")) == (
            outcome(0, 1, 0, farm_ids[0])
        )
        assert [row[0] for row in stored(engine)] == ["observations_2025"]

    def test_two_passes_that_swap_their_instants_both_stay(self, engine: Engine, farm_ids: list[int]) -> None:
        one, other = observed(farm_ids[0], pass_id="1"), observed(farm_ids[0], pass_id="2", acquired_at=NOON + HOUR)
        save(engine, one, other)
        save(engine, replace(one, acquired_at=NOON + HOUR), replace(other, acquired_at=NOON))
        assert column(engine, "pass_id") == ["2", "1"]

    def test_boundary_versions_indices_and_mask_policies_do_not_touch_each_other(
        self, engine: Engine, farm_ids: list[int]
    ) -> None:
        one = observed(farm_ids[0])
        save(engine, one)
        before = stored(engine)
        others = [replace(one, boundary_version=2), replace(one, index="ndmi"), replace(one, mask_policy="other")]
        moved = [replace(each, acquired_at=NOON + HOUR) for each in others]
        assert save(engine, *others).inserted == 3
        assert save(engine, *moved).replaced == 3
        after = stored(engine)
        assert all(row in after for row in before)

    def test_years_have_partitions_of_their_own(self, engine: Engine, farm_ids: list[int]) -> None:
        eve = dt.datetime(2023, 12, 31, 23, 59, 59, 999999, dt.UTC)
        times = [eve, eve + dt.timedelta(microseconds=1), eve + 400 * DAY]
        # An hour east of Greenwich the year is already new; the partition is the one of UTC.
        east = eve.astimezone(dt.timezone(dt.timedelta(hours=1)))
        save(
            engine,
            *(observed(farm_ids[0], acquired_at=each) for each in times),
            observed(farm_ids[1], acquired_at=east),
        )
        assert sorted(row[0] for row in stored(engine)) == [
            *("observations_2023", "observations_2023", "observations_2024", "observations_2025")
        ]
        assert save(engine, *(observed(farm_ids[0], acquired_at=each) for each in times)).unchanged == 3

    def test_text_is_stored_as_it_is(self, engine: Engine, farm_ids: list[int]) -> None:
        odd = ("tab\there", "line\nend\r", r"back\slash \N", "quote ' \"", "{brace},comma", "", "NULL", "Žito 農場")
        given = observed(farm_ids[0], item_ids=odd, catalog="a\tb\n'\"\\", processing_baseline="\\N", rescale_rule="")
        save(engine, given)
        [row] = day_of(engine, 1)
        assert same(row, given)

    def test_a_farm_given_twice_is_refused_and_nothing_is_saved(self, engine: Engine, farm_ids: list[int]) -> None:
        one = observed(farm_ids[0])
        for other in (replace(one, ndvi=0.1, pass_id="2"), replace(one, acquired_at=NOON + HOUR)):
            with pytest.raises(ValueError, match="given twice"):
                save(engine, one, other)
        with pytest.raises(ValueError, match="time zone"):
            save(engine, replace(one, acquired_at=dt.datetime(2024, 1, 1)))  # noqa: DTZ001
        assert stored(engine) == []

    def test_all_land_or_none(self, engine: Engine, farm_ids: list[int]) -> None:
        with pytest.raises(IntegrityError, match="observed_has_ndvi"):
            save(engine, observed(farm_ids[0]), replace(observed(farm_ids[1]), ndvi=None))
        assert stored(engine) == []

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_what_is_no_number_is_refused(self, engine: Engine, farm_ids: list[int], value: float) -> None:
        for odd in (replace(statistics(), std=value), replace(statistics(), histogram=(value,) * 40)):
            with pytest.raises((ValueError, OverflowError)):
                save(engine, observed(farm_ids[0]), observed(farm_ids[1], statistics=odd))
        assert stored(engine) == []

    def test_nothing_given_takes_no_lock(self, engine: Engine) -> None:
        with engine.begin() as other:
            lock_revisions(other)
            assert save(engine) == outcome(0, 0, 0)

    def test_several_lists_in_one_transaction_all_land(self, engine: Engine, farm_ids: list[int]) -> None:
        with engine.begin() as connection:
            for farm_id in farm_ids:
                save_observations(connection, [observed(farm_id)])
        assert len(stored(engine)) == 5


class TestAtOnce:
    def run(self, *jobs: Any) -> list[Any]:
        results: list[Any] = [None] * len(jobs)

        def work(number: int, job: Any) -> None:
            results[number] = job()

        threads = [threading.Thread(target=work, args=each) for each in enumerate(jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return results

    def test_the_same_scene_saved_by_three_lands_once(self, engine: Engine) -> None:
        farm_ids = store_farms(engine, 200)
        given = [observed(farm_id) for farm_id in farm_ids]
        orders = [given, given[::-1], given[100:] + given[:100]]
        outcomes = self.run(*(lambda each=each: save(engine, *each) for each in orders))
        assert sorted(each.inserted for each in outcomes) == [0, 0, 200]
        assert sorted(each.unchanged for each in outcomes) == [0, 200, 200]
        assert len(stored(engine)) == 200

    def test_lists_that_overlap_neither_lose_nor_double_a_row(self, engine: Engine) -> None:
        farm_ids = store_farms(engine, 150)
        parts = [farm_ids[:100], farm_ids[::-1][:100], farm_ids[::2], farm_ids[1::2]]
        jobs = [
            lambda part=part, year=year: save(
                engine, *(observed(each, acquired_at=NOON.replace(year=2020 + year)) for each in part)
            )
            for year in range(3)
            for part in parts
        ]
        outcomes = self.run(*jobs)
        assert sum(each.inserted for each in outcomes) == 450 == len(stored(engine))
        assert len(set(column(engine, "revision"))) == 450

    def test_two_catalogs_instants_of_one_pass_leave_one_row(self, engine: Engine, farm_ids: list[int]) -> None:
        jobs = [
            lambda away=away: save(
                engine, *(observed(each, acquired_at=NOON + away * HOUR, pass_id="one") for each in farm_ids)
            )
            for away in range(4)
        ]
        self.run(*jobs)
        assert len(stored(engine)) == len(farm_ids)
        assert len(set(column(engine, "acquired_at"))) == 1

    def test_a_reader_who_has_seen_a_revision_never_finds_a_smaller_one_later(self, engine: Engine) -> None:
        farm_ids = store_farms(engine, 8)
        times = [NOON + number * DAY for number in range(12)]
        is_over = threading.Event()
        late: list[int] = []

        def watch() -> None:
            seen: set[int] = set()
            while not is_over.is_set():
                found = set(column(engine, "revision"))
                late.extend(each for each in found - seen if seen and each < max(seen))
                seen = found

        def write(part: list[dt.datetime]) -> None:
            for each in part:
                with engine.begin() as connection:
                    save_observations(connection, [observed(farm_id, acquired_at=each) for farm_id in farm_ids])
                    time.sleep(0.01)  # numbers are drawn, and not yet to be seen

        reader = threading.Thread(target=watch)
        reader.start()
        self.run(*(lambda part=times[start::3]: write(part) for start in range(3)))
        is_over.set()
        reader.join(30)
        assert late == []
        assert len(stored(engine)) == 96

    def test_an_import_of_farms_and_the_first_save_of_a_year_do_not_wait_in_a_ring(self, engine: Engine) -> None:
        farm_ids = store_farms(engine, 20)

        def farms() -> None:
            for number in range(5):
                with engine.begin() as connection:
                    upsert_farms(connection, [draft(each, name=f"{number}") for each in range(1, 21)])

        years = [
            lambda year=year: save(engine, *(observed(each, acquired_at=NOON.replace(year=year)) for each in farm_ids))
            for year in range(2016, 2024)
        ]
        self.run(farms, *years)
        assert len(stored(engine)) == 160


class TestContent:
    @pytest.mark.parametrize(
        "changes",
        [
            {"status": Status.NODATA, "ndvi": None, "rule": None, "statistics": None},
            {"day": NOON.date() + DAY},
            {"clear_fraction": 0.98},
            {"class_counts": (1, *(0,) * 11)},
            {"item_ids": ("a", "b")},
            {"processing_baseline": None},
            {"catalog": "planetary-computer"},
            {"rescale_rule": "other"},
            {"pass_id": "other"},
            *(
                {"statistics": replace(statistics(), **dict[str, Any]({each.name: 0.123}))}
                for each in fields(Statistics)[:9]
            ),
            {"statistics": replace(statistics(), histogram=(9.0, *(0.0,) * 39))},
            {"statistics": replace(statistics(), inner_mean=None)},
        ],
    )
    def test_everything_that_is_told_counts(self, changes: dict[str, Any]) -> None:
        one = observed(1, ndvi=0.62, statistics=statistics())
        assert content_of(replace(one, **changes)) != content_of(one)

    def test_who_it_is_about_and_from_which_inputs_do_not(self) -> None:
        one = observed(1)
        other = replace(one, farm_id=2, boundary_version=3, inputs="x", software_version="9")
        assert content_of(one) == content_of(other)

    @given(st.floats(-1, 1), st.sampled_from([-1, 1]))
    def test_a_hair_never_counts_away_from_the_edge_of_rounding(self, ndvi: float, side: int) -> None:
        value = round(ndvi, 9)
        one, other = (observed(1, ndvi=each, statistics=None) for each in (value, value + side * 1e-13))
        assert content_of(one) == content_of(other)


class TestRead:
    @pytest.fixture
    def filled(self, engine: Engine, farm_ids: list[int]) -> Engine:
        times = [dt.datetime(2023, 12, 30, 10, tzinfo=dt.UTC), dt.datetime(2024, 1, 1, 10, tzinfo=dt.UTC), NOON]
        save(engine, *(observed(each, acquired_at=at) for each in reversed(farm_ids[:3]) for at in times))
        save(engine, unseen(farm_ids[3]), observed(farm_ids[0], mask_policy="other", acquired_at=NOON + HOUR))
        return engine

    def export(
        self,
        engine: Engine,
        start: str | None = None,
        end: str | None = None,
        numbers: list[int] | None = None,
        policy: str = POLICY,
    ) -> list[dict[str, Any]]:
        days = [None if day is None else dt.date.fromisoformat(day) for day in (start, end)]
        ids = None if numbers is None else [uuid.UUID(int=number) for number in numbers]
        with engine.connect() as connection:
            rows = export_observations(connection, start=days[0], end=days[1], external_ids=ids, mask_policy=policy)
            return list(rows)

    def test_an_export_has_the_columns_of_the_contract_in_order(self, filled: Engine) -> None:
        rows = self.export(filled)
        assert all(tuple(row) == EXPORT_COLUMNS for row in rows)
        assert ", ".join(EXPORT_COLUMNS) == (
            "external_farm_id, acquired_at, day, status, ndvi, rule, clear_fraction, mean, std, min, max, median, p10, "
            "p25, p75, p90, inner_mean, inner_pixel_count, clear_area_ha, pixel_count, item_ids, processing_baseline, "
            "catalog, revision"
        )

    def test_an_export_is_sorted_by_farm_and_instant(self, filled: Engine) -> None:
        rows = [(row["external_farm_id"].int, row["acquired_at"]) for row in self.export(filled)]
        assert rows == sorted(rows)
        assert [number for number, _ in rows] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4]

    def test_values_are_those_that_were_saved(self, filled: Engine, farm_ids: list[int]) -> None:
        row = self.export(filled, numbers=[1], start="2024-06-01")[0]
        given = observed(farm_ids[0])
        assert row["item_ids"] == ["S2B_33TWM_20240610_0_L2A"]
        assert given.statistics is not None
        assert (row["ndvi"], row["p25"], row["rule"]) == (given.ndvi, given.statistics.p25, "inner")
        assert row["acquired_at"].tzinfo is dt.UTC

    @pytest.mark.parametrize(
        ("start", "end", "count"),
        [
            (None, None, 10),
            ("2024-01-01", None, 7),
            ("2024-01-02", None, 4),
            (None, "2023-12-30", 3),
            (None, "2023-12-29", 0),
            ("2023-12-30", "2024-01-01", 6),
            ("2025-01-01", "2024-01-01", 0),
        ],
    )
    def test_days_bound_an_export_both_included(
        self, filled: Engine, start: str | None, end: str | None, count: int
    ) -> None:
        assert len(self.export(filled, start, end)) == count

    def test_an_export_may_name_its_farms(self, filled: Engine) -> None:
        assert len(self.export(filled, numbers=[2, 4, 99])) == 4
        assert self.export(filled, numbers=[]) == []
        assert len(self.export(filled, policy="other")) == 1

    def test_the_solar_day_may_differ_from_the_day_in_greenwich(self, engine: Engine, farm_ids: list[int]) -> None:
        late = dt.datetime(2024, 5, 31, 22, 0, tzinfo=dt.UTC)  # already the first of June in New Zealand
        save(engine, observed(farm_ids[0], acquired_at=late, day=dt.date(2024, 6, 1)))
        assert len(self.export(engine, "2024-06-01", "2024-06-01")) == 1
        assert len(day_of(engine, 1, dt.date(2024, 6, 1))) == 1
        assert self.export(engine, "2024-05-31", "2024-05-31") == []

    def test_observations_of_an_earlier_boundary_are_not_told(self, filled: Engine, farm_ids: list[int]) -> None:
        with filled.begin() as connection:
            upsert_farms(connection, [draft(1, field(width_m=500))])
        assert {row["external_farm_id"].int for row in self.export(filled)} == {2, 3, 4}
        assert day_of(filled, 1) == []
        save(filled, observed(farm_ids[0], boundary_version=2))
        assert [row["boundary_version"] for row in day_of(filled, 1)] == [2]

    def test_an_inactive_farm_is_exported_when_named(self, filled: Engine) -> None:
        with filled.begin() as connection:
            connection.execute(text("UPDATE farms SET is_active = false WHERE id = (SELECT min(id) FROM farms)"))
        assert {row["external_farm_id"].int for row in self.export(filled)} == {2, 3, 4}
        assert len(self.export(filled, numbers=[1])) == 3

    def test_two_passes_on_one_day_are_two_rows(self, engine: Engine, farm_ids: list[int]) -> None:
        save(engine, observed(farm_ids[0], pass_id="b", acquired_at=NOON + HOUR), observed(farm_ids[0], pass_id="a"))
        assert [row["pass_id"] for row in day_of(engine, 1)] == ["a", "b"]

    def test_inputs_are_told_by_pass_and_version_of_the_boundary(self, engine: Engine, farm_ids: list[int]) -> None:
        one = observed(farm_ids[0], pass_id="a", inputs="x")
        save(
            engine,
            one,
            replace(one, boundary_version=2, inputs="y"),
            replace(one, farm_id=farm_ids[1]),
            replace(one, mask_policy="other", inputs="z"),
            observed(farm_ids[0], pass_id="b", acquired_at=NOON + DAY),
            observed(farm_ids[0], pass_id="c", acquired_at=NOON + 2 * DAY),
        )
        with engine.connect() as connection:
            found = observed_inputs(connection, ["a", "b", "a", "none"], index="ndvi", mask_policy=POLICY)
        assert found == {
            "a": {(farm_ids[0], 1): "x", (farm_ids[0], 2): "y", (farm_ids[1], 1): "x"},
            "b": {(farm_ids[0], 1): "0123456789abcdef"},
        }


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


class TestProperties:
    @given(data=st.data())
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_whatever_is_saved_last_is_what_there_is(
        self, engine: Engine, farm_ids: list[int], data: st.DataObject
    ) -> None:
        """A model in a dictionary: each pass over a farm once, the last that was told of it."""
        passes = {"a": dt.timedelta(0), "b": DAY * 30}
        truth: dict[tuple[int, str], Observation] = {}
        with engine.connect() as connection:
            for _ in range(data.draw(st.integers(1, 4))):
                keys = data.draw(st.sets(st.tuples(st.sampled_from(farm_ids[:3]), st.sampled_from(sorted(passes)))))
                given = [
                    observed(
                        farm_id,
                        pass_id=pass_id,
                        acquired_at=NOON + passes[pass_id] + data.draw(st.integers(0, 2)) * HOUR,
                        ndvi=data.draw(st.sampled_from([0.1, 0.2])),
                        catalog=data.draw(texts),
                    )
                    for farm_id, pass_id in sorted(keys)
                ]
                expected = [truth.get((each.farm_id, each.pass_id)) for each in given]
                found = save_observations(connection, given)
                equal = [
                    was is not None and (was.acquired_at, content_of(was)) == (now.acquired_at, content_of(now))
                    for was, now in zip(expected, given, strict=True)
                ]
                assert (found.unchanged, found.inserted) == (sum(equal), expected.count(None))
                assert found.changed_farm_ids == tuple(
                    sorted({each.farm_id for each, is_equal in zip(given, equal, strict=True) if not is_equal})
                )
                truth |= {(each.farm_id, each.pass_id): each for each in given}
            query = text("SELECT farm_id, pass_id, acquired_at, ndvi, catalog FROM observations")
            rows = {(row.farm_id, row.pass_id): tuple(row)[2:] for row in connection.execute(query)}
            connection.rollback()
        assert rows == {key: (each.acquired_at, each.ndvi, each.catalog) for key, each in truth.items()}
