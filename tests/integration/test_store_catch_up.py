"""Redis catches up with what it missed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from redis import Redis

from models.farms import upsert_farms
from models.readmodel import catch_up, state_key
from tests.support.shapes import draft

POLICY = "scl-4.5.6.7.11-d0-v1"


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(sa.make_url(database_url).set(drivername="postgresql+psycopg"))
    yield engine
    engine.dispose()


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


def caught_up(engine: sa.Engine, client: Redis) -> int:
    with engine.connect() as connection:
        return catch_up(connection, client, mask_policy=POLICY)


def test_an_empty_redis_gets_all_farms_and_then_only_what_changed(engine: sa.Engine, client: Redis) -> None:
    one, two = draft(1), draft(2)
    with engine.begin() as connection:
        upsert_farms(connection, [one, two])
    assert caught_up(engine, client) == 2
    assert caught_up(engine, client) == 0
    before = client.hget(state_key(two.external_farm_id), "revision")
    with engine.begin() as connection:
        upsert_farms(connection, [draft(2, name="renamed")])
    assert caught_up(engine, client) == 1
    assert int(client.hget(state_key(two.external_farm_id), "revision") or 0) > int(before or 0)


def test_a_redis_that_lost_everything_gets_everything_again(engine: sa.Engine, client: Redis) -> None:
    with engine.begin() as connection:
        upsert_farms(connection, [draft(1), draft(2)])
    caught_up(engine, client)
    client.flushall()
    assert caught_up(engine, client) == 2


def test_without_farms_there_is_nothing_to_publish(engine: sa.Engine, client: Redis) -> None:
    assert caught_up(engine, client) == 0
