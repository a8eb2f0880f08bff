"""A deadline by which only the other side's time counts, not the time in which our own loop was busy."""

from __future__ import annotations

import asyncio
from types import TracebackType

TICK_S = 0.05


class Patience:
    """As `asyncio.timeout`, in ticks: a loop that was held up for seconds has spent one tick in them.

    With a plain timeout a burst of requests takes its own queue for a server that does not answer, and gives up on
    answers that lie in the socket unread.
    """

    __slots__ = ("_before", "_handle", "_is_over", "_left", "_loop", "_task")

    def __init__(self, seconds: float) -> None:
        self._left = max(1, round(seconds / TICK_S))
        self._is_over = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._before = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_later(TICK_S, self._tick)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._handle.cancel()
        if self._is_over and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _tick(self) -> None:
        self._left -= 1
        if self._left > 0:
            self._handle = self._loop.call_later(TICK_S, self._tick)
        else:
            self._is_over = True
            self._task.cancel()
