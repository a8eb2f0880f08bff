"""What `prefect.yaml` has is what a Prefect server gets, by our command and by Prefect's own."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.flows import Flow, load_flow_from_entrypoint

from infra.local.prefect import PrefectServer
from infra.up.deployments import Plan, plan_file, read_plan, register
from models.errors import BadInput
from tests.support.archives import ROOT

PLAN = read_plan(plan_file())


@pytest.fixture
def client(prefect_api: PrefectServer) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as found:
        yield found


def deployed(client: SyncPrefectClient, plan: Plan = PLAN) -> dict[str, DeploymentResponse]:
    done = register(client, plan, time_zone="Europe/Berlin")
    found = [client.read_deployment_by_name(name) for name in done.deployments]
    return {each.name: each for each in found}


def test_the_file_beside_the_packages_is_the_one() -> None:
    assert plan_file() == ROOT / "prefect.yaml"


@pytest.mark.parametrize("each", PLAN.deployments, ids=lambda each: each.name)
def test_every_deployment_names_a_flow_by_module_and_explains_itself_and_its_parameters(each: object) -> None:
    [entry] = [found for found in PLAN.deployments if found is each]
    assert ":" not in entry.entrypoint
    flow: Flow[..., object] = load_flow_from_entrypoint(entry.entrypoint, use_placeholder_flow=False)
    assert len(entry.description) > 80
    parameters = flow.parameters.properties
    assert [name for name, facts in parameters.items() if not facts.get("description")] == []
    assert set(entry.parameters) <= set(parameters)
    assert "swath" in entry.tags


def test_the_pools_of_all_deployments_are_in_the_file() -> None:
    queues = {(pool.name, queue.name) for pool in PLAN.work_pools for queue in pool.queues}
    queues |= {(pool.name, "default") for pool in PLAN.work_pools}
    assert {(each.work_pool.name, each.work_pool.work_queue_name) for each in PLAN.deployments} <= queues


def test_backfills_wait_in_a_pool_of_their_own_and_not_at_a_limit_of_their_deployment() -> None:
    backfills = [each for each in PLAN.deployments if "backfill" in each.tags]
    assert backfills
    assert {each.work_pool.name for each in backfills} == {"swath-backfill"}
    assert all(each.concurrency_limit is None for each in backfills)
    [pool] = [pool for pool in PLAN.work_pools if pool.name == "swath-backfill"]
    assert pool.concurrency_limit == 1


def test_what_schedules_start_never_runs_twice_at_once() -> None:
    scheduled = [each for each in PLAN.deployments if each.schedules]
    limits = [each.concurrency_limit for each in scheduled if each.concurrency_limit is not None]
    assert len(limits) == len(scheduled)
    assert {(limit.limit, limit.collision_strategy) for limit in limits} == {(1, "CANCEL_NEW")}


def test_registering_twice_changes_nothing(client: SyncPrefectClient) -> None:
    first = deployed(client)
    again = register(client, PLAN, time_zone="Europe/Berlin")
    assert again.made_pools == ()
    second = deployed(client)
    assert {name: each.id for name, each in first.items()} == {name: each.id for name, each in second.items()}
    assert set(first) == {each.name for each in PLAN.deployments}


def test_schedules_follow_the_time_zone_of_the_settings(client: SyncPrefectClient) -> None:
    [schedule] = deployed(client)["daily-ndvi"].schedules
    assert schedule.active
    assert schedule.schedule.timezone == "Europe/Berlin"


def test_the_weather_is_kept_warm_before_an_hour_is_over(client: SyncPrefectClient) -> None:
    [schedule] = deployed(client)["prewarm-weather"].schedules
    assert isinstance(schedule.schedule, IntervalSchedule)
    assert schedule.schedule.interval == dt.timedelta(minutes=55)


def test_the_server_knows_parameters_tags_and_the_collision_rule(client: SyncPrefectClient) -> None:
    found = deployed(client)
    refresh = found["refresh-farm"].parameter_openapi_schema
    assert refresh is not None
    assert refresh["required"] == ["external_farm_ids"]
    assert refresh["properties"]["external_farm_ids"]["maxItems"] == 1000
    assert "how far back" in refresh["properties"]["lookback_days"]["description"]
    daily = found["daily-ndvi"]
    assert daily.global_concurrency_limit is not None
    assert daily.global_concurrency_limit.limit == 1
    assert daily.concurrency_options is not None
    assert daily.concurrency_options.collision_strategy == "CANCEL_NEW"
    assert (daily.work_pool_name, daily.work_queue_name) == ("swath", "daily")
    assert set(daily.tags) == {"swath", "ndvi", "daily"}
    assert daily.pull_steps == []


def test_a_schedule_that_was_switched_off_by_hand_stays_off(client: SyncPrefectClient) -> None:
    daily = deployed(client)["daily-ndvi"]
    [schedule] = daily.schedules
    client.update_deployment_schedule(daily.id, schedule.id, active=False)
    try:
        done = register(client, PLAN, time_zone="UTC")
        assert done.paused == ("daily-ndvi/daily-ndvi",)
        [schedule] = client.read_deployment(daily.id).schedules
        assert not schedule.active
    finally:
        client.update_deployment_schedule(daily.id, schedule.id, active=True)


def test_limits_of_a_pool_that_an_operator_changed_are_kept(client: SyncPrefectClient) -> None:
    deployed(client)
    client.request("PATCH", "/work_pools/{name}", path_params={"name": "swath-backfill"}, json={"concurrency_limit": 3})
    deployed(client)
    assert client.read_work_pool("swath-backfill").concurrency_limit == 3


@pytest.mark.slow
def test_prefects_own_command_takes_the_file_as_it_is(client: SyncPrefectClient) -> None:
    deployed(client)
    done = subprocess.run(
        [Path(sys.executable).with_name("prefect"), "deploy", "--all"],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=150,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for each in PLAN.deployments:
        assert f"/{each.name}' successfully created" in done.stdout


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("deployments: [", "is not YAML"),
        ("work_pools: []\n", "deployments: Field required"),
        (
            "work_pools: [{name: a, type: process, description: b, queues: [{name: c, priority: 0}]}]\ndeployments: []",
            "work_pools.0.queues.0.priority",
        ),
        ("work_pools: []\ndeployments: [{name: a, entrypoints: b}]", "deployments.0"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_place(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "prefect.yaml"
    file.write_text(text)
    with pytest.raises(BadInput, match=problem):
        read_plan(file)
