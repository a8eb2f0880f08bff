"""The feed of changes: one request brings a client up to date."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from models.changes import EVERYTHING, OF_CLIENT, SNAPSHOT, changes_sql
from models.domain import INDEX
from models.weather import DAILY_VARIABLES
from serving.cursors import from_cursor, to_cursor
from serving.endpoints import Answer, Call, Endpoint, Strict, Told, etag_of
from serving.ndvi import Observation
from serving.tables import next_link

MOST_CHANGES = 2_000
DEADLINE_S = 10.0

Source = Literal["open-meteo", "nasa-power"]


class ChangesQuery(Strict):
    """From where on, and how many."""

    since: str | None = Field(default=None, description="`next` of the answer before; without it, from the beginning.")
    limit: Annotated[int, Field(ge=1, le=MOST_CHANGES)] = Field(default=500, description="Most changes of one answer.")


class FarmFacts(Told):
    """A farm as it is now, without its boundary."""

    external_farm_id: uuid.UUID
    external_user_id: str | None
    name: str
    is_active: bool
    boundary_version: int
    area_ha: float
    bbox: Annotated[list[float], Field(min_length=4, max_length=4)]


class FarmCell(Told):
    """Which cell of weather of a source a farm lies in."""

    external_farm_id: uuid.UUID
    cell: str
    source: Source


class ObservationOfFarm(Observation):
    """An observation of a farm, in the place of any other of the same `pass_id`."""

    external_farm_id: uuid.UUID
    boundary_version: int
    pass_id: str


class _WeatherDay(Told):
    cell: str
    source: Source
    day: dt.date
    model: str
    weather_kind: Literal["observed", "reanalysis", "forecast"]
    is_final: bool


WeatherDayOfCell = create_model(
    "WeatherDayOfCell",
    __base__=_WeatherDay,
    __doc__="What one model of a source tells of a cell and a UTC day, in the place of what it told before.",
    **dict.fromkeys(DAILY_VARIABLES, (float | None, ...)),  # type: ignore[call-overload]
)


class _Change(Told):
    revision: int = Field(description="Grows from change to change.")


class FarmChange(_Change):
    """A farm is new, or changed."""

    kind: Literal["farm"]
    facts: FarmFacts


class FarmCellChange(_Change):
    """A farm was given a cell of weather."""

    kind: Literal["farm_cell"]
    facts: FarmCell


class ObservationChange(_Change):
    """An observation is new, or revised."""

    kind: Literal["observation"]
    facts: ObservationOfFarm


class WeatherDayChange(_Change):
    """A day of weather is new, or was told anew."""

    kind: Literal["weather_day"]
    facts: WeatherDayOfCell


class Changes(Told):
    """Changes in their order."""

    changes: list[FarmChange | FarmCellChange | ObservationChange | WeatherDayChange]
    next: str | None = Field(description="To be given as `since` the next time; null before the first change.")
    has_more: bool = Field(description="There are more changes already: ask again at once.")


async def changes(call: Call[None, ChangesQuery, None]) -> Answer:
    """Tell what changed for the caller's farms; all kinds are read from one snapshot, so that none is skipped."""
    query, principal = call.query, call.principal
    since = from_cursor("changes", query.since, int, field="since")[0] if query.since is not None else 0
    values = {
        "since": min(since, 2**62),
        "limit": query.limit + 1,
        "index": INDEX,
        "mask_policy": call.resources.settings.mask_policy.name,
        "client": principal.client_id,
    }
    found: list[tuple[int, str, dict[str, Any]]] = []
    async with call.resources.database.transaction(deadline_s=DEADLINE_S) as connection:
        await connection.execute(SNAPSHOT)
        for kind, statement in changes_sql(EVERYTHING if principal.is_admin else OF_CLIENT).items():
            cursor = await connection.execute(statement.encode(), values)
            found += [(row.pop("revision"), kind, row) for row in await cursor.fetchall()]
    found.sort(key=lambda each: each[0])
    told = found[: query.limit]
    after = to_cursor("changes", told[-1][0]) if told else query.since
    has_more = len(found) > query.limit
    data = {
        "changes": [{"kind": kind, "revision": revision, "facts": _facts(row)} for revision, kind, row in told],
        "next": after,
        "has_more": has_more,
    }
    answer = Answer.of(data, headers=next_link(call.raw_path, after, name="since") if has_more else {})
    return answer.but(etag=etag_of(answer.body))


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value.astimezone(dt.UTC) if isinstance(value, dt.datetime) else value for name, value in row.items()}


ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/api/v1/changes",
        handler=changes,
        summary="What changed since",
        tag="changes",
        query_model=ChangesQuery,
        answers={200: Changes},
    ),
)
