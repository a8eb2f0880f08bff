"""Weather kept ready: nothing lapses, nothing is asked for twice, and what is known stays when the service is down."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from prefect.client.schemas.objects import StateType
from sqlalchemy import Engine, text

from flows.prewarm import PrewarmSummary, prewarm, warm
from infra.local.prefect import PrefectServer
from infra.settings import Settings
from infra.stores import Stores, redis_client
from models.farms import upsert_farms
from models.weather import Source
from models.weather_bodies import Part, bodies, parameters, rows_sql, span_of
from models.weather_cells import farms_without_cell
from models.weather_readmodel import Hit, farm_command, hit_from, place_key, weather_key
from tasks.weather_bench import WeatherBench
from tasks.weather_due import WeatherWork
from tasks.weather_steps import BatchReport, fetch_and_save
from tests.support.facts import engine_for
from tests.support.flow_runs import use
from tests.support.shapes import draft, field
from tests.support.weather_answers import mild, open_meteo_answer
from tests.support.weather_server import Received, Reply, WeatherServer, json_reply, weather_server

START = dt.datetime(2026, 11, 20, 7, 15, tzinfo=dt.UTC)
BETWEEN_RUNS = dt.timedelta(minutes=55)
HOUR = dt.timedelta(hours=1)
FARMS = 4
CELLS = 3
"""Farms 1 and 2 lie in the same cell."""


class Service:
    """Open-Meteo as of a model run, or down."""

    def __init__(self, server: WeatherServer) -> None:
        self.server = server
        self.run_available_at: dt.datetime | None = START - HOUR
        """None: the service has no such file."""
        self.is_up = True
        self.temperature_c = 12.0
        server.script(self.answer)

    def answer(self, request: Received) -> Reply:
        if not self.is_up:
            return Reply(status=503)
        if request.path.startswith("/data/"):
            if self.run_available_at is None:
                return json_reply({"error": True, "reason": "Not Found"}, status=404)
            at = int(self.run_available_at.timestamp())
            return json_reply({"last_run_initialisation_time": at - 7 * 3600, "last_run_availability_time": at})
        truth = self.temperature_c
        return json_reply(
            open_meteo_answer(
                request.parameters, lambda name, at: truth if name == "temperature_2m" else mild(name, at)
            )
        )

    @property
    def weather_requests(self) -> list[Received]:
        return [each for each in self.server.received if not each.path.startswith("/data/")]


class World:
    """Farms, stores, a service, and a clock that a test moves."""

    def __init__(self, settings: Settings, stores: Stores, service: Service) -> None:
        self.settings = settings
        self.stores = stores
        self.service = service
        self.now = START

    def run(self) -> PrewarmSummary:
        bench = WeatherBench(self.settings, self.stores, is_live=True, now=lambda: self.now, sleep=self._pass_time)
        try:
            return warm(bench, lambda work: self._fetch(bench, work), sleep=self._pass_time)
        finally:
            bench.close()

    def read(self, part: Part, farm: int = 1, *, at: dt.datetime | None = None) -> Hit | None:
        command = farm_command(draft(farm).external_farm_id, part, now=at or self.now)
        return hit_from(self.stores.redis.eval(*command))

    def current(self, farm: int = 1) -> dict[str, Any]:
        hit = self.read(Part.CURRENT, farm)
        assert hit is not None
        told: dict[str, Any] = json.loads(hit.body)
        return told

    def from_postgres(self, part: Part) -> bytes:
        name = self.stores.redis.get(place_key(draft(1).external_farm_id))
        assert isinstance(name, bytes)
        span = span_of(part, self.now)
        with psycopg.connect(self.stores.database_url) as connection:
            [(_, made)] = bodies(
                part, connection.execute(rows_sql(part), parameters(part, [name.decode()], span)), [span]
            )
        return made.body

    def _fetch(self, bench: WeatherBench, work: WeatherWork) -> BatchReport:
        return fetch_and_save(bench, work)

    def _pass_time(self, seconds: float) -> None:
        self.now += dt.timedelta(seconds=seconds)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    with made.begin() as connection:
        places = [15.01, 15.02, 15.21, 15.41]
        upsert_farms(connection, [draft(number, field(lon=lon)) for number, lon in enumerate(places, start=1)])
    yield made
    made.dispose()


@pytest.fixture
def world(engine: Engine, database_url: str, redis_url: str, tmp_path: Path) -> Iterator[World]:
    with weather_server() as server, redis.Redis.from_url(redis_url) as client:
        settings = Settings(home=tmp_path, open_meteo_url=server.url, http_retries=1, http_retry_delay_s=0.1)
        yield World(settings, Stores(engine, client, database_url, redis_url), Service(server))


def test_the_first_run_asks_once_for_all_cells_and_every_farm_can_be_read(world: World) -> None:
    summary = world.run()
    assert (summary.cells, summary.asked, summary.failed) == (CELLS, CELLS, 0)
    assert len(world.service.weather_requests) == 1
    for farm in range(1, FARMS + 1):
        assert world.current(farm)["at"] == "2026-11-20T07:00:00Z"
        assert world.read(Part.HOURLY, farm) is not None
    assert world.read(Part.CURRENT, 1) == world.read(Part.CURRENT, 2)
    assert world.current()["as_of"] == "2026-11-20T07:15:00Z"


def test_bytes_are_those_that_postgres_gives(world: World) -> None:
    world.run()
    for part in (Part.CURRENT, Part.HOURLY):
        hit = world.read(part)
        assert hit is not None
        assert hit.body == world.from_postgres(part)


def test_the_request_is_one_light_call_for_each_cell_and_asks_for_no_sums_twice(world: World) -> None:
    world.run()
    [request] = world.service.weather_requests
    assert not {"current", "daily"} & request.parameters.keys()
    assert request.parameters["start_date"] == "2026-11-18"
    assert request.parameters["end_date"] == "2026-11-28"
    with world.stores.engine.connect() as connection:
        spent = connection.execute(
            text("SELECT live FROM weather_quota WHERE span = 'day' AND service = 'open-meteo'")
        ).scalar_one()
    assert spent == pytest.approx(1.1 * CELLS)


def test_an_unchanged_run_is_not_asked_for_again_and_nothing_lapses_between_runs(world: World) -> None:
    world.run()
    for _ in range(6):
        for farm in range(1, FARMS + 1):
            for part in (Part.CURRENT, Part.HOURLY):
                place = world.stores.redis.get(place_key(draft(farm).external_farm_id))
                assert isinstance(place, bytes)
                for minutes in (0, 30, 55):
                    key = weather_key(place.decode(), part, now=world.now + dt.timedelta(minutes=minutes))
                    assert world.stores.redis.ttl(key) > BETWEEN_RUNS.total_seconds()
        world.now += BETWEEN_RUNS
        for key in world.stores.redis.scan_iter():  # as if the time had passed in Redis, too
            world.stores.redis.expire(key, 3600 - int(BETWEEN_RUNS.total_seconds()))
        summary = world.run()
        assert (summary.asked, summary.failed, summary.problems) == (0, 0, ())
        assert world.current()["at"] == f"{world.now:%Y-%m-%dT%H:00:00Z}"
    assert len(world.service.weather_requests) == 1


def test_a_reader_never_misses_while_everything_is_written_over(world: World) -> None:
    world.run()
    misses, reads, is_over = [], 0, threading.Event()

    def poll() -> None:
        nonlocal reads
        with redis.Redis.from_url(world.stores.redis_url) as client:
            while not is_over.is_set() or reads < 100:
                part = (Part.CURRENT, Part.HOURLY)[reads % 2]
                command = farm_command(draft(reads % FARMS + 1).external_farm_id, part, now=START)
                if hit_from(client.eval(*command)) is None:
                    misses.append((reads, part))
                reads += 1

    reader = threading.Thread(target=poll)
    reader.start()
    for number in range(4):
        world.service.run_available_at = START + number * dt.timedelta(minutes=1) - HOUR
        world.now = START + dt.timedelta(minutes=number)
        world.service.temperature_c = number
        with world.stores.engine.begin() as connection:
            connection.execute(text("UPDATE weather_hourly SET told_at = told_at - interval '2 hours'"))
        assert world.run().asked == CELLS
    is_over.set()
    reader.join()
    assert reads >= 100
    assert not misses


def test_a_new_run_is_asked_for_once_its_ten_minutes_are_over(world: World) -> None:
    world.run()
    world.service.temperature_c = 20
    world.service.run_available_at = START + HOUR
    world.now = START + HOUR + dt.timedelta(minutes=9)
    assert world.run().asked == 0
    world.now = START + HOUR + dt.timedelta(minutes=11)
    assert world.run().asked == CELLS
    assert world.current()["values"]["temperature_c"]["value"] == 20
    assert world.run().asked == 0


def test_a_new_farm_has_weather_at_the_next_run_though_the_model_run_is_the_same(world: World) -> None:
    world.run()
    with world.stores.engine.begin() as connection:
        upsert_farms(connection, [draft(9, field(lon=18.0))])
    world.now += BETWEEN_RUNS
    assert world.run().asked == 1
    assert world.read(Part.HOURLY, 9) is not None
    with world.stores.engine.connect() as connection:
        assert farms_without_cell(connection, Source.NASA_POWER, key_prefix="power:") == []


@pytest.mark.parametrize("available_at", [None, START + 1000 * HOUR])
def test_where_the_run_is_not_known_the_age_of_the_forecast_decides(
    world: World, available_at: dt.datetime | None
) -> None:
    world.service.run_available_at = available_at
    assert world.run().asked == CELLS
    world.now = START + 5 * HOUR
    assert world.run().asked == 0
    world.now = START + 7 * HOUR
    assert world.run().asked == CELLS


def test_when_the_service_is_down_the_last_known_stays_with_its_age_and_the_run_fails(world: World) -> None:
    world.run()
    world.service.is_up = False
    world.now = START + 8 * HOUR
    summary = world.run()
    assert summary.failed == CELLS
    state = summary.as_state()
    assert state.type is StateType.FAILED
    assert "3 not told, last known served" in str(state.message)
    current = world.current()
    assert current["at"] == "2026-11-20T15:00:00Z"
    assert current["as_of"] == "2026-11-20T07:15:00Z"
    hit = world.read(Part.CURRENT)
    assert hit is not None
    assert hit.as_of == START

    world.service.is_up = True
    assert world.run().as_state().type is StateType.COMPLETED


def test_when_redis_is_away_the_hours_are_stored_all_the_same_and_the_run_fails(world: World) -> None:
    away = redis_client("redis://127.0.0.1:1")
    working = world.stores
    world.stores = replace(working, redis=away)
    summary = world.run()
    assert (summary.asked, summary.failed) == (CELLS, 0)
    assert summary.as_state().type is StateType.FAILED
    assert "weather not published" in str(summary.as_state().message)
    world.stores = working
    assert world.run().asked == 0
    assert world.current()["at"] == "2026-11-20T07:00:00Z"


def test_when_redis_lost_everything_the_next_run_brings_it_back_without_asking(world: World) -> None:
    world.run()
    world.stores.redis.flushall()
    assert world.run().asked == 0
    assert world.read(Part.HOURLY) is not None


def test_without_farms_nothing_is_asked(world: World) -> None:
    with world.stores.engine.begin() as connection:
        connection.execute(text("UPDATE farms SET is_active = false"))
    assert world.run().as_state().type is StateType.COMPLETED
    assert world.service.server.received == []


def test_the_days_allowance_used_up_ends_the_run_with_what_it_has(world: World) -> None:
    world.settings = world.settings.model_copy(update={"open_meteo_calls_per_day": 1.5})
    summary = world.run()
    assert summary.failed == CELLS - 1
    assert "allowance" in str(summary.as_state().message)
    assert len(world.service.weather_requests) == 1


@pytest.mark.slow
def test_the_flow_names_its_batches_and_says_how_it_came_out(
    world: World, prefect_api: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(
        monkeypatch,
        {
            "SWATH_DATABASE_URL": world.stores.database_url,
            "SWATH_REDIS_URL": world.stores.redis_url,
            "SWATH_OPEN_METEO_URL": world.service.server.url,
            "SWATH_HTTP_RETRIES": "0",
        },
    )
    world.now = dt.datetime.now(dt.UTC)
    world.service.run_available_at = world.now - HOUR
    state = prewarm(return_state=True)
    assert state.type is StateType.COMPLETED
    assert f"{CELLS} cells, run of" in str(state.message)
    assert world.read(Part.HOURLY) is not None

    world.service.is_up = False
    with world.stores.engine.begin() as connection:
        connection.execute(text("UPDATE weather_hourly SET told_at = told_at - interval '7 hours'"))
    state = prewarm(return_state=True)
    assert state.type is StateType.FAILED
    assert world.read(Part.HOURLY) is not None
