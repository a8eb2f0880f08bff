"""Word of passes that no catalog has, as an event in Prefect that automations act on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect.events import emit_event

from models.gaps import Gap

MISSING_EVENT = "swath.passes.missing"
"""Passes have been in no catalog for some days. Each pass is told of once."""
RESOURCE = "swath.catalogs"
"""What the event is about, as Prefect names things."""
MAX_PASSES = 500
"""In one event; the ledger has them all."""
NAMED_PASSES = 5
"""In the message for people."""


def tell_of_missing(told: Sequence[Gap]) -> None:
    """Emit one event for the passes that this run is the first to tell of; none where there are none."""
    if told:
        resource = {"prefect.resource.id": RESOURCE, "prefect.resource.name": "Sentinel-2 catalogs"}
        emit_event(event=MISSING_EVENT, resource=resource, payload=missing_payload(told))


def missing_payload(told: Sequence[Gap]) -> dict[str, Any]:
    """What the event says of these passes: how many, a message for people, and each of them for programs."""
    named = [f"{gap.tile} {gap.day} by {gap.platform} ({gap.farms:,} farms)" for gap in told[:NAMED_PASSES]]
    named += [f"and {len(told) - NAMED_PASSES:,} more"] if len(told) > NAMED_PASSES else []
    passes = [{"tile": gap.tile, "platform": gap.platform, "day": str(gap.day), "farms": gap.farms} for gap in told]
    return {
        "missing": len(told),
        "message": f"{'1 pass' if len(told) == 1 else f'{len(told):,} passes'} in no catalog: {', '.join(named)}",
        "passes": passes[:MAX_PASSES],
    }
