"""A few farms, observed at once because somebody asked."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from flows.ndvi import MAX_LOOKBACK_DAYS, ndvi_days, newest_day
from flows.run_names import Parameters, named

MAX_FARMS = 1000


def _name(given: Parameters) -> str:
    asked = given["external_farm_ids"]
    return f"refresh of farm {asked[0]}" if len(asked) == 1 else f"refresh of {len(asked)} farms"


@flow(name="refresh-farm", flow_run_name=named(_name), persist_result=False)
def refresh_farm(
    external_farm_ids: Annotated[list[uuid.UUID], Field(min_length=1, max_length=MAX_FARMS)],
    lookback_days: Annotated[int, Field(ge=0, le=MAX_LOOKBACK_DAYS)] = 30,
) -> State[Any]:
    """Observe a few farms in every pass of the last days that they have no up-to-date observation of.

    Args:
        external_farm_ids: the farms, as the API names them; up to 1,000.
        lookback_days: how far back to look for passes.
    """
    end = newest_day()
    # Its body, not a run within the run: one row in the UI for one request.
    return ndvi_days.fn(end - dt.timedelta(days=lookback_days), end, farms=external_farm_ids)
