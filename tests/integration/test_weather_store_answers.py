from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from models.weather import Kind, Reading, Source
from models.weather_answers import (
    Weather,
    reconciled_daily,
    reconciled_daily_of_cells,
    reconciled_hourly_of_cells,
)
from models.weather_cells import CellOfFarm, assign_cells
from models.weather_store import save_readings
from tests.support.facts import engine_for, store_farms
from tests.support.readings import DAY, cell, daily, hourly, midnight

OM, POWER = cell(0, Source.OPEN_METEO), cell(0, Source.NASA_POWER)
ONE, HOUR = dt.timedelta(days=1), dt.timedelta(hours=1)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    yield made
    made.dispose()


@pytest.fixture
def farm_ids(engine: Engine) -> list[int]:
    """Two farms in the same cells, one that lies in another cell of Open-Meteo, and one in none."""
    ids = store_farms(engine, 4)
    with engine.begin() as connection:
        where = [(0, OM), (0, POWER), (1, OM), (1, POWER), (2, cell(5)), (2, POWER)]
        assign_cells(connection, [CellOfFarm(farm_id=ids[at], boundary_version=1, cell=each) for at, each in where])
    return ids


def save(engine: Engine, *readings: Reading) -> None:
    with engine.begin() as connection:
        save_readings(connection, readings)


def days(engine: Engine, farm_ids: list[int], *, count: int = 1) -> list[Weather]:
    with engine.connect() as connection:
        return list(reconciled_daily(connection, farm_ids, start=DAY, end=DAY + (count - 1) * ONE))


def told(weather: Weather) -> dict[str, tuple[float, str]]:
    return {name: (each.value, f"{each.source} {each.kind}") for name, each in weather.values.items()}


def test_the_other_source_fills_gaps_variable_by_variable(engine: Engine, farm_ids: list[int]) -> None:
    save(engine, daily(OM, values={"precipitation_mm": 1}), daily(POWER, values={"precipitation_mm": 2, "et0_mm": 4}))
    [first, second, third] = days(engine, farm_ids)
    assert told(first) == told(second)
    assert told(first) == {"precipitation_mm": (1, "open-meteo reanalysis"), "et0_mm": (4, "nasa-power reanalysis")}
    assert set(told(third).values()) == {(2, "nasa-power reanalysis"), (4, "nasa-power reanalysis")}
    assert [each.farm_id for each in (first, second, third)] == farm_ids[:3]
    assert first.at == midnight(DAY)


def test_forecasts_answer_ahead_and_until_an_analysis_has_come(engine: Engine, farm_ids: list[int]) -> None:
    def reading(value: float, **changes: Any) -> Reading:
        return daily(values={"precipitation_mm": value}, **changes)

    steps = [
        (reading(1, where=OM, kind=Kind.FORECAST), (1, "open-meteo forecast")),
        (reading(2, where=POWER, is_final=False), (2, "nasa-power reanalysis")),
        (reading(3, where=OM, is_final=False), (3, "open-meteo reanalysis")),
        (reading(4, where=POWER), (4, "nasa-power reanalysis")),
        (reading(5, where=OM), (5, "open-meteo reanalysis")),
    ]
    for given, expected in steps:
        save(engine, given)
        [answer] = days(engine, farm_ids[:1])
        assert told(answer) == {"precipitation_mm": expected}


def test_a_provisional_value_kept_in_a_final_row_does_not_pass_for_final(engine: Engine, farm_ids: list[int]) -> None:
    save(engine, daily(OM, values={"et0_mm": 3}, is_final=False), daily(POWER, values={"et0_mm": 4}))
    save(engine, daily(OM, values={"precipitation_mm": 1}, told_at=midnight(DAY) + 130 * ONE))
    [answer] = days(engine, farm_ids[:1])
    assert told(answer) == {"precipitation_mm": (1, "open-meteo reanalysis"), "et0_mm": (4, "nasa-power reanalysis")}


def test_a_day_without_any_value_is_left_out(engine: Engine, farm_ids: list[int]) -> None:
    save(engine, daily(OM, values={}), daily(OM, DAY + ONE), daily(OM, DAY + 2 * ONE, values={}))
    assert [each.at for each in days(engine, farm_ids[:1], count=3)] == [midnight(DAY + ONE)]


def test_a_place_is_answered_by_its_cells(engine: Engine) -> None:
    save(engine, daily(OM, values={"precipitation_mm": 1}), daily(POWER, values={"et0_mm": 4}), hourly(OM))
    with engine.connect() as connection:
        keys = [OM.key, POWER.key, "om-0.1:unknown"]
        [day] = reconciled_daily_of_cells(connection, keys, start=DAY, end=DAY)
        [hour] = reconciled_hourly_of_cells(connection, keys, start=midnight(DAY), end=midnight(DAY))
    assert (day.farm_id, {name: value for name, (value, _) in told(day).items()}) == (
        None,
        {"precipitation_mm": 1, "et0_mm": 4},
    )
    assert (hour.at, set(hour.values)) == (midnight(DAY), {"precipitation_mm"})
