"""`swath deploy`: pools, deployments, schedules and alerts on a Prefect server."""

from __future__ import annotations

import os
import time
from typing import Annotated

import orjson
import typer
from rich.console import Console

from infra.settings import load_settings
from models.errors import BadInput, ServerTrouble

POLL_S = 0.1


def deploy(
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, max=3600, help="How long to wait for a server that is starting, seconds.")
    ] = 0,
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
    from infra.up.deployments import flows_of, plan_file, read_plan, register

    plan = read_plan(plan_file())
    flows_of(plan)  # loads them, which takes a while, before a server that is starting is waited for
    _wait_for(os.environ["PREFECT_API_URL"], wait_s)
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


def _wait_for(url: str, wait_s: float) -> None:
    """Wait until a server answers at all; whether it takes what it is given shows later."""
    import httpx

    deadline = time.monotonic() + wait_s
    with httpx.Client(timeout=5) as client:
        while time.monotonic() < deadline:
            try:
                if client.get(f"{url.rstrip('/')}/health").is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(POLL_S)
