"""Kept connections to Redis: used again, replaced when they are broken, closed when an answer may be under way."""

from __future__ import annotations

import asyncio

import pytest
from redis import Redis
from redis.exceptions import NoScriptError

from serving.cache import open_redis
from serving.lines import Lines


def connections(redis_url: str) -> int:
    """How many clients Redis has, beside who asks."""
    with Redis.from_url(redis_url) as client:
        return len(client.client_list()) - 1


def test_commands_one_after_the_other_share_a_connection(redis_url: str) -> None:
    async def check() -> None:
        before = connections(redis_url)
        client = open_redis(redis_url)
        lines = Lines(client.connection_pool)
        assert await lines.run("SET", "key", b"value") == b"OK"
        assert await lines.run("GET", "key") == b"value"
        with pytest.raises(NoScriptError):
            await lines.run("EVALSHA", "0" * 40, 0)
        assert await lines.run("EVAL", "return {1, false, ARGV[1]}", 0, 7) == [1, None, b"7"]
        assert connections(redis_url) == before + 1
        await client.aclose()
        assert connections(redis_url) == before

    asyncio.run(check())


def test_commands_at_the_same_time_get_their_own_answers(redis_url: str) -> None:
    async def check() -> None:
        client = open_redis(redis_url)
        lines = Lines(client.connection_pool)
        for _ in range(3):
            answers = await asyncio.gather(*(lines.run("ECHO", str(number)) for number in range(10)))
            assert answers == [b"%d" % number for number in range(10)]
        await client.aclose()

    asyncio.run(check())


def test_a_connection_that_the_server_has_closed_costs_no_answer(redis_url: str) -> None:
    async def check() -> None:
        client = open_redis(redis_url)
        lines = Lines(client.connection_pool)
        await asyncio.gather(*(lines.run("ECHO", str(number)) for number in range(5)))
        with Redis.from_url(redis_url) as other:
            other.client_kill_filter(_type="normal", skipme=True)
        assert await lines.run("ECHO", "still") == b"still"
        await client.aclose()

    asyncio.run(check())


def test_an_answer_nobody_waited_for_is_given_to_nobody_else(redis_url: str) -> None:
    async def check() -> None:
        client = open_redis(redis_url)
        lines = Lines(client.connection_pool)
        await lines.run("PING")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await lines.run("BLPOP", "nothing", 1)
        assert await lines.run("ECHO", "mine") == b"mine"
        await client.aclose()

    asyncio.run(check())
