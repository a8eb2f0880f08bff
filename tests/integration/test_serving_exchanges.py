"""What a cached read costs Redis: one command that a client sends, whatever is told by it."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter

import pytest
import redis
from sqlalchemy import text

from models.observations import save_observations
from models.readmodel import publish, read_models
from serving.app import ENDPOINTS
from tests.support.api import key_of
from tests.support.api_workers import worker
from tests.support.facts import POLICY, engine_for, observed, store_farms

FARM = f"/api/v1/farms/{uuid.UUID(int=1)}"
READS = 10


@pytest.mark.parametrize("path", [f"{FARM}/state", f"{FARM}/ndvi/latest", f"{FARM}/ndvi"])
def test_a_cached_read_is_one_exchange(database_url: str, redis_url: str, path: str) -> None:
    engine = engine_for(database_url)
    [farm_id] = store_farms(engine, 1)
    key = key_of(engine, "ours")
    with engine.begin() as connection:
        connection.execute(text("UPDATE farms SET client_id = (SELECT id FROM clients)"))
        save_observations(connection, [observed(farm_id)])
    with engine.connect() as connection, redis.Redis.from_url(redis_url) as client:
        publish(client, read_models(connection, [farm_id], mask_policy=POLICY))
    engine.dispose()
    sent: Counter[str] = Counter()

    async def read() -> None:
        async with worker(database_url, redis_url, endpoints=ENDPOINTS) as one:
            first = await one.http.get(path, headers={"x-api-key": key})
            with redis.Redis.from_url(redis_url) as client, client.monitor() as monitor:
                client.ping()
                while monitor.next_command()["command"] != "PING":
                    pass
                for again in range(READS):
                    tag = {"if-none-match": first.headers["etag"]} if again % 2 else {}
                    answer = await one.http.get(path, headers={"x-api-key": key, **tag})
                    assert answer.status_code == (304 if again % 2 else 200)
                    assert 'cache;desc="hit"' in answer.headers["server-timing"]
                client.ping()
                while (seen := monitor.next_command())["command"] != "PING":
                    if seen["client_type"] != "lua":
                        sent[seen["command"].split()[0]] += 1

    asyncio.run(read())
    assert sent == {"EVALSHA": READS}
