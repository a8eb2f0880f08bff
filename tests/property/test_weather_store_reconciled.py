"""Reconciling against its rule in plain Python: whichever source tells what, in whatever order."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from models.schema import ensure_partitions
from models.weather import Grain, Kind, Reading, Source
from models.weather_answers import reconciled_daily, reconciled_hourly, reconciled_soil
from models.weather_cells import CellOfFarm, assign_cells
from models.weather_store import save_readings
from tests.property.test_weather_store_order import portions
from tests.support.facts import engine_for, store_farms
from tests.support.readings import DAY, SOIL, cell, daily, hourly, midnight, standing, stored_rows

HOUR = dt.timedelta(hours=1)
CELLS = {source: cell(0, source) for source in Source}
PLAIN = ("precipitation_mm", "et0_mm", "dew_point_c")
values = st.dictionaries(st.sampled_from((*PLAIN, *SOIL)), st.sampled_from([0.0, 0.5, 1.0, 2.25]), max_size=5)

Answer = dict[dt.datetime, dict[str, tuple[float, str, str, str, bool]]]


@st.composite
def tellings(draw: st.DrawFn, grain: Grain = Grain.DAILY) -> Reading:
    kind = draw(st.sampled_from(Kind))
    make = daily if grain is Grain.DAILY else hourly
    step = draw(st.integers(0, 1))
    return make(
        CELLS[draw(st.sampled_from(Source))],
        DAY + dt.timedelta(days=step) if grain is Grain.DAILY else midnight(DAY) + step * HOUR,
        kind=kind,
        model=draw(st.sampled_from(["era5_seamless", "ecmwf_ifs025"])),
        values=draw(values),
        is_final=draw(st.booleans()),
        soil_layer=draw(st.sampled_from(["0-1cm", "0-7cm"])),
        told_at=midnight(DAY) + draw(st.integers(0, 4)) * HOUR,
    )


def reconciled(readings: Iterable[Reading]) -> Answer:
    """The rule as the module tells it."""
    readings = list(readings)
    source_of = {each.cell.key: each.cell.source for each in readings}
    candidates: dict[tuple[dt.datetime, str], list[tuple[object, ...]]] = {}
    for (key, at, model, kind), told in stored_rows(readings).items():
        row = [e for e in readings if (e.cell.key, e.at, e.model, e.kind) == (key, at, model, kind)]
        told_at = max(map(standing, row))[1]
        source = source_of[key]
        for name, (value, is_final) in told.items():
            rank = (
                2 if kind == "forecast" else 0 if is_final else 1,
                [Source.OPEN_METEO, Source.NASA_POWER].index(source),
                kind != "observed",
                not model.startswith("era5"),
                -told_at.timestamp(),
                model,
                kind,
            )
            candidates.setdefault((at, name), []).append((rank, (value, source.value, kind, model, is_final)))
    answer: Answer = {}
    for (at, name), some in candidates.items():
        if name not in SOIL:
            answer.setdefault(at, {})[name] = min(some)[1]  # type: ignore[assignment, type-var]
    return answer


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    [farm] = store_farms(made, 1)
    with made.begin() as connection:
        for table in ("weather_daily", "weather_hourly"):
            ensure_partitions(connection, DAY, DAY, table=table)
        assign_cells(connection, [CellOfFarm(farm_id=farm, boundary_version=1, cell=each) for each in CELLS.values()])
    yield made
    made.dispose()


def the_farm(connection: Connection) -> int:
    return int(connection.execute(text("SELECT id FROM farms")).scalar_one())


@pytest.mark.parametrize("grain", [Grain.DAILY, Grain.HOURLY])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), seed=st.integers())
def test_the_rule_decides_whatever_the_order_of_arrival(
    engine: Engine, grain: Grain, data: st.DataObject, seed: int
) -> None:
    readings = data.draw(st.lists(tellings(grain), max_size=14))
    with engine.connect() as connection:
        for _ in range(2):
            for portion in portions(readings):
                save_readings(connection, portion)
            farm = the_farm(connection)
            if grain is Grain.DAILY:
                told = reconciled_daily(connection, [farm], start=DAY, end=DAY + dt.timedelta(days=1))
            else:
                told = reconciled_hourly(connection, [farm], start=midnight(DAY), end=midnight(DAY) + HOUR)
            answer = {
                each.at: {
                    name: (it.value, it.source.value, it.kind.value, it.model, it.is_final)
                    for name, it in each.values.items()
                }
                for each in told
            }
            assert answer == reconciled(readings)
            connection.rollback()
            random.Random(seed).shuffle(readings)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(readings=st.lists(tellings(), max_size=14))
def test_the_soil_of_a_layer_is_only_ever_what_a_reading_told_of_that_layer(
    engine: Engine, readings: list[Reading]
) -> None:
    with engine.connect() as connection:
        for portion in portions(readings):
            save_readings(connection, portion)
        told = reconciled_soil(
            connection, [the_farm(connection)], grain=Grain.DAILY, start=midnight(DAY), end=midnight(DAY) + 24 * HOUR
        )
        for each in told:
            values = {name: it.value for name, it in each.values.items()}
            assert any(
                each.soil_layer == given.soil_layer
                and given.at == each.at
                and values == {name: value for name, value in given.values.items() if name in SOIL}
                for given in readings
            )
        connection.rollback()
