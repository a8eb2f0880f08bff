"""Which passes are expected: every satellite flies each of its orbits again after 10 days. Standard library alone."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

REPEAT_DAYS = 10
"""After so many days the same Sentinel-2 satellite flies the same orbit again, at the same time of day."""

LOOK_BACK_DAYS = 3 * REPEAT_DAYS
"""How far before a day passes tell whether one is expected on it."""

UNKNOWN_ORBIT = 0
_ANY_ORBIT = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPass:
    """A pass over one tile that some catalog has."""

    tile: str
    platform: str
    """As in a catalog, e.g. `sentinel-2c`."""
    relative_orbit: int
    """1 to 143, or `UNKNOWN_ORBIT`."""
    day: dt.date
    """Local solar day."""
    acquired_at: dt.datetime
    pass_id: str


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ExpectedPass:
    """A pass over one tile that should have been."""

    tile: str
    platform: str
    relative_orbit: int
    day: dt.date
    expected_at: dt.datetime
    """UTC, within some minutes."""
    like_pass: str
    """`pass_id` of the pass of the same orbit by which it is expected."""
    like_at: dt.datetime
    """When that was acquired."""


_Track = tuple[str, str, int, int]
"""Tile, platform, relative orbit, and day number modulo the repeat."""


def expected_passes(seen: Iterable[SeenPass], first: dt.date, last: dt.date) -> list[ExpectedPass]:
    """The passes that are expected from one day to another, both included, whether they were seen or not, in order.

    A pass is expected when its orbit was seen over the tile one repeat before, or at both of the two repeats before
    that: a new orbit is counted on from its second pass on, a single gap does not end it, and one that is not flown
    any more is expected in vain twice. The answer does not depend on the order of `seen`.
    """
    expected = []
    for track, by_day in _tracks(seen).items():
        tile, platform, orbit, phase = track
        start = first + dt.timedelta(days=(phase - first.toordinal()) % REPEAT_DAYS)
        for ordinal in range(start.toordinal(), last.toordinal() + 1, REPEAT_DAYS):
            day = dt.date.fromordinal(ordinal)
            one, two, three = (by_day.get(day - dt.timedelta(days=REPEAT_DAYS * count)) for count in (1, 2, 3))
            like = one or (two if three else None)
            if like is None:
                continue
            expected.append(
                ExpectedPass(
                    tile=tile,
                    platform=platform,
                    relative_orbit=orbit,
                    day=day,
                    expected_at=like.acquired_at + (day - like.day),
                    like_pass=like.pass_id,
                    like_at=like.acquired_at,
                )
            )
    return sorted(expected)


def missing_passes(seen: Iterable[SeenPass], first: dt.date, last: dt.date) -> list[ExpectedPass]:
    """Of the passes expected from one day to another those that were not seen.

    A pass of an unknown orbit stands for whichever orbit of its satellite was expected over the tile that day.
    """
    passes = list(seen)
    there = {(each.tile, each.platform, each.day, each.relative_orbit) for each in passes}
    there |= {(each.tile, each.platform, each.day, _ANY_ORBIT) for each in passes}
    missing = []
    for each in expected_passes(passes, first, last):
        place = (each.tile, each.platform, each.day)
        orbits = (_ANY_ORBIT,) if each.relative_orbit == UNKNOWN_ORBIT else (each.relative_orbit, UNKNOWN_ORBIT)
        if not any((*place, orbit) in there for orbit in orbits):
            missing.append(each)
    return missing


def _tracks(seen: Iterable[SeenPass]) -> dict[_Track, dict[dt.date, SeenPass]]:
    """Passes by orbit over a tile and by day. Those of unknown orbits join the one that is known of that place."""
    known: dict[tuple[str, str, int], dict[int, dict[dt.date, SeenPass]]] = defaultdict(lambda: defaultdict(dict))
    for each in sorted(seen, key=lambda each: (each.acquired_at, each.pass_id)):
        place = (each.tile, each.platform, each.day.toordinal() % REPEAT_DAYS)
        known[place][each.relative_orbit].setdefault(each.day, each)
    tracks: dict[_Track, dict[dt.date, SeenPass]] = {}
    for (tile, platform, phase), orbits in known.items():
        unknown = orbits.pop(UNKNOWN_ORBIT, {})
        if not orbits:
            orbits = {UNKNOWN_ORBIT: unknown}
        for orbit, by_day in orbits.items():
            tracks[tile, platform, orbit, phase] = unknown | by_day if len(orbits) == 1 else by_day
    return tracks
