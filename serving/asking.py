"""Work asked for: a first look at a farm, off the request's path, and a refresh, of which one is in flight."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from models import refreshes
from serving.cache import Cache, CacheAway
from serving.database import Database
from serving.prefect_api import PrefectApi, PrefectAway

log = structlog.get_logger(__name__)

ASKED_S = 86_400
"""How long it is remembered that a first look was asked for; asked again, Prefect knows it by its key."""

MOST_REMEMBERED = 10_000
TRIES = 3
LAST_CHANCE_S = 1.0
"""For what is being asked for when the worker stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """A refresh that is in flight."""

    run_id: uuid.UUID | None
    """The run in Prefect; None while it is being asked for."""
    asked_at: dt.datetime
    is_new: bool
    """False when somebody had asked for it before."""


class Work:
    """Asks Prefect for work."""

    def __init__(self, prefect: PrefectApi, cache: Cache, database: Database) -> None:
        self._prefect = prefect
        self._cache = cache
        self._database = database
        self._asked: dict[str, None] = {}
        self._going: set[asyncio.Task[None]] = set()

    def look_soon(self, external_farm_id: uuid.UUID, boundary_version: int) -> None:
        """Have somebody look at a farm that has no observation of this boundary yet; returns at once.

        However often and by however many workers it is asked for, it is one run.
        """
        key = f"first-look-{external_farm_id}-{boundary_version}"
        if not self._prefect.is_known or key in self._asked:
            return
        if len(self._asked) >= MOST_REMEMBERED:
            del self._asked[next(iter(self._asked))]
        self._asked[key] = None
        self._begin(self._look(external_farm_id, key))

    async def refresh(self, external_farm_id: uuid.UUID) -> Refresh:
        """Have a farm looked at anew, unless somebody has asked for that and it is not done.

        Raises:
            DatabaseAway: Postgres, which knows what is in flight, does not answer.
            PrefectAway: it could not be asked for.
        """
        for _ in range(TRIES):
            token = uuid.uuid4()
            claimed = await self._written(refreshes.CLAIM, {"farm": external_farm_id, "token": token})
            if claimed is None:
                known = await self._database.row(refreshes.KNOWN, {"farm": external_farm_id})
                if known is None:
                    continue
                if known["run_id"] is None:
                    return await self._adopted(external_farm_id, known)
                if not await self._prefect.has_ended(known["run_id"]):
                    return Refresh(run_id=known["run_id"], asked_at=known["asked_at"], is_new=False)
                renewal = {"old_token": known["token"], "token": token}
                claimed = await self._written(refreshes.CLAIM_AGAIN, renewal)
            if claimed is not None:
                run_id = await self._run(external_farm_id, token)
                return Refresh(run_id=run_id, asked_at=claimed["asked_at"], is_new=True)
        return Refresh(run_id=None, asked_at=dt.datetime.now(dt.UTC), is_new=False)

    async def _adopted(self, external_farm_id: uuid.UUID, known: dict[str, Any]) -> Refresh:
        """A refresh of which no run is known: being asked for right now, or cut short, and then asked for by us.

        By the same key, so that Prefect, should it have heard of it after all, answers with the run that it has.
        """
        run_id = await self._run(external_farm_id, known["token"]) if known["is_old"] else None
        return Refresh(run_id=run_id, asked_at=known["asked_at"], is_new=False)

    async def _run(self, external_farm_id: uuid.UUID, token: uuid.UUID) -> uuid.UUID:
        try:
            run_id = await self._prefect.refresh([external_farm_id], idempotency_key=f"refresh-{token}")
        except PrefectAway:
            await self._written(refreshes.CUT_SHORT, {"token": token})
            raise
        await self._written(refreshes.NOTE_RUN, {"token": token, "run_id": run_id})
        return run_id

    async def close(self) -> None:
        """Give what is being asked for a last chance, and end it."""
        if self._going:
            await asyncio.wait(self._going, timeout=LAST_CHANCE_S)
        for task in list(self._going):
            task.cancel()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._going.add(task)
        task.add_done_callback(self._going.discard)

    async def _look(self, external_farm_id: uuid.UUID, key: str) -> None:
        mark = f"swath:v1:asked:{key}"
        try:
            is_first = await self._cache.ask(lambda redis: redis.set(mark, b"1", nx=True, ex=ASKED_S))
        except CacheAway:
            is_first = True
        if not is_first:
            return
        try:
            run_id = await self._prefect.refresh([external_farm_id], idempotency_key=key)
        except PrefectAway as error:
            log.warning(
                "first look not asked for; the next reader tries again", farm=str(external_farm_id), error=str(error)
            )
            self._asked.pop(key, None)
            with contextlib.suppress(CacheAway):
                await self._cache.ask(lambda redis: redis.delete(mark))
            return
        log.info("first look asked for", farm=str(external_farm_id), run_id=str(run_id))

    async def _written(self, statement: str, values: dict[str, Any]) -> dict[str, Any] | None:
        async with self._database.transaction() as connection:
            cursor = await connection.execute(statement.encode(), values)
            return await cursor.fetchone() if cursor.description else None
