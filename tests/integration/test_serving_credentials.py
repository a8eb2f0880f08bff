from __future__ import annotations

import asyncio
import datetime as dt
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from redis import Redis
from sqlalchemy import Engine, create_engine, make_url, text

from models.clients import API, HMAC, NewKey, create_client, revoke_client, revoke_key, rotate_key
from models.keys import master_keys
from models.principals import ADMIN, READ, WRITE_FARMS, Outdated, announce, key_record
from serving.signatures import WINDOW_S
from serving.tokens import Claims, signed
from tests.support.api_workers import SECRET, TOKEN_PATH, Worker, signed_headers, worker

MASTERS = master_keys(SECRET)


@dataclass
class Office:
    """Where clients are made and ended, as the command line does it."""

    engine: Engine
    redis: Redis

    def create(self, name: str = "coop", *scopes: str) -> tuple[NewKey, NewKey]:
        with self.engine.begin() as connection:
            api, signing = create_client(
                connection, name, scopes=scopes or (READ, WRITE_FARMS), masters=MASTERS, with_signing_key=True
            )
        return api, signing

    def change(self, make: Callable[..., Outdated], *arguments: Any, is_told: bool = True) -> None:
        with self.engine.begin() as connection:
            outdated = make(connection, *arguments)
        if is_told:
            announce(self.redis, outdated)

    def rotate(self, name: str, overlap: dt.timedelta) -> NewKey:
        with self.engine.begin() as connection:
            key, outdated = rotate_key(connection, name, kind=API, overlap=overlap, masters=MASTERS)
        announce(self.redis, outdated)
        return key


@pytest.fixture
def office(database_url: str, redis_url: str) -> Iterator[Office]:
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    with Redis.from_url(redis_url) as client:
        yield Office(engine, client)
    engine.dispose()


@pytest.fixture
def two(database_url: str, redis_url: str) -> Callable[[Callable[[Worker, Worker], Awaitable[None]]], None]:
    """Runs something with two workers on the same stores."""

    def run(something: Callable[[Worker, Worker], Awaitable[None]]) -> None:
        async def both() -> None:
            async with worker(database_url, redis_url) as one, worker(database_url, redis_url) as other:
                await something(one, other)

        asyncio.run(both())

    return run


Two = Callable[[Callable[[Worker, Worker], Awaitable[None]]], None]


async def who(worker: Worker, key: str | None = None, *, token: str | None = None) -> Any:
    headers = {"X-API-Key": key} if key else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    answer = await worker.http.get("/who", headers=headers)
    return answer.json()["data"] if answer.status_code == 200 else answer.status_code


async def token_of(worker: Worker, key: NewKey) -> str:
    answer = await worker.http.post(TOKEN_PATH, headers=signed_headers(key))
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert data["token_type"] == "Bearer"
    return str(data["access_token"])


class TestApiKeys:
    def test_a_key_tells_who_it_is(self, office: Office, two: Two) -> None:
        api, _ = office.create("coop", READ)

        async def check(one: Worker, other: Worker) -> None:
            for each in (one, other, one):
                assert await who(each, api.secret) == {"client": "coop", "scopes": ["read"], "by": "api_key"}

        two(check)

    def test_the_right_prefix_with_another_secret_opens_nothing(self, office: Office, two: Two) -> None:
        api, _ = office.create()
        guessed = f"swk_{api.prefix}_{secrets.token_urlsafe(32)}"

        async def check(one: Worker, other: Worker) -> None:
            assert await who(one, guessed) == 401  # before the record is in Redis, and after
            assert await who(one, api.secret) != 401
            assert await who(other, guessed) == 401

        two(check)

    @pytest.mark.parametrize(
        "key", ["", "swk_", "x" * 60, "swk_0123456789ab_" + "ä" * 43, "swk_0123456789ab_" + "a" * 43]
    )
    def test_what_is_no_key_of_ours_is_401_in_the_envelope(self, two: Two, key: str) -> None:
        async def check(one: Worker, _other: Worker) -> None:
            answer = await one.http.get("/who", headers=[(b"x-api-key", key.encode())])
            assert answer.status_code == 401
            assert answer.json()["status"] == "error"
            assert "ApiKey" in answer.headers["www-authenticate"]
            assert len(key) < 5 or key not in answer.text

        two(check)

    def test_a_revoked_key_is_worth_nothing_at_once_in_all_workers(self, office: Office, two: Two) -> None:
        api, _ = office.create()

        async def check(one: Worker, other: Worker) -> None:
            for each in (one, other):
                assert (await who(each, api.secret))["client"] == "coop"
            await asyncio.to_thread(office.change, revoke_key, "coop", api.prefix)
            assert [await who(each, api.secret) for each in (one, other)] == [401, 401]

        two(check)

    def test_a_worker_that_had_just_read_a_key_cannot_bring_it_back(self, office: Office, two: Two) -> None:
        """It writes what it read before the revocation only now."""
        api, _ = office.create()

        async def check(one: Worker, other: Worker) -> None:
            presented = one.resources.gate.doorkeeper.presented({b"x-api-key": api.secret.encode()})
            assert presented is not None
            record = await one.resources.gate.doorkeeper.record(presented, one.resources.database)
            assert record is not None
            await asyncio.to_thread(office.change, revoke_key, "coop", api.prefix)
            await one.resources.gate._keep(presented.record_key, record)
            assert [await who(each, api.secret) for each in (one, other)] == [401, 401]

        two(check)

    def test_a_key_revoked_while_redis_was_away_does_not_come_back_with_it(self, office: Office, two: Two) -> None:
        api, _ = office.create()

        async def check(one: Worker, other: Worker) -> None:
            await who(one, api.secret)
            await asyncio.to_thread(office.change, revoke_key, "coop", api.prefix, is_told=False)
            record = key_record(API, api.prefix)
            kept = office.redis.get(record)
            assert isinstance(kept, bytes)
            office.redis.set(record, b"1|" + kept.partition(b"|")[2])  # its minute of trust is over
            assert await who(other, api.secret) == 401
            assert office.redis.get(record) == b""

        two(check)

    def test_after_rotation_both_keys_open_until_the_overlap_ends(self, office: Office, two: Two) -> None:
        api, _ = office.create()

        async def check(one: Worker, other: Worker) -> None:
            await who(one, api.secret)
            new = await asyncio.to_thread(office.rotate, "coop", dt.timedelta(hours=1))
            for key in (api, new):
                assert (await who(other, key.secret))["client"] == "coop"
            newest = await asyncio.to_thread(office.rotate, "coop", dt.timedelta(0))
            assert [await who(each, key.secret) for key in (api, new) for each in (one, other)] == [401] * 4
            assert (await who(one, newest.secret))["client"] == "coop"

        two(check)

    def test_a_cached_key_ends_with_its_overlap_and_not_with_the_cache(self, office: Office, two: Two) -> None:
        api, _ = office.create()
        with office.engine.begin() as connection:
            connection.execute(text("UPDATE client_keys SET expires_at = now() + interval '1 h' WHERE kind = 'api'"))

        async def check(one: Worker, _other: Worker) -> None:
            assert (await who(one, api.secret))["client"] == "coop"
            record = key_record(API, api.prefix)
            stamp, _, facts = office.redis.get(record).partition(b"|")
            told = orjson.loads(facts)
            assert 3500 < told["expires_at"] - time.time() <= 3600
            office.redis.set(record, stamp + b"|" + orjson.dumps(told | {"expires_at": time.time() - 0.01}))
            assert await who(one, api.secret) == 401

        two(check)

    def test_two_credentials_at_once_are_one_too_many(self, office: Office, two: Two) -> None:
        api, signing = office.create()

        async def check(one: Worker, _other: Worker) -> None:
            assert await who(one, api.secret, token=await token_of(one, signing)) == 400

        two(check)

    def test_an_api_key_as_a_bearer_token_is_told_where_it_belongs(self, office: Office, two: Two) -> None:
        api, _ = office.create()

        async def check(one: Worker, _other: Worker) -> None:
            answer = await one.http.get("/who", headers={"Authorization": f"Bearer {api.secret}"})
            assert answer.json()["errors"][0]["allowed"] == "API keys by X-API-Key"
            assert api.secret not in answer.text
            for scheme in ("Basic YTpi", "Bearer", "Bearer "):
                assert (await one.http.get("/who", headers={"Authorization": scheme})).status_code == 401

        two(check)

    def test_while_redis_is_away_postgres_tells_who_it_is(self, office: Office, database_url: str) -> None:
        api, _ = office.create()

        async def run() -> None:
            async with worker(database_url, "redis://127.0.0.1:1") as alone:
                assert (await who(alone, api.secret))["client"] == "coop"
                await asyncio.to_thread(office.change, revoke_client, "coop")
                assert await who(alone, api.secret) == 401

        asyncio.run(run())


class TestTokens:
    def test_the_shared_token_opens_the_api_without_administering(self, office: Office, two: Two) -> None:
        _, signing = office.create("coop", READ, WRITE_FARMS, ADMIN)

        async def check(one: Worker, other: Worker) -> None:
            token = await token_of(one, signing)
            for each in (one, other):
                found = await who(each, token=token)
                assert found == {"client": "coop", "scopes": ["farms:write", "read"], "by": "jwt"}

        two(check)

    def test_a_token_is_no_more_than_its_client_may(self, office: Office, two: Two) -> None:
        _, signing = office.create("coop", READ)

        async def check(one: Worker, _other: Worker) -> None:
            assert (await who(one, token=await token_of(one, signing)))["scopes"] == ["read"]

        two(check)

    @pytest.mark.parametrize("ends_all", [True, False])
    def test_with_its_client_or_its_key_the_token_ends_at_once_in_all_workers(
        self, office: Office, two: Two, ends_all: bool
    ) -> None:
        _, signing = office.create()

        async def check(one: Worker, other: Worker) -> None:
            token = await token_of(one, signing)
            assert [(await who(each, token=token))["client"] for each in (one, other)] == ["coop", "coop"]
            end = (revoke_client, "coop") if ends_all else (revoke_key, "coop", signing.prefix)
            await asyncio.to_thread(office.change, *end)
            assert [await who(each, token=token) for each in (one, other)] == [401, 401]
            for each in (one, other):
                assert (await each.http.post(TOKEN_PATH, headers=signed_headers(signing))).status_code == 401

        two(check)

    def test_after_one_signing_key_is_revoked_another_gets_a_token_of_its_own_time(
        self, office: Office, two: Two
    ) -> None:
        _, signing = office.create()
        with office.engine.begin() as connection:
            newer, outdated = rotate_key(connection, "coop", kind=HMAC, overlap=dt.timedelta(days=1), masters=MASTERS)
        announce(office.redis, outdated)

        async def check(one: Worker, other: Worker) -> None:
            old = await token_of(one, signing)
            await asyncio.to_thread(office.change, revoke_key, "coop", signing.prefix)
            new = await token_of(other, newer)
            assert new != old
            assert await who(one, token=old) == 401
            assert (await who(one, token=new))["client"] == "coop"

        two(check)

    def test_a_token_of_a_client_that_never_was_opens_nothing(self, two: Two) -> None:
        now = dt.datetime.now(dt.UTC)
        claims = Claims(
            client="nobody",
            token_id=uuid.uuid4(),
            generation=1,
            issued_at=now,
            expires_at=now + dt.timedelta(hours=1),
        )

        async def check(one: Worker, _other: Worker) -> None:
            assert await who(one, token=signed(claims, MASTERS.newest, audience="swath")) == 401

        two(check)


class TestSignedRequests:
    def test_a_nonce_works_once_in_all_workers_together(self, office: Office, two: Two) -> None:
        _, signing = office.create()

        async def check(one: Worker, other: Worker) -> None:
            headers = signed_headers(signing)
            answers = await asyncio.gather(
                *(each.http.post(TOKEN_PATH, headers=headers) for each in (one, other) for _ in range(10))
            )
            assert sorted(answer.status_code for answer in answers) == [200] + [401] * 19
            refused = next(answer for answer in answers if answer.status_code == 401)
            assert refused.json()["errors"][0]["problem"] == "was used before"

        two(check)

    def test_it_stays_used_when_redis_forgets(self, office: Office, two: Two) -> None:
        _, signing = office.create()

        async def check(one: Worker, other: Worker) -> None:
            headers = signed_headers(signing)
            assert (await one.http.post(TOKEN_PATH, headers=headers)).status_code == 200
            office.redis.flushall()
            assert (await other.http.post(TOKEN_PATH, headers=headers)).status_code == 401

        two(check)

    def test_without_redis_postgres_has_the_last_word(self, office: Office, database_url: str) -> None:
        _, signing = office.create()

        async def run() -> list[int]:
            async with worker(database_url, "redis://127.0.0.1:1") as alone:
                headers = signed_headers(signing)
                answers = await asyncio.gather(*(alone.http.post(TOKEN_PATH, headers=headers) for _ in range(8)))
                return sorted(answer.status_code for answer in answers)

        assert asyncio.run(run()) == [200] + [401] * 7

    def test_the_same_nonce_of_another_key_is_another_nonce(self, office: Office, two: Two) -> None:
        keys = [office.create(name)[1] for name in ("one", "other")]

        async def check(one: Worker, _other: Worker) -> None:
            nonce = secrets.token_hex(16)
            for key in keys:
                headers = signed_headers(key, nonce=nonce)
                assert (await one.http.post(TOKEN_PATH, headers=headers)).status_code == 200

        two(check)

    def test_a_refused_signature_uses_up_no_nonce(self, office: Office, two: Two) -> None:
        _, signing = office.create()

        async def check(one: Worker, _other: Worker) -> None:
            nonce = secrets.token_hex(16)
            for how, status in [({"signature": "0" * 64}, 401), ({"method": "GET"}, 401), ({}, 200)]:
                headers = signed_headers(signing, nonce=nonce, **how)
                assert (await one.http.post(TOKEN_PATH, headers=headers)).status_code == status

        two(check)

    def test_the_clock_may_be_off_by_nearly_five_minutes_and_not_by_more(self, office: Office, two: Two) -> None:
        _, signing = office.create()

        async def check(one: Worker, _other: Worker) -> None:
            for off, status in [(WINDOW_S - 10, 200), (10 - WINDOW_S, 200), (WINDOW_S + 10, 401), (-WINDOW_S - 1, 401)]:
                headers = signed_headers(signing, timestamp=str(int(time.time()) + off))
                assert (await one.http.post(TOKEN_PATH, headers=headers)).status_code == status

        two(check)

    def test_a_nonce_is_remembered_for_as_long_as_its_request_would_be_taken(self, office: Office, two: Two) -> None:
        _, signing = office.create()

        async def check(one: Worker, _other: Worker) -> None:
            ahead = int(time.time()) + WINDOW_S - 10
            await one.http.post(TOKEN_PATH, headers=signed_headers(signing, timestamp=str(ahead)))
            [name] = office.redis.keys("swath:v1:nonce:*")
            assert office.redis.ttl(name) > ahead + WINDOW_S - time.time()

        two(check)

    def test_body_and_query_are_signed_too(self, office: Office, two: Two) -> None:
        _, signing = office.create()

        async def check(one: Worker, _other: Worker) -> None:
            body = b'{"any": "thing"}'
            headers = signed_headers(signing, body=body)
            assert (await one.http.post(TOKEN_PATH, headers=headers, content=b"{}")).status_code == 401
            assert (await one.http.post(TOKEN_PATH, headers=headers, content=body)).status_code == 200

        two(check)

    def test_an_answer_with_a_token_is_kept_by_nobody(self, office: Office, two: Two) -> None:
        _, signing = office.create()

        async def check(one: Worker, _other: Worker) -> None:
            answer = await one.http.post(TOKEN_PATH, headers=signed_headers(signing))
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["ratelimit-policy"] == '"nextcloud_hmac";q=60;w=60'

        two(check)

    def test_no_store_holds_a_token_or_a_secret(self, office: Office, two: Two) -> None:
        api, signing = office.create()

        async def check(one: Worker, _other: Worker) -> None:
            token = await token_of(one, signing)
            await who(one, api.secret)
            await who(one, token=token)
            hidden = [api.secret, signing.secret, token]
            kept = b" ".join([name + b" " + (office.redis.dump(name) or b"") for name in office.redis.keys("*")])
            with office.engine.connect() as connection:
                tables = ("clients", "client_keys", "integration_tokens", "used_nonces")
                rows = [str(connection.execute(text(f"SELECT * FROM {name}")).all()) for name in tables]
            assert not [word for word in hidden if word.encode() in kept or any(word in row for row in rows)]

        two(check)
