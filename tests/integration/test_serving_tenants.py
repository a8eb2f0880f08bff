"""No route tells a client of another one's farms. Made from the list of all routes, so that none is forgotten."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from sqlalchemy import Engine, text

from models.clients import rotate_key
from models.keys import master_keys
from models.readmodel import publish, read_models, state_key
from serving.app import ENDPOINTS
from serving.endpoints import Endpoint
from tests.support.api import key_of
from tests.support.api_workers import SECRET, Worker, worker
from tests.support.command import Swath
from tests.support.facts import POLICY, engine_for, store_farms
from tests.support.story import FARM, OTHER, RING, tell

NOBODY_THERE = "redis://127.0.0.1:1"
UNKNOWN = uuid.UUID("5d1b2d4e-8a58-4c5e-9d0e-3f6a0c8b7e77")
MINE = uuid.UUID("c2b7c1a0-1f0b-4c2e-8f0a-9a4b3c2d1e0f")

TRACES = (str(FARM), str(OTHER), "North field", "Lower meadow", '"ana"', str(RING[1][0]), "S2B_33TWM", '"ndvi":0.64')
"""What only somebody who has seen the farms can know: ids, names, owner, boundary, imagery, value."""


def _farm(farm: uuid.UUID) -> dict[str, Any]:
    return {"external_farm_id": str(farm), "external_user_id": "eve", "name": "Mine", "bbox": [30, 10, 30.002, 10.002]}


def bodies(farm: uuid.UUID) -> Mapping[str, list[Any]]:
    """What is sent, by path, where something must be: each body names the farm where it can."""
    return {
        "/api/v1/farms/": [_farm(farm)],
        "/api/v1/farms/sync": [_farm(farm), [_farm(farm), _farm(MINE)], {"farms": [_farm(MINE), _farm(farm)]}],
        "/api/v1/farms/{external_farm_id}": [{"name": "Taken"}, {"is_active": False}, {"bbox": [30, 10, 30.1, 10.1]}],
        "/api/v1/weather/bulk": [{"points": [{"lat": 46.0, "lon": 15.011}]}],
    }


QUERIES = {
    "/api/v1/farms/": [{}, {"active": "all"}, {"external_user_id": "ana"}, {"bbox": "14,45,16,47", "active": "all"}],
    "/api/v1/farms/{external_farm_id}/ndvi": [{}, {"with_empty": "true"}],
    "/api/v1/farms/{external_farm_id}/weather/hourly": [{}, {"start": "2026-06-10", "end": "2026-06-11"}],
    "/api/v1/farms/{external_farm_id}/weather/daily": [{}, {"start": "2026-06-10", "end": "2026-06-11"}],
    "/api/v1/farms/{external_farm_id}/weather/agronomy": [{"start": "2026-06-10", "end": "2026-06-11"}],
    "/api/v1/weather/point": [{"lat": "46.0", "lon": "15.011"}],
}
"""By path, where there is more to ask for than what is told by itself."""

OPEN = {"/openapi.json", "/docs"}
"""The contract's examples are of these very farms."""


@dataclass
class Place:
    """Stores in which the story was told, and the keys of its client and of another one."""

    database_url: str
    redis_url: str
    engine: Engine
    owner: str
    intruder: str


@pytest.fixture
def place(database_url: str, redis_url: str) -> Iterator[Place]:
    tell(database_url, redis_url)
    engine = engine_for(database_url)
    with engine.begin() as connection:
        key, _ = rotate_key(
            connection, "cooperative", kind="api", overlap=timedelta(hours=1), masters=master_keys(SECRET)
        )
    yield Place(database_url, redis_url, engine, key.secret, key_of(engine, "intruder"))
    engine.dispose()


@dataclass(frozen=True)
class Asked:
    """One request to be made, of a farm."""

    endpoint: Endpoint
    query: Mapping[str, str]
    body: Any
    accept: str
    farm: uuid.UUID

    @property
    def names_a_farm(self) -> bool:
        return "{external_farm_id}" in self.endpoint.path

    async def by(self, one: Worker, key: str, **headers: str) -> httpx.Response:
        path = self.endpoint.path.replace("{external_farm_id}", str(self.farm))
        given = {"x-api-key": key, "accept": self.accept, **headers}
        return await one.http.request(
            self.endpoint.method, path, params=dict(self.query), json=self.body, headers=given
        )


def requests(farm: uuid.UUID) -> Iterator[Asked]:
    """Every route in every form that it has; one that needs a body or a query and has none here is not overlooked."""
    for each in ENDPOINTS:
        if each.path in OPEN:
            continue
        sent = bodies(farm)[each.path] if each.body_model is not None else [None]
        for query in QUERIES.get(each.path, [{}]) if each.query_model is not None else [{}]:
            for body in sent:
                for accept in each.media_types:
                    yield Asked(each, query, body, accept, farm)


def _same(answer: httpx.Response, farm: uuid.UUID) -> tuple[int, str, Any]:
    told = {name: answer.headers.get(name) for name in ("etag", "link", "cache-control", "retry-after", "location")}
    return answer.status_code, answer.text.replace(str(farm), "FARM"), told


async def _try_all(one: Worker, key: str, etags: Mapping[str, str]) -> None:
    for theirs, nobodys in zip(requests(FARM), requests(UNKNOWN), strict=True):
        for headers in ({}, {"if-none-match": etags.get(theirs.endpoint.path, "*")}, {"if-match": "*"}):
            answer = await theirs.by(one, key, **headers)
            assert answer.status_code < 500, theirs
            sent = json.dumps(theirs.body) + (str(FARM) if theirs.names_a_farm else "")
            told = answer.text + str(answer.headers)
            assert [trace for trace in TRACES if trace in told and trace not in sent] == [], theirs
            if theirs.names_a_farm:
                assert answer.status_code == 404, theirs
                assert _same(answer, FARM) == _same(await nobodys.by(one, key, **headers), UNKNOWN)


async def _seen(one: Worker, key: str) -> list[tuple[str, int, bytes, str | None]]:
    """Everything that somebody can read of the farm; current weather apart, which may change while we look."""
    found = []
    for each in requests(FARM):
        if each.endpoint.method == "GET" and each.endpoint.scope and not each.endpoint.path.endswith("/current"):
            answer = await each.by(one, key)
            found.append((each.endpoint.path, answer.status_code, answer.content, answer.headers.get("etag")))
    return found


def test_no_route_tells_of_or_changes_somebody_elses_farm(place: Place) -> None:
    """With everything in Redis, with nothing in it, without Redis, and with the tags of the owner's own answers."""

    async def run() -> None:
        async with (
            worker(place.database_url, place.redis_url, endpoints=ENDPOINTS) as cached,
            worker(place.database_url, NOBODY_THERE, endpoints=ENDPOINTS) as stored,
        ):
            before = await _seen(cached, place.owner)
            assert {status for _, status, _, _ in before} == {200, 202}
            etags = {path: etag for path, _, _, etag in before if etag}
            await _try_all(cached, place.intruder, etags)
            with redis.Redis.from_url(place.redis_url) as client:
                client.flushall()
            await _try_all(cached, place.intruder, etags)
            await _try_all(stored, place.intruder, etags)
            assert await _seen(cached, place.owner) == before

    asyncio.run(run())


def test_cursors_of_one_client_lead_another_nowhere(place: Place) -> None:
    async def run(one: Worker) -> None:
        farms = {"limit": "1", "active": "all"}
        for path, query, told, given in (
            ("/api/v1/farms/", farms, "next_cursor", "cursor"),
            ("/api/v1/changes", {"limit": "1"}, "next", "since"),
        ):
            found = await one.http.get(path, params=query, headers={"x-api-key": place.owner})
            cursor = found.json()["data"][told]
            assert cursor is not None
            answer = await one.http.get(path, params={**query, given: cursor}, headers={"x-api-key": place.intruder})
            assert answer.status_code == 200
            assert not [trace for trace in TRACES if trace in answer.text]

    async def start() -> None:
        async with worker(place.database_url, place.redis_url, endpoints=ENDPOINTS) as one:
            await run(one)

    asyncio.run(start())


def test_a_farm_given_to_a_client_is_theirs_at_once_in_the_cache_too(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    engine = engine_for(database_url)
    [farm_id] = store_farms(engine, 1)
    owner, other = key_of(engine, "owner"), key_of(engine, "other")
    with engine.connect() as connection, redis.Redis.from_url(redis_url) as client:
        publish(client, read_models(connection, [farm_id], mask_policy=POLICY))
        assert client.hget(state_key(uuid.UUID(int=1)), "client") == b""
        box = connection.execute(text("SELECT west, south, east, north FROM farms")).one()
    west, south, east, north = box
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    feature = {
        "type": "Feature",
        "properties": {"external_farm_id": str(uuid.UUID(int=1)), "name": "Given"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    file = tmp_path / "farms.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}), encoding="utf-8")

    async def read() -> list[tuple[int, str]]:
        async with worker(database_url, redis_url, endpoints=ENDPOINTS) as one:
            path = f"/api/v1/farms/{uuid.UUID(int=1)}/state"
            answers = [await one.http.get(path, headers={"x-api-key": key}) for key in (owner, other)]
            return [(answer.status_code, answer.headers["server-timing"]) for answer in answers]

    assert [status for status, _ in asyncio.run(read())] == [404, 404]
    swath = Swath({"SWATH_DATABASE_URL": database_url, "SWATH_REDIS_URL": redis_url, "SWATH_SECRET_KEY": SECRET})
    swath.ok("farms", "import", file, "--id-field", "external_farm_id", "--client", "owner")
    found = asyncio.run(read())
    assert [status for status, _ in found] == [202, 404]
    assert all('cache;desc="hit"' in timing for _, timing in found)
    engine.dispose()
