"""Work pools, deployments and schedules of `prefect.yaml`, registered with a Prefect server, again and again.

`prefect deploy --all` does the same for the deployments alone, and resets what was switched off in the UI.
"""

from __future__ import annotations

import datetime as dt
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyOptions
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import BadInput

FILE = "prefect.yaml"
TIME_ZONE = "{{ $SWATH_TIME_ZONE }}"
"""How the file names the time zone of the settings."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Queue(_Strict):
    """A queue of a work pool."""

    name: str
    priority: int = Field(ge=1)
    concurrency_limit: int | None = Field(default=None, ge=1)
    description: str | None = None


class Pool(_Strict):
    """A work pool."""

    name: str
    type: str
    description: str
    concurrency_limit: int | None = Field(default=None, ge=1)
    queues: tuple[Queue, ...] = ()


class Schedule(_Strict):
    """When a deployment runs by itself."""

    slug: str
    cron: str | None = None
    interval: int | None = Field(default=None, ge=60)
    """Seconds."""
    timezone: str | None = None
    active: bool | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class Limit(_Strict):
    """How many runs of a deployment there may be at once."""

    limit: int = Field(ge=1)
    collision_strategy: str


class Where(_Strict):
    """The work pool of a deployment."""

    name: str
    work_queue_name: str
    job_variables: dict[str, Any] = Field(default_factory=dict)


class Deployment(_Strict):
    """One entry of the file."""

    name: str
    entrypoint: str
    description: str
    tags: tuple[str, ...]
    work_pool: Where
    schedules: tuple[Schedule, ...] = ()
    parameters: dict[str, Any] = Field(default_factory=dict)
    concurrency_limit: Limit | None = None


class Plan(BaseModel):
    """What we read of the file; Prefect's own command reads the rest."""

    model_config = ConfigDict(frozen=True)

    work_pools: tuple[Pool, ...]
    deployments: tuple[Deployment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """What a server has now."""

    made_pools: tuple[str, ...]
    deployments: tuple[str, ...]
    """As `flow/deployment`."""
    paused: tuple[str, ...] = field(default=())
    """Deployments with a schedule that somebody switched off, which stays so."""


def plan_file() -> Path:
    """The file of this checkout, or of the installed package.

    Raises:
        BadInput: there is none.
    """
    places = (Path(__file__).parents[2] / FILE, Path(sysconfig.get_path("data")) / "share" / "swath" / FILE)
    for place in places:
        if place.is_file():
            return place
    raise BadInput(FILE, f"is in none of {', '.join(map(str, places))}")


def read_plan(file: Path) -> Plan:
    """Read the file.

    Raises:
        BadInput: it is no YAML, or not of the shape that we know; says where.
    """
    try:
        return Plan.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise BadInput(str(file), f"is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise BadInput(str(file), f"{place}: {first['msg']}") from error


def flows_of(plan: Plan) -> dict[str, Flow[..., Any]]:
    """Load the flows that the plan names, by entrypoint."""
    return {
        each.entrypoint: load_flow_from_entrypoint(each.entrypoint, use_placeholder_flow=False)
        for each in plan.deployments
    }


def register(client: SyncPrefectClient, plan: Plan, *, time_zone: str) -> Registered:
    """Make what the plan has and the server lacks, and bring its deployments up to date.

    Work pools that are there are left alone, whatever their type: their limits and images are the operator's. A
    schedule that was switched off by hand stays switched off.
    """
    made = tuple(pool.name for pool in plan.work_pools if _make_pool(client, pool))
    flows = flows_of(plan)
    names, paused = [], []
    for each in plan.deployments:
        name, is_paused = _register_deployment(client, each, flows[each.entrypoint], time_zone=time_zone)
        names.append(name)
        if is_paused:
            paused.append(name)
    return Registered(made_pools=made, deployments=tuple(names), paused=tuple(paused))


def _make_pool(client: SyncPrefectClient, pool: Pool) -> bool:
    try:
        client.create_work_pool(
            WorkPoolCreate(
                name=pool.name,
                type=pool.type,
                description=pool.description,
                base_job_template=_job_template(pool.type),
                concurrency_limit=pool.concurrency_limit,
            )
        )
        is_new = True
    except ObjectAlreadyExists:
        is_new = False
    there = {queue["name"] for queue in _queues(client, pool.name)}
    for queue in pool.queues:
        if queue.name not in there:
            path = {"work_pool_name": pool.name}
            body = queue.model_dump(mode="json")
            client.request("POST", "/work_pools/{work_pool_name}/queues", path_params=path, json=body)
    return is_new


def _queues(client: SyncPrefectClient, pool: str) -> list[Mapping[str, Any]]:
    path = {"work_pool_name": pool}
    answer = client.request("POST", "/work_pools/{work_pool_name}/queues/filter", path_params=path, json={})
    found: list[Mapping[str, Any]] = answer.json()
    return found


def _job_template(kind: str) -> dict[str, Any]:
    """What a job of this type may be told; a worker of another type than ours brings its own."""
    if kind != "process":
        return {}
    from prefect.workers.process import ProcessWorker

    return dict(ProcessWorker.get_default_base_job_template())


def _register_deployment(
    client: SyncPrefectClient, each: Deployment, flow: Flow[..., Any], *, time_zone: str
) -> tuple[str, bool]:
    name = f"{flow.name}/{each.name}"
    off = _switched_off(client, name)
    schedules = [_schedule(schedule, time_zone=time_zone, off=off) for schedule in each.schedules]
    client.create_deployment(
        flow_id=client.create_flow_from_name(flow.name),
        name=each.name,
        version=flow.version,
        description=each.description.strip(),
        entrypoint=each.entrypoint,
        path=None,
        pull_steps=[],
        tags=list(each.tags),
        schedules=schedules,
        parameters=each.parameters,
        parameter_openapi_schema=parameter_schema(flow).model_dump(exclude_unset=True),
        enforce_parameter_schema=True,
        work_pool_name=each.work_pool.name,
        work_queue_name=each.work_pool.work_queue_name,
        job_variables=each.work_pool.job_variables,
        concurrency_limit=None if each.concurrency_limit is None else each.concurrency_limit.limit,
        concurrency_options=_options(each.concurrency_limit),
    )
    return name, any(not schedule.active for schedule in schedules)


def _switched_off(client: SyncPrefectClient, name: str) -> set[str]:
    try:
        there = client.read_deployment_by_name(name)
    except ObjectNotFound:
        return set()
    return {schedule.slug for schedule in there.schedules if schedule.slug and not schedule.active}


def _schedule(schedule: Schedule, *, time_zone: str, off: set[str]) -> DeploymentScheduleCreate:
    zone = time_zone if schedule.timezone == TIME_ZONE else schedule.timezone
    when: CronSchedule | IntervalSchedule
    if schedule.cron is not None:
        when = CronSchedule(cron=schedule.cron, timezone=zone)
    elif schedule.interval is not None:
        when = IntervalSchedule(interval=dt.timedelta(seconds=schedule.interval), timezone=zone)
    else:
        raise BadInput(FILE, f"schedule {schedule.slug} has neither cron nor interval")
    is_active = schedule.slug not in off if schedule.active is None else schedule.active
    return DeploymentScheduleCreate(schedule=when, active=is_active, slug=schedule.slug, parameters=schedule.parameters)


def _options(limit: Limit | None) -> ConcurrencyOptions | None:
    if limit is None:
        return None
    return ConcurrencyOptions.model_validate({"collision_strategy": limit.collision_strategy})
