"""Redis and Postgres give the same bytes, and these say what reconciling says, whatever was told in any order."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from models.schema import ensure_partitions
from models.weather import Grain, Reading, Source
from models.weather_answers import Weather, reconciled_daily_of_cells, reconciled_hourly_of_cells
from models.weather_bodies import Part, bodies, parameters, place_name, rows_sql, span_of
from models.weather_readmodel import FIELDS, hit_from, publish_weather_bodies, weather_key, weather_of_places
from models.weather_store import save_readings
from tests.property.test_weather_store_order import portions
from tests.property.test_weather_store_reconciled import CELLS, tellings
from tests.support.facts import engine_for
from tests.support.readings import DAY, midnight

KEYS = [each.key for each in CELLS.values()]
PLACE = place_name(KEYS)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    with made.begin() as connection:
        for table in ("weather_daily", "weather_hourly"):
            ensure_partitions(connection, DAY, DAY, table=table)
    yield made
    made.dispose()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as made:
        yield made


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    readings=st.lists(tellings(Grain.DAILY) | tellings(Grain.HOURLY), max_size=14),
    part=st.sampled_from(Part),
    minutes=st.integers(0, 49 * 60),
    early_minutes=st.integers(0, 59),
)
def test_bytes_are_the_same_from_both_and_say_what_reconciling_says(
    engine: Engine, client: redis.Redis, readings: list[Reading], part: Part, minutes: int, early_minutes: int
) -> None:
    now = midnight(DAY) + dt.timedelta(minutes=minutes)
    written_at = now - dt.timedelta(minutes=early_minutes)
    client.flushall()
    with engine.connect() as connection:
        for portion in portions(readings):
            save_readings(connection, portion)
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        publish_weather_bodies(client, weather_of_places(driver, [PLACE], tuple(Part), now=written_at))
        hit = hit_from(client.hmget(weather_key(PLACE, part, now=now), FIELDS))  # type: ignore[arg-type]
        span = span_of(part, now)
        rows = driver.execute(rows_sql(part), parameters(part, [PLACE], span)).fetchall()
        made = [body for _, body in bodies(part, rows, [span])]
        if part is Part.DAILY:
            known = list(reconciled_daily_of_cells(connection, KEYS, start=span.first.date(), end=span.last.date()))
        else:
            known = list(reconciled_hourly_of_cells(connection, KEYS, start=span.first, end=span.last))
        connection.rollback()
    assert ([hit.body] if hit else []) == [body.body for body in made]
    assert (_flat(json.loads(hit.body), part) if hit else []) == _expected(known, part)
    if hit:
        assert hit.revision == made[0].revision
        assert hit.as_of == made[0].as_of


def _expected(known: list[Weather], part: Part) -> list[Any]:
    told = known[-1:] if part is Part.CURRENT else known
    return [
        (
            each.at.isoformat(),
            {
                name: (it.value, it.source.value, it.kind.value, it.model, it.is_final, it.told_at.isoformat())
                for name, it in each.values.items()
            },
        )
        for each in told
    ]


def _flat(document: dict[str, Any], part: Part) -> list[Any]:
    if part is Part.CURRENT:
        values = {name: _one(it["value"], it) for name, it in document["values"].items() if it is not None}
        return [(_instant(document["at"]), values)]
    times = document["day" if part is Part.DAILY else "at"]
    return [
        (
            _instant(at),
            {
                name: _one(column[row], document["tellings"][document["told_by"][name][row]])
                for name, column in document["values"].items()
                if column[row] is not None
            },
        )
        for row, at in enumerate(times)
    ]


def _one(value: float, it: dict[str, Any]) -> tuple[object, ...]:
    return (value, it["source"], it["kind"], it["model"], it["is_final"], _instant(it["as_of"]))


def _instant(raw: str) -> str:
    at = dt.datetime.fromisoformat(raw)
    return (at if at.tzinfo else at.replace(tzinfo=dt.UTC)).isoformat()


def test_places_are_named_by_their_cells_in_order() -> None:
    assert place_name(reversed(KEYS)) == PLACE == "+".join(sorted(CELLS[each].key for each in Source))
