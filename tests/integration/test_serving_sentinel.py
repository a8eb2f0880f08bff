"""The primary of Redis dies, or hangs, while readers ask: Postgres answers, until Sentinel has another primary."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import text

from infra.local.postgres import PostgresServer
from infra.stores import redis_client
from models.observations import save_observations
from models.readmodel import publish, read_models
from serving.breaker import Breaker
from serving.cache import Cache, open_redis
from tests.support.api import Api, key_of, serving
from tests.support.databases import TEMPLATE, fresh_database
from tests.support.facts import POLICY, engine_for, observed, store_farms
from tests.support.readers import Readers, readers
from tests.support.sentinels import Node, Watched, watched_redis

STATE = f"/api/v1/farms/{uuid.UUID(int=1)}/state"
QUIET = {"SWATH_LOG_LEVEL": "ERROR", "SWATH_LIMIT_API_KEY_PER_MINUTE": "10000000"}
LONGEST_ANSWER_S = 20.0
"""Far more than any takes: this is about readers who are never left without an answer."""


@dataclass
class Place:
    """A worker on a Redis that Sentinels watch."""

    watched: Watched
    api: Api
    key: str


@pytest.fixture(scope="module")
def place(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        watched = stack.enter_context(watched_redis(tmp_path_factory.mktemp("sentinels")))
        url = stack.enter_context(fresh_database(postgres_server, template=TEMPLATE))
        engine = engine_for(url)
        [farm_id] = store_farms(engine, 1)
        key = key_of(engine, "ours")
        with engine.begin() as connection:
            connection.execute(text("UPDATE farms SET client_id = (SELECT id FROM clients)"))
            save_observations(connection, [observed(farm_id)])
        with engine.connect() as connection, contextlib.closing(redis_client(watched.url)) as client:
            assert publish(client, read_models(connection, [farm_id], mask_policy=POLICY)) == 1
            client.execute_command("WAIT", 1, 10_000)
        engine.dispose()
        yield Place(watched, stack.enter_context(serving(url, watched.url, settings=QUIET)), key)


def test_a_primary_that_hands_over_is_left_for_the_next(place: Place) -> None:
    failed_over(place, lambda _before: place.watched.hand_over())


def test_the_primary_is_killed_and_every_reader_is_answered(place: Place) -> None:
    group = failed_over(place, lambda before: before.process.kill())
    assert group.seen["200 away"]


def test_the_primary_hangs_and_every_reader_is_answered(place: Place) -> None:
    group = failed_over(place, lambda before: os.kill(before.process.pid, signal.SIGSTOP), needs_replica=False)
    assert group.seen["200 away"]


def test_sentinels_that_hang_or_are_gone_keep_nobody_waiting(place: Place) -> None:
    first, second, _ = place.watched.sentinels
    os.kill(first.process.pid, signal.SIGSTOP)
    second.process.kill()

    async def ask() -> None:
        client = open_redis(place.watched.url)
        assert await Cache(client, Breaker("redis")).ask(lambda redis: redis.ping())
        await client.aclose()

    asyncio.run(ask())
    with contextlib.closing(redis_client(place.watched.url)) as client:
        assert client.ping()


def failed_over(place: Place, trouble: Callable[[Node], object], *, needs_replica: bool = True) -> Readers:
    """Let readers ask through this trouble of the primary until the next one answers them."""
    before = place.watched.primary()
    with readers(place.api, place.key, STATE, count=4, pause_s=0.02) as group:
        group.wait_for("200 hit")
        trouble(before)
        place.watched.wait_until_settled(without=before, needs_replica=needs_replica)
        after = place.watched.primary()
        enough = after.scripts_run() + 40
        while after.scripts_run() < enough:
            group.wait_for("200 hit", more=10)
    assert set(group.seen) <= {"200 hit", "200 away", "200 miss"}
    assert max(each.seconds for each in group.told) < LONGEST_ANSWER_S
    with contextlib.closing(redis_client(place.watched.url)) as client:
        assert client.set("after", b"1")
    return group
