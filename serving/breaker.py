"""A circuit breaker: who does not answer is left alone for a moment, so that waits do not pile up."""

from __future__ import annotations

import time
from collections.abc import Callable

FAILURES = 3
"""One after the other, until a store is left alone. More than one: a restart breaks each idle connection once."""

REST_S = 1.0
"""How long it is left alone before one caller tries again, for all others."""


class Breaker:
    """Closed while the other side answers; open after failures in a row, with one try each time the rest is over."""

    def __init__(
        self,
        name: str,
        *,
        failures: int = FAILURES,
        rest_s: float = REST_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.opened = 0
        """How often it has opened."""
        self._most = failures
        self._rest_s = rest_s
        self._clock = clock
        self._failures = 0
        self._closed_at: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the other side is left alone."""
        return self._closed_at is not None

    @property
    def is_resting(self) -> bool:
        """Whether nobody may try at the moment."""
        return self._closed_at is not None and self._clock() < self._closed_at

    def may_try(self) -> bool:
        """Whether the caller may try; while open, True for one caller each time the rest is over."""
        if self._closed_at is None:
            return True
        now = self._clock()
        if now < self._closed_at:
            return False
        self._closed_at = now + self._rest_s
        return True

    def succeeded(self) -> None:
        """Note that the other side answered."""
        self._failures = 0
        self._closed_at = None

    def failed(self) -> None:
        """Note that it did not."""
        self._failures += 1
        if self._closed_at is not None:
            self._closed_at = self._clock() + self._rest_s
        elif self._failures >= self._most:
            self._closed_at = self._clock() + self._rest_s
            self.opened += 1
