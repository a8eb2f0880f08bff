"""The store against its rule in plain Python, whatever arrives in whatever order and portions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from models.schema import ensure_partitions
from models.weather import Kind, Reading, Source
from models.weather_rows import FINAL, SHEETS
from models.weather_store import save_readings
from tests.support.facts import engine_for
from tests.support.readings import DAY, SOIL, Key, cell, daily, midnight, stored_rows

HOUR = dt.timedelta(hours=1)
NAMES = ("temperature_max_c", "precipitation_mm", *SOIL)
# Few numbers, so that equal values, equal times and contradictions happen.
values = st.dictionaries(st.sampled_from(NAMES), st.sampled_from([0.0, 0.5, 1.0, 2.25]), max_size=4)


@st.composite
def tellings(draw: st.DrawFn) -> Reading:
    kind = draw(st.sampled_from([Kind.REANALYSIS, Kind.FORECAST]))
    source = draw(st.sampled_from(Source))
    told = midnight(DAY) + draw(st.integers(0, 4)) * HOUR
    return daily(
        cell(0, source),
        DAY + dt.timedelta(days=draw(st.integers(0, 1))),
        kind=kind,
        values=draw(values),
        is_final=draw(st.booleans()) and kind is not Kind.FORECAST,
        soil_layer=draw(st.sampled_from(["0-1cm", "0-7cm"])),
        told_at=told,
    )


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    with made.begin() as connection:
        ensure_partitions(connection, DAY, DAY, table="weather_daily")
    yield made
    made.dispose()


def portions(readings: Sequence[Reading]) -> Iterator[list[Reading]]:
    """One answer after another, as many at once as tell different things."""
    waiting = list(readings)
    while waiting:
        portion: dict[tuple[object, ...], Reading] = {}
        for each in waiting:
            portion.setdefault((each.cell, each.at, each.model, each.kind), each)
        yield list(portion.values())
        waiting = [each for each in waiting if all(each is not taken for taken in portion.values())]


def stored(connection: Connection) -> dict[Key, dict[str, tuple[float, bool]]]:
    query = "SELECT c.key, w.* FROM weather_daily AS w JOIN weather_cells AS c ON c.id = w.cell_id"
    found = {}
    for row in connection.execute(text(query)).mappings():
        kept = row["kept"] or {}
        told = {}
        for name in SHEETS[daily().grain].variables:
            own = kept.get("soil" if name in SOIL else name)
            if row[name] is not None:
                told[name] = (row[name], row["is_final"] if own is None else own >= FINAL)
        found[(row["key"], midnight(row["day"]), row["model"], row["kind"])] = told
    return found


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(readings=st.lists(tellings(), max_size=12), shuffle=st.randoms())
def test_whatever_the_order_of_arrival_the_rule_decides(engine: Engine, readings: list[Reading], shuffle) -> None:  # type: ignore[no-untyped-def]
    with engine.connect() as connection:
        for _ in range(2):
            for portion in portions(readings):
                save_readings(connection, portion)
            assert stored(connection) == stored_rows(readings)
            connection.rollback()
            shuffle.shuffle(readings)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(readings=st.lists(tellings(), max_size=8))
def test_all_of_it_told_again_changes_nothing(engine: Engine, readings: list[Reading]) -> None:
    with engine.connect() as connection:
        for portion in portions(readings):
            save_readings(connection, portion)
        query = text("SELECT tableoid, ctid::text, xmin::text, cell_id, day, revision FROM weather_daily ORDER BY 1, 2")
        before = connection.execute(query).all()
        for portion in portions(readings):
            outcome = save_readings(connection, portion)
            assert (outcome.inserted, outcome.replaced, outcome.changed_cell_keys) == (0, 0, ())
        assert connection.execute(query).all() == before
        connection.rollback()
