"""When the satellites pass, and what each pass becomes in the two collections."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from infra.sandbox.places import NORTH, SOUTH, District

REVISIT_DAYS = 5
_SWITCH = dt.date(2025, 1, 21)
"""Sentinel-2C took the place of Sentinel-2A."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One flight over one district."""

    district: District
    day: dt.date
    relative_orbit: int
    number: int
    """Counts the passes of this orbit over the district."""
    platform: str
    """As in a catalog, e.g. `sentinel-2a`."""
    is_partial: bool
    """The edge of the swath lies in the district."""
    is_split: bool
    """Delivered as two complementary datastrips."""
    is_missing_in_c1: bool
    """A gap in the first collection; mostly the second has it."""
    is_missing_in_l2a: bool
    """A gap in the second collection; mostly the first has it."""
    is_processed_twice: bool
    """The second collection holds an older processing as well."""

    @property
    def is_missing(self) -> bool:
        """The satellite passed and no collection has it."""
        return self.is_missing_in_c1 and self.is_missing_in_l2a

    @property
    def acquired_at(self) -> dt.datetime:
        """The instant of the datatake's start, UTC."""
        clock = dt.datetime.strptime(self.district.sun_time_utc, "%H%M%S").time()  # noqa: DTZ007
        return dt.datetime.combine(self.day, clock, dt.UTC)

    @property
    def short_platform(self) -> str:
        """As in a product's name, e.g. `S2A`."""
        return "S2" + self.platform[-1].upper()

    @property
    def name(self) -> str:
        """Names the pass in the archive's folder, e.g. `20240512-R036`."""
        return f"{self.day:%Y%m%d}-R{self.relative_orbit:03}"


def passes_between(start: dt.date, end: dt.date) -> Iterator[Pass]:
    """All passes from `start` to `end`, both included, oldest first. A pass does not depend on the range asked for."""
    for ordinal in range(start.toordinal(), end.toordinal() + 1):
        cycle, phase = divmod(ordinal, REVISIT_DAYS)
        if phase == 1:
            yield _pass(NORTH, ordinal, 36, cycle)
        if phase == 4 and cycle % 2 == 0:
            yield _pass(NORTH, ordinal, 79, cycle // 2)
        if phase == 2 and cycle % 2 == 1:
            yield _pass(SOUTH, ordinal, 110, cycle // 2)


def _pass(district: District, ordinal: int, relative_orbit: int, number: int) -> Pass:
    day = dt.date.fromordinal(ordinal)
    pair = "bc" if day >= _SWITCH else "ab"
    is_main = relative_orbit == 36
    is_nowhere = is_main and number % 26 == 7
    is_missing_in_c1 = number % 7 == 3
    return Pass(
        district=district,
        day=day,
        relative_orbit=relative_orbit,
        number=number,
        platform=f"sentinel-2{pair[ordinal // REVISIT_DAYS % 2]}",
        is_partial=relative_orbit == 79,
        is_split=is_main and number % 8 == 5,
        is_missing_in_c1=is_missing_in_c1 or is_nowhere,
        is_missing_in_l2a=(number % 11 == 0 and not is_missing_in_c1) or is_nowhere,
        is_processed_twice=is_main and number % 9 == 4 and number % 8 != 5,
    )


def stream(seed: int, *words: object) -> list[int]:
    """A key for a random generator of its own, from a seed and some words; the same on every machine."""
    digest = hashlib.sha256("/".join(str(word) for word in words).encode()).digest()
    return [seed, int.from_bytes(digest[:8], "big")]
