"""Word to a webhook of flow runs that failed, crashed or are late, and of missing passes: automations made by code.

They lie on the Prefect server and work also where flows run on other machines. Called again, the same four are there;
without an address they are taken away.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass

import orjson
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import CallWebhook
from prefect.events.schemas.automations import (
    AutomationCore,
    EventTrigger,
    Posture,
)
from prefect.events.schemas.events import ResourceSpecification
from pydantic import SecretStr

from flows.missing import MISSING_EVENT, RESOURCE

BLOCK = "swath-alerts"
OWN = "swath"
"""Tag of our deployments' runs."""
DAILY = "daily"
"""Tag of what schedules start. Only these are ever late: runs of a backfill are meant to wait."""

# Values go through `tojson`, so that no name or message can break out of the body. `text` is what chat services show.
_OF_RUN = """{
  "source": "swath",
  "alert": %(name)s,
  "text": {{ (%(name)s ~ ": " ~ flow_run.name ~ " (" ~ (deployment.name if deployment else flow.name) ~ ") is "
    ~ flow_run.state.name ~ (". " ~ flow_run.state.message if flow_run.state.message else "")) | tojson }},
  "deployment": {{ (deployment.name if deployment else none) | tojson }},
  "flow": {{ flow.name | tojson }},
  "run": {{ flow_run.name | tojson }},
  "run_id": {{ flow_run.id | string | tojson }},
  "state": {{ flow_run.state.name | tojson }},
  "message": {{ flow_run.state.message | tojson }},
  "at": {{ event.occurred | string | tojson }},
  "url": {{ (flow_run | ui_url) | tojson }}
}"""

_OF_PASSES = """{
  "source": "swath",
  "alert": %(name)s,
  "text": {{ (%(name)s ~ ": " ~ event.payload.message) | tojson }},
  "run": {{ (flow_run.name if flow_run else none) | tojson }},
  "run_id": {{ (flow_run.id | string if flow_run else none) | tojson }},
  "message": {{ event.payload.message | tojson }},
  "missing": {{ event.payload.missing | tojson }},
  "passes": {{ event.payload.passes | tojson }},
  "at": {{ event.occurred | string | tojson }},
  "url": {{ ((flow_run | ui_url) if flow_run else none) | tojson }}
}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One automation."""

    name: str
    description: str
    event: str
    tag: str | None
    """Only of runs with this tag; None: whoever says it."""
    resource: str = "prefect.flow-run.*"
    """What it is about, each told of by itself."""
    body: str = _OF_RUN
    """What the webhook is sent."""


ALERTS = (
    Alert(
        name="swath: a run failed",
        description="A flow run ended Failed: something due could not be done. It is tried again at the next run.",
        event="prefect.flow-run.Failed",
        tag=OWN,
    ),
    Alert(
        name="swath: a run crashed",
        description="A flow run's process ended without saying how its work came out.",
        event="prefect.flow-run.Crashed",
        tag=OWN,
    ),
    Alert(
        name="swath: a run is late",
        description="A scheduled run did not start in time: is a worker running?",
        event="prefect.flow-run.Late",
        tag=DAILY,
    ),
    Alert(
        name="swath: passes are missing",
        description="Passes over our farms have been in no catalog for days. They are asked for again for a while.",
        event=MISSING_EVENT,
        tag=None,
        resource=RESOURCE,
        body=_OF_PASSES,
    ),
)


def set_alerts(client: SyncPrefectClient, url: SecretStr | None) -> tuple[str, ...]:
    """See that the server has our alerts to this address, once each, or none without an address; give their names.

    An alert that somebody switched off in the UI stays switched off.
    """
    there = {each.name: each for alert in ALERTS for each in client.read_automations_by_name(alert.name)}
    if url is None:
        for each in there.values():
            client.delete_automation(each.id)
        return ()
    block = _webhook(url)
    for alert in ALERTS:
        known = there.get(alert.name)
        automation = _automation(alert, block, enabled=known is None or known.enabled)
        if known is None:
            client.create_automation(automation)
        else:
            client.update_automation(known.id, automation)
    return tuple(alert.name for alert in ALERTS)


def _webhook(url: SecretStr) -> uuid.UUID:
    headers = {"Content-Type": "application/json"}
    saved = Webhook(method="POST", url=url, headers=headers).save(BLOCK, overwrite=True)
    assert isinstance(saved, uuid.UUID)
    return saved


def _automation(alert: Alert, block: uuid.UUID, *, enabled: bool) -> AutomationCore:
    of_runs = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{alert.tag}"}
    return AutomationCore(
        name=alert.name,
        description=alert.description,
        enabled=enabled,
        trigger=EventTrigger(
            posture=Posture.Reactive,
            expect={alert.event},
            match=ResourceSpecification({"prefect.resource.id": alert.resource}),
            match_related=ResourceSpecification({} if alert.tag is None else of_runs),
            for_each={"prefect.resource.id"},
            threshold=1,
            within=dt.timedelta(0),
        ),
        actions=[
            CallWebhook(block_document_id=block, payload=alert.body % {"name": orjson.dumps(alert.name).decode()})
        ],
    )
