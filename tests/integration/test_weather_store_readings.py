from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, text

from models.weather import DAILY_VARIABLES, HOURLY_VARIABLES, Grain, Kind, Reading, Source
from models.weather_store import SaveOutcome, save_readings
from tests.support.facts import engine_for, table
from tests.support.readings import DAY, cell, daily, hourly, midnight

ONE = dt.timedelta(days=1)
TOLD = midnight(DAY) + 7 * ONE


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    yield made
    made.dispose()


def save(engine: Engine, *readings: Reading) -> SaveOutcome:
    with engine.begin() as connection:
        return save_readings(connection, readings)


def stored(engine: Engine, name: str = "weather_daily") -> list[dict[str, Any]]:
    with engine.connect() as connection:
        query = (
            f"SELECT c.key, c.source, w.* FROM {name} AS w JOIN weather_cells AS c ON c.id = w.cell_id ORDER BY 1, 4"
        )
        return [dict(row) for row in connection.execute(text(query)).mappings()]


def changes(inserted: int, replaced: int, unchanged: int, *keys: str) -> SaveOutcome:
    return SaveOutcome(inserted=inserted, replaced=replaced, unchanged=unchanged, changed_cell_keys=keys)


KEY = cell().key


class TestSave:
    def test_what_is_saved_is_what_is_read(self, engine: Engine) -> None:
        values = {name: number + 0.25 for number, name in enumerate(DAILY_VARIABLES)}
        hours = {name: number - 0.5 for number, name in enumerate(HOURLY_VARIABLES)}
        power = cell(7, Source.NASA_POWER)
        assert save(
            engine,
            daily(values=values, soil_layer="0-7cm"),
            daily(power, values={"precipitation_mm": 0.1}, is_final=False),
            hourly(at=midnight(DAY) + dt.timedelta(hours=5), values=hours),
        ) == changes(3, 0, 0, KEY, power.key)
        first, second = stored(engine)
        assert {name: first[name] for name in DAILY_VARIABLES} == values
        assert (first["day"], first["model"], first["kind"]) == (DAY, "era5_seamless", "reanalysis")
        assert (first["is_final"], first["told_at"], first["soil_layer"]) == (True, TOLD, "0-7cm")
        assert (second["source"], second["precipitation_mm"], second["is_final"]) == ("nasa-power", 0.1, False)
        assert second["temperature_mean_c"] is None
        assert second["kept"] is None
        [hour] = stored(engine, "weather_hourly")
        assert {name: hour[name] for name in HOURLY_VARIABLES} == hours
        assert hour["at"] == midnight(DAY) + dt.timedelta(hours=5)

    def test_saving_twice_writes_nothing(self, engine: Engine) -> None:
        given = [daily(cell(number), DAY + day * ONE) for number in range(3) for day in range(5)]
        save(engine, *given)
        with engine.connect() as connection:
            before = table(connection, "weather_daily")
        assert len(before) == 15
        assert save(engine, *reversed(given)) == changes(0, 0, 15)
        with engine.connect() as connection:
            assert table(connection, "weather_daily") == before

    def test_nothing_to_save_is_nothing(self, engine: Engine) -> None:
        assert save(engine) == changes(0, 0, 0)

    def test_told_again_unchanged_keeps_its_revision_and_notes_the_time(self, engine: Engine) -> None:
        save(engine, daily(is_final=False))
        [before] = stored(engine)
        assert save(engine, daily(is_final=False, told_at=TOLD + 3 * ONE)) == changes(0, 0, 1)
        [after] = stored(engine)
        assert after["told_at"] == TOLD + 3 * ONE
        assert (after["revision"], after["updated_at"]) == (before["revision"], before["updated_at"])

    def test_a_provisional_value_is_replaced_by_a_later_one_with_a_new_revision(self, engine: Engine) -> None:
        save(engine, daily(is_final=False), daily(cell(1), is_final=False))
        before = {row["key"]: row["revision"] for row in stored(engine)}
        later = daily(is_final=False, values={"precipitation_mm": 2.5}, told_at=TOLD + ONE)
        assert save(engine, later) == changes(0, 1, 0, KEY)
        first, second = stored(engine)
        assert first["precipitation_mm"] == 2.5
        assert first["revision"] > max(before.values())
        assert second["revision"] == before[second["key"]]

    def test_an_answer_that_arrives_late_replaces_no_newer_one(self, engine: Engine) -> None:
        save(engine, daily(is_final=False, told_at=TOLD))
        assert save(engine, daily(is_final=False, values={"precipitation_mm": 9}, told_at=TOLD - ONE)).unchanged == 1
        [row] = stored(engine)
        assert (row["precipitation_mm"], row["told_at"]) == (1.5, TOLD)

    def test_a_final_value_is_not_overwritten_by_a_provisional_one(self, engine: Engine) -> None:
        save(engine, daily())
        later = daily(is_final=False, values={"precipitation_mm": 9}, told_at=TOLD + 90 * ONE)
        assert save(engine, later) == changes(0, 0, 1)
        [row] = stored(engine)
        assert (row["precipitation_mm"], row["is_final"], row["told_at"]) == (1.5, True, TOLD)

    def test_a_final_value_replaces_a_provisional_one_even_of_the_same_number(self, engine: Engine) -> None:
        save(engine, daily(is_final=False))
        assert save(engine, daily(told_at=TOLD + ONE)) == changes(0, 1, 0, KEY)
        assert stored(engine)[0]["is_final"]

    def test_an_answer_with_fewer_variables_erases_none(self, engine: Engine) -> None:
        save(engine, daily(is_final=False, values={"precipitation_mm": 1, "et0_mm": 4}))
        save(engine, daily(values={"precipitation_mm": 2}, told_at=TOLD + ONE))
        [row] = stored(engine)
        assert (row["precipitation_mm"], row["et0_mm"], row["is_final"]) == (2, 4, True)
        assert list(row["kept"]) == ["et0_mm"]
        save(engine, daily(is_final=False, values={"et0_mm": 5}, told_at=TOLD + 2 * ONE))
        assert stored(engine)[0]["et0_mm"] == 5
        save(engine, daily(values={"et0_mm": 6}, told_at=TOLD + ONE))
        [row] = stored(engine)
        assert (row["et0_mm"], row["kept"]) == (6, None)

    def test_a_missing_variable_is_completed_by_an_older_answer(self, engine: Engine) -> None:
        save(engine, daily(values={"precipitation_mm": 1}))
        save(engine, daily(is_final=False, values={"precipitation_mm": 9, "et0_mm": 4}, told_at=TOLD - ONE))
        [row] = stored(engine)
        assert (row["precipitation_mm"], row["et0_mm"]) == (1, 4)

    def test_the_soil_of_two_layers_is_never_joined(self, engine: Engine) -> None:
        save(engine, daily(values={"soil_temperature_top_c": 12, "soil_moisture_top_m3_m3": 0.3}, soil_layer="0-7cm"))
        save(engine, daily(values={"soil_temperature_top_c": 14}, soil_layer="0-1cm", told_at=TOLD + ONE))
        [row] = stored(engine)
        told = (row["soil_temperature_top_c"], row["soil_moisture_top_m3_m3"], row["soil_layer"])
        assert told == (14, None, "0-1cm")

    def test_the_same_values_of_another_model_or_kind_are_another_reading(self, engine: Engine) -> None:
        given = [daily(), daily(model="ecmwf_ifs"), daily(kind=Kind.FORECAST), daily(cell(0, Source.NASA_POWER))]
        assert save(engine, *given).inserted == 4

    def test_one_forecast_is_kept_of_a_time_the_newest(self, engine: Engine) -> None:
        def issued(hour: int, rain: float) -> Reading:
            when = midnight(DAY) + dt.timedelta(hours=hour)
            return daily(kind=Kind.FORECAST, issued_at=when, values={"precipitation_mm": rain})

        save(engine, issued(6, 1))
        assert save(engine, issued(12, 2)) == changes(0, 1, 0, KEY)
        assert save(engine, issued(0, 3)) == changes(0, 0, 1)
        [row] = stored(engine)
        assert (row["precipitation_mm"], row["told_at"]) == (2, midnight(DAY) + dt.timedelta(hours=12))

    def test_years_apart_each_get_their_partition(self, engine: Engine) -> None:
        days = [dt.date(1940, 1, 1), dt.date(1999, 12, 31), dt.date(2000, 1, 1), dt.date(2030, 12, 31)]
        assert save(engine, *(daily(day=day) for day in days)).inserted == 4
        hours = [midnight(day) + dt.timedelta(hours=23) for day in days]
        assert save(engine, *(hourly(at=at) for at in hours)).inserted == 4
        assert save(engine, *(daily(day=day) for day in days)).unchanged == 4
        assert save(engine, *(hourly(at=at) for at in hours)).unchanged == 4

    def test_an_empty_reading_says_that_the_source_was_asked(self, engine: Engine) -> None:
        assert save(engine, daily(values={})).inserted == 1
        assert save(engine, daily(values={}, told_at=TOLD + ONE)).unchanged == 1

    def test_all_land_or_none(self, engine: Engine) -> None:
        with pytest.raises(ValueError, match="et0_mm is nan"):
            save(engine, hourly(cell(1)), daily(cell(2)), hourly(cell(3), values={"et0_mm": float("nan")}))
        assert stored(engine) == []

    def test_writers_of_the_same_rows_in_opposite_orders_do_not_lock_each_other_out(self, engine: Engine) -> None:
        given = [daily(cell(number)) for number in range(50)]
        problems: list[Exception] = []

        def write(order: int) -> None:
            try:
                for turn in range(5):
                    told = TOLD + (2 * turn + order) * ONE
                    values = {"precipitation_mm": float(2 * turn + order)}
                    save(engine, *(daily(each.cell, values=values, told_at=told) for each in given[:: 2 * order - 1]))
            except Exception as error:
                problems.append(error)

        threads = [threading.Thread(target=write, args=(order,)) for order in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert problems == []
        assert {row["precipitation_mm"] for row in stored(engine)} == {9}


class TestRefused:
    @pytest.mark.parametrize(
        ("reading", "problem"),
        [
            (daily(values={"temperature_c": 3}), "no daily variables: temperature_c"),
            (hourly(values={"temperature_mean_c": 3}), "no hourly variables"),
            (daily(values={"et0_mm": float("inf")}), "et0_mm is inf"),
            (daily(values={"soil_temperature_top_c": 3}, soil_layer=None), "no layer"),
            (daily(kind=Kind.FORECAST, issued_at=None), "without an issue time"),
            (daily(at=midnight(DAY) + dt.timedelta(hours=1)), "start of a day"),
            (hourly(at=midnight(DAY) + ONE / 96), "full hour"),
            (daily(at=midnight(DAY).replace(tzinfo=None)), "not in UTC"),
            (daily(at=midnight(DAY).replace(tzinfo=dt.timezone(ONE / 12))), "not in UTC"),
            (daily(told_at=TOLD.replace(tzinfo=None)), "no time zone"),
        ],
    )
    def test_what_would_be_stored_wrong(self, engine: Engine, reading: Reading, problem: str) -> None:
        with pytest.raises(ValueError, match=problem):
            save(engine, reading)

    def test_a_reading_of_the_present_moment(self, engine: Engine) -> None:
        with pytest.raises(ValueError, match="present moment"):
            save(engine, replace(hourly(), grain=Grain.CURRENT))

    def test_a_reading_given_twice(self, engine: Engine) -> None:
        with pytest.raises(ValueError, match="twice"):
            save(engine, daily(), daily(values={"precipitation_mm": 3}))
