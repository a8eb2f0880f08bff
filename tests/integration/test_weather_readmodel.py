"""Weather kept ready in Redis: what is there for how long, what a reader finds, and what he finds without Redis."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import random
import subprocess
import sys
import uuid
from collections.abc import Collection, Iterator
from typing import Any

import psycopg
import pytest
import redis
from sqlalchemy import Engine, text

from infra.stores import Stores
from models.weather import HOURLY_VARIABLES, Cell, Kind, Reading, Source
from models.weather_bodies import Part, Span, bodies, moment, parameters, place_name, rows_sql, span_of
from models.weather_cells import CellOfFarm, assign_cells
from models.weather_readmodel import (
    CELLS_WITH_WEATHER,
    FIELDS,
    LIFE,
    PLACE_LIFE,
    PLACES_OF_FARMS,
    Hit,
    farm_command,
    hit_from,
    place_key,
    publish_command,
    publish_weather_bodies,
    weather_key,
    weather_of_places,
)
from models.weather_store import save_readings
from tasks.weather_publish import publish_weather
from tests.support.facts import engine_for, store_farms
from tests.support.readings import cell, daily, hourly, midnight

NOW = dt.datetime(2024, 6, 10, 10, 20, tzinfo=dt.UTC)
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
FINE, COARSE = cell(0), cell(0, Source.NASA_POWER)
PLACE = place_name([FINE.key, COARSE.key])
FARM = uuid.UUID(int=1)


@pytest.fixture
def stores(database_url: str, redis_url: str) -> Iterator[Stores]:
    """Two farms in one place, and a third in another cell of Open-Meteo but the same one of NASA POWER."""
    engine = engine_for(database_url)
    farms = store_farms(engine, 3)
    with engine.begin() as connection:
        of_open_meteo = zip(farms, (FINE, FINE, cell(1)), strict=True)
        assign_cells(
            connection,
            [CellOfFarm(farm_id=farm, boundary_version=1, cell=each) for farm, each in of_open_meteo]
            + [CellOfFarm(farm_id=farm, boundary_version=1, cell=COARSE) for farm in farms],
        )
    with redis.Redis.from_url(redis_url) as client:
        yield Stores(engine, client, database_url, redis_url)
    engine.dispose()


def forecast(where: Cell, *, issued_at: dt.datetime, hours: int = 24, temperature_c: float = 12.0) -> list[Reading]:
    """The hours of this day and later ones, all of one issue."""
    return [
        hourly(where, midnight(NOW.date()) + number * HOUR, kind=Kind.FORECAST, told_at=issued_at)
        if number % 2
        else hourly(
            where,
            midnight(NOW.date()) + number * HOUR,
            kind=Kind.FORECAST,
            told_at=issued_at,
            values={"temperature_c": temperature_c + number, "precipitation_mm": 0.1},
        )
        for number in range(hours)
    ]


def save(engine: Engine, readings: Collection[Reading]) -> None:
    with engine.begin() as connection:
        save_readings(connection, list(readings))


def found(client: redis.Redis, part: Part, *, now: dt.datetime = NOW, farm: uuid.UUID = FARM) -> Hit | None:
    return hit_from(client.eval(*farm_command(farm, part, now=now)))


def told(client: redis.Redis, part: Part, **asked: Any) -> dict[str, Any]:
    hit = found(client, part, **asked)
    assert hit is not None
    document: dict[str, Any] = json.loads(hit.body)
    return document


def made(stores: Stores, part: Part, *, now: dt.datetime = NOW, place: str = PLACE) -> bytes:
    """What a reader without Redis makes of Postgres, by a connection like that of the app."""

    async def ask() -> bytes:
        async with await psycopg.AsyncConnection.connect(stores.database_url) as connection:
            span = span_of(part, now)
            cursor = await connection.execute(rows_sql(part), parameters(part, [place], span))
            [(_, answer)] = bodies(part, await cursor.fetchall(), [span])
            return answer.body

    return asyncio.run(ask())


def test_a_farm_is_read_by_one_command_and_gets_the_bytes_that_postgres_would_give(stores: Stores) -> None:
    save(stores.engine, [*forecast(FINE, issued_at=NOW), daily(FINE, NOW.date()), daily(COARSE, NOW.date())])
    publish_weather(stores, now=NOW)
    for part in Part:
        hit = found(stores.redis, part)
        assert hit is not None
        assert hit.body == made(stores, part)
        assert hit == found(stores.redis, part, farm=uuid.UUID(int=2))
    assert found(stores.redis, Part.CURRENT, farm=uuid.UUID(int=99)) is None


def test_current_weather_is_the_newest_hour_that_is_not_ahead_with_the_source_and_age_of_each_value(
    stores: Stores,
) -> None:
    issued_at = NOW - 3 * HOUR
    save(stores.engine, forecast(FINE, issued_at=issued_at))
    publish_weather(stores, now=NOW)
    current = told(stores.redis, Part.CURRENT)
    assert current["at"] == "2024-06-10T10:00:00Z"
    assert current["as_of"] == "2024-06-10T07:20:00Z"
    assert current["cells"] == [FINE.key, COARSE.key]
    assert (current["latitude"], current["longitude"]) == (FINE.latitude, FINE.longitude)
    assert current["values"]["temperature_c"] == {
        "value": 22.0,
        "source": "open-meteo",
        "kind": "forecast",
        "model": "ifs_seamless",
        "is_final": False,
        "as_of": "2024-06-10T07:20:00Z",
    }
    assert current["values"]["dew_point_c"] is None
    hit = found(stores.redis, Part.CURRENT)
    assert hit is not None
    assert hit.as_of == issued_at


def test_columns_tell_of_each_value_who_told_it(stores: Stores) -> None:
    day = NOW.date() - DAY
    save(stores.engine, [daily(FINE, day, values={"precipitation_mm": 2.0})])
    save(stores.engine, [daily(COARSE, day, values={"precipitation_mm": 9.0, "wind_speed_2m_m_s": 1.5})])
    save(stores.engine, [daily(FINE, NOW.date(), kind=Kind.FORECAST, told_at=NOW, values={"precipitation_mm": 3.0})])
    publish_weather(stores, now=NOW)
    table = told(stores.redis, Part.DAILY)
    assert table["day"] == ["2024-06-09", "2024-06-10"]
    assert table["values"]["precipitation_mm"] == [2.0, 3.0]
    assert table["values"]["wind_speed_2m_m_s"] == [1.5, None]
    by = table["told_by"]
    assert [table["tellings"][number]["source"] for number in by["precipitation_mm"]] == ["open-meteo"] * 2
    assert [table["tellings"][number]["kind"] for number in by["precipitation_mm"]] == ["reanalysis", "forecast"]
    assert table["tellings"][by["wind_speed_2m_m_s"][0]]["source"] == "nasa-power"
    assert by["wind_speed_2m_m_s"][1] is None


def test_the_coming_hour_and_day_are_there_before_they_begin(stores: Stores) -> None:
    save(stores.engine, forecast(FINE, issued_at=NOW, hours=96))
    save(stores.engine, [daily(FINE, NOW.date() + number * DAY) for number in range(3)])
    late = NOW.replace(hour=23, minute=40)
    publish_weather(stores, now=late)
    after_midnight = late + dt.timedelta(minutes=50)
    for part in Part:
        hit = found(stores.redis, part, now=after_midnight)
        assert hit is not None
        assert hit.body == made(stores, part, now=after_midnight)
    assert told(stores.redis, Part.CURRENT, now=after_midnight)["at"] == "2024-06-11T00:00:00Z"


def test_everything_expires_by_itself_after_its_life(stores: Stores) -> None:
    save(stores.engine, [*forecast(FINE, issued_at=NOW), daily(FINE, NOW.date())])
    publish_weather(stores, now=NOW)
    for part in Part:
        life_s = LIFE[part].total_seconds()
        assert life_s - 30 < stores.redis.ttl(weather_key(PLACE, part, now=NOW)) <= life_s
    assert 0 < stores.redis.ttl(place_key(FARM)) <= PLACE_LIFE.total_seconds()
    assert all(stores.redis.ttl(key) > 0 for key in stores.redis.scan_iter())


def test_an_older_body_never_overwrites_a_newer_one(stores: Stores) -> None:
    save(stores.engine, forecast(FINE, issued_at=NOW - HOUR, temperature_c=5))
    with psycopg.connect(stores.database_url, autocommit=True) as connection:
        older = list(weather_of_places(connection, [PLACE], tuple(Part), now=NOW))
        save(stores.engine, forecast(FINE, issued_at=NOW, temperature_c=6))
        newer = list(weather_of_places(connection, [PLACE], tuple(Part), now=NOW))
    assert publish_weather_bodies(stores.redis, newer) == len(newer)
    assert publish_weather_bodies(stores.redis, older) == 0
    key = weather_key(PLACE, Part.CURRENT, now=NOW)
    hit = hit_from(stores.redis.hmget(key, FIELDS))  # type: ignore[arg-type]
    assert hit is not None
    assert json.loads(hit.body)["values"]["temperature_c"]["value"] == 16.0
    assert publish_weather_bodies(stores.redis, newer) == len(newer)


def test_publishers_in_any_order_leave_the_newest(stores: Stores) -> None:
    published = []
    with psycopg.connect(stores.database_url, autocommit=True) as connection:
        for number in range(6):
            save(stores.engine, forecast(FINE, issued_at=NOW + number * HOUR, temperature_c=number))
            published.append(list(weather_of_places(connection, [PLACE], [Part.HOURLY], now=NOW)))
    for seed in range(5):
        stores.redis.flushall()
        for some in random.Random(seed).sample(published, len(published)):
            publish_weather_bodies(stores.redis, some)
        stored = stores.redis.hget(weather_key(PLACE, Part.HOURLY, now=NOW), "body")
        assert stored == published[-1][0].body.body


def test_only_places_of_the_cells_named_are_written(stores: Stores) -> None:
    save(stores.engine, [*forecast(FINE, issued_at=NOW), *forecast(cell(1), issued_at=NOW)])
    publish_weather(stores, now=NOW, cell_keys=[cell(1).key], parts=[Part.HOURLY])
    assert found(stores.redis, Part.HOURLY) is None
    assert told(stores.redis, Part.HOURLY, farm=uuid.UUID(int=3))["cells"] == [cell(1).key, COARSE.key]


def test_what_is_not_known_is_not_there(stores: Stores) -> None:
    assert publish_weather(stores, now=NOW) == 0
    assert found(stores.redis, Part.CURRENT) is None
    save(stores.engine, forecast(FINE, issued_at=NOW, hours=2))
    publish_weather(stores, now=NOW + 3 * DAY)
    assert found(stores.redis, Part.CURRENT, now=NOW + 3 * DAY) is None


def test_places_are_named_for_active_farms_only_and_found_for_all(stores: Stores) -> None:
    with stores.engine.begin() as connection:
        connection.execute(text("UPDATE farms SET is_active = false WHERE external_farm_id = :id"), {"id": FARM})
    publish_weather(stores, now=NOW)
    assert stores.redis.get(place_key(FARM)) is None
    with psycopg.connect(stores.database_url) as connection:
        rows = connection.execute(PLACES_OF_FARMS, {"farms": [FARM]}).fetchall()
    assert [(farm, place_name(cells)) for farm, cells in rows] == [(FARM, PLACE)]


def test_a_reader_may_fill_redis_with_what_postgres_gave(stores: Stores) -> None:
    save(stores.engine, forecast(FINE, issued_at=NOW))
    with psycopg.connect(stores.database_url, autocommit=True) as connection:
        ready = list(weather_of_places(connection, [PLACE], [Part.CURRENT], now=NOW))
    assert stores.redis.eval(*publish_command(ready)) == len(ready)  # type: ignore[arg-type]
    stored = hit_from(stores.redis.hmget(weather_key(PLACE, Part.CURRENT, now=NOW), FIELDS))  # type: ignore[arg-type]
    assert stored is not None
    assert stored.body == made(stores, Part.CURRENT)


@pytest.mark.parametrize(("minute", "hour"), [(0, 3), (29, 3), (30, 3), (31, 4)])
def test_the_nearest_hour_to_a_moment_is_told(stores: Stores, minute: int, hour: int) -> None:
    save(stores.engine, forecast(FINE, issued_at=NOW))
    at = midnight(NOW.date()) + 3 * HOUR + dt.timedelta(minutes=minute)
    with psycopg.connect(stores.database_url) as connection:
        span = Span(at - HOUR, at + HOUR)
        rows = connection.execute(rows_sql(Part.HOURLY), parameters(Part.HOURLY, [PLACE], span))
        [answer] = moment(rows, at)
    assert json.loads(answer.body)["at"] == f"2024-06-10T{hour:02}:00:00Z"


def test_cells_with_weather_are_those_that_know_the_hour(stores: Stores) -> None:
    save(stores.engine, forecast(cell(1), issued_at=NOW))
    asked = {"cells": [FINE.key, cell(1).key, "om-0.1:none"]}
    with psycopg.connect(stores.database_url) as connection:
        hours = (NOW.replace(minute=0), NOW.replace(minute=0) + 30 * HOUR)
        found = [connection.execute(CELLS_WITH_WEATHER, {**asked, "hour": hour}).fetchall() for hour in hours]
    assert found == [[(cell(1).key,)], []]


def test_a_place_of_one_source_is_told_by_it(stores: Stores) -> None:
    save(stores.engine, [daily(COARSE, NOW.date())])
    table = json.loads(made(stores, Part.DAILY, place=COARSE.key))
    assert table["cells"] == [COARSE.key]
    assert {each["source"] for each in table["tellings"]} == {"nasa-power"}
    assert made(stores, Part.DAILY) != made(stores, Part.DAILY, place=COARSE.key)


def test_all_values_of_an_hour_but_the_soil_are_told(stores: Stores) -> None:
    values = dict.fromkeys(HOURLY_VARIABLES, 1.5)
    save(stores.engine, [hourly(FINE, NOW.replace(minute=0), kind=Kind.FORECAST, told_at=NOW, values=values)])
    publish_weather(stores, now=NOW)
    current = told(stores.redis, Part.CURRENT)["values"]
    assert {name for name in HOURLY_VARIABLES if not name.startswith("soil")} == set(current)
    assert {each["value"] for each in current.values()} == {1.5}


def test_the_read_model_loads_nothing_heavy() -> None:
    heavy = ("numpy", "pandas", "shapely", "prefect", "dask", "rasterio", "sqlalchemy")
    program = f"import sys, models.weather_readmodel; print([n for n in {heavy!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
