from __future__ import annotations

import json
import random
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import Engine, text

from models.domain import Observation, Rule, Status
from models.farms import upsert_farms
from models.observations import save_observations
from models.readmodel import FARMS_AT_ONCE, ReadModel, publish, read_models, republish, state_key
from models.state import is_awaited, is_observed
from tests.support.facts import NOON, POLICY, engine_for, observed, store_farms, unseen
from tests.support.shapes import draft, field

DAY = timedelta(days=1)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    yield made
    made.dispose()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as made:
        yield made


@pytest.fixture
def farm_ids(engine: Engine) -> list[int]:
    return store_farms(engine, 3)


def save(engine: Engine, *given: Observation) -> None:
    with engine.begin() as connection:
        save_observations(connection, given)


def models(engine: Engine, farm_ids: list[int] | None = None) -> list[ReadModel]:
    with engine.connect() as connection:
        return list(read_models(connection, farm_ids, mask_policy=POLICY))


def state(engine: Engine, farm_id: int) -> dict[str, Any]:
    [model] = models(engine, [farm_id])
    told: dict[str, Any] = json.loads(model.body)
    assert told["revision"] == model.revision
    return told


class TestState:
    def test_a_farm_not_looked_at_yet_is_being_processed(self, engine: Engine, farm_ids: list[int]) -> None:
        told = state(engine, farm_ids[1])
        assert told.pop("revision") > 0
        assert told == {
            "external_farm_id": str(uuid.UUID(int=2)),
            "coverage_pct": None,
            "status": "processing",
            "is_active": True,
            "latest": None,
            "last_pass": None,
            "next_pass": None,
            "trend": None,
            "of_earlier_boundary": None,
            "why_empty": "no pass has been looked at yet",
            "boundary_version": 1,
            "index": "ndvi",
            "mask_policy": POLICY,
        }

    def test_the_latest_value_the_last_pass_and_the_trend_are_told(self, engine: Engine, farm_ids: list[int]) -> None:
        farm_id = farm_ids[0]
        save(
            engine,
            observed(farm_id, ndvi=0.5, acquired_at=NOON - 170 * DAY),  # the year before: another partition
            unseen(farm_id, Status.NODATA, acquired_at=NOON - 5 * DAY),
            observed(farm_id, ndvi=0.62, rule=Rule.WEIGHTED, clear_fraction=0.98124),
            unseen(farm_id, acquired_at=NOON + 5 * DAY),
            observed(farm_ids[1], ndvi=0.1, acquired_at=NOON + 9 * DAY),
        )
        told = state(engine, farm_id)
        assert (told["status"], told["coverage_pct"]) == ("ready", 98.12)
        assert (
            told["latest"].items()
            >= {
                "ndvi": 0.62,
                "rule": "weighted",
                "day": "2024-06-10",
                "acquired_at": "2024-06-10T10:30:31.024000Z",
                "clear_fraction": 0.98124,
                "mean": pytest.approx(0.6),
                "clear_area_ha": 1.0,
                "item_ids": ["S2B_33TWM_20240610_0_L2A"],
                "catalog": "earth-search-c1",
            }.items()
        )
        assert told["last_pass"] == {
            "day": "2024-06-15",
            "acquired_at": "2024-06-15T10:30:31.024000Z",
            "platform": "S2B-20240615",
            "status": "cloud",
            "clear_fraction": 0.0,
            "why_not_used": "every pixel of the farm was cloud, shadow or otherwise not clear",
        }
        assert told["trend"] == {"ndvi_change": pytest.approx(0.12), "since": "2023-12-23", "days": 170}

    def test_only_clouds_so_far_is_not_a_value(self, engine: Engine, farm_ids: list[int]) -> None:
        save(engine, unseen(farm_ids[0]))
        told = state(engine, farm_ids[0])
        assert (told["status"], told["coverage_pct"], told["latest"]) == ("processing", None, None)
        assert told["last_pass"]["status"] == "cloud"

    def test_a_pass_that_was_used_needs_no_reason(self, engine: Engine, farm_ids: list[int]) -> None:
        save(engine, observed(farm_ids[0]))
        told = state(engine, farm_ids[0])
        assert (told["last_pass"]["status"], told["last_pass"]["why_not_used"]) == ("observed", None)
        assert told["trend"] is None

    def test_other_policies_and_earlier_boundaries_are_not_told(self, engine: Engine, farm_ids: list[int]) -> None:
        save(engine, observed(farm_ids[0]), observed(farm_ids[0], mask_policy="other", acquired_at=NOON + DAY))
        assert state(engine, farm_ids[0])["latest"]["day"] == "2024-06-10"
        with engine.begin() as connection:
            upsert_farms(connection, [draft(1, field(width_m=500))])
        told = state(engine, farm_ids[0])
        assert (told["latest"], told["last_pass"], told["boundary_version"]) == (None, None, 2)
        assert told["of_earlier_boundary"] == {
            "ndvi": 0.62,
            "day": "2024-06-10",
            "acquired_at": "2024-06-10T10:30:31.024000Z",
            "clear_fraction": 0.9812,
            "boundary_version": 1,
        }
        assert "boundary has changed" in told["why_empty"]

    def test_the_next_pass_is_told_from_the_orbits_of_the_last_weeks(self, engine: Engine, farm_ids: list[int]) -> None:
        """Two satellites take turns on one orbit, five days apart; one scene of the second is missing."""
        farm_id = farm_ids[0]
        for day, platform in ((-15, "b"), (-10, "a"), (0, "a"), (3, "c")):
            seen = observed if platform == "a" else unseen
            at = NOON + day * DAY + day * timedelta(seconds=1)
            save(engine, seen(farm_id, acquired_at=at, pass_id=f"sentinel-2{platform}/{day}"))
        save(engine, unseen(farm_id, Status.OUTSIDE, acquired_at=NOON - 9 * DAY, pass_id="sentinel-2z/1"))
        told = state(engine, farm_id)["next_pass"]
        assert (told["day"], told["platform"]) == ("2024-06-15", "sentinel-2b")
        assert told["expected_at"] == "2024-06-15T10:30:16.024000Z"

    def test_bodies_say_whether_a_farm_is_observed_or_awaited(self, engine: Engine, farm_ids: list[int]) -> None:
        save(engine, observed(farm_ids[0]), unseen(farm_ids[1]))
        bodies = [model.body for model in models(engine)]
        assert [is_observed(body) for body in bodies] == [True, False, False]
        assert [is_awaited(body) for body in bodies] == [False, False, True]

    def test_every_change_makes_the_revision_grow(self, engine: Engine, farm_ids: list[int]) -> None:
        """Also one that takes the newest row away from what is told."""
        farm_id = farm_ids[0]
        revisions = [state(engine, farm_id)["revision"]]
        for given in (
            observed(farm_id),
            observed(farm_id, acquired_at=NOON + DAY),
            unseen(farm_id, acquired_at=NOON + 2 * DAY),
            observed(farm_id, acquired_at=NOON + DAY, ndvi=0.3),
            unseen(farm_id, acquired_at=NOON + DAY),
            observed(farm_id, acquired_at=NOON - 9 * DAY),
        ):
            save(engine, given)
            revisions.append(state(engine, farm_id)["revision"])
        with engine.begin() as connection:
            upsert_farms(connection, [draft(1, field(width_m=500))])
        revisions.append(state(engine, farm_id)["revision"])
        assert revisions == sorted(set(revisions))

    def test_farms_are_those_asked_for_or_all_that_are_active(self, engine: Engine, farm_ids: list[int]) -> None:
        with engine.begin() as connection:
            connection.execute(text("UPDATE farms SET is_active = false WHERE id = :id"), {"id": farm_ids[1]})
        assert [model.key for model in models(engine)] == [state_key(uuid.UUID(int=number)) for number in (1, 3)]
        assert len(models(engine, [farm_ids[1], farm_ids[0], farm_ids[1], 10**9])) == 2
        assert state(engine, farm_ids[1])["is_active"] is False
        assert models(engine, []) == []

    def test_the_same_facts_give_the_same_bytes(self, engine: Engine, farm_ids: list[int]) -> None:
        save(engine, *(observed(farm_id) for farm_id in farm_ids))
        before = models(engine)
        save(engine, *(observed(farm_id, inputs="touched") for farm_id in farm_ids))
        assert models(engine) == before


def made(number: int, revision: int) -> ReadModel:
    return ReadModel(state_key(uuid.UUID(int=number)), None, revision, b'{"revision": %d}' % revision)


def kept(client: redis.Redis, number: int) -> tuple[int, bytes]:
    revision, body = client.hmget(state_key(uuid.UUID(int=number)), ["revision", "body"])
    assert isinstance(revision, bytes)
    assert isinstance(body, bytes)
    return int(revision), body


class TestPublish:
    def test_what_is_published_can_be_read_by_one_command(
        self, engine: Engine, client: redis.Redis, farm_ids: list[int]
    ) -> None:
        save(engine, observed(farm_ids[0]))
        [model] = models(engine, [farm_ids[0]])
        assert publish(client, [model]) == 1
        assert client.hget(f"swath:v2:farm:{uuid.UUID(int=1)}:state", "body") == model.body
        assert kept(client, 1) == (model.revision, model.body)

    def test_an_older_one_never_takes_the_place_of_a_newer(self, client: redis.Redis) -> None:
        assert publish(client, [made(1, 7), made(2, 7)]) == 2
        assert publish(client, [made(1, 6), made(2, 8)]) == 1
        assert [kept(client, number)[0] for number in (1, 2)] == [7, 8]
        assert publish(client, [made(1, 7)]) == 1

    def test_revisions_are_compared_as_numbers(self, client: redis.Redis) -> None:
        for revision in (9, 10, 2**52, 2**52 + 1):
            publish(client, [made(1, revision)])
            assert kept(client, 1)[0] == revision
        assert publish(client, [made(1, 2**52)]) == 0

    def test_the_newest_wins_whoever_comes_last(self, client: redis.Redis, redis_url: str) -> None:
        def write(seed: int) -> None:
            order = [made(number, revision) for number in range(20) for revision in range(30)]
            random.Random(seed).shuffle(order)
            with redis.Redis.from_url(redis_url) as own:
                for start in range(0, len(order), 50):
                    publish(own, order[start : start + 50])

        threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert {kept(client, number) for number in range(20)} == {(29, b'{"revision": 29}')}

    def test_many_go_in_several_batches(self, client: redis.Redis) -> None:
        count = 2 * FARMS_AT_ONCE + 1
        assert publish(client, (made(number, 1) for number in range(count))) == count == client.dbsize()
        assert publish(client, []) == 0

    def test_a_redis_that_has_forgotten_its_scripts_is_no_obstacle(self, client: redis.Redis) -> None:
        publish(client, [made(1, 1)])
        client.script_flush()
        assert publish(client, [made(1, 2)]) == 1

    def test_a_redis_that_lost_everything_is_filled_again(
        self, engine: Engine, client: redis.Redis, farm_ids: list[int]
    ) -> None:
        save(engine, *(observed(farm_id) for farm_id in farm_ids))
        publish(client, models(engine))
        before = [kept(client, number) for number in (1, 2, 3)]
        client.flushall()
        with engine.connect() as connection:
            assert republish(connection, client, mask_policy=POLICY) == 3
        assert [kept(client, number) for number in (1, 2, 3)] == before

    def test_a_redis_that_is_away_is_an_error_of_redis(self) -> None:
        with (
            redis.Redis(port=1, socket_connect_timeout=0.5, retry=Retry(NoBackoff(), 0)) as away,
            pytest.raises(redis.RedisError),
        ):
            publish(away, [made(1, 1)])


def test_states_of_many_farms_take_one_query(engine: Engine) -> None:
    ids = store_farms(engine, 2_500)
    save(engine, *(replace(observed(farm_id), acquired_at=NOON) for farm_id in ids))
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        found = read_models(connection, ids, mask_policy=POLICY)
        assert next(found).key == state_key(uuid.UUID(int=1))
        assert sum(1 for _ in found) == 2_499
