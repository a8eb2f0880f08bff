"""The metrics page of two real workers on real stores: exact, whatever becomes of a worker, and for nothing."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from redis import Redis

from infra.local.postgres import PostgresServer
from infra.local.valkey import ValkeyServer
from infra.settings import load_settings
from models.errors import BadInput
from serving.metrics import READS, REQUESTS
from tests.support.api import key_of
from tests.support.api_workers import worker
from tests.support.databases import TEMPLATE, fresh_database
from tests.support.facts import engine_for
from tests.support.figures import Figures, label_values, value
from tests.support.served import Served, served

FARM = "/api/v1/farms/01890000-0000-7000-8000-000000000001/state"
STATE = "/api/v1/farms/{external_farm_id}/state"
TOKEN = "a token of some length"


@pytest.fixture(scope="module")
def own_database(postgres_server: PostgresServer) -> Iterator[str]:
    with fresh_database(postgres_server, template=TEMPLATE) as url:
        yield url


@pytest.fixture(scope="module")
def api(own_database: str, valkey_server: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    stores = {"SWATH_DATABASE_URL": own_database, "SWATH_REDIS_URL": valkey_server.url}
    logs = {"SWATH_LOG_JSON": "true", "SWATH_LOG_LEVEL": "INFO"}
    with served(tmp_path_factory.mktemp("serve"), workers=2, **stores, **logs) as running:
        yield running


def requests(page: Figures, **labels: str) -> float:
    """Requests with these labels, of all others together."""
    return sum(
        told for (name, has), told in page.items() if name == f"{REQUESTS}_count" and set(labels.items()) <= set(has)
    )


def reached(api: Served, expected: float, **labels: str) -> Figures:
    """The page once it tells this many requests: one is counted right after its answer has left."""
    until(lambda: requests(api.figures(), **labels) >= expected)
    page = api.figures()
    assert requests(page, **labels) == expected
    return page


def test_every_request_of_every_worker_is_told(api: Served) -> None:
    before = requests(api.figures(), route="/healthz")
    for _ in range(25):
        assert api.ask("/healthz") == 200
    reached(api, before + 25, route="/healthz")


def test_paths_and_methods_that_there_are_not_make_no_label(api: Served) -> None:
    assert api.ask("/nowhere") == 404
    assert api.ask("/healthz", method="PUT") == 405
    until(lambda: requests(api.figures(), route="/healthz", method="other") > 0)
    before = api.figures()
    for number in range(20):
        assert api.ask(f"/api/v1/{number}/../x?y={number}") == 404
        assert api.ask("/healthz", method=("PUT", "LOCK", "PROPFIND")[number % 3]) == 405
    reached(api, requests(before, route="none") + 20, route="none")
    after = reached(api, requests(before, route="/healthz", method="other") + 20, route="/healthz", method="other")
    for label in ("route", "method", "status", "scope"):
        assert label_values(after, label) == label_values(before, label)


def test_a_killed_worker_takes_no_count_along_and_its_successor_doubles_none(api: Served) -> None:
    before = requests(api.figures(), route="/healthz", status="2xx")
    for _ in range(10):
        assert api.ask("/healthz") == 200
    reached(api, before + 10, route="/healthz", status="2xx")
    dead = api.workers[0]
    number = dead.cmdline()[-1]
    dead.kill()
    until(lambda: len(api.workers) == 2 and dead.pid not in {each.pid for each in api.workers})
    until(lambda: value(api.figures(), "swath_worker_silent_seconds", worker=number) < 1.5)
    reached(api, before + 10, route="/healthz", status="2xx")
    for _ in range(10):
        assert api.ask("/healthz") == 200
    reached(api, before + 20, route="/healthz", status="2xx")
    assert {name for name, labels in api.figures() if ("worker", "2") in labels} == set()


def test_with_all_workers_stuck_the_page_is_told_and_shows_it(api: Served) -> None:
    stuck = api.workers
    for each in stuck:
        each.send_signal(signal.SIGSTOP)
    try:
        until(lambda: value(api.figures(), "swath_worker_silent_seconds", worker="1") > 2)
    finally:
        for each in stuck:
            each.send_signal(signal.SIGCONT)
    until(lambda: value(api.figures(), "swath_worker_silent_seconds", worker="1") < 2)


def test_what_a_caller_did_is_told_by_read_limit_and_pool(api: Served, own_database: str) -> None:
    engine = engine_for(own_database)
    key = key_of(engine, "reader", "read")
    engine.dispose()
    before = api.figures()
    assert api.ask(FARM, x_api_key=key) == 404
    known = {"route": STATE, "method": "GET"}
    page = reached(api, requests(before, **known) + 1, **known)
    assert value(page, READS, **known, cache="miss") == value(before, READS, **known, cache="miss") + 1
    assert value(page, "swath_pool_connections_max") == 16
    assert value(page, "swath_breaker_open_workers", store="postgres") == 0
    for name in ("token_cache_hits", "token_cache_misses", "token_mint_count", "swath_single_flight_waits_total"):
        assert (name, frozenset()) in page


def test_a_scrape_asks_neither_postgres_nor_redis(api: Served, own_database: str, valkey_server: ValkeyServer) -> None:
    """While the background looks, which it does each 15 s, one cannot tell: then it is tried again."""
    api.page()
    with Redis.from_url(valkey_server.url) as redis, psycopg.connect(own_database, autocommit=True) as connection:

        def done() -> tuple[object, int]:
            [(statements,)] = connection.execute(_STATEMENTS).fetchall()
            commands = redis.info("commandstats")
            return statements, sum(told["calls"] for name, told in commands.items() if name != "cmdstat_info")

        for _ in range(3):
            before = done()
            for _ in range(100):
                api.page()
            after = done()
            if after == before:
                return
    assert after == before


_STATEMENTS = """
SELECT array_agg((pid, query_start) ORDER BY pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
"""Every statement of anybody else moves one of them."""


def test_a_request_leaves_one_line_that_tells_who_and_what_but_no_key(api: Served, own_database: str) -> None:
    engine = engine_for(own_database)
    key = key_of(engine, "line-reader", "read")
    engine.dispose()
    assert api.ask(FARM, x_api_key=key, x_request_id="request-of-the-line") == 404

    def found() -> list[dict[str, object]]:
        lines = [json.loads(line) for line in api.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("request_id") == "request-of-the-line"]

    until(lambda: bool(found()))
    [line] = found()
    assert line["route"] == STATE
    assert line["status"] == 404
    assert line["client"] == "line-reader"
    assert isinstance(line["ms"], float)
    assert key not in api.log.read_text()
    assert key.rpartition("_")[2] not in api.log.read_text()


def test_callers_that_say_nothing_keep_nobody_from_the_page(api: Served) -> None:
    assert api.metrics is not None
    silent = [socket.create_connection(api.metrics) for _ in range(5)]
    try:
        assert b"swath_http_request_seconds" in api.page()
    finally:
        for each in silent:
            each.close()


def test_as_part_of_the_app_it_is_for_who_has_its_token(database_url: str, redis_url: str) -> None:
    async def asked() -> None:
        async with worker(database_url, redis_url, metrics="app", metrics_token=TOKEN) as app:
            assert (await app.http.get("/open")).status_code == 200
            refused = await app.http.get("/metrics")
            assert refused.status_code == 401
            assert (await app.http.get("/metrics", headers={"authorization": f"Bearer {TOKEN}x"})).status_code == 401
            page = await app.http.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert '_count{route="/open",method="GET",status="2xx"} 1' in page.text

    asyncio.run(asked())


def test_unless_the_settings_say_so_it_is_no_part_of_the_app(database_url: str, redis_url: str) -> None:
    async def asked() -> None:
        async with worker(database_url, redis_url) as app:
            assert (await app.http.get("/metrics")).status_code == 404

    asyncio.run(asked())


def test_as_part_of_the_app_it_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWATH_METRICS", "app")
    with pytest.raises(BadInput, match="SWATH_METRICS_TOKEN"):
        load_settings()


def until(is_so: object, *, within_s: float = 30) -> None:
    """Wait until something is so."""
    assert callable(is_so)
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)
