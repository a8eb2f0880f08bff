"""What a weather service allows in a minute, an hour and a day of the clock, and what it says beyond."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Clock = Callable[[], dt.datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Most weighted calls in each stretch of the clock; by default those of Open-Meteo's free service."""

    minute: float = 600
    hour: float = 5_000
    day: float = 10_000
    at_once: int = 5
    """Requests in the works at the same time. The real number is not published."""


UNLIMITED = Allowance(minute=1e12, hour=1e12, day=1e12, at_once=1_000)
"""As an instance of one's own has it."""

_REFUSALS = {
    "minute": "Minutely API request limit exceeded. Please try again in one minute.",
    "hour": "Hourly API request limit exceeded. Please try again in the next hour.",
    "day": "Daily API request limit exceeded. Please try again tomorrow.",
}
_FORMS = {"minute": "%Y-%m-%dT%H:%M", "hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d"}


class Meter:
    """Counts weighted calls; counters start anew with the clock's minute, hour and UTC day."""

    def __init__(self, allowance: Allowance, clock: Clock) -> None:
        self.allowance = allowance
        self._clock = clock
        self._counts: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def refusal(self, weight: float) -> str | None:
        """Count a request of this weight, or say why it is refused, longest stretch first; then nothing is counted.

        Stricter than the real service, which refuses once a counter is full: here no counter ever overflows.
        """
        now = self._clock().astimezone(dt.UTC)
        limits: Mapping[str, float] = {
            "day": self.allowance.day,
            "hour": self.allowance.hour,
            "minute": self.allowance.minute,
        }
        with self._lock:
            places = {span: (span, now.strftime(_FORMS[span])) for span in limits}
            for span, limit in limits.items():
                if self._counts.get(places[span], 0.0) + weight > limit + 1e-9:
                    return _REFUSALS[span]
            self._counts = {place: self._counts.get(place, 0.0) + weight for place in places.values()}
        return None
