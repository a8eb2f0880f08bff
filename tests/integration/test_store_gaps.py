"""Which missing passes concern somebody, when they are told of, and when they are closed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, text

from models.domain import Status
from models.gaps import Gap, note_gaps, open_gaps, seen_passes, tell_of_gaps
from models.health import concerns, needs_person
from models.ledger import record_scenes
from models.observations import save_observations
from models.orbits import missing_passes
from models.searches import CatalogSearch, catalog_searches, note_answer, note_no_answer
from tests.support.facts import NOON, POLICY, engine_for, observed, scene, store_farms, unseen

DAY = dt.timedelta(days=1)
MISSING = NOON + 10 * DAY
NOW = MISSING + 5 * DAY
PASS = "sentinel-2b/20240610T102019"
ITEM = "S2B_T33TWM_1"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    yield made
    made.dispose()


def pass_over(engine: Engine, *tiles: str, at: dt.datetime = NOON, number: int = 1, **changes: Any) -> None:
    pass_id = f"sentinel-2b/{at:%Y%m%d}T102019"
    facts = {"acquired_at": at, "pass_id": pass_id, "relative_orbit": 22} | changes
    with engine.begin() as connection:
        record_scenes(connection, [scene(number, tile=tile, **facts) for tile in tiles], [])


def farms_seen(engine: Engine, *statuses: Status, at: dt.datetime = NOON, farms: list[int] | None = None) -> list[int]:
    ids = farms or store_farms(engine, len(statuses))
    facts = {"acquired_at": at, "pass_id": f"sentinel-2b/{at:%Y%m%d}T102019", "item_ids": (ITEM,)}
    given = [
        observed(farm, **facts) if status is Status.OBSERVED else unseen(farm, status, **facts)
        for farm, status in zip(ids, statuses, strict=True)
    ]
    with engine.begin() as connection:
        save_observations(connection, given)
    return ids


def look(engine: Engine, now: dt.datetime = NOW) -> list[tuple[str, dt.date, int]]:
    """Note the gaps of the days up to now and return those open."""
    days = ((NOON + DAY).date(), now.date())
    with engine.begin() as connection:
        missing = missing_passes(seen_passes(connection, *days), *days)
        note_gaps(connection, missing, days, now=now, mask_policy=POLICY)
        return [(gap.tile, gap.day, gap.farms) for gap in open_gaps(connection, since=NOON.date())]


def test_a_missing_pass_concerns_the_farms_that_the_one_before_saw(engine: Engine) -> None:
    pass_over(engine, "33TWM")
    farms_seen(engine, Status.OBSERVED, Status.CLOUD, Status.NODATA, Status.OUTSIDE)
    assert look(engine) == [("33TWM", MISSING.date(), 3)]
    assert look(engine) == [("33TWM", MISSING.date(), 3)], "once"


def test_nothing_is_missing_before_it_could_be_published(engine: Engine) -> None:
    pass_over(engine, "33TWM")
    farms_seen(engine, Status.OBSERVED)
    assert look(engine, MISSING + 0.9 * DAY) == []
    assert len(look(engine, MISSING + 1.1 * DAY)) == 1


def test_a_pass_that_concerns_nobody_is_no_gap(engine: Engine) -> None:
    pass_over(engine, "33TWM")
    [only] = farms_seen(engine, Status.OBSERVED)
    pass_over(engine, "33TXM", number=2)  # a tile on which no farm was observed
    assert [tile for tile, *_ in look(engine)] == ["33TWM"]
    farms_seen(engine, Status.CLOUD, at=MISSING + dt.timedelta(minutes=20), farms=[only])
    assert look(engine) == [], "another satellite or tile saw the farm that day"


@pytest.mark.parametrize("change", ["is_active = false", "boundary_version = 2"])
def test_a_farm_that_left_waits_for_nothing(engine: Engine, change: str) -> None:
    pass_over(engine, "33TWM")
    farms_seen(engine, Status.OBSERVED)
    assert len(look(engine)) == 1
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE farms SET {change}"))
    assert look(engine) == []


@pytest.mark.parametrize("orbit", [22, None])
def test_a_gap_that_any_catalog_fills_later_is_closed_and_remembered(engine: Engine, orbit: int | None) -> None:
    pass_over(engine, "33TWM")
    farms_seen(engine, Status.OBSERVED)
    look(engine)
    pass_over(engine, "33TWM", at=MISSING, number=3, catalog="planetary-computer", relative_orbit=orbit)
    assert look(engine) == []
    with engine.connect() as connection:
        [filled_at] = connection.execute(text("SELECT filled_at FROM gaps")).scalars()
    assert filled_at == NOW


def told(engine: Engine, now: dt.datetime) -> list[Gap]:
    with engine.begin() as connection:
        return tell_of_gaps(connection, now=now, after=3 * DAY, until=10 * DAY)


def test_a_gap_is_told_of_once_and_only_while_it_is_asked_for(engine: Engine) -> None:
    pass_over(engine, "33TWM")
    farms_seen(engine, Status.OBSERVED)
    look(engine, MISSING + 2 * DAY)
    assert told(engine, MISSING + 2.9 * DAY) == []
    assert told(engine, MISSING + 10.1 * DAY) == []
    [gap] = told(engine, MISSING + 3.1 * DAY)
    assert (gap.tile, gap.platform, gap.relative_orbit, gap.expected_at) == ("33TWM", "sentinel-2b", 22, MISSING)
    assert told(engine, MISSING + 3.2 * DAY) == []


def words(engine: Engine, now: dt.datetime, *, failed: int = 0) -> list[str]:
    with engine.connect() as connection:
        found = concerns(connection, now=now, gap_days=10)
        return needs_person(found, catalog_searches(connection), failed=failed, now=now, gap_alert_days=3, gap_days=10)


def test_a_person_is_needed_while_a_gap_may_still_be_filled_and_not_for_ever(engine: Engine) -> None:
    pass_over(engine, "33TWM")
    farms_seen(engine, Status.OBSERVED)
    look(engine, MISSING + 2 * DAY)
    assert words(engine, MISSING + 2 * DAY) == []
    [said] = words(engine, MISSING + 4 * DAY)
    assert "in no catalog" in said
    assert words(engine, MISSING + 11 * DAY) == []


def test_single_missing_passes_among_many_need_nobody(engine: Engine) -> None:
    pass_over(engine, "33TWM")
    farms_seen(engine, Status.OBSERVED)
    look(engine)
    with engine.begin() as connection:
        connection.execute(text(MANY_DONE), {"day": MISSING.date()})
    assert words(engine, NOW) == []


MANY_DONE = """
INSERT INTO work (pass_id, tile_set, "index", mask_policy, day, acquired_at, state)
SELECT 'p' || n, '33TWM', 'ndvi', 'x', :day, CAST(:day AS date), 'done' FROM generate_series(1, 30) AS n
"""


def test_a_catalog_needs_somebody_after_it_was_silent_for_a_day_and_a_half(engine: Engine) -> None:
    def asked(at: dt.datetime, problem: str | None) -> None:
        with engine.begin() as connection:
            if problem is None:
                note_answer(connection, "c1", (NOON.date(), NOON.date()), scenes=3, now=at)
            else:
                note_no_answer(connection, "c1", problem=problem, now=at)

    asked(NOON, None)
    asked(NOON + DAY, "status 503")
    assert words(engine, NOON + DAY) == [], "one run may fail"
    asked(NOON + 2 * DAY, "status 503")
    [said] = words(engine, NOON + 2 * DAY)
    assert "catalog c1 has not answered since 2024-06-10" in said
    assert "status 503" in said
    with engine.connect() as connection:
        [search] = catalog_searches(connection)
    assert search == CatalogSearch(
        catalog="c1",
        asked_at=NOON + 2 * DAY,
        answered_at=NOON,
        first_day=NOON.date(),
        last_day=NOON.date(),
        scenes=3,
        problem="status 503",
    )
    asked(NOON + 3 * DAY, None)
    assert words(engine, NOON + 3 * DAY) == []


def test_failures_need_somebody_only_where_no_schedule_tries_again(engine: Engine) -> None:
    assert "no schedule" in words(engine, NOON, failed=2)[0]
    with engine.begin() as connection:
        connection.execute(text(DAILY_RUN), {"at": NOON})
    assert words(engine, NOON + DAY, failed=2) == []
    assert "no daily run began" in words(engine, NOON + 2 * DAY)[0]


DAILY_RUN = """
INSERT INTO runs (id, kind, host, pid, process, started_at, ended_at, outcome)
VALUES (gen_random_uuid(), 'daily-ndvi', 'h', 1, 'x', :at, :at, 'ended')
"""
