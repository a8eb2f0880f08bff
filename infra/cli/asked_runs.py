"""Runs of deployments, asked for at Prefect's server and left to its workers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra.cli.running import prefect_server
from infra.settings import Settings
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


@contextlib.contextmanager
def prefect_client(settings: Settings) -> Iterator[SyncPrefectClient]:
    """A client of Prefect's server for the time of the block.

    Raises:
        ServerTrouble: it does not answer, or not as it should.
    """
    with prefect_server(settings):
        # Loaded here: Prefect reads its settings when it is imported.
        import httpx
        from prefect.client.orchestration import get_client
        from prefect.exceptions import PrefectException

        try:
            with get_client(sync_client=True) as client:
                yield client
        except (httpx.HTTPError, PrefectException) as error:
            raise ServerTrouble(f"Prefect's server did not do what it was asked for: {error}") from error


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
