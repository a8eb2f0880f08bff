"""A long backfill goes on by itself: a run that does its newest days asks for one further run, for the days before.

So one run of a backfill waits at a time, however long it is. Hundreds of waiting runs would hide from a worker what is
scheduled after them (PrefectHQ/prefect #19403).

The further run is asked for before the work begins, for hours later and for the same days: should this run die in a way
that nobody notices, it goes on with them. When the work is done it is given the days before, and its turn.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import structlog
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.runtime import deployment, flow_run
from prefect.states import Scheduled
from pydantic import BaseModel, ConfigDict, Field

from models.days import ONE_DAY, Step, newest_piece
from models.errors import BadInput
from models.weather_missing import DaySpan

log = structlog.get_logger(__name__)

MONTH, YEAR = Step.MONTH, Step.YEAR
MAX_TRIES = 3
"""Days whose run died this often are passed over: they may be what brings the machine down."""
SPARE_AFTER = dt.timedelta(hours=6)
"""When the further run begins if this one dies and is not started again."""
PAUSE = dt.timedelta(minutes=1)
"""After the end of a wait for an allowance: clocks differ."""


class Then(BaseModel):
    """How a backfill goes on after the days of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    back_to: dt.date = Field(description="First day of the whole backfill.")
    tries: int = Field(default=0, ge=0, description="How often a run for these days has died; counted by itself.")
    after: uuid.UUID | None = Field(default=None, description="The run that asked for this one; set by itself.")


@dataclass(slots=True)
class Onward:
    """What a run tells of how to go on."""

    may_go_on_at: dt.datetime | None = None
    """Its days are not done: a service may be asked again only then."""


class BackfillCancelled(Exception):
    """The run before this one was cancelled, and the backfill with it."""


@contextlib.contextmanager
def going_on(then: Then | None, start: dt.date, *, step: Step) -> Iterator[Onward]:
    """Have the days before `start` done by a further run of the same deployment, when the block is over.

    Does nothing where nothing is to follow.

    Args:
        then: how to go on.
        start: first day of this run.
        step: how many days the further run gets.

    Raises:
        BadInput: the run belongs to no deployment, of which there could be another one.
        BackfillCancelled: somebody cancelled the run that asked for this one.
    """
    onward = Onward()
    if then is None:
        yield onward
        return
    if deployment.id is None or flow_run.id is None:
        raise BadInput("then", "only a run of a deployment can go on with further runs", allowed="see `swath backfill`")
    with get_client(sync_client=True) as client:
        _see_that_it_is_wanted(client, then)
        again, older = _parameters(then, start, step)
        is_hopeless = then.tries + 1 >= MAX_TRIES
        spare = _ask_for_spare(client, older if is_hopeless else again)
    try:
        yield onward
    except BadInput:
        _tell(spare, None, None)
        raise
    if onward.may_go_on_at is not None:
        _tell(spare, again | {"then": _then(then.back_to)}, onward.may_go_on_at + PAUSE)
    else:
        _tell(spare, older, dt.datetime.now(dt.UTC))


def _see_that_it_is_wanted(client: SyncPrefectClient, then: Then) -> None:
    if then.after is None:
        return
    with contextlib.suppress(ObjectNotFound):
        state = client.read_flow_run(then.after).state
        if state is not None and (state.is_cancelled() or state.is_cancelling()):
            raise BackfillCancelled("the run before this one was cancelled, so the backfill ends")


Parameters = dict[str, Any]


def _parameters(then: Then, start: dt.date, step: Step) -> tuple[Parameters, Parameters | None]:
    """What a further run is given to do these days again, and to do those before; None where there are none."""
    given: Parameters = dict(flow_run.parameters)
    again = given | {"then": _then(then.back_to, tries=then.tries + 1)}
    left = DaySpan(then.back_to, start - ONE_DAY)
    if left.last < left.first:
        return again, None
    piece = newest_piece(left, step)
    return again, given | {"start": piece.first, "end": piece.last, "then": _then(then.back_to)}


def _then(back_to: dt.date, *, tries: int = 0) -> Then:
    return Then(back_to=back_to, tries=tries, after=uuid.UUID(flow_run.id))


def _ask_for_spare(client: SyncPrefectClient, parameters: Parameters | None) -> FlowRun | None:
    """Ask for the further run; a run that was interrupted and started again finds the one it asked for before."""
    if parameters is None:
        return None
    return client.create_flow_run_from_deployment(
        uuid.UUID(deployment.id),
        parameters=parameters,
        state=Scheduled(scheduled_time=dt.datetime.now(dt.UTC) + SPARE_AFTER, message="Should the run before it die."),
        name="goes on if the run before it dies",
        idempotency_key=f"after {flow_run.id}",
        tags=flow_run.tags,
    )


def _tell(spare: FlowRun | None, parameters: Parameters | None, at: dt.datetime | None) -> None:
    """Give the further run its days and its turn, or take it back; one that has begun meanwhile is left alone."""
    if spare is None:
        return
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(spare.id).state
            if state is None or not state.is_scheduled():
                return
            if parameters is None or at is None:
                client.delete_flow_run(spare.id)
                return
            name = f"{parameters['start']} to {parameters['end']}"
            client.update_flow_run(spare.id, parameters=parameters, name=name).raise_for_status()
            client.set_flow_run_state(spare.id, Scheduled(scheduled_time=at), force=True)
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("the further run was not told; it begins later, with days that are done", error=str(error))
