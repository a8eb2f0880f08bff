"""What is due: the plan held against the ledger, and what earlier runs left behind."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr
from redis import Redis
from sqlalchemy import Engine, text

from infra.settings import Settings
from infra.stores import Stores
from models.domain import Farm, SceneWork
from models.farms import stored_farms, upsert_farms
from models.ledger import finish_work, plan_work, record_scenes
from models.observations import save_observations
from models.selection import Selection
from tasks.bench import Bench
from tasks.due import find_due
from tasks.imagery.catalogs import KNOWN_CATALOGS
from tasks.observe import INDEX
from tests.support.facts import engine_for, observed, work
from tests.support.scenes import made_scene, tile_grid
from tests.support.shapes import draft, field

JUNE = (dt.date(2024, 6, 1), dt.date(2024, 6, 30))
JULY = (dt.date(2024, 7, 1), dt.date(2024, 7, 31))
SCENE = made_scene("33TWL", tile_grid())
POLICY = Settings().mask_policy.name
CATALOGS = [KNOWN_CATALOGS["earth-search-c1"]]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = engine_for(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def farms(engine: Engine) -> list[Farm]:
    """Two farms on the tile of the scene, which the ledger knows."""
    drafts = [draft(number, field(lon=15.5, lat=45.5 + number / 100)) for number in (1, 2)]
    with engine.begin() as connection:
        upsert_farms(connection, drafts)
        record_scenes(connection, [SCENE], [])
        return list(stored_farms(connection))


def bench(engine: Engine, redis_url: str, **changes: object) -> Bench:
    settings = Settings(database_url=SecretStr("postgresql://unused"), **changes)  # type: ignore[arg-type]
    stores = Stores(engine, Redis.from_url(redis_url), "", "")
    return Bench(settings, stores, lambda tasks: tasks, is_again=False, is_for_some=False)


def answer(engine: Engine, due: SceneWork, *, failed: list[int]) -> None:
    """Note the outcome of a scene as a run would: some farms failed, the others observed."""
    method = {"index": INDEX, "mask_policy": POLICY}
    given = [
        observed(
            farm_id,
            acquired_at=due.acquired_at,
            pass_id=due.pass_id,
            day=due.day,
            mask_policy=POLICY,
            inputs=due.inputs,
        )
        for farm_id in due.farm_ids
        if farm_id not in failed
    ]
    with engine.begin() as connection:
        save_observations(connection, given)
        finish_work(
            connection,
            due,
            observed=len(given),
            not_observed={},
            failed_farm_ids=failed,
            problem="down" if failed else None,
            is_retryable=True if failed else None,
            **method,
        )


def test_what_failed_is_due_again_also_in_a_run_of_other_days(
    engine: Engine, redis_url: str, farms: list[Farm]
) -> None:
    here = bench(engine, redis_url)
    [due] = find_due(here, CATALOGS, Selection(), JUNE)
    assert due.farm_ids == tuple(farm.id for farm in farms)
    answer(engine, due, failed=[farms[1].id])
    [left] = find_due(bench(engine, redis_url), CATALOGS, Selection(), JULY)
    assert (left.pass_id, left.farm_ids) == (due.pass_id, (farms[1].id,))
    answer(engine, left, failed=[])
    assert find_due(bench(engine, redis_url), CATALOGS, Selection(), JULY) == []
    assert find_due(bench(engine, redis_url), CATALOGS, Selection(), JUNE) == []


def test_a_farm_that_moved_off_the_pass_is_let_go(engine: Engine, redis_url: str, farms: list[Farm]) -> None:
    [due] = find_due(bench(engine, redis_url), CATALOGS, Selection(), JUNE)
    answer(engine, due, failed=[farms[1].id])
    with engine.begin() as connection:
        upsert_farms(connection, [draft(2, field(lon=3.0, lat=45.5))])
    assert find_due(bench(engine, redis_url), CATALOGS, Selection(), JULY) == []
    with engine.connect() as connection:
        [(state, pending)] = connection.execute(text("SELECT state, pending_farm_ids FROM work")).all()
    assert (state, pending) == ("done", [])


def test_a_setting_that_changes_numbers_makes_them_due_again(engine: Engine, redis_url: str, farms: list[Farm]) -> None:
    [due] = find_due(bench(engine, redis_url), CATALOGS, Selection(), JUNE)
    answer(engine, due, failed=[])
    assert find_due(bench(engine, redis_url), CATALOGS, Selection(), JUNE) == []
    [again] = find_due(bench(engine, redis_url, inner_margin_m=10), CATALOGS, Selection(), JUNE)
    assert again.farm_ids == due.farm_ids
    assert again.inputs != due.inputs


def test_planners_do_not_lock_each_other_out(engine: Engine, farms: list[Farm]) -> None:
    ids = [farm.id for farm in farms]
    passes = [SCENE.acquired_at + dt.timedelta(days=day) for day in range(12)]
    works = [
        work(ids, tiles=tiles, acquired_at=instant, pass_id=f"pass-{instant:%d}")
        for instant in passes
        for tiles in (("33TWL",), ("33TWM",))
    ]

    def plan_often(offset: int) -> int:
        for turn in range(8):
            with engine.begin() as connection:
                plan_work(connection, works[(turn + offset) % 2 :: 2], index=INDEX, mask_policy=POLICY)
        return 8

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(plan_often, range(4))) == 32
