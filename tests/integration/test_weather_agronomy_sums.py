"""Agronomy in SQL against plain Python over made-up years with gaps."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from sqlalchemy import Engine

from models.agronomy import Agronomy, CropLimits, agronomy
from models.weather import Kind, Reading, Source
from models.weather_cells import CellOfFarm, assign_cells
from models.weather_store import save_readings
from tests.support.facts import engine_for, store_farms
from tests.support.readings import DAY, cell, daily, hourly, midnight

OM, POWER = cell(0, Source.OPEN_METEO), cell(0, Source.NASA_POWER)
ONE = dt.timedelta(days=1)
DRY, WET = {"precipitation_mm": 0.9}, {"precipitation_mm": 1.0}

Days = Mapping[int, Mapping[str, float]]
"""Values by number of the day; absent is not known."""


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    yield made
    made.dispose()


@pytest.fixture
def farm_ids(engine: Engine) -> list[int]:
    ids = store_farms(engine, 2)
    with engine.begin() as connection:
        assign_cells(connection, [CellOfFarm(farm_id=each, boundary_version=1, cell=OM) for each in ids])
    return ids


def save(engine: Engine, *readings: Reading) -> None:
    with engine.begin() as connection:
        save_readings(connection, readings)


def save_days(engine: Engine, days: Days) -> None:
    save(engine, *(daily(OM, DAY + number * ONE, values=values) for number, values in days.items()))


def meant(engine: Engine, farm_id: int, days: int, **changes: float) -> Agronomy:
    with engine.connect() as connection:
        limits = CropLimits(**changes)
        [found] = agronomy(connection, [farm_id], start=DAY, end=DAY + (days - 1) * ONE, limits=limits)
    return found


def oracle(days: Days, hours: Mapping[int, float], *, count: int, crop: CropLimits) -> dict[str, Any]:
    """The same, one day after another."""
    growth, rain, et0, balance, lows = [], [], [], [], []
    longest = run = 0
    for number in range(count):
        of = days.get(number, {})
        low, high, fell = of.get("temperature_min_c"), of.get("temperature_max_c"), of.get("precipitation_mm")
        if low is not None:
            lows.append(low)
        if low is not None and high is not None:
            bounded = [max(crop.base_c, min(crop.upper_c, each)) for each in (low, high)]
            growth.append(sum(bounded) / 2 - crop.base_c)
        if fell is not None:
            rain.append(fell)
        if "et0_mm" in of:
            et0.append(of["et0_mm"])
        if fell is not None and "et0_mm" in of:
            balance.append(fell - of["et0_mm"])
        run = run + 1 if fell is not None and fell < crop.dry_below_mm else 0
        longest = max(longest, run)
    known_last = "precipitation_mm" in days.get(count - 1, {})
    hot = [each for number, each in hours.items() if number < 24 * count]
    return {
        "days": count,
        "forecast_days": 0,
        "growing_degree_days": pytest.approx(sum(growth), rel=1e-6) if growth else None,
        "growing_degree_days_missing": count - len(growth),
        "precipitation_mm": pytest.approx(sum(rain), rel=1e-6) if rain else None,
        "precipitation_days_missing": count - len(rain),
        "et0_mm": pytest.approx(sum(et0), rel=1e-6) if et0 else None,
        "et0_days_missing": count - len(et0),
        "water_balance_mm": pytest.approx(sum(balance), abs=1e-4) if balance else None,
        "water_balance_days_missing": count - len(balance),
        "longest_dry_spell_days": longest if rain else None,
        "current_dry_spell_days": run if known_last else None,
        "frost_days": sum(each < crop.frost_below_c for each in lows) if lows else None,
        "frost_days_missing": count - len(lows),
        "heat_stress_hours": sum(each > crop.heat_above_c for each in hot) if hot else None,
        "heat_stress_hours_missing": 24 * count - len(hot),
    }


def told(found: Agronomy) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Agronomy.__dataclass_fields__ if name != "farm_id"}


@pytest.mark.parametrize("seed", range(4))
def test_a_year_with_gaps_adds_up_as_it_does_by_hand(engine: Engine, farm_ids: list[int], seed: int) -> None:
    chance = random.Random(seed)
    count = chance.choice([30, 400])
    days: dict[int, dict[str, float]] = {}
    for number in range(count):
        middle = chance.uniform(-8, 34)
        values = {
            "temperature_min_c": round(middle - chance.uniform(0, 9), 1),
            "temperature_max_c": round(middle + chance.uniform(0, 9), 1),
            "precipitation_mm": chance.choice([0.0, 0.0, 0.0, 0.7, 0.8, 12.3]),
            "et0_mm": round(chance.uniform(0, 9), 2),
        }
        days[number] = {name: value for name, value in values.items() if chance.random() > 0.07}
    for number in chance.sample(range(count), 5):
        days.pop(number)
    hours = {number: round(chance.uniform(28, 40), 1) for number in range(240) if chance.random() > 0.1}
    save_days(engine, days)
    at = {number: midnight(DAY) + dt.timedelta(hours=number) for number in hours}
    save(engine, *(hourly(OM, at[number], values={"temperature_c": warm}) for number, warm in hours.items()))
    crop = CropLimits(base_c=chance.choice([0, 4.5, 10]), upper_c=30, dry_below_mm=0.7 + 0.3 * chance.random())
    with engine.connect() as connection:
        found = agronomy(connection, farm_ids, start=DAY, end=DAY + (count - 1) * ONE, limits=crop)
    assert [each.farm_id for each in found] == farm_ids
    assert [told(each) for each in found] == [oracle(days, hours, count=count, crop=crop)] * 2


def test_worked_growing_degree_days(engine: Engine, farm_ids: list[int]) -> None:
    """Base 10, upper 30: (28 + 14) / 2 - 10 = 11; (30 + 20) / 2 - 10 = 15 at 36; (16 + 10) / 2 - 10 = 3 at 4; 0."""
    pairs = [(14, 28), (20, 36), (4, 16), (-5, 8)]
    save_days(engine, {n: {"temperature_min_c": low, "temperature_max_c": high} for n, (low, high) in enumerate(pairs)})
    assert [meant(engine, farm_ids[0], count).growing_degree_days for count in (1, 2, 3, 4)] == [11, 26, 29, 29]


def test_a_day_of_which_one_temperature_is_known_is_missing(engine: Engine, farm_ids: list[int]) -> None:
    save_days(engine, {0: {"temperature_max_c": 40}, 1: {"temperature_min_c": 12, "temperature_max_c": 22}})
    found = meant(engine, farm_ids[0], 3)
    assert (found.growing_degree_days, found.growing_degree_days_missing) == (7, 2)


def test_where_nothing_is_known_nothing_is_zero(engine: Engine, farm_ids: list[int]) -> None:
    found = meant(engine, farm_ids[0], 10)
    assert told(found) == oracle({}, {}, count=10, crop=CropLimits())
    assert (found.precipitation_mm, found.longest_dry_spell_days, found.frost_days) == (None, None, None)
    assert found.heat_stress_hours_missing == 240


def test_a_day_without_known_rain_ends_a_dry_spell(engine: Engine, farm_ids: list[int]) -> None:
    save_days(engine, {0: DRY, 1: DRY, 2: {}, 3: DRY, 4: WET, 5: DRY, 6: DRY, 7: DRY})
    assert [meant(engine, farm_ids[0], count).longest_dry_spell_days for count in (5, 8)] == [2, 3]
    currents = [meant(engine, farm_ids[0], count).current_dry_spell_days for count in (2, 3, 4, 5, 8, 9)]
    assert currents == [2, None, 1, 0, 3, None]


def test_what_stands_at_a_threshold_is_not_beyond_it(engine: Engine, farm_ids: list[int]) -> None:
    save_days(engine, {0: {"precipitation_mm": 0.7, "temperature_min_c": 0.1}})
    save(engine, hourly(OM, values={"temperature_c": 35.3}))
    found = meant(engine, farm_ids[0], 1, dry_below_mm=0.7, frost_below_c=0.1, heat_above_c=35.3)
    assert (found.longest_dry_spell_days, found.frost_days, found.heat_stress_hours) == (0, 0, 0)


def test_the_other_source_and_forecasts_count_and_forecasts_are_said(engine: Engine, farm_ids: list[int]) -> None:
    with engine.begin() as connection:
        assign_cells(connection, [CellOfFarm(farm_id=farm_ids[0], boundary_version=1, cell=POWER)])
    save(
        engine,
        daily(OM, values={"precipitation_mm": 1}),
        daily(POWER, values={"precipitation_mm": 9, "et0_mm": 4}),
        daily(OM, DAY + ONE, kind=Kind.FORECAST, values={"precipitation_mm": 3, "et0_mm": 5}),
    )
    found = meant(engine, farm_ids[0], 2)
    assert (found.precipitation_mm, found.et0_mm, found.water_balance_mm, found.forecast_days) == (4, 9, -5, 1)


def test_days_and_thresholds_out_of_order_are_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="upper_c 10 is not above base_c 10"):
        CropLimits(base_c=10, upper_c=10)
    with engine.connect() as connection, pytest.raises(ValueError, match="is before"):
        agronomy(connection, [1], start=DAY, end=DAY - ONE)
