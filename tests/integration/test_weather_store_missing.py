from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import Engine

from models.weather import Grain, Kind, Reading, Source
from models.weather_missing import DaySpan, cells_without_forecast, missing_days
from models.weather_store import save_readings
from tests.support.facts import engine_for
from tests.support.readings import DAY, cell, daily, hourly, midnight

ONE = dt.timedelta(days=1)
NOW = midnight(DAY) + 200 * ONE + dt.timedelta(hours=9)
POWER = cell(3, Source.NASA_POWER)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    yield made
    made.dispose()


def save(engine: Engine, *readings: Reading) -> None:
    with engine.begin() as connection:
        save_readings(connection, readings)


def missing(engine: Engine, *, of: Sequence[Any] = (POWER,), days: int = 4, **changes: Any) -> dict[str, list[int]]:
    """For each cell the missing days, counted from `DAY`."""
    facts: dict[str, Any] = {"source": Source.NASA_POWER, "start": DAY, "end": DAY + (days - 1) * ONE, "now": NOW}
    with engine.connect() as connection:
        found = missing_days(connection, of, **(facts | changes))
    return {key: [(day - DAY).days for span in spans for day in span.days] for key, spans in found.items()}


def test_of_a_cell_that_nobody_knows_every_day_is_missing(engine: Engine) -> None:
    assert missing(engine) == {POWER.key: [0, 1, 2, 3]}


def test_nothing_final_is_fetched_again(engine: Engine) -> None:
    save(engine, *(daily(POWER, DAY + number * ONE) for number in (0, 1, 3)))
    assert missing(engine) == {POWER.key: [2]}
    save(engine, daily(POWER, DAY + 2 * ONE))
    assert missing(engine) == {}


def test_days_in_a_row_come_as_one_span(engine: Engine) -> None:
    other = cell(4, Source.NASA_POWER)
    save(engine, daily(POWER, DAY + 2 * ONE), daily(other, DAY))
    with engine.connect() as connection:
        last = DAY + 9 * ONE
        found = missing_days(connection, [POWER, other], source=Source.NASA_POWER, start=DAY, end=last, now=NOW)
    assert found == {
        POWER.key: (DaySpan(DAY, DAY + ONE), DaySpan(DAY + 3 * ONE, last)),
        other.key: (DaySpan(DAY + ONE, last),),
    }


def test_days_that_the_source_does_not_know_yet_are_not_asked_for(engine: Engine) -> None:
    # Noon of day 6: the archive of Open-Meteo is 5 days late, NASA POWER 2 days.
    noon = midnight(DAY) + 6.5 * ONE
    assert missing(engine, days=30, now=noon) == {POWER.key: [0, 1, 2, 3, 4]}
    where = cell()
    found = missing(engine, of=[where], source=Source.OPEN_METEO, days=30, now=noon)
    assert found == {where.key: [0, 1]}
    assert missing(engine, start=DAY + 20 * ONE, days=30, now=noon) == {}


@pytest.mark.parametrize(
    ("told_after_days", "asked_after_days", "is_due"),
    [
        (3, 9, False),
        (3, 10, True),
        (10, 11, False),
        (9.9, 11, True),
        (11, 119, False),
        (11, 120, True),
        (3, 500, True),
        (121, 500, False),
    ],
)
def test_a_provisional_day_is_read_again_once_after_each_mark(
    engine: Engine, told_after_days: float, asked_after_days: int, is_due: bool
) -> None:
    save(engine, daily(POWER, is_final=False, told_at=midnight(DAY) + told_after_days * ONE))
    found = missing(engine, days=1, now=midnight(DAY) + asked_after_days * ONE)
    assert found == ({POWER.key: [0]} if is_due else {})


def test_a_day_read_again_unchanged_is_not_due_any_more(engine: Engine) -> None:
    save(engine, daily(POWER, is_final=False, told_at=midnight(DAY) + 3 * ONE))
    eleventh = midnight(DAY) + 11 * ONE
    assert missing(engine, days=1, now=eleventh) == {POWER.key: [0]}
    save(engine, daily(POWER, is_final=False, told_at=eleventh))
    assert missing(engine, days=1, now=eleventh + ONE) == {}


def test_a_forecast_is_no_past(engine: Engine) -> None:
    where = cell()
    save(engine, daily(where, kind=Kind.FORECAST))
    assert missing(engine, of=[where], source=Source.OPEN_METEO, days=1) == {where.key: [0]}


def test_what_another_model_told_counts_unless_one_is_named(engine: Engine) -> None:
    save(engine, daily(POWER, model="merra2"))
    assert missing(engine, days=1) == {}
    assert missing(engine, days=1, model="merra2") == {}
    assert missing(engine, days=1, model="geos-it") == {POWER.key: [0]}


def test_an_hourly_day_needs_all_its_hours(engine: Engine) -> None:
    hours = [midnight(DAY) + dt.timedelta(hours=number) for number in range(48)]
    save(engine, *(hourly(POWER, at) for at in hours[:-1]))
    assert missing(engine, days=2, grain=Grain.HOURLY) == {POWER.key: [1]}
    save(engine, hourly(POWER, hours[-1], is_final=False, told_at=midnight(DAY) + 5 * ONE))
    assert missing(engine, days=2, grain=Grain.HOURLY, now=midnight(DAY) + 10 * ONE) == {}
    assert missing(engine, days=2, grain=Grain.HOURLY, now=midnight(DAY) + 12 * ONE) == {POWER.key: [1]}


def test_cells_of_another_source_are_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="no cell of nasa-power"):
        missing(engine, of=[cell()])


def test_days_to_be_read_again_are_told_apart_from_those_not_stored(engine: Engine) -> None:
    early = daily(POWER, DAY + ONE, is_final=False)
    save(engine, early, daily(POWER, DAY + 2 * ONE))
    assert missing(engine) == {POWER.key: [0, 1, 3]}
    assert missing(engine, only_again=True) == {POWER.key: [1]}


def test_a_cell_wants_a_forecast_where_any_day_has_none_that_is_new_enough(engine: Engine) -> None:
    there, gap, old = cell(0), cell(1), cell(2)
    soon: dict[str, Any] = {"kind": Kind.FORECAST, "model": "ifs", "told_at": NOW}
    save(engine, *(daily(each, DAY + number * ONE, **soon) for each in (there, gap) for number in (0, 2)))
    save(engine, daily(there, DAY + ONE, **soon), daily(gap, DAY + ONE))
    save(engine, *(daily(old, DAY + number * ONE, **soon | {"told_at": NOW - ONE}) for number in range(3)))
    with engine.connect() as connection:
        found = cells_without_forecast(
            connection,
            [there, gap, old, cell(9)],
            model="ifs",
            first=DAY,
            last=DAY + 2 * ONE,
            told_since=NOW - dt.timedelta(hours=6),
        )
    assert found == {gap.key, old.key, cell(9).key}
