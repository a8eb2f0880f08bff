"""Stores that stop, and hang, and come back, while readers go on asking a worker over HTTP."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
import redis
from sqlalchemy import text

from infra.local.home import temporary_home
from infra.local.postgres import PostgresServer, local_postgres
from infra.local.valkey import local_valkey
from models.observations import save_observations
from models.readmodel import publish, read_models
from models.schema import upgrade
from tests.support.api import Api, key_of, serving
from tests.support.facts import POLICY, engine_for, observed, store_farms
from tests.support.readers import Readers, readers

CACHED = f"/api/v1/farms/{uuid.UUID(int=1)}/state"
SERIES = f"/api/v1/farms/{uuid.UUID(int=1)}/ndvi"


@dataclass
class Servers:
    """Stores that a test may stop, and a worker before them."""

    home: Path
    api: Api
    key: str
    valkey: contextlib.ExitStack
    postgres: contextlib.ExitStack

    def stop_redis(self) -> None:
        self.valkey.close()

    def start_redis(self) -> None:
        self.valkey.enter_context(local_valkey(self.home))

    def stop_postgres(self) -> None:
        self.postgres.close()

    def start_postgres(self) -> None:
        self.postgres.enter_context(local_postgres(self.home, durable=False))

    @contextlib.contextmanager
    def hanging_postgres(self) -> Iterator[None]:
        """Stop it in the middle of its work, the one that starts the others first."""
        file = self.home / "postgres" / "data" / "postmaster.pid"
        first = psutil.Process(int(file.read_text().split()[0]))
        first.suspend()
        others = first.children(recursive=True)
        try:
            for process in others:
                process.suspend()
            yield
        finally:
            for process in (*others, first):
                process.resume()

    def readers(self, path: str, count: int = 8) -> contextlib.AbstractContextManager[Readers]:
        return readers(self.api, self.key, path, count=count)


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with contextlib.ExitStack() as rest, contextlib.ExitStack() as valkey, contextlib.ExitStack() as postgres:
        home = rest.enter_context(temporary_home())
        database: PostgresServer = postgres.enter_context(local_postgres(home, durable=False))
        cache = valkey.enter_context(local_valkey(home))
        upgrade(database.url)
        engine = engine_for(database.url)
        [farm_id] = store_farms(engine, 1)
        key = key_of(engine, "ours")
        with engine.begin() as connection:
            connection.execute(text("UPDATE farms SET client_id = (SELECT id FROM clients)"))
            save_observations(connection, [observed(farm_id)])
        with engine.connect() as connection, redis.Redis.from_url(cache.url) as client:
            publish(client, read_models(connection, [farm_id], mask_policy=POLICY))
        engine.dispose()
        settings = {"SWATH_LOG_LEVEL": "ERROR", "SWATH_LIMIT_API_KEY_PER_MINUTE": "10000000"}
        api = rest.enter_context(serving(database.url, cache.url, settings=settings))
        yield Servers(home, api, key, valkey, postgres)


def store_of(servers: Servers, name: str) -> bool:
    told = httpx.get(f"{servers.api.url}/readyz", trust_env=False, timeout=30).json()["data"]
    return bool(told["stores"][name]["is_up"])


def test_redis_stops_and_postgres_answers_every_reader(servers: Servers) -> None:
    with servers.readers(CACHED) as group:
        group.wait_for("200 hit")
        servers.stop_redis()
        group.wait_for("200 away")
        assert not store_of(servers, "redis")
        servers.start_redis()
        group.wait_for("200 hit")
        assert store_of(servers, "redis")
    assert {kind.split()[0] for kind in group.seen} == {"200"}


def test_redis_hangs_and_readers_do_not_pile_up_behind_it(servers: Servers) -> None:
    with redis.Redis.from_url(f"unix://{_socket(servers)}") as client:
        pid = client.info()["process_id"]
    with servers.readers(CACHED) as group:
        group.wait_for("200 hit")
        os.kill(pid, signal.SIGSTOP)
        try:
            group.wait_for("200 away", more=100)
        finally:
            os.kill(pid, signal.SIGCONT)
        group.wait_for("200 hit")
    assert {kind.split()[0] for kind in group.seen} == {"200"}


def _socket(servers: Servers) -> Path:
    with local_valkey(servers.home) as server:
        return server.socket


def test_postgres_stops_and_cached_reads_go_on(servers: Servers) -> None:
    with servers.readers(CACHED) as cached, servers.readers(SERIES, count=4) as series:
        cached.wait_for("200 hit")
        series.wait_for("200 hit")
        servers.stop_postgres()
        series.wait_for("503 hit")
        cached.wait_for("200 hit", more=200)
        assert not store_of(servers, "postgres")
        servers.start_postgres()
        series.wait_for("200 hit")
        assert store_of(servers, "postgres")
    assert {kind.split()[0] for kind in cached.seen} == {"200"}
    assert {kind.split()[0] for kind in series.seen} == {"200", "503"}


def test_postgres_hangs_and_cached_reads_go_on(servers: Servers) -> None:
    with servers.readers(CACHED) as cached, servers.readers(SERIES, count=4) as series:
        series.wait_for("200 hit")
        with servers.hanging_postgres():
            series.wait_for("503 hit")
            cached.wait_for("200 hit", more=200)
            assert not store_of(servers, "postgres")
        series.wait_for("200 hit")
        assert store_of(servers, "postgres")
    assert {kind.split()[0] for kind in cached.seen} == {"200"}
    assert {kind.split()[0] for kind in series.seen} == {"200", "503"}


def test_with_both_away_the_worker_lives_and_says_so(servers: Servers) -> None:
    servers.stop_redis()
    servers.stop_postgres()
    with servers.api.client(servers.key) as client:
        answer = client.get(CACHED)
        assert (answer.status_code, answer.json()["status"]) == (503, "error")
        assert answer.headers["retry-after"]
        assert answer.headers["x-request-id"]
        assert client.get("/healthz").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["data"]["status"]) == (503, "away")
        servers.start_postgres()
        servers.start_redis()
    with servers.readers(CACHED) as group:
        group.wait_for("200 hit")
