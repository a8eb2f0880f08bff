"""When the next pass over a farm is due, told from those that saw it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from models.domain import Status
from models.observations import save_observations
from models.passes import NextPass, next_passes
from tests.support.facts import NOON, POLICY, engine_for, observed, store_farms, unseen

DAY = dt.timedelta(days=1)
HOUR = dt.timedelta(hours=1)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    yield made
    made.dispose()


def seen(engine: Engine, farm_id: int, *passes: tuple[str, dt.datetime], status: Status = Status.OBSERVED) -> None:
    given = [
        (observed if status is Status.OBSERVED else unseen)(
            farm_id, acquired_at=at, pass_id=f"{platform}/{at:%Y%m%dT%H%M%S}", status=status
        )
        for platform, at in passes
    ]
    with engine.begin() as connection:
        save_observations(connection, given)


def following(engine: Engine, now: dt.datetime, farm_ids: list[int] | None = None) -> dict[int, NextPass]:
    with engine.connect() as connection:
        return next_passes(connection, farm_ids, now=now, mask_policy=POLICY)


def test_the_first_of_all_satellites_after_now_is_next(engine: Engine) -> None:
    [farm] = store_farms(engine, 1)
    seen(engine, farm, ("sentinel-2a", NOON), ("sentinel-2b", NOON - 5 * DAY), ("sentinel-2c", NOON - 12 * DAY))
    for now, days, platform in [(NOON, 5, "2b"), (NOON + 5 * DAY, 8, "2c"), (NOON + 8 * DAY + HOUR, 10, "2a")]:
        due = NOON + days * DAY
        expected = NextPass(expected_at=due, day=due.date(), platform=f"sentinel-{platform}")
        assert following(engine, now) == {farm: expected}


def test_a_cloudy_pass_counts_and_one_that_did_not_reach_the_farm_does_not(engine: Engine) -> None:
    cloudy, beside = store_farms(engine, 2)
    seen(engine, cloudy, ("sentinel-2a", NOON), status=Status.CLOUD)
    seen(engine, beside, ("sentinel-2a", NOON), status=Status.OUTSIDE)
    assert list(following(engine, NOON + DAY)) == [cloudy]


def test_an_orbit_not_flown_for_long_is_not_counted_on(engine: Engine) -> None:
    [farm] = store_farms(engine, 1)
    seen(engine, farm, ("sentinel-2a", NOON))
    assert following(engine, NOON + 22 * DAY)[farm].expected_at == NOON + 30 * DAY
    assert following(engine, NOON + 23 * DAY) == {}
    assert following(engine, NOON - HOUR) == {}, "what is to come tells nothing yet"


def test_only_the_farms_asked_for_are_told_of_and_none_by_an_old_boundary(engine: Engine) -> None:
    farms = store_farms(engine, 3)
    for farm in farms:
        seen(engine, farm, ("sentinel-2a", NOON))
    with engine.begin() as connection:
        connection.execute(text("UPDATE farms SET boundary_version = 2 WHERE id = :id"), {"id": farms[0]})
        connection.execute(text("UPDATE farms SET is_active = false WHERE id = :id"), {"id": farms[1]})
    assert list(following(engine, NOON)) == [farms[2]]
    assert list(following(engine, NOON, farms[:2])) == [farms[1]]
