"""The weather that readers are given: from Redis by one exchange, from Postgres the same, and of their farms alone."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import io
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import httpx
import pytest
import redis
from sqlalchemy import Engine, text

from infra.stores import Stores
from models.agronomy import CropLimits, agronomy
from models.readmodel import publish, read_models
from models.weather import Cell, Kind, Reading
from models.weather_cells import CellOfFarm, assign_cells
from models.weather_store import save_readings
from serving.app import ENDPOINTS
from tasks.weather.cells import nasa_power_cell, open_meteo_cell
from tasks.weather.places import cells_near, distance_km, place_at
from tasks.weather_publish import publish_weather
from tests.support.api import key_of
from tests.support.api_workers import Worker, worker
from tests.support.facts import POLICY, engine_for, store_farms
from tests.support.readings import daily, hourly, midnight

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
NOW = dt.datetime.now(dt.UTC)
ISSUED = (NOW - 2 * HOUR).replace(minute=20, second=0, microsecond=0)
THIS_HOUR = NOW.replace(minute=0, second=0, microsecond=0)
TODAY = NOW.date()
NOBODY_THERE = "redis://127.0.0.1:1"
LON, LAT = 15.002, 46.0
OWN, POWER = open_meteo_cell(LON, LAT), nasa_power_cell(LON, LAT)
PARTS = ("current", "hourly", "daily")


@dataclass
class Place:
    """Stores with two clients: `ours` has the first two of three farms, `theirs` the third; all three in one place."""

    database_url: str
    redis_url: str
    engine: Engine
    farm_ids: list[int]
    ours: str
    theirs: str

    def save(self, *readings: Reading) -> None:
        with self.engine.begin() as connection:
            save_readings(connection, readings)

    def publish(self) -> None:
        with redis.Redis.from_url(self.redis_url) as client:
            publish_weather(Stores(self.engine, client, self.database_url, self.redis_url), now=dt.datetime.now(dt.UTC))
        self.publish_states()

    def publish_states(self) -> None:
        with self.engine.connect() as connection, redis.Redis.from_url(self.redis_url) as client:
            publish(client, read_models(connection, self.farm_ids, mask_policy=POLICY))

    def flush(self) -> None:
        with redis.Redis.from_url(self.redis_url) as client:
            client.flushall()

    def run(self, *told: Callable[[Worker], Awaitable[None]], **settings: Any) -> None:
        """Run a worker, and tell it something."""

        async def tell() -> None:
            given = {"database_url": self.database_url, "redis_url": self.redis_url, **settings}
            async with worker(endpoints=ENDPOINTS, **given) as one:
                for each in told:
                    await each(one)

        asyncio.run(tell())


def _stay_within_an_hour() -> None:
    """What is told changes by the hour: begin no test in the last seconds of one."""
    left_s = 3600 - time.time() % 3600
    if left_s < 10:
        time.sleep(left_s)


@pytest.fixture
def place(database_url: str, redis_url: str) -> Iterator[Place]:
    _stay_within_an_hour()
    engine = engine_for(database_url)
    farm_ids = store_farms(engine, 3)
    ours, theirs = key_of(engine, "ours"), key_of(engine, "theirs")
    with engine.begin() as connection:
        give = text("UPDATE farms SET client_id = (SELECT id FROM clients WHERE name = :name) WHERE id = ANY(:ids)")
        connection.execute(give, {"name": "ours", "ids": farm_ids[:2]})
        connection.execute(give, {"name": "theirs", "ids": farm_ids[2:]})
        assign_cells(
            connection,
            [CellOfFarm(farm_id=farm, boundary_version=1, cell=cell) for farm in farm_ids for cell in (OWN, POWER)],
        )
    yield Place(database_url, redis_url, engine, farm_ids, ours, theirs)
    engine.dispose()


def hours(where: Cell = OWN, *, back: int = 72, ahead: int = 72, temperature_c: float = 12.0) -> list[Reading]:
    """Forecasts of the hours around now; each hour's temperature tells which it is."""
    return [
        hourly(
            where,
            THIS_HOUR + number * HOUR,
            kind=Kind.FORECAST,
            told_at=ISSUED,
            values={"temperature_c": temperature_c + number / 10, "precipitation_mm": 0.1},
        )
        for number in range(-back, ahead + 1)
    ]


def days(where: Cell = OWN, *, back: int = 40) -> list[Reading]:
    """Analyses of the days before today."""
    return [
        daily(
            where,
            TODAY - number * DAY,
            told_at=ISSUED,
            values={"precipitation_mm": number / 8, "temperature_min_c": 5.0},
        )
        for number in range(1, back + 1)
    ]


def farm(number: int, rest: str) -> str:
    return f"/api/v1/farms/{uuid.UUID(int=number)}/weather/{rest}"


async def get(one: Worker, path: str, key: str, **headers: str) -> httpx.Response:
    return await one.http.get(path, headers={"x-api-key": key, **headers})


def data(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert set(told) == {"status", "message", "data", "errors"}
    return told["data"]


def point(lat: float = LAT, lon: float = LON, ts: dt.datetime | None = None) -> str:
    when = "" if ts is None else f"&ts={ts:%Y-%m-%dT%H:%M:%SZ}"
    return f"/api/v1/weather/point?lat={lat}&lon={lon}{when}"


class TestOfFarms:
    def test_what_was_published_is_given_by_one_exchange_with_its_age(self, place: Place) -> None:
        place.save(*hours(), *days(), *days(POWER))
        place.publish()

        async def read(one: Worker) -> None:
            await get(one, farm(1, "current"), place.ours)  # knows the caller, and has its script
            for part in PARTS:
                await get(one, farm(2, part), place.ours)
                with redis.Redis.from_url(place.redis_url) as client:
                    client.config_resetstat()
                    answer = await get(one, farm(1, part), place.ours)
                    calls = {name: told["calls"] for name, told in client.info("commandstats").items()}
                assert calls["cmdstat_evalsha"] == 1
                assert not calls.keys() & {"cmdstat_eval", "cmdstat_set", "cmdstat_evalsha_ro"}
                told = data(answer)
                assert told["cells"] == [OWN.key, POWER.key]
                age = NOW - dt.datetime.fromisoformat(told["as_of"])
                assert age > HOUR
                assert answer.headers["cache-control"] == "private, max-age=60"
                assert 'cache;desc="hit"' in answer.headers["server-timing"]
                again = await get(one, farm(1, part), place.ours, **{"if-none-match": answer.headers["etag"]})
                assert (again.status_code, again.content) == (304, b"")
            assert one.resources.counts.database_reads == 0

        place.run(read)

    def test_redis_and_postgres_give_the_same_bytes(self, place: Place) -> None:
        place.save(*hours(), *hours(POWER, back=9, ahead=0, temperature_c=20), *days(), *days(POWER))
        place.publish()
        told: list[tuple[bytes, str]] = []

        async def read(one: Worker) -> None:
            for part in PARTS:
                answer = await get(one, farm(1, part), place.ours)
                told.append((answer.content, answer.headers["etag"]))

        place.run(read)
        place.run(read, redis_url=NOBODY_THERE)
        place.flush()
        place.run(read, read)
        assert told[:3] * 4 == told
        assert all(json.loads(content)["data"] for content, _ in told)

    def test_without_postgres_what_redis_has_is_given_and_the_rest_is_unavailable(self, place: Place) -> None:
        place.save(*hours(), *days())
        place.publish()
        known = [farm(1, part) for part in PARTS] + [point()]
        told: list[bytes] = []

        async def read(one: Worker) -> None:
            told.extend([(await get(one, path, place.ours)).content for path in known])

        async def miss(one: Worker) -> None:
            for path in (farm(1, "daily?start=2020-01-01&end=2020-01-02"), point(-40, 3)):
                answer = await get(one, path, place.ours)
                assert (answer.status_code, answer.json()["status"]) == (503, "error")
                assert answer.headers["retry-after"]

        place.run(read)
        place.run(read, miss, database_url="postgresql://nobody@127.0.0.1:1/nothing")
        assert told[:4] * 2 == told

    def test_a_miss_is_read_once_however_many_ask_of_two_workers_and_kept(self, place: Place) -> None:
        place.save(*hours())
        place.publish_states()

        async def ask() -> None:
            async with (
                worker(place.database_url, place.redis_url, endpoints=ENDPOINTS) as one,
                worker(place.database_url, place.redis_url, endpoints=ENDPOINTS) as two,
            ):
                workers = (one, two) * 30
                answers = await asyncio.gather(*(get(each, farm(1, "hourly"), place.ours) for each in workers))
                assert {answer.status_code for answer in answers} == {200}
                assert len({answer.content for answer in answers}) == 1
                assert one.resources.counts.database_reads + two.resources.counts.database_reads == 1
                later = await get(two, farm(2, "hourly"), place.ours)
                assert later.content == answers[0].content
                assert one.resources.counts.database_reads + two.resources.counts.database_reads == 1

        asyncio.run(ask())

    def test_any_days_are_told_as_json_and_as_csv(self, place: Place) -> None:
        place.save(*hours(back=200), *days(back=60), *days(POWER, back=60))
        first, last = TODAY - 6 * DAY, TODAY - 5 * DAY

        async def read(one: Worker) -> None:
            asked = f"?start={first}&end={last}"
            hourly_table = data(await get(one, farm(1, f"hourly{asked}"), place.ours))
            assert hourly_table["at"] == [f"{midnight(first) + n * HOUR:%Y-%m-%dT%H:%M:%SZ}" for n in range(48)]
            table = data(await get(one, farm(1, f"daily{asked}"), place.ours))
            assert table["day"] == [str(first), str(last)]
            assert table["values"]["precipitation_mm"] == [6 / 8, 5 / 8]
            answer = await get(one, farm(1, f"daily{asked}"), place.ours, accept="text/csv")
            assert answer.headers["content-type"] == "text/csv; charset=utf-8"
            assert answer.headers["etag"]
            [line, other] = csv.DictReader(io.StringIO(answer.text))
            assert (line["day"], line["precipitation_mm"], line["dew_point_c"]) == (str(first), "0.75", "")
            assert line["told_by"] == "open-meteo/era5_seamless/reanalysis"
            assert other["as_of"] == f"{ISSUED:%Y-%m-%dT%H:%M:%SZ}"
            usual = await get(one, farm(1, "hourly"), place.ours, accept="text/csv")
            assert len(usual.text.splitlines()) == 1 + len(data(await get(one, farm(1, "hourly"), place.ours))["at"])
            empty = await get(one, farm(1, "daily?start=1950-01-01&end=1950-01-31"), place.ours)
            assert data(empty) is None
            assert "no daily weather is known" in empty.json()["message"]

        place.run(read)

    def test_nobody_is_told_of_somebody_elses_farm(self, place: Place) -> None:
        place.save(*hours(), *days())
        place.publish()
        ranges = [f"{part}?start={TODAY}&end={TODAY}" for part in ("hourly", "daily", "agronomy")]

        async def read(one: Worker) -> None:
            for rest in (*PARTS, *ranges):
                for accept in ("application/json", "text/csv"):
                    headers = {"accept": f"{accept}, */*;q=0.1", "if-none-match": "*"}
                    other, unknown = [await get(one, farm(n, rest), place.ours, **headers) for n in (3, 9)]
                    assert other.status_code == unknown.status_code == 404
                    assert other.text.replace(str(uuid.UUID(int=3)), "") == unknown.text.replace(
                        str(uuid.UUID(int=9)), ""
                    )
                assert (await get(one, farm(3, rest), place.theirs)).status_code == 200
                assert (await one.http.get(farm(1, rest))).status_code == 401

        place.run(read)
        place.run(read, redis_url=NOBODY_THERE)
        place.flush()
        place.run(read, read)

    def test_a_farm_of_which_no_weather_is_known_is_told_so(self, place: Place) -> None:
        async def read(one: Worker) -> None:
            for part in PARTS:
                answer = await get(one, farm(1, part), place.ours)
                assert (answer.status_code, answer.headers["retry-after"]) == (202, "300")
                told = answer.json()
                assert (told["status"], told["data"]) == ("processing", None)
                assert "is known here yet" in told["message"]

        place.run(read)

    def test_a_farm_without_cells_is_told_the_weather_where_they_will_be(self, place: Place) -> None:
        place.save(*hours())
        with place.engine.begin() as connection:
            connection.execute(text("DELETE FROM farm_cells"))

        async def read(one: Worker) -> None:
            assert data(await get(one, farm(1, "current"), place.ours))["cells"] == [OWN.key, POWER.key]
            sums = data(await get(one, farm(1, f"agronomy?start={TODAY - DAY}&end={TODAY}"), place.ours))
            assert (sums["precipitation_mm"], sums["precipitation_days_missing"]) == (None, 2)

        place.run(read)

    def test_agronomy_is_what_the_tables_say(self, place: Place) -> None:
        readings = [
            daily(
                OWN, TODAY - n * DAY, values={"temperature_min_c": 4.0 + n, "temperature_max_c": 20.5, "et0_mm": 1.25}
            )
            for n in range(1, 9)
        ]
        place.save(*readings, *days(POWER, back=6))
        start, end = TODAY - 9 * DAY, TODAY - DAY
        with place.engine.connect() as connection:
            crop = CropLimits(base_c=6, upper_c=18)
            [expected] = agronomy(connection, [place.farm_ids[0]], start=start, end=end, limits=crop)

        async def read(one: Worker) -> None:
            answer = await get(one, farm(1, f"agronomy?start={start}&end={end}&base=6&upper=18"), place.ours)
            told = data(answer)
            assert {name: told[name] for name in asdict(expected) if name != "farm_id"} == pytest.approx(
                {name: value for name, value in asdict(expected).items() if name != "farm_id"}
            )
            assert told["growing_degree_days"] > 0
            again = await get(one, str(answer.url), place.ours, **{"if-none-match": answer.headers["etag"]})
            assert again.status_code == 304

        place.run(read)


class TestAtPoints:
    def test_a_point_is_told_the_current_weather_of_its_place_and_how_far_that_is(self, place: Place) -> None:
        place.save(*hours())
        place.publish()

        async def read(one: Worker) -> None:
            told = data(await get(one, point(), place.ours))
            assert told["weather"] == data(await get(one, farm(1, "current"), place.ours))
            assert (told["grain"], told["ts"], told["why_empty"]) == ("hourly", None, None)
            assert told["distance_km"] == round(distance_km(LON, LAT, OWN), 2)
            assert one.resources.counts.database_reads == 0

        place.run(read)

    def test_answers_are_the_same_from_redis_from_postgres_and_among_many(self, place: Place) -> None:
        near = cells_near(LON, LAT)[7]
        place.save(*hours(), *hours(near, temperature_c=30), *days(back=60))
        asked = [
            (LAT, LON, None),
            (near.latitude, near.longitude, None),
            (LAT, LON + 0.2, None),
            (LAT, LON, THIS_HOUR - 5 * HOUR),
            (LAT, LON, midnight(TODAY - 30 * DAY) + 5 * HOUR),
            (-40.0, 3.0, None),
        ]
        told: list[list[Any]] = []

        async def read(one: Worker) -> None:
            single = [data(await get(one, point(*each), place.ours)) for each in asked]
            points = [
                {"lat": lat, "lon": lon} | ({} if ts is None else {"ts": f"{ts:%Y-%m-%dT%H:%M:%SZ}"})
                for lat, lon, ts in asked
            ]
            body = {"points": points}
            many = await one.http.post("/api/v1/weather/bulk", json=body, headers={"x-api-key": place.ours})
            assert data(many) == {"points": single}
            told.append([each.content for each in [await get(one, point(*each), place.ours) for each in asked]])

        place.run(read, read)
        place.run(read, redis_url=NOBODY_THERE)
        place.publish()
        place.run(read)
        assert told[:1] * 4 == told
        grains = [json.loads(each)["data"]["grain"] for each in told[0]]
        assert grains == ["hourly", "hourly", "hourly", "hourly", "daily", None]

    def test_where_nothing_is_told_the_nearest_cell_answers(self, place: Place) -> None:
        around = cells_near(LON, LAT)
        known = [around[number] for number in (4, 9, 17)]
        for each in known:
            place.save(*hours(each, back=1, ahead=1, temperature_c=each.longitude))

        async def read(one: Worker) -> None:
            for lat, lon in ((46.04, 15.04), (45.96, 14.96), (46.0, 15.0), (45.95, 15.049), (46.049, 14.951)):
                told = data(await get(one, point(lat, lon), place.ours))
                own = place_at(lon, lat).split("+")[0]
                tried = [cell.key for cell in cells_near(lon, lat)]
                best = min((cell for cell in known if cell.key in tried), key=lambda cell: distance_km(lon, lat, cell))
                assert own not in {cell.key for cell in known}
                assert told["weather"]["cells"][0] == best.key
                assert told["distance_km"] == round(distance_km(lon, lat, best), 2)

        place.run(read)

    def test_a_time_is_told_the_nearest_hour_or_else_its_day(self, place: Place) -> None:
        place.save(*hours(back=30, ahead=30), *days(back=50))

        async def read(one: Worker) -> None:
            for minutes, hour in ((-95, -2), (-90, -2), (-89, -1), (31, 1), (-30 * 60 - 170, -30)):
                told = data(await get(one, point(ts=THIS_HOUR + dt.timedelta(minutes=minutes)), place.ours))
                assert dt.datetime.fromisoformat(told["weather"]["at"]) == THIS_HOUR + hour * HOUR
                assert told["weather"]["values"]["temperature_c"]["value"] == pytest.approx(12 + hour / 10, abs=1e-5)
            told = data(await get(one, point(ts=midnight(TODAY - 40 * DAY) + 23 * HOUR), place.ours))
            assert (told["grain"], told["weather"]["values"]["precipitation_mm"]["value"]) == ("daily", 5.0)
            assert told["weather"]["at"] == f"{TODAY - 40 * DAY}T00:00:00Z"

        place.run(read)

    def test_a_point_without_weather_is_told_why_and_asks_postgres_once(self, place: Place) -> None:
        place.save(*hours())

        async def read(one: Worker) -> None:
            for _ in range(3):
                told = data(await get(one, point(-40, 3), place.ours))
                assert (told["weather"], told["grain"], told["distance_km"]) == (None, None, None)
                assert "no weather is known now" in told["why_empty"]
            assert one.resources.counts.database_reads == 2  # of hours, then of days

        place.run(read)

    def test_a_thousand_points_cost_two_queries_and_then_none_for_those_in_known_places(self, place: Place) -> None:
        grid = [open_meteo_cell(14.0 + 0.1 * column, 45.0 + 0.1 * row) for column in range(5) for row in range(4)]
        place.save(*(reading for cell in grid for reading in hours(cell, back=2, ahead=0)))
        known = [{"lat": each.latitude, "lon": each.longitude} for each in grid]
        points = [*known, *({"lat": -40 + n / 50, "lon": 3.0} for n in range(980))]

        async def read(one: Worker) -> None:
            headers = {"x-api-key": place.ours}
            answer = await one.http.post("/api/v1/weather/bulk", json={"points": points}, headers=headers)
            told = data(answer)["points"]
            assert [each["weather"]["cells"][0] for each in told[: len(grid)]] == [each.key for each in grid]
            assert [(each["lat"], each["weather"] is None) for each in told[len(grid) :]] == [
                (each["lat"], True) for each in points[len(grid) :]
            ]
            assert one.resources.counts.database_reads == 2
            again = await one.http.post("/api/v1/weather/bulk", json={"points": known}, headers=headers)
            assert data(again)["points"] == told[: len(grid)]
            assert one.resources.counts.database_reads == 2

        place.run(read)


BAD_QUERIES = [
    ("/api/v1/weather/point?lat=91&lon=0", "query.lat"),
    ("/api/v1/weather/point?lat=nan&lon=0", "query.lat"),
    ("/api/v1/weather/point?lat=1&lon=inf", "query.lon"),
    ("/api/v1/weather/point?lat=1", "query.lon"),
    ("/api/v1/weather/point?lat=1&lon=-180.1", "query.lon"),
    ("/api/v1/weather/point?lat=1&lon=1&ts=1", "query.ts"),
    ("/api/v1/weather/point?lat=1&lon=1&ts=2026-02-30T00:00:00Z", "query.ts"),
    ("/api/v1/weather/point?lat=1&lon=1&ts=2026-02-20T00:00:00", "query.ts"),
    ("/api/v1/weather/point?lat=1&lon=1&ts=0001-01-01T00:00:00%2B10:00", "query.ts"),
    ("/api/v1/weather/point?lat=1&lon=1&when=now", "query.when"),
    (farm(1, "hourly?start=2026-01-02&end=2026-01-01"), "query.start"),
    (farm(1, "hourly?start=2026-01-01&end=2026-06-01"), "query.start"),
    (farm(1, "daily?start=1950-01-01&end=2026-06-01"), "query.start"),
    (farm(1, "daily?start=2100-01-01"), "query.start"),
    (farm(1, "daily?end=1960-01-01"), "query.end"),
    (farm(1, "daily?start=1939-12-31"), "query.start"),
    (farm(1, "daily?start=yesterday"), "query.start"),
    (farm(1, "agronomy?start=2026-01-01"), "query.end"),
    (farm(1, "agronomy?start=2026-01-01&end=2026-01-05&base=20&upper=10"), "query.base"),
    (farm(1, "agronomy?start=2024-01-01&end=2026-01-05"), "query.end"),
    ("/api/v1/farms/7/weather/current", "path.external_farm_id"),
]
BAD_BODIES: list[tuple[Any, str]] = [
    ({"points": [{"lat": 1, "lon": 1}] * 3 + [{"lat": 95, "lon": 1}]}, "body.points[3].lat"),
    ({"points": [{"lat": "1", "lon": 1}]}, "body.points[0].lat"),
    ({"points": [{"lat": True, "lon": 1}]}, "body.points[0].lat"),
    ({"points": [{"lat": 1, "lon": 1, "ts": 5}]}, "body.points[0].ts"),
    ({"points": [{"lat": 1, "lon": 1, "alt": 5}]}, "body.points[0].alt"),
    ({"points": []}, "body.points"),
    ({"points": [{"lat": 1, "lon": 1}] * 1001}, "body.points"),
    ([], "body"),
]


def test_bad_input_names_the_field_and_what_is_allowed(place: Place) -> None:
    async def ask(one: Worker) -> None:
        for path, field in BAD_QUERIES:
            answer = await get(one, path, place.ours)
            assert answer.status_code == 422, (path, answer.text)
            told = answer.json()
            assert (told["status"], told["data"], told["errors"][0]["field"]) == ("error", None, field), path

    place.run(ask)


def test_bad_points_are_named_by_their_number(place: Place) -> None:
    async def ask(one: Worker) -> None:
        for body, field in BAD_BODIES:
            answer = await one.http.post("/api/v1/weather/bulk", json=body, headers={"x-api-key": place.ours})
            assert answer.status_code == 422, (field, answer.text)
            assert answer.json()["errors"][0]["field"] == field

    place.run(ask)


def test_serving_weather_loads_nothing_heavy() -> None:
    heavy = ("numpy", "pandas", "shapely", "prefect", "dask", "rasterio", "sqlalchemy")
    program = f"import sys, serving.weather, serving.resources; print([n for n in {heavy!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
