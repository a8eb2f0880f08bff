"""Runs of deployments, asked for at Prefect's server and left to its workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.errors import ServerTrouble

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """A run that was asked for."""

    name: str
    flow_run_id: str
    url: str
    """Of its page in Prefect's UI."""


def ask_for_run(
    client: SyncPrefectClient, deployment: str, parameters: Mapping[str, Any], *, name: str | None = None
) -> Handed:
    """Ask for a run of a deployment, as soon as a worker has time.

    Args:
        client: of Prefect's server.
        deployment: as `flow/deployment`.
        parameters: of its flow.
        name: of the run; without one it is named by its flow when it starts.

    Raises:
        ServerTrouble: the server lacks the deployment.
    """
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Scheduled

    try:
        found = client.read_deployment_by_name(deployment)
    except ObjectNotFound as error:
        raise ServerTrouble(f"Prefect's server has no deployment {deployment}: `swath deploy` registers it") from error
    run = client.create_flow_run_from_deployment(found.id, parameters=dict(parameters), state=Scheduled(), name=name)
    ui = str(client.api_url).rstrip("/").removesuffix("/api")
    return Handed(name=run.name, flow_run_id=str(run.id), url=f"{ui}/runs/flow-run/{run.id}")
