"""The sandbox's weather services at an instant that a test chooses, and what must be stored of what they tell."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from infra.sandbox.weather_telling import Error


class Moment:
    """A clock that stands still, but for whoever sleeps."""

    def __init__(self, now: dt.datetime) -> None:
        self.now = now

    def __call__(self) -> dt.datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Move on at once."""
        self.now += dt.timedelta(seconds=seconds)


def erring(errors: Mapping[str, Error], hourly_name: str, value: float, *, is_provisional: bool) -> float:
    """What a source that errs so tells of a true value, where nothing is clipped."""
    error = errors.get(hourly_name, Error())
    told = value * error.factor + error.offset
    return told * error.provisional_factor + error.provisional_offset if is_provisional else told
