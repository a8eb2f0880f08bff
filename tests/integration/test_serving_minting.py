from __future__ import annotations

import asyncio
import datetime as dt
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator

import jwt
import pytest
from redis import Redis
from sqlalchemy import Engine, create_engine, make_url, text

from infra.local.home import temporary_home
from infra.local.valkey import local_valkey
from models.clients import client_id_of, create_client, revoke_client
from models.keys import master_keys
from models.principals import READ, announce
from models.shared_tokens import lock_key, token_key
from serving.database import DatabaseAway
from serving.minting import ClientEnded, Mint
from serving.resources import Resources
from tests.support.api_workers import SECRET, Worker, worker
from tests.support.archives import ROOT

MASTERS = master_keys(SECRET)
TTL, MARGIN = dt.timedelta(seconds=3600), dt.timedelta(seconds=300)
START = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)

# A worker in a process of its own: says that it is ready, waits for the word, and asks many times at once.
PROCESS = """
import asyncio, json, sys
from infra.settings import Settings
from serving.resources import Addresses, open_resources

async def run(database_url, redis_url, secret, client_id):
    addresses = Addresses(database_url=database_url, redis_url=redis_url)
    async with open_resources(Settings(secret_key=secret), addresses) as resources:
        print("ready", flush=True)
        sys.stdin.readline()
        given = await asyncio.gather(*(resources.mint.token(int(client_id), "coop") for _ in range(60)))
        counts = resources.counts
        print(json.dumps([sorted({each.token for each in given}), counts.token_mint_count,
                          counts.token_cache_hits + counts.token_cache_misses]))

asyncio.run(run(*sys.argv[1:]))
"""


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> dt.datetime:
        return self.now


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    yield made
    made.dispose()


@pytest.fixture
def client_id(engine: Engine) -> int:
    with engine.begin() as connection:
        create_client(connection, "coop", scopes=[READ], masters=MASTERS, with_signing_key=True)
        return client_id_of(connection, "coop")


def mint_of(resources: Resources, clock: Clock) -> Mint:
    return Mint(
        resources.cache,
        resources.database,
        resources.counts,
        masters=resources.masters,
        audience="swath",
        ttl=TTL,
        margin=MARGIN,
        clock=clock,
    )


async def many(mints: list[Mint], client_id: int, *, each: int = 20) -> set[str]:
    given = await asyncio.gather(*(mint.token(client_id, "coop") for mint in mints for _ in range(each)))
    return {one.token for one in given}


def stored(engine: Engine) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text("SELECT token_id, expires_at FROM integration_tokens"))]


def with_workers(
    database_url: str, redis_url: str, something: Callable[[list[Worker], list[Mint], Clock], Awaitable[None]]
) -> None:
    async def run() -> None:
        async with (
            worker(database_url, redis_url) as one,
            worker(database_url, redis_url) as two,
            worker(database_url, redis_url) as three,
        ):
            workers, clock = [one, two, three], Clock()
            await something(workers, [mint_of(each.resources, clock) for each in workers], clock)

    asyncio.run(run())


def minted(workers: list[Worker]) -> int:
    return sum(each.resources.counts.token_mint_count for each in workers)


class TestProcesses:
    def test_hundreds_of_requests_to_several_processes_make_one_token(
        self, database_url: str, redis_url: str, client_id: int
    ) -> None:
        running = [
            subprocess.Popen(
                [sys.executable, "-c", PROCESS, database_url, redis_url, SECRET, str(client_id)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        for process in running:
            assert process.stdout is not None
            while process.stdout.readline().strip() != "ready":
                assert process.poll() is None
        for process in running:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        told = [json.loads(process.communicate(timeout=60)[0].splitlines()[-1]) for process in running]
        tokens = {token for tokens, _, _ in told for token in tokens}
        assert len(tokens) == 1
        assert sum(count for _, count, _ in told) == 1
        assert [asked for _, _, asked in told] == [60, 60, 60]


class TestStores:
    def test_without_redis_the_row_in_postgres_makes_it_one(
        self, database_url: str, engine: Engine, client_id: int
    ) -> None:
        async def check(workers: list[Worker], mints: list[Mint], _clock: Clock) -> None:
            assert len(await many(mints, client_id)) == 1
            assert minted(workers) == 1

        with_workers(database_url, "redis://127.0.0.1:1", check)
        assert len(stored(engine)) == 1

    def test_when_redis_forgets_it_is_still_the_same_token(
        self, database_url: str, redis_url: str, client_id: int
    ) -> None:
        async def check(workers: list[Worker], mints: list[Mint], _clock: Clock) -> None:
            with Redis.from_url(redis_url) as redis:
                tokens = await many(mints, client_id)
                for _ in range(5):
                    asked = asyncio.create_task(many(mints, client_id))
                    await asyncio.sleep(0)
                    redis.flushall()
                    tokens |= await asked
            assert len(tokens) == 1
            assert minted(workers) == 1

        with_workers(database_url, redis_url, check)

    def test_when_redis_dies_and_comes_back_empty_it_is_still_the_same_token(
        self, database_url: str, client_id: int
    ) -> None:
        async def check(workers: list[Worker], mints: list[Mint], _clock: Clock) -> None:
            tokens = await many(mints, client_id)
            asked = asyncio.create_task(many(mints, client_id, each=60))
            await asyncio.sleep(0)
            with Redis.from_url(server.url) as redis:
                redis.shutdown(nosave=True, now=True)
            tokens |= await asked
            tokens |= await many(mints, client_id)
            with local_valkey(home):
                for _ in range(3):
                    tokens |= await many(mints, client_id)
            assert len(tokens) == 1
            assert minted(workers) == 1

        with temporary_home() as home, local_valkey(home) as server:
            with_workers(database_url, server.url, check)

    def test_a_lock_whose_holder_died_delays_but_does_not_stop(
        self, database_url: str, redis_url: str, client_id: int
    ) -> None:
        async def check(workers: list[Worker], mints: list[Mint], _clock: Clock) -> None:
            with Redis.from_url(redis_url) as redis:
                redis.set(lock_key(client_id), "somebody who is no more", px=60_000)
                assert len(await many(mints, client_id, each=3)) == 1
                assert minted(workers) == 1
                assert redis.get(lock_key(client_id)) == b"somebody who is no more"  # not ours to take away

        with_workers(database_url, redis_url, check)

    def test_while_postgres_is_away_the_token_in_redis_is_given(self, redis_url: str, client_id: int) -> None:
        async def check(workers: list[Worker], mints: list[Mint], clock: Clock) -> None:
            with Redis.from_url(redis_url) as redis:
                with pytest.raises(DatabaseAway):
                    await mints[0].token(client_id, "coop")
                assert redis.get(lock_key(client_id)) is None
                facts = {
                    "token_id": "00000000-0000-0000-0000-000000000001",
                    "generation": 1,
                    "signed_by": MASTERS.newest.id,
                    "issued_at": START.isoformat(),
                    "expires_at": (START + TTL).isoformat(),
                }
                redis.set(token_key(client_id), json.dumps(facts))
            assert len(await many(mints, client_id)) == 1

        with_workers("postgresql://nobody@127.0.0.1:1/none", redis_url, check)


class TestTime:
    def test_it_is_reused_until_the_margin_and_then_renewed_once(
        self, database_url: str, redis_url: str, client_id: int
    ) -> None:
        async def check(workers: list[Worker], mints: list[Mint], clock: Clock) -> None:
            first = await many(mints, client_id)
            clock.now = START + TTL - MARGIN
            assert await many(mints, client_id) == first
            clock.now += dt.timedelta(seconds=1)
            second = await many(mints, client_id)
            assert len(second) == 1
            assert second != first
            assert minted(workers) == 2

        with_workers(database_url, redis_url, check)

    def test_whatever_is_given_is_good_for_the_margin(self, database_url: str, redis_url: str, client_id: int) -> None:
        async def check(_workers: list[Worker], mints: list[Mint], clock: Clock) -> None:
            for _ in range(30):
                given = await mints[0].token(client_id, "coop")
                said = jwt.decode(given.token, options={"verify_signature": False})
                assert said["exp"] == int(given.expires_at.timestamp())
                assert given.expires_at - clock.now >= MARGIN
                clock.now += dt.timedelta(seconds=611)

        with_workers(database_url, redis_url, check)

    def test_redis_keeps_it_no_longer_than_it_is_given(self, database_url: str, redis_url: str, client_id: int) -> None:
        async def check(_workers: list[Worker], mints: list[Mint], _clock: Clock) -> None:
            await mints[0].token(client_id, "coop")
            with Redis.from_url(redis_url) as redis:
                assert 3_290 < redis.ttl(token_key(client_id)) <= 3_300

        with_workers(database_url, redis_url, check)

    def test_hits_and_misses_are_counted(self, database_url: str, redis_url: str, client_id: int) -> None:
        async def check(workers: list[Worker], mints: list[Mint], _clock: Clock) -> None:
            for mint in mints:
                for _ in range(4):
                    await mint.token(client_id, "coop")
            counts = [each.resources.counts for each in workers]
            assert [each.token_cache_misses for each in counts] == [1, 0, 0]
            assert [each.token_cache_hits for each in counts] == [3, 4, 4]

        with_workers(database_url, redis_url, check)


class TestEnds:
    def test_a_revoked_client_gets_none_and_none_is_left_behind(
        self, database_url: str, redis_url: str, engine: Engine, client_id: int
    ) -> None:
        async def check(_workers: list[Worker], mints: list[Mint], _clock: Clock) -> None:
            await many(mints, client_id)
            with engine.begin() as connection:
                outdated = revoke_client(connection, "coop")
            with Redis.from_url(redis_url) as redis:
                announce(redis, outdated)
            for mint in mints:
                with pytest.raises(ClientEnded):
                    await mint.token(client_id, "coop")

        with_workers(database_url, redis_url, check)
        assert stored(engine) == []

    def test_a_mint_waits_for_a_revocation_that_has_begun(
        self, database_url: str, redis_url: str, engine: Engine, client_id: int
    ) -> None:
        """Otherwise a token of the ended generation could be stored after its row was taken away."""

        async def check(_workers: list[Worker], mints: list[Mint], _clock: Clock) -> None:
            with engine.begin() as connection:
                revoke_client(connection, "coop")
                asked = asyncio.create_task(mints[0].token(client_id, "coop"))
                await asyncio.sleep(0.3)
                assert not asked.done()
            with pytest.raises(ClientEnded):
                await asked

        with_workers(database_url, redis_url, check)
        assert stored(engine) == []

    def test_tokens_of_a_master_secret_that_is_taken_away_are_replaced(
        self, database_url: str, redis_url: str, client_id: int
    ) -> None:
        async def check(workers: list[Worker], mints: list[Mint], clock: Clock) -> None:
            first = await many(mints, client_id)
            resources = workers[0].resources
            other = Mint(
                resources.cache,
                resources.database,
                resources.counts,
                masters=master_keys("another secret of thirty-two characters"),
                audience="swath",
                ttl=TTL,
                margin=MARGIN,
                clock=clock,
            )
            assert (await other.token(client_id, "coop")).token not in first

        with_workers(database_url, redis_url, check)
