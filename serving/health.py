"""Whether this worker lives, and which stores answer it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from pydantic import BaseModel

from serving.cache import CacheAway
from serving.database import DatabaseAway
from serving.endpoints import Answer, Call, Endpoint
from serving.envelope import dumps
from serving.faults import RETRY_AFTER_S
from serving.prefect_api import PrefectAway

NO_STORE = "no-store"
FreeCall = Call[None, None, None]


class Alive(BaseModel):
    """This worker answers."""

    status: Literal["alive"] = "alive"


class Store(BaseModel):
    """One server behind the app."""

    is_up: bool
    ms: float | None
    """How long it took to answer."""
    without_it: str
    """What is lost while it is away."""


class Readiness(BaseModel):
    """Which servers answer."""

    status: Literal["ready", "degraded", "away"]
    stores: dict[str, Store]


async def alive(_call: FreeCall) -> Answer:
    """Answer without asking anybody."""
    return Answer.of(Alive().model_dump(), cache_control=NO_STORE)


async def ready(call: FreeCall) -> Answer:
    """Ask every store. Cached reads need Redis alone, all others Postgres: with either there is something to give."""
    resources = call.resources
    postgres, redis, prefect = await asyncio.gather(
        _asked(lambda: resources.database.rows("SELECT 1 AS one"), "only cached reads are answered"),
        _asked(lambda: resources.cache.ask(lambda client: client.ping()), "reads come from Postgres"),
        _asked(resources.prefect.health, "no new work can be asked for"),
    )
    stores = {"postgres": postgres, "redis": redis, "prefect": prefect}
    away = [name for name, store in stores.items() if not store.is_up]
    status: Any = "away" if {"postgres", "redis"} <= set(away) else "degraded" if away else "ready"
    body = dumps(Readiness(status=status, stores=stores).model_dump())
    message = f"away: {', '.join(away)}" if away else ""
    if status == "away":
        return Answer(
            body=body,
            status=503,
            word="error",
            message=message,
            cache_control=NO_STORE,
            headers={"retry-after": str(RETRY_AFTER_S)},
        )
    return Answer(body=body, message=message, cache_control=NO_STORE)


async def _asked(ask: Callable[[], Awaitable[Any]], without_it: str) -> Store:
    started_at = time.perf_counter()
    try:
        await ask()
    except (CacheAway, DatabaseAway, PrefectAway):
        return Store(is_up=False, ms=None, without_it=without_it)
    return Store(is_up=True, ms=round((time.perf_counter() - started_at) * 1000, 2), without_it=without_it)


ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/healthz",
        handler=alive,
        summary="Whether this worker lives",
        tag="operation",
        scope=None,
        is_throttled=False,
        answers={200: Alive},
    ),
    Endpoint(
        method="GET",
        path="/readyz",
        handler=ready,
        summary="Which stores answer",
        tag="operation",
        scope=None,
        is_throttled=False,
        answers={200: Readiness, 503: Readiness},
    ),
)
