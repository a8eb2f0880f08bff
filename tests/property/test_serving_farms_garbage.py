"""Whatever is sent to the farm routes is answered in the envelope, and never by a failure of ours."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from sqlalchemy import create_engine, make_url

from infra.local.postgres import PostgresServer
from infra.local.valkey import ValkeyServer
from tests.support.api import key_of, serving
from tests.support.databases import TEMPLATE, fresh_database

FARMS = "/api/v1/farms/"
SYNC = "/api/v1/farms/sync"

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["\x00", "\u202e", "x" * 300, 1e308, -1e308, 10**30, "Polygon", ""])
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NUMBERS = st.floats(-400, 400) | st.integers(-200, 200) | SCALARS
POSITIONS = st.lists(NUMBERS, max_size=4) | st.tuples(st.floats(15, 15.01), st.floats(46, 46.01)).map(list)
RINGS = st.lists(POSITIONS, max_size=8) | ANYTHING
SOUND_RINGS = st.lists(st.tuples(st.floats(15, 15.01), st.floats(46, 46.01)).map(list), min_size=3, max_size=8)
GEOMETRIES = (
    ANYTHING
    | st.fixed_dictionaries({"type": st.just("Polygon"), "coordinates": st.lists(SOUND_RINGS, min_size=1, max_size=2)})
    | st.fixed_dictionaries(
        {
            "type": st.sampled_from(["Polygon", "MultiPolygon", "Point"]),
            "coordinates": st.lists(RINGS | st.lists(RINGS), max_size=3),
        }
    )
)
IDENTITIES = st.uuids().map(str) | st.integers(1, 5).map(lambda number: str(uuid.UUID(int=number))) | ANYTHING
SOUND = {"external_user_id": "u", "name": "n", "bbox": [15, 46, 15.01, 46.01]}
ALMOST_FARMS = st.fixed_dictionaries(
    {},
    optional={
        "external_farm_id": IDENTITIES,
        "external_user_id": st.text(max_size=10) | ANYTHING,
        "name": st.text(max_size=10) | ANYTHING,
        "geometry": GEOMETRIES,
        "bbox": st.lists(NUMBERS, min_size=3, max_size=5) | ANYTHING,
        "centroid": POSITIONS | ANYTHING,
        "is_active": st.booleans() | ANYTHING,
        "colour": ANYTHING,
    },
)
NEARLY_SOUND = st.builds(
    lambda almost, wrong, identity: SOUND | {"external_farm_id": str(identity)} | dict(list(almost.items())[:wrong]),
    ALMOST_FARMS,
    st.integers(0, 2),
    st.uuids(),
)
"""Farms of which at most two fields are wrong."""
FARM_LISTS = st.lists(ALMOST_FARMS | NEARLY_SOUND | ANYTHING, max_size=6)
BODIES = ALMOST_FARMS | NEARLY_SOUND | FARM_LISTS | st.fixed_dictionaries({"farms": FARM_LISTS | ANYTHING}) | ANYTHING
REQUESTS = st.tuples(
    st.sampled_from(["POST", "PATCH", "DELETE", "GET"]),
    st.sampled_from([FARMS, SYNC, FARMS + str(uuid.UUID(int=1))])
    | st.text("abc-019%/", max_size=10).map(lambda text: FARMS + text),
    BODIES.map(lambda body: json.dumps(body).encode()) | st.binary(max_size=40),
    st.dictionaries(
        st.sampled_from(["bbox", "limit", "cursor", "active", "external_user_id", "x"]),
        st.text(max_size=20),
        max_size=3,
    ),
)


@pytest.fixture(scope="module")
def api(postgres_server: PostgresServer, valkey_server: ValkeyServer) -> Iterator[tuple[str, str]]:
    """Address of a worker, and a key to it."""
    with fresh_database(postgres_server, template=TEMPLATE) as url:
        with Redis.from_url(valkey_server.url) as redis:
            redis.flushall()
        engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
        key = key_of(engine, "anybody")
        engine.dispose()
        with serving(url, valkey_server.url, settings={"SWATH_LIMIT_API_KEY_PER_MINUTE": "1000000"}) as worker:
            yield worker.url, key


def check(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    body: dict[str, Any] = answer.json()
    assert body.keys() == {"status", "message", "data", "errors"}
    if answer.status_code >= 400:
        assert body["status"] == "error"
        assert body["errors"]
        assert all(error["problem"] for error in body["errors"])
    else:
        assert body["status"] == "success"


# Many at once: what is random is cheap to draw and slow to send one after the other.
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(requests=st.lists(REQUESTS, min_size=1, max_size=12))
def test_garbage_is_answered_and_never_by_a_failure_of_ours(
    api: tuple[str, str], requests: list[tuple[str, str, bytes, dict[str, str]]]
) -> None:
    url, key = api

    async def run() -> list[httpx.Response]:
        headers = {"x-api-key": key, "content-type": "application/json"}
        async with httpx.AsyncClient(
            base_url=url, headers=headers, trust_env=False, verify=False, timeout=60
        ) as client:
            return await asyncio.gather(
                *(
                    client.request(method, path, content=body if method in {"POST", "PATCH"} else None, params=query)
                    for method, path, body, query in requests
                )
            )

    for answer in asyncio.run(run()):
        check(answer)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(farms=st.lists(ALMOST_FARMS | NEARLY_SOUND, min_size=1, max_size=40))
def test_every_farm_of_a_sync_is_told_what_became_of_it(api: tuple[str, str], farms: list[Any]) -> None:
    url, key = api
    with httpx.Client(base_url=url, headers={"x-api-key": key}, trust_env=False, verify=False, timeout=60) as client:
        answer = client.post(SYNC, content=json.dumps(farms).encode(), headers={"content-type": "application/json"})
    check(answer)
    assert answer.status_code in {200, 207, 409, 422}
    data = answer.json()["data"]
    if len(farms) > 1:
        assert len(data["farms"]) == len(farms)
    for each in data["farms"] if data else ():
        assert (each["outcome"] in {"rejected", "conflict"}) == bool(each["errors"])
