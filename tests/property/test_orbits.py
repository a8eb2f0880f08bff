"""Which passes are expected and which are missing, over made-up constellations whose every pass is known."""

from __future__ import annotations

import dataclasses
import datetime as dt
import random

from hypothesis import given
from hypothesis import strategies as st

from models.orbits import LOOK_BACK_DAYS, REPEAT_DAYS, UNKNOWN_ORBIT, SeenPass, expected_passes, missing_passes

DAY_0 = dt.date(2026, 1, 5)
LENGTH = 120
PLATFORMS = ("sentinel-2a", "sentinel-2b", "sentinel-2c")
TILES = ("33TWL", "33TWM")

tracks = st.lists(
    st.tuples(
        st.sampled_from(TILES),
        st.sampled_from(PLATFORMS),
        st.integers(0, REPEAT_DAYS - 1),
        st.sampled_from([UNKNOWN_ORBIT, 22, 122]),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda track: track[:3],
)


def seen(tile: str, platform: str, orbit: int, number: int) -> SeenPass:
    at = dt.datetime.combine(DAY_0, dt.time(10, 7, 11), dt.UTC) + dt.timedelta(days=number)
    return SeenPass(
        tile=tile,
        platform=platform,
        relative_orbit=orbit,
        day=at.date(),
        acquired_at=at,
        pass_id=f"{platform}/{at:%Y%m%dT%H%M%S}",
    )


def all_passes(chosen: list[tuple[str, str, int, int]]) -> list[SeenPass]:
    return [
        seen(tile, platform, orbit, number)
        for tile, platform, phase, orbit in chosen
        for number in range(phase, LENGTH, REPEAT_DAYS)
    ]


def key(each: object) -> tuple[object, ...]:
    return tuple(getattr(each, name) for name in ("tile", "platform", "relative_orbit", "day"))


@given(tracks, st.integers(REPEAT_DAYS, LENGTH - 1), st.integers(0, 40), st.randoms(use_true_random=False))
def test_a_regular_constellation_is_expected_as_it_flies_whatever_the_order(
    chosen: list[tuple[str, str, int, int]], first: int, length: int, order: random.Random
) -> None:
    passes = all_passes(chosen)
    start, end = DAY_0 + dt.timedelta(days=first), DAY_0 + dt.timedelta(days=min(first + length, LENGTH - 1))
    shuffled = order.sample(passes, len(passes))
    expected = expected_passes(shuffled, start, end)
    assert {key(each) for each in expected} == {key(each) for each in passes if start <= each.day <= end}
    assert {each.expected_at for each in expected} == {each.acquired_at for each in passes if start <= each.day <= end}
    assert missing_passes(shuffled, start, end) == []


@given(tracks, st.data())
def test_exactly_the_passes_taken_away_are_missing(
    chosen: list[tuple[str, str, int, int]], data: st.DataObject
) -> None:
    """As long as no two that follow each other are taken."""
    passes = all_passes(chosen)
    start = DAY_0 + dt.timedelta(days=LOOK_BACK_DAYS)
    late = [each for each in passes if each.day >= start and (each.day - DAY_0).days // REPEAT_DAYS % 2]
    gone = data.draw(st.lists(st.sampled_from(late), unique=True)) if late else []
    left = [each for each in passes if each not in gone]
    missing = missing_passes(left, start, DAY_0 + dt.timedelta(days=LENGTH - 1))
    assert {key(each) for each in missing} == {key(each) for each in gone}
    for each in missing:
        assert each.like_pass in {one.pass_id for one in left if one.tile == each.tile}


@given(st.integers(1, 6))
def test_an_orbit_that_ends_is_expected_in_vain_twice_at_most(flown: int) -> None:
    passes = [seen("33TWL", "sentinel-2a", 22, number * REPEAT_DAYS) for number in range(flown)]
    missing = missing_passes(passes, DAY_0, DAY_0 + dt.timedelta(days=300))
    after = [(each.day - passes[-1].day).days for each in missing]
    assert after == [REPEAT_DAYS, 2 * REPEAT_DAYS][: min(flown, 2)]


@given(st.booleans(), st.booleans())
def test_a_catalog_that_does_not_tell_the_orbit_makes_no_gap(is_first_known: bool, is_second_known: bool) -> None:
    passes = [
        seen("33TWL", "sentinel-2a", 22 if is_known else UNKNOWN_ORBIT, number * REPEAT_DAYS)
        for number, is_known in enumerate([is_first_known, is_second_known, True])
    ]
    last = DAY_0 + dt.timedelta(days=29)
    assert missing_passes(passes, DAY_0, last) == []
    [only] = missing_passes([each for each in passes if each is not passes[1]], DAY_0, last)
    assert (only.day, only.relative_orbit) == (passes[1].day, 22)


def test_two_orbits_of_one_satellite_on_one_day_are_told_apart() -> None:
    """In the far north a tile is seen from neighbouring orbits within hours."""
    early, late = seen("35WMT", "sentinel-2a", 22, 0), seen("35WMT", "sentinel-2a", 23, 0)
    late = dataclasses.replace(late, acquired_at=late.acquired_at + dt.timedelta(minutes=100), pass_id="later")
    again = seen("35WMT", "sentinel-2a", 22, 10)
    [only] = missing_passes([early, late, again], again.day, again.day)
    assert (only.relative_orbit, only.like_pass) == (23, "later")
