"""How a worker stands: written to its sheet each second, so that the metrics page has to ask nobody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from serving.breaker import Breaker
from serving.counts import Counts
from serving.database import Pool

BEAT_S = 1.0


@contextlib.asynccontextmanager
async def telling(counts: Counts, pool: Pool, breakers: Sequence[Breaker]) -> AsyncIterator[None]:
    """Tell pool and breakers for the time of the block. A loop that is stuck tells nothing, which shows as well."""
    tell(counts, pool, breakers)
    task = asyncio.create_task(_tell_on(counts, pool, breakers))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _tell_on(counts: Counts, pool: Pool, breakers: Sequence[Breaker]) -> None:
    while True:
        await asyncio.sleep(BEAT_S)
        tell(counts, pool, breakers)


def tell(counts: Counts, pool: Pool, breakers: Sequence[Breaker]) -> None:
    """Write how pool and breakers stand now."""
    for breaker in breakers:
        setattr(counts, f"{breaker.name}_is_open", int(breaker.is_open))
        setattr(counts, f"{breaker.name}_opened", counts.opened_before[breaker.name] + breaker.opened)
    stats = pool.get_stats()
    counts.pool_most = stats.get("pool_max", 0)
    counts.pool_size = stats.get("pool_size", 0)
    counts.pool_in_use = counts.pool_size - stats.get("pool_available", 0)
    counts.pool_waiting = stats.get("requests_waiting", 0)
    counts.beat()
