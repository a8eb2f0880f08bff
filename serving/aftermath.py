"""What follows a committed change of farms: readers are given the new state, and somebody looks at new boundaries."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Coroutine, Sequence
from typing import Any

import structlog

from models.farm_sync import Outcome, Synced
from serving.cache import Cache, CacheAway
from serving.database import DatabaseAway
from serving.prefect_api import PrefectApi, PrefectAway
from serving.reading import Reading

log = structlog.get_logger(__name__)

PUBLISHED_AT_ONCE = 200
"""States of one command to Redis: some hundred kB, a few milliseconds."""

AGAIN_S = 1.0
"""Between two tries to publish what Redis did not take."""

ASKED_S = 86_400
"""How long it is remembered that a first look was asked for."""

LAST_CHANCE_S = 1.0
"""For what is going on when the worker stops."""


class Aftermath:
    """Does it, without failing a request whose change has been committed."""

    def __init__(self, reading: Reading, prefect: PrefectApi, cache: Cache) -> None:
        self._reading = reading
        self._prefect = prefect
        self._cache = cache
        self._late: set[uuid.UUID] = set()
        self._publisher: asyncio.Task[None] | None = None
        self._going: set[asyncio.Task[None]] = set()

    async def follow(self, synced: Sequence[Synced]) -> None:
        """Publish the states of farms that changed, and ask once for first looks at new boundaries.

        What Redis does not take now is tried again until it does; should the worker end before, the next run of the
        flows catches up. The looks are asked for off the request's path.
        """
        changed = [each.external_farm_id for each in synced if each.outcome in (Outcome.CREATED, Outcome.UPDATED)]
        if changed and not await self._published(changed):
            self._late.update(changed)
            if self._publisher is None or self._publisher.done():
                self._publisher = self._begin(self._publish_late())
        new = [each for each in synced if each.has_new_boundary and each.is_active]
        if new and self._prefect.is_known:
            self._begin(self._look(new))

    async def close(self) -> None:
        """Give what is going on a last chance, and end it."""
        if self._going:
            await asyncio.wait(self._going, timeout=LAST_CHANCE_S)
        for task in list(self._going):
            task.cancel()

    async def _published(self, farms: Sequence[uuid.UUID]) -> bool:
        try:
            for start in range(0, len(farms), PUBLISHED_AT_ONCE):
                if not await self._reading.publish(farms[start : start + PUBLISHED_AT_ONCE]):
                    return False
        except DatabaseAway as error:
            log.warning("states not read after a change", farms=len(farms), error=str(error))
            return False
        return True

    async def _publish_late(self) -> None:
        while self._late:
            await asyncio.sleep(AGAIN_S)
            farms = list(self._late)
            if await self._published(farms):
                self._late.difference_update(farms)

    async def _look(self, new: Sequence[Synced]) -> None:
        """Ask for one run over all these farms, and mark them, so that their readers need not ask for one each."""
        first_looks = [f"first-look-{each.external_farm_id}-{each.boundary_version}" for each in new]
        marks = [f"swath:v1:asked:{key}" for key in first_looks]
        key = "first-looks-" + hashlib.sha256(" ".join(sorted(first_looks)).encode()).hexdigest()[:32]
        await self._note(_MARK, marks)
        try:
            run_id = await self._prefect.refresh([each.external_farm_id for each in new], idempotency_key=key)
        except PrefectAway as error:
            log.warning("first looks not asked for; their readers will", farms=len(new), error=str(error))
            await self._note(_UNMARK, marks)
            return
        log.info("first looks asked for", farms=len(new), run_id=str(run_id))

    async def _note(self, script: str, marks: Sequence[str]) -> None:
        try:
            await self._cache.ask(lambda redis: redis.eval(script, len(marks), *marks, ASKED_S))
        except CacheAway as error:
            log.debug("first looks not marked", error=str(error))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._going.add(task)
        task.add_done_callback(self._going.discard)
        return task


# The marks are those that `asking.Work` looks at before it asks for a farm by itself.
_MARK = "for _, key in ipairs(KEYS) do redis.call('SET', key, '1', 'EX', ARGV[1]) end"
_UNMARK = "for _, key in ipairs(KEYS) do redis.call('DEL', key) end"
