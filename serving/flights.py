"""Single flight: however many ask for the same thing at once, it is fetched once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Flights(Generic[T]):
    """What is being fetched in this process at the moment, by key."""

    def __init__(self) -> None:
        self._going: dict[str, asyncio.Task[T]] = {}
        self.joined = 0
        """How often somebody joined a fetch that was under way."""

    async def once(self, key: str, fetch: Callable[[], Awaitable[T]]) -> T:
        """Return what `fetch` gives, or what the same fetch gives that somebody else has begun.

        A caller that goes away does not end it for the others; its error is everybody's.
        """
        going = self._going.get(key)
        if going is None:
            going = asyncio.ensure_future(_run(fetch))
            self._going[key] = going
            going.add_done_callback(lambda done: self._landed(key, done))
        else:
            self.joined += 1
        return await asyncio.shield(going)

    def _landed(self, key: str, done: asyncio.Task[T]) -> None:
        del self._going[key]
        if not done.cancelled():
            done.exception()  # looked at, even if nobody waits for it any more


async def _run(fetch: Callable[[], Awaitable[Any]]) -> Any:
    return await fetch()
