"""The feed of changes tells everything once more than before, in order, and only of one's own farms."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from models.observations import save_observations
from tests.integration.test_serving_ndvi import Place, data, get, place
from tests.support.api import key_of
from tests.support.api_workers import Worker
from tests.support.facts import NOON, engine_for, observed

__all__ = ["place"]

DAY = timedelta(days=1)


async def feed(one: Worker, key: str, since: str | None = None, *, limit: int = 2000) -> tuple[list[Any], str | None]:
    """All changes from a cursor on, page by page, and the cursor to go on from."""
    found: list[Any] = []
    while True:
        query = f"limit={limit}" + (f"&since={since}" if since else "")
        told = data(await get(one, f"/api/v1/changes?{query}", key))
        found += told["changes"]
        since = told["next"]
        if not told["has_more"]:
            return found, since


def farms_of(found: list[Any]) -> set[str]:
    return {each["facts"]["external_farm_id"] for each in found if "external_farm_id" in each["facts"]}


def test_a_client_is_told_of_its_own_farms_alone_and_an_admin_of_all(place: Place) -> None:
    place.save(*(observed(farm_id) for farm_id in place.farm_ids))
    admin = key_of(place.engine, "operator", "admin")

    async def read(one: Worker) -> None:
        ours, _ = await feed(one, place.ours)
        assert farms_of(ours) == {str(uuid.UUID(int=number)) for number in (1, 2)}
        assert [each["kind"] for each in ours] == ["farm", "farm", "observation", "observation"]
        assert farms_of((await feed(one, place.theirs))[0]) == {str(uuid.UUID(int=3))}
        assert len(farms_of((await feed(one, admin))[0])) == 3

    place.run(read)


def test_pages_of_any_size_tell_the_same(place: Place) -> None:
    given = [observed(farm_id, acquired_at=NOON + n * DAY) for farm_id in place.farm_ids for n in range(7)]
    place.save(*given)

    async def read(one: Worker) -> None:
        whole, last = await feed(one, place.ours)
        revisions = [each["revision"] for each in whole]
        assert revisions == sorted(set(revisions))
        for limit in (1, 5, 16):
            assert await feed(one, place.ours, limit=limit) == (whole, last)

    place.run(read)


def test_only_what_changed_since_is_told_revised_ones_too(place: Place) -> None:
    place.save(observed(place.farm_ids[0]), observed(place.farm_ids[1]))

    async def read(one: Worker) -> None:
        _, since = await feed(one, place.ours)
        assert await feed(one, place.ours, since) == ([], since)
        place.save(observed(place.farm_ids[0], ndvi=0.1), observed(place.farm_ids[1]))
        [revised], after = await feed(one, place.ours, since)
        assert (revised["kind"], revised["facts"]["ndvi"]) == ("observation", 0.1)
        with place.engine.begin() as connection:
            connection.execute(
                text("UPDATE farms SET is_active = false, revision = nextval('revision_seq') WHERE id = :id"),
                {"id": place.farm_ids[0]},
            )
        [changed], _ = await feed(one, place.ours, after)
        assert (changed["kind"], changed["facts"]["is_active"]) == ("farm", False)

    place.run(read)


def test_days_of_weather_are_told_to_whose_farms_lie_there(place: Place) -> None:
    with place.engine.begin() as connection:
        cell = connection.execute(
            text(
                "INSERT INTO weather_cells (key, source, latitude, longitude) VALUES ('a/1', 'a', 46, 15) RETURNING id"
            )
        ).scalar_one()
        connection.execute(
            text("INSERT INTO farm_cells (farm_id, source, boundary_version, cell_id) VALUES (:farm, 'a', 1, :cell)"),
            {"farm": place.farm_ids[0], "cell": cell},
        )
        connection.execute(
            text(
                "CREATE TABLE weather_daily_2024 PARTITION OF weather_daily "
                "FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO weather_daily (cell_id, day, model, kind, is_final, told_at, precipitation_mm) "
                "VALUES (:cell, '2024-06-10', 'm', 'observed', true, now(), 4.5)"
            ),
            {"cell": cell},
        )

    async def read(one: Worker) -> None:
        found, _ = await feed(one, place.ours)
        assert [each["kind"] for each in found] == ["farm", "farm", "farm_cell", "weather_day"]
        assert (found[-1]["facts"]["day"], found[-1]["facts"]["precipitation_mm"]) == ("2024-06-10", 4.5)
        assert [each["kind"] for each in (await feed(one, place.theirs))[0]] == ["farm"]

    place.run(read)


def test_nothing_is_skipped_while_several_write_at_once(place: Place) -> None:
    """Each writer commits small transactions; a reader that follows has seen every revision once at the end."""

    def write(farm_id: int) -> None:
        engine = engine_for(place.database_url)
        for number in range(15):
            with engine.begin() as connection:
                save_observations(
                    connection, [observed(farm_id, acquired_at=NOON + number * DAY, pass_id=f"p{number}")]
                )
        engine.dispose()

    writers = [threading.Thread(target=write, args=(farm_id,)) for farm_id in place.farm_ids[:2]]

    async def follow(one: Worker) -> None:
        found, since = await feed(one, place.ours)
        for writer in writers:
            writer.start()
        while any(writer.is_alive() for writer in writers):
            more, since = await feed(one, place.ours, since, limit=3)
            found += more
        more, _ = await feed(one, place.ours, since)
        found += more
        revisions = [each["revision"] for each in found]
        assert revisions == sorted(set(revisions))
        assert found == (await feed(one, place.ours))[0]
        assert len(found) == 2 + 30

    place.run(follow)


@pytest.mark.parametrize("query", ["since=17", "since=", "limit=0", "limit=9999", "from=1"])
def test_bad_input_is_named(place: Place, query: str) -> None:
    async def ask(one: Worker) -> None:
        answer = await get(one, f"/api/v1/changes?{query}", place.ours)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == f"query.{query.partition('=')[0]}"

    place.run(ask)
