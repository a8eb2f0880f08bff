"""The embedded stores, seen to while everything runs: one that was killed is started again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import psycopg
import redis

from infra.local.postgres import PostgresServer, local_postgres
from infra.local.valkey import ValkeyServer, local_valkey
from infra.settings import Settings
from infra.up.parts import Say
from models.errors import ServerTrouble

LOOK_S = 2.0


async def watch_stores(settings: Settings, say: Say) -> None:
    """Look every two seconds whether our own stores answer, and start those again that do not; until cancelled.

    Stores that the settings name are not ours to start.
    """
    watches = []
    if settings.database_url is None:
        watches.append(_watch("postgres", lambda: local_postgres(settings.home), _postgres_answers, say))
    if settings.redis_url is None:
        watches.append(_watch("redis", lambda: local_valkey(settings.home), _redis_answers, say))
    await asyncio.gather(*watches)


async def _watch(
    name: str, use: Callable[[], AbstractContextManager[Any]], answers: Callable[[Any], bool], say: Say
) -> None:
    server = await asyncio.to_thread(_ensured, use)
    while True:
        await asyncio.sleep(LOOK_S)
        if await asyncio.to_thread(answers, server):
            continue
        say(name, "does not answer; it is started again")
        try:
            await asyncio.to_thread(_ensured, use)
        except ServerTrouble as error:
            say(name, str(error).partition("\n")[0])
        else:
            say(name, "answers again")


def _ensured(use: Callable[[], AbstractContextManager[Any]]) -> Any:
    """Find the server or start it. It goes on running: we use it for as long as we live."""
    with use() as server:
        return server


def _postgres_answers(server: PostgresServer) -> bool:
    try:
        with psycopg.connect(server.url, connect_timeout=5) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError as error:
        # Full of connections it is alive; starting it again would end the work of those who have them.
        return "too many" in str(error) or "remaining connection slots" in str(error)
    return True


def _redis_answers(server: ValkeyServer) -> bool:
    client = redis.Redis.from_url(server.url, socket_timeout=5)
    with contextlib.closing(client):
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
