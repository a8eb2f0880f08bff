"""What readers are given of a farm: from Redis, from Postgres, once, and never of somebody else."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import redis
from sqlalchemy import Engine, text

from models.domain import Observation, Status
from models.observations import save_observations
from models.readmodel import publish, read_models, state_key
from serving.app import ENDPOINTS
from tests.support.api import CountingPrefect, counting_prefect, key_of
from tests.support.api_workers import Worker, worker
from tests.support.facts import NOON, POLICY, engine_for, observed, store_farms, unseen

DAY = timedelta(days=1)
NOBODY_THERE = "redis://127.0.0.1:1"


@dataclass
class Place:
    """Stores with two clients: `ours` has the first two of three farms, `theirs` the third."""

    database_url: str
    redis_url: str
    engine: Engine
    farm_ids: list[int]
    ours: str
    theirs: str

    def save(self, *given: Observation, is_published: bool = True) -> None:
        with self.engine.begin() as connection:
            save_observations(connection, given)
        if is_published:
            with self.engine.connect() as connection, redis.Redis.from_url(self.redis_url) as client:
                publish(client, read_models(connection, self.farm_ids, mask_policy=POLICY))

    def run(self, *told: Callable[[Worker], Awaitable[None]], **settings: Any) -> None:
        """Run a worker, and tell it something."""

        async def tell() -> None:
            given = {"redis_url": self.redis_url, **settings}
            async with worker(self.database_url, endpoints=ENDPOINTS, **given) as one:
                for each in told:
                    await each(one)

        asyncio.run(tell())


@pytest.fixture
def place(database_url: str, redis_url: str) -> Iterator[Place]:
    engine = engine_for(database_url)
    farm_ids = store_farms(engine, 3)
    ours, theirs = key_of(engine, "ours"), key_of(engine, "theirs")
    with engine.begin() as connection:
        give = text("UPDATE farms SET client_id = (SELECT id FROM clients WHERE name = :name) WHERE id = ANY(:ids)")
        connection.execute(give, {"name": "ours", "ids": farm_ids[:2]})
        connection.execute(give, {"name": "theirs", "ids": farm_ids[2:]})
    yield Place(database_url, redis_url, engine, farm_ids, ours, theirs)
    engine.dispose()


@pytest.fixture
def prefect() -> Iterator[CountingPrefect]:
    with counting_prefect() as running:
        yield running


def farm(number: int, rest: str = "state") -> str:
    return f"/api/v1/farms/{uuid.UUID(int=number)}/{rest}"


async def get(one: Worker, path: str, key: str, **headers: str) -> httpx.Response:
    return await one.http.get(path, headers={"x-api-key": key, **headers})


def data(answer: httpx.Response) -> Any:
    told = answer.json()
    assert set(told) == {"status", "message", "data", "errors"}
    return told["data"]


async def settled(told: Callable[[], bool]) -> None:
    """Wait for work that is done off the request's path."""
    for _ in range(500):
        if told():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came")


class TestState:
    def test_what_was_published_is_given_as_it_is(self, place: Place) -> None:
        place.save(observed(place.farm_ids[0]))

        async def read(one: Worker) -> None:
            answer = await get(one, farm(1), place.ours)
            assert answer.status_code == 200
            told = answer.json()
            assert (told["status"], told["data"]["status"], told["data"]["coverage_pct"]) == ("success", "ready", 98.12)
            assert one.resources.counts.database_reads == 0
            assert 'cache;desc="hit"' in answer.headers["server-timing"]
            again = await get(one, farm(1), place.ours, **{"if-none-match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")

        place.run(read)

    def test_redis_and_postgres_give_the_same_bytes(self, place: Place) -> None:
        place.save(observed(place.farm_ids[0]), unseen(place.farm_ids[1]))
        bodies: list[bytes] = []

        async def read(one: Worker) -> None:
            bodies.extend([(await get(one, farm(number), place.ours)).content for number in (1, 2)])

        place.run(read)
        place.run(read, redis_url=NOBODY_THERE)
        with redis.Redis.from_url(place.redis_url) as client:
            client.flushall()
        place.run(read, read)
        assert bodies[:2] * 4 == bodies

    def test_a_miss_is_read_once_and_kept(self, place: Place) -> None:
        place.save(observed(place.farm_ids[0]), is_published=False)

        async def read(one: Worker) -> None:
            for how in ("miss", "hit"):
                answer = await get(one, farm(1), place.ours)
                assert f'cache;desc="{how}"' in answer.headers["server-timing"]
            assert one.resources.counts.database_reads == 1

        place.run(read)

    def test_five_hundred_at_once_on_a_cold_cache_make_one_read_and_one_run(
        self, place: Place, prefect: CountingPrefect
    ) -> None:
        """Of two workers; the farm has never been looked at."""

        async def ask() -> None:
            async with (
                worker(place.database_url, place.redis_url, endpoints=ENDPOINTS, prefect_url=prefect.url) as one,
                worker(place.database_url, place.redis_url, endpoints=ENDPOINTS, prefect_url=prefect.url) as two,
            ):
                asked = [get((one, two)[number % 2], farm(1), place.ours) for number in range(500)]
                answers = await asyncio.gather(*asked)
                assert {answer.status_code for answer in answers} == {202}
                assert len({answer.content for answer in answers}) == 1
                counts = [each.resources.counts for each in (one, two)]
                assert sum(each.database_reads for each in counts) == 1
                await settled(lambda: len(prefect.asked) > 0)

        asyncio.run(ask())
        assert [body["parameters"] for body in prefect.asked] == [{"external_farm_ids": [str(uuid.UUID(int=1))]}]

    def test_a_farm_never_looked_at_is_processing_and_tells_why(self, place: Place, prefect: CountingPrefect) -> None:
        async def read(one: Worker) -> None:
            answer = await get(one, farm(1), place.ours)
            assert (answer.status_code, answer.json()["status"]) == (202, "processing")
            assert answer.headers["retry-after"] == "30"
            told = data(answer)
            assert (told["status"], told["coverage_pct"]) == ("processing", None)
            assert told["why_empty"] == answer.json()["message"] == "no pass has been looked at yet"
            await settled(lambda: len(prefect.runs) == 1)

        place.run(read, read, prefect_url=prefect.url)
        place.run(read, prefect_url=prefect.url)
        with redis.Redis.from_url(place.redis_url) as client:
            client.flushall()
        place.run(read, prefect_url=prefect.url)
        assert len(prefect.runs) == 1

    def test_prefect_being_away_does_not_keep_a_reader_waiting_and_is_made_good(
        self, place: Place, prefect: CountingPrefect
    ) -> None:
        prefect.is_down = True

        async def read(one: Worker) -> None:
            assert (await get(one, farm(1), place.ours)).status_code == 202
            await one.resources.work.close()

        place.run(read, prefect_url=prefect.url)
        prefect.is_down, prefect.asked[:] = False, []
        place.run(read, prefect_url=prefect.url)
        assert len(prefect.asked) == 1

    def test_clouds_only_is_processing_with_the_reason_and_asks_for_nothing(
        self, place: Place, prefect: CountingPrefect
    ) -> None:
        place.save(unseen(place.farm_ids[0], Status.CLOUD))

        async def read(one: Worker) -> None:
            answer = await get(one, farm(1), place.ours)
            assert answer.status_code == 202
            assert "cloud" in data(answer)["why_empty"]
            await one.resources.work.close()

        place.run(read, prefect_url=prefect.url)
        assert prefect.asked == []

    def test_without_redis_postgres_answers(self, place: Place) -> None:
        place.save(observed(place.farm_ids[0]), is_published=False)

        async def read(one: Worker) -> None:
            for _ in range(10):
                answer = await get(one, farm(1), place.ours)
                assert answer.status_code == 200
                assert 'cache;desc="away"' in answer.headers["server-timing"]
            assert one.resources.cache.breaker.is_open

        place.run(read, redis_url=NOBODY_THERE)


class TestWhoMay:
    @pytest.mark.parametrize("is_published", [True, False])
    def test_the_farms_of_others_are_as_unknown_as_those_that_do_not_exist(
        self, place: Place, *, is_published: bool
    ) -> None:
        place.save(*(observed(farm_id) for farm_id in place.farm_ids), is_published=is_published)

        async def ask(one: Worker) -> None:
            for rest in ("state", "ndvi", "ndvi/latest"):
                for accept in ("application/json", "text/csv"):
                    answers = [await get(one, farm(number, rest), place.ours, accept=accept) for number in (3, 4)]
                    if answers[0].status_code == 406:
                        continue
                    assert [answer.status_code for answer in answers] == [404, 404]
                    alike = [
                        answer.text.replace(str(uuid.UUID(int=n)), "")
                        for n, answer in zip((3, 4), answers, strict=True)
                    ]
                    assert alike[0] == alike[1]
            tag = (await get(one, farm(3), place.theirs)).headers["etag"]
            assert (await get(one, farm(3), place.ours, **{"if-none-match": tag})).status_code == 404
            refused = await one.http.post(farm(3, "ndvi/refresh"), headers={"x-api-key": place.ours})
            assert refused.status_code == 404

        place.run(ask)

    def test_nobody_in_particular_sees_nothing(self, place: Place) -> None:
        async def ask(one: Worker) -> None:
            for rest in ("state", "ndvi", "ndvi/latest"):
                assert (await one.http.get(farm(1, rest))).status_code == 401
            assert (await one.http.post(farm(1, "ndvi/refresh"))).status_code == 401
            reader = key_of(place.engine, "reader", "read")
            refused = await one.http.post(farm(1, "ndvi/refresh"), headers={"x-api-key": reader})
            assert (refused.status_code, refused.json()["errors"][0]["code"]) == (403, "forbidden")

        place.run(ask)

    def test_an_admin_sees_all_and_the_operators_own_farms_are_nobody_elses(self, place: Place) -> None:
        admin = key_of(place.engine, "operator", "admin")
        with place.engine.begin() as connection:
            connection.execute(text("UPDATE farms SET client_id = NULL WHERE id = :id"), {"id": place.farm_ids[1]})
        place.save(*(observed(farm_id) for farm_id in place.farm_ids))

        async def ask(one: Worker) -> None:
            assert {(await get(one, farm(number), admin)).status_code for number in (1, 2, 3)} == {200}
            assert [(await get(one, farm(number), place.ours)).status_code for number in (1, 2, 3)] == [200, 404, 404]

        place.run(ask)


class TestSeries:
    def many(self, place: Place, count: int = 25) -> list[Observation]:
        given = [
            observed(
                place.farm_ids[0],
                acquired_at=NOON + number * 5 * DAY,
                ndvi=0.3 + number / 100,
                clear_fraction=1 - number / 50,
            )
            for number in range(count)
        ]
        place.save(*given, unseen(place.farm_ids[0], acquired_at=NOON + DAY), observed(place.farm_ids[2]))
        return given

    def test_pages_give_each_observation_once_in_order(self, place: Place) -> None:
        given = self.many(place)

        async def read(one: Worker) -> None:
            told: list[Any] = []
            path: str | None = farm(1, "ndvi?limit=10")
            while path is not None:
                answer = await get(one, path, place.ours)
                told += data(answer)["observations"]
                cursor = data(answer)["next_cursor"]
                path = farm(1, f"ndvi?limit=10&cursor={cursor}") if cursor else None
                assert ("link" in answer.headers) == (cursor is not None)
            assert [each["ndvi"] for each in told] == [each.ndvi for each in given]

        place.run(read)

    def test_days_are_both_included_and_clear_fractions_filter(self, place: Place) -> None:
        given = self.many(place)

        async def read(one: Worker) -> None:
            async def days(query: str) -> list[str]:
                return [
                    each["day"] for each in data(await get(one, farm(1, f"ndvi?{query}"), place.ours))["observations"]
                ]

            first, last = str(given[2].day), str(given[4].day)
            assert await days(f"start={first}&end={last}") == [str(each.day) for each in given[2:5]]
            assert await days(f"start={last}&end={last}") == [last]
            assert len(await days("min_clear_fraction=0.9")) == 6
            assert len(await days("with_empty=true")) == 26

        place.run(read)

    def test_csv_tells_the_same(self, place: Place) -> None:
        self.many(place)

        async def read(one: Worker) -> None:
            told = data(await get(one, farm(1, "ndvi?with_empty=true"), place.ours))["observations"]
            answer = await get(one, farm(1, "ndvi?with_empty=true"), place.ours, accept="text/csv")
            assert answer.headers["content-type"] == "text/csv; charset=utf-8"
            rows = list(csv.DictReader(io.StringIO(answer.text)))
            assert list(rows[0]) == list(told[0])
            for row, each in zip(rows, told, strict=True):
                assert (row["day"], row["acquired_at"], row["status"]) == (
                    each["day"],
                    each["acquired_at"],
                    each["status"],
                )
                assert row["ndvi"] == ("" if each["ndvi"] is None else str(each["ndvi"]))

        place.run(read)

    def test_who_has_it_is_told_so_until_anything_changes(self, place: Place) -> None:
        given = self.many(place)

        async def read(one: Worker) -> None:
            first = await get(one, farm(1, "ndvi"), place.ours)
            tag = {"if-none-match": first.headers["etag"]}
            assert (await get(one, farm(1, "ndvi"), place.ours, **tag)).status_code == 304
            assert (await get(one, farm(1, "ndvi?limit=3"), place.ours, **tag)).status_code == 200
            assert (await get(one, farm(1, "ndvi"), place.ours, accept="text/csv", **tag)).status_code == 200
            place.save(observed(place.farm_ids[0], acquired_at=given[3].acquired_at, ndvi=-0.5))
            assert (await get(one, farm(1, "ndvi"), place.ours, **tag)).status_code == 200

        place.run(read)

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("start=2024-13-01", "query.start"),
            ("start=1", "query.start"),
            ("start=2024-05-02&end=2024-05-01", "query"),
            ("end=9999-12-31", "query.end"),
            ("min_clear_fraction=1.5", "query.min_clear_fraction"),
            ("min_clear_fraction=nan", "query.min_clear_fraction"),
            ("limit=0", "query.limit"),
            ("limit=1000000", "query.limit"),
            ("cursor=AAAA", "query.cursor"),
            ("cursor=" + "A" * 5000, "query.cursor"),
            ("begin=2024-05-01", "query.begin"),
            ("limit=1&limit=2", "query.limit"),
            ("start=%FF", "query"),
        ],
    )
    def test_bad_input_names_the_field_and_what_is_allowed(self, place: Place, query: str, field: str) -> None:
        async def ask(one: Worker) -> None:
            answer = await get(one, farm(1, f"ndvi?{query}"), place.ours)
            assert answer.status_code == 422
            told = answer.json()
            assert (told["status"], told["data"], told["errors"][0]["field"]) == ("error", None, field)
            assert told["errors"][0]["allowed"] or told["errors"][0]["problem"]

        place.run(ask)

    def test_a_farm_has_one_name_on_all_routes(self, place: Place) -> None:
        farm_id = uuid.UUID(int=0xABC)
        others = (f"urn:uuid:{farm_id}", f"{{{farm_id}}}", farm_id.hex, f" {farm_id}")

        async def ask(one: Worker) -> None:
            of_farms = [each for each in ENDPOINTS if "{external_farm_id}" in each.path]
            assert len(of_farms) > 8
            for each in of_farms:
                for name in others:
                    path = each.path.replace("{external_farm_id}", quote(name, safe=""))
                    answer = await one.http.request(each.method, path, headers={"x-api-key": place.ours})
                    assert answer.status_code == 422, (each.path, name)
                    assert "path.external_farm_id" in [told["field"] for told in answer.json()["errors"]]
            for name in (str(uuid.UUID(int=1)), str(farm_id), str(farm_id).upper()):
                answer = await get(one, f"/api/v1/farms/{name}", place.ours)
                assert answer.status_code == (200 if name.endswith("1") else 404)

        place.run(ask)

    def test_a_wrong_farm_id_is_told_only_to_who_may_ask(self, place: Place) -> None:
        async def ask(one: Worker) -> None:
            path = "/api/v1/farms/17/ndvi"
            assert (await one.http.get(path)).status_code == 401
            answer = await get(one, path, place.ours)
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "path.external_farm_id")

        place.run(ask)


class TestLatest:
    def test_the_newest_that_is_clear_enough_wherever_it_is_read(self, place: Place) -> None:
        place.save(
            observed(place.farm_ids[0], ndvi=0.5, clear_fraction=0.95),
            observed(place.farm_ids[0], ndvi=0.6, clear_fraction=0.4, acquired_at=NOON + 5 * DAY),
        )

        async def read(one: Worker) -> None:
            async def at(least: str) -> Any:
                told = data(await get(one, farm(1, f"ndvi/latest{least}"), place.ours))
                return told["observation"] and told["observation"]["ndvi"]

            assert await at("") == 0.6
            assert await at("?min_clear_fraction=0.9") == 0.5
            assert await at("?min_clear_fraction=0.99") is None
            [last] = data(await get(one, farm(1, "ndvi?start=2024-06-12"), place.ours))["observations"]
            assert data(await get(one, farm(1, "ndvi/latest"), place.ours))["observation"] == last

        place.run(read)

    def test_a_farm_without_a_value_is_processing(self, place: Place) -> None:
        async def read(one: Worker) -> None:
            answer = await get(one, farm(1, "ndvi/latest"), place.ours)
            assert (answer.status_code, data(answer)["observation"]) == (202, None)

        place.run(read)


class TestRefresh:
    def test_one_is_in_flight_however_many_ask(self, place: Place, prefect: CountingPrefect) -> None:
        async def ask() -> None:
            async with (
                worker(place.database_url, place.redis_url, endpoints=ENDPOINTS, prefect_url=prefect.url) as one,
                worker(place.database_url, NOBODY_THERE, endpoints=ENDPOINTS, prefect_url=prefect.url) as two,
            ):
                post = [
                    (one, two)[number % 2].http.post(farm(1, "ndvi/refresh"), headers={"x-api-key": place.ours})
                    for number in range(40)
                ]
                answers = [data(answer) for answer in await asyncio.gather(*post)]
                assert [each["is_new"] for each in answers].count(True) == 1
                [run] = prefect.runs.values()
                again = data(await one.http.post(farm(1, "ndvi/refresh"), headers={"x-api-key": place.ours}))
                assert (again["run_id"], again["is_new"]) == (str(run), False)
                prefect.ended.add(run)
                after = data(await one.http.post(farm(1, "ndvi/refresh"), headers={"x-api-key": place.ours}))
                assert after["is_new"] is True
                assert len(prefect.runs) == 2

        asyncio.run(ask())

    def test_prefect_being_away_is_said_and_nothing_is_left_in_flight(
        self, place: Place, prefect: CountingPrefect
    ) -> None:
        prefect.is_down = True

        async def ask(one: Worker) -> None:
            answer = await one.http.post(farm(1, "ndvi/refresh"), headers={"x-api-key": place.ours})
            if prefect.is_down:
                assert (answer.status_code, answer.json()["status"]) == (503, "error")
                assert answer.headers["retry-after"]
            else:
                assert answer.status_code == 202
                assert data(answer)["run_id"] == str(*prefect.runs.values())

        place.run(ask, prefect_url=prefect.url)
        prefect.is_down, prefect.runs = False, {}
        place.run(ask, prefect_url=prefect.url)
        assert len({body["idempotency_key"] for body in prefect.asked}) == 1

    def test_a_farm_that_is_not_active_is_not_looked_at(self, place: Place, prefect: CountingPrefect) -> None:
        with place.engine.begin() as connection:
            connection.execute(text("UPDATE farms SET is_active = false WHERE id = :id"), {"id": place.farm_ids[0]})

        async def ask(one: Worker) -> None:
            answer = await one.http.post(farm(1, "ndvi/refresh"), headers={"x-api-key": place.ours})
            assert answer.status_code == 409
            assert (await get(one, farm(1), place.ours)).status_code == 202
            await one.resources.work.close()

        place.run(ask, prefect_url=prefect.url)
        assert prefect.asked == []


def test_a_state_that_was_published_late_does_not_replace_a_newer_one(place: Place) -> None:
    place.save(observed(place.farm_ids[0]))
    with redis.Redis.from_url(place.redis_url) as client:
        client.hset(state_key(uuid.UUID(int=1)), mapping={"revision": 10**9, "body": json.dumps({"coverage_pct": 1})})

        async def read(one: Worker) -> None:
            await one.resources.reading.publish([uuid.UUID(int=1)])

        place.run(read)
        assert client.hget(state_key(uuid.UUID(int=1)), "revision") == b"1000000000"
