"""A backfill that is left to the workers of Prefect: one run of it waits at a time, and asks for the next."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from infra.cli.asked_runs import Handed, ask_for_run, prefect_client
from infra.cli.backfill_cost import Costs, Wanted
from infra.settings import Settings
from infra.up.found import prefect_of_up
from models.errors import BadInput
from models.weather_missing import DaySpan

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

DEPLOYMENTS = {"ndvi": "ndvi-days/backfill-ndvi", "weather": "backfill-weather/backfill-weather"}


def hand_over(settings: Settings, wanted: Wanted, costs: Costs) -> list[Handed]:
    """Ask for the run of the newest piece of each kind, which asks for the next, back to the oldest that has work.

    Raises:
        BadInput: there is no Prefect server with workers.
        ServerTrouble: it lacks the deployment, or does not answer.
    """
    if "PREFECT_API_URL" not in os.environ and not prefect_of_up(settings.home):
        raise BadInput("--detach", "needs a Prefect server", allowed="while `swath up` runs, or with PREFECT_API_URL")
    with prefect_client(settings) as client:
        return [_ask(client, wanted, *each) for each in _chains(costs)]


def _chains(costs: Costs) -> Iterator[tuple[str, DaySpan, DaySpan]]:
    """For each kind of work its newest and its oldest piece with anything to do."""
    for kind, pieces in (("ndvi", costs.ndvi), ("weather", costs.weather)):
        if pieces:
            yield kind, pieces[0].days, pieces[-1].days


def _ask(client: SyncPrefectClient, wanted: Wanted, kind: str, newest: DaySpan, oldest: DaySpan) -> Handed:
    parameters: dict[str, Any] = {
        "start": newest.first,
        "end": newest.last,
        "farms": wanted.farms,
        "bbox": wanted.bbox,
        "then": {"back_to": oldest.first},
    }
    name = f"{kind} {newest.first} to {newest.last}, then back to {oldest.first}"
    return ask_for_run(client, DEPLOYMENTS[kind], parameters, name=name)
