"""Work that the API asks for, as a real Prefect server with our deployment takes it: one run, however many ask."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed
from sqlalchemy import text

from infra.local.prefect import PrefectServer
from infra.up.deployments import plan_file, read_plan, register
from serving.app import ENDPOINTS
from serving.prefect_api import REFRESH
from tests.support.api import key_of
from tests.support.api_workers import Worker, worker
from tests.support.facts import engine_for, store_farms

PLAN = read_plan(plan_file())
FARM = uuid.UUID(int=1)
STATE = f"/api/v1/farms/{FARM}/state"
LOOK_ANEW = f"/api/v1/farms/{FARM}/ndvi/refresh"


@pytest.fixture
def client(prefect_api: PrefectServer) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as found:
        forget(found)
        deploy(found)
        yield found
        forget(found)


@pytest.fixture
def key(database_url: str) -> str:
    engine = engine_for(database_url)
    store_farms(engine, 2)
    made = key_of(engine, "ours")
    with engine.begin() as connection:
        connection.execute(text("UPDATE farms SET client_id = (SELECT id FROM clients)"))
    engine.dispose()
    return made


def deploy(client: SyncPrefectClient) -> None:
    wanted = tuple(each for each in PLAN.deployments if each.name == REFRESH)
    register(client, PLAN.model_copy(update={"deployments": wanted}), time_zone="UTC")


def forget(client: SyncPrefectClient) -> None:
    for run in asked(client):
        client.delete_flow_run(run.id)


def asked(client: SyncPrefectClient) -> list[FlowRun]:
    """The runs that the API asked for."""
    return client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=["api"])))


def run(database_url: str, redis_url: str, prefect: PrefectServer, method: str, path: str, key: str) -> list[Any]:
    """Ask forty times at once, by two workers; give the `data` of the answers."""

    async def ask() -> list[Any]:
        given = {"endpoints": ENDPOINTS, "prefect_url": prefect.api_url, "prefect_auth": prefect.auth}
        async with worker(database_url, redis_url, **given) as one, worker(database_url, redis_url, **given) as two:
            answers = await asyncio.gather(*(_ask((one, two)[number % 2], method, path, key) for number in range(40)))
            await asyncio.gather(*(each.resources.work.close() for each in (one, two)))
            return answers

    return asyncio.run(ask())


async def _ask(one: Worker, method: str, path: str, key: str) -> Any:
    """Ask until it is taken: a server that has just started may be slower than anybody waits for it."""
    for _ in range(20):
        answer = await one.http.request(method, path, headers={"x-api-key": key})
        if answer.status_code != 503:
            break
        assert answer.headers["retry-after"]
        await asyncio.sleep(1)
    assert answer.status_code == 202, answer.text
    return answer.json()["data"]


def test_a_first_look_is_one_run_also_when_redis_forgets_that_it_was_asked_for(
    database_url: str, redis_url: str, prefect_api: PrefectServer, client: SyncPrefectClient, key: str
) -> None:
    for _ in range(2):
        run(database_url, redis_url, prefect_api, "GET", STATE, key)
        while not asked(client):
            run(database_url, redis_url, prefect_api, "GET", STATE, key)
        [found] = asked(client)
        with redis.Redis.from_url(redis_url) as forgetful:
            forgetful.flushall()
    assert found.parameters == {"external_farm_ids": [str(FARM)]}
    assert found.deployment_id == client.read_deployment_by_name(f"{REFRESH}/{REFRESH}").id
    assert found.state is not None
    assert found.state.is_scheduled()


def test_a_refresh_is_one_run_until_it_has_ended(
    database_url: str, redis_url: str, prefect_api: PrefectServer, client: SyncPrefectClient, key: str
) -> None:
    told = run(database_url, redis_url, prefect_api, "POST", LOOK_ANEW, key)
    [first] = asked(client)
    assert [each["is_new"] for each in told].count(True) <= 1
    assert {each["run_id"] for each in told} <= {str(first.id), None}
    again = run(database_url, redis_url, prefect_api, "POST", LOOK_ANEW, key)
    assert {(each["run_id"], each["is_new"]) for each in again} == {(str(first.id), False)}
    client.set_flow_run_state(first.id, Completed(), force=True)
    after = run(database_url, redis_url, prefect_api, "POST", LOOK_ANEW, key)
    assert [each["is_new"] for each in after].count(True) <= 1
    assert len(asked(client)) == 2


def test_a_deployment_made_anew_is_found_again(
    database_url: str, redis_url: str, prefect_api: PrefectServer, client: SyncPrefectClient, key: str
) -> None:
    async def ask() -> None:
        given = {"endpoints": ENDPOINTS, "prefect_url": prefect_api.api_url, "prefect_auth": prefect_api.auth}
        async with worker(database_url, redis_url, **given) as one:
            await _ask(one, "POST", f"/api/v1/farms/{uuid.UUID(int=2)}/ndvi/refresh", key)
            client.delete_deployment(client.read_deployment_by_name(f"{REFRESH}/{REFRESH}").id)
            answer = await one.http.post(LOOK_ANEW, headers={"x-api-key": key})
            assert (answer.status_code, answer.json()["status"]) == (503, "error")
            deploy(client)
            told = await _ask(one, "POST", LOOK_ANEW, key)
            found = client.read_flow_run(uuid.UUID(told["run_id"]))
            assert found.deployment_id == client.read_deployment_by_name(f"{REFRESH}/{REFRESH}").id

    asyncio.run(ask())
