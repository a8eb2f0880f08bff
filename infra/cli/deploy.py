"""`swath deploy`: pools, deployments, schedules and alerts on a Prefect server."""

from __future__ import annotations

import os
from typing import Annotated

import orjson
import typer
from rich.console import Console

from infra.settings import load_settings
from models.errors import BadInput, ServerTrouble


def deploy(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line for programs.")] = False,
) -> None:
    """Register what `prefect.yaml` has with the Prefect server of PREFECT_API_URL, and set the alerts.

    Run again, it changes nothing but what changed in the file or the settings. `swath up` does it by itself.
    """
    settings = load_settings()
    if "PREFECT_API_URL" not in os.environ:
        raise BadInput("PREFECT_API_URL", "is not set", allowed="http://host:4200/api; `swath up` needs no server")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectException

    from infra.up.alerts import set_alerts
    from infra.up.deployments import plan_file, read_plan, register

    plan = read_plan(plan_file())
    try:
        with get_client(sync_client=True) as client:
            done = register(client, plan, time_zone=settings.time_zone)
            alerts = set_alerts(client, settings.alert_url)
    except (httpx.HTTPError, PrefectException) as error:
        raise ServerTrouble(f"Prefect's server at {os.environ['PREFECT_API_URL']} did not take it: {error}") from error
    if as_json:
        facts = {"deployments": done.deployments, "switched_off": done.paused, "alerts": alerts}
        typer.echo(orjson.dumps(facts).decode())
        return
    console = Console(highlight=False)
    for name in done.made_pools:
        console.print(f"made work pool {name}")
    for name in done.deployments:
        console.print(f"deployed {name}" + (", with its schedule switched off" if name in done.paused else ""))
    console.print(f"{len(alerts)} alerts" if alerts else "no alerts: SWATH_ALERT_URL is not set")
