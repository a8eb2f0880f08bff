"""NDVI of a farm: its state, its series, its newest observation, and a fresh look when somebody asks."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Any, Literal

import orjson
from pydantic import AwareDatetime, Field, model_validator
from pydantic_core import PydanticCustomError

from models import series
from models.domain import INDEX
from models.state import is_awaited, is_observed, latest_of, observation, observation_of
from serving.cursors import from_cursor, no_cursor, to_cursor
from serving.endpoints import CSV, Answer, Call, Endpoint, Strict, Told, etag_of
from serving.faults import ApiError, unavailable
from serving.fields import FIRST_DAY, LAST_DAY, Day, FarmPath, Fraction
from serving.gate import Fetch
from serving.prefect_api import PrefectAway
from serving.reading import State, fetch_state
from serving.tables import csv_table, next_link

MOST_OBSERVATIONS = 5_000
RETRY_S = 30
"""When a reader of a farm that is being looked at may look again."""


class Observation(Told):
    """What one pass told of a farm: a value, or the reason why there is none."""

    day: dt.date = Field(description="Local solar day.")
    acquired_at: AwareDatetime = Field(description="When the sensor looked, UTC.")
    status: Literal["observed", "cloud", "outside", "nodata"]
    ndvi: float | None = Field(description="Headline value, made by `rule`.")
    rule: Literal["inner", "weighted"] | None
    clear_fraction: float = Field(description="Share of the farm's area that was seen clearly.")
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    median: float | None
    p10: float | None
    p25: float | None
    p75: float | None
    p90: float | None
    inner_mean: float | None
    inner_median: float | None
    inner_pixel_count: int | None
    pixel_count: int | None
    clear_area_ha: float | None
    item_ids: list[str] = Field(description="Catalog items that it was made from.")
    processing_baseline: str | None
    catalog: str


class LastPass(Told):
    """The last pass over a farm, and why it was not used if it was not."""

    day: dt.date
    acquired_at: AwareDatetime
    platform: str
    status: Literal["observed", "cloud", "outside", "nodata"]
    clear_fraction: float
    why_not_used: str | None


class NextPass(Told):
    """The next pass over a farm, told from the orbits of its last weeks."""

    day: dt.date
    expected_at: AwareDatetime
    platform: str


class Trend(Told):
    """How the value changed since the observation before."""

    ndvi_change: float
    since: dt.date
    days: int


class OfEarlierBoundary(Told):
    """The last value of the boundary that a farm had before."""

    ndvi: float
    day: dt.date
    acquired_at: AwareDatetime
    clear_fraction: float
    boundary_version: int


class FarmState(Told):
    """A farm as it looks now, or why that is not known."""

    external_farm_id: uuid.UUID
    coverage_pct: float | None = Field(description="Percent of the farm's area seen clearly in the latest observation.")
    status: Literal["ready", "processing"]
    is_active: bool
    latest: Observation | None
    last_pass: LastPass | None
    next_pass: NextPass | None
    trend: Trend | None
    of_earlier_boundary: OfEarlierBoundary | None
    why_empty: str | None = Field(description="Why there is no value, in a sentence.")
    boundary_version: int
    index: str
    mask_policy: str
    revision: int


class Series(Told):
    """A farm's observations, oldest first."""

    external_farm_id: uuid.UUID
    index: str
    mask_policy: str
    observations: list[Observation]
    next_cursor: str | None = Field(description="Where the next page begins; null on the last one.")


class Latest(Told):
    """A farm's newest observation that is clear enough."""

    external_farm_id: uuid.UUID
    index: str
    mask_policy: str
    observation: Observation | None


class RefreshAsked(Told):
    """A fresh look that is in flight."""

    external_farm_id: uuid.UUID
    run_id: uuid.UUID | None = Field(description="The run in Prefect; null while it is being asked for.")
    asked_at: AwareDatetime
    is_new: bool = Field(description="False when it had been asked for before and is not done.")


class SeriesQuery(Strict):
    """Which observations."""

    start: Day | None = Field(default=None, description="First local solar day.")
    end: Day | None = Field(default=None, description="Last local solar day, included.")
    min_clear_fraction: Fraction = Field(default=0.0, description="Least share of the farm seen clearly.")
    with_empty: bool = Field(default=False, description="Passes that gave no value too, with the reason.")
    limit: Annotated[int, Field(ge=1, le=MOST_OBSERVATIONS)] = Field(default=400, description="Observations a page.")
    cursor: str | None = Field(default=None, description="`next_cursor` of the page before.")

    @model_validator(mode="after")
    def _in_order(self) -> SeriesQuery:
        if self.start is not None and self.end is not None and self.start > self.end:
            raise PydanticCustomError(
                "order", "start is after end", {"allowed": "start on the same day as end, or before"}
            )
        return self


class LatestQuery(Strict):
    """How clear is clear enough."""

    min_clear_fraction: Fraction = Field(default=0.0, description="Least share of the farm seen clearly.")


def _fetch(path: FarmPath) -> Fetch:
    return fetch_state(path.external_farm_id)


async def _state(call: Call[FarmPath, Any, Any]) -> State:
    farm, admission = call.path.external_farm_id, call.admission
    return await call.resources.reading.state(
        farm, call.principal, found=call.found, is_cache_away=admission.is_cache_away
    )


async def state(call: Call[FarmPath, None, None]) -> Answer:
    """Give a farm's state; one that nobody has looked at yet is looked at soon."""
    found = await _state(call)
    if is_observed(found.body):
        return Answer(body=found.body, etag=etag_of(found.body))
    return _processing(call, found)


def _processing(call: Call[FarmPath, Any, Any], found: State, *, body: bytes | None = None) -> Answer:
    told = orjson.loads(found.body)
    if is_awaited(found.body):
        call.resources.work.look_soon(call.path.external_farm_id, told["boundary_version"])
    return Answer(
        body=found.body if body is None else body,
        status=202,
        word="processing",
        message=told["why_empty"],
        headers={"retry-after": str(RETRY_S)},
    )


async def latest(call: Call[FarmPath, LatestQuery, None]) -> Answer:
    """Give a farm's newest observation that is clear enough; from the state, unless that one is not."""
    found, least = await _state(call), call.query.min_clear_fraction
    if least == 0 and is_observed(found.body):  # nothing to look for, so nothing to parse
        body = latest_of(found.body)
        return Answer(body=body, etag=etag_of(body))
    told = orjson.loads(found.body)
    newest = told["latest"]
    if newest is not None and newest["clear_fraction"] < least:
        row = await call.resources.database.row(series.LATEST, _values(call) | {"min_clear_fraction": least})
        newest = None if row is None else observation(row)
    data = {name: told[name] for name in ("external_farm_id", "index", "mask_policy")} | {"observation": newest}
    if told["latest"] is None:
        return _processing(call, found, body=Answer.of(data).body)
    message = "" if newest is not None else f"no observation has a clear fraction of {least:g} or more"
    answer = Answer.of(data, message=message)
    return answer.but(etag=etag_of(answer.body))


def _values(call: Call[FarmPath, Any, Any]) -> dict[str, Any]:
    policy = call.resources.settings.mask_policy.name
    return {"farm": call.path.external_farm_id, "index": INDEX, "mask_policy": policy}


async def observations(call: Call[FarmPath, SeriesQuery, None]) -> Answer:
    """Give a page of a farm's observations, from Postgres; a reader who has it already is told so without asking."""
    query, found = call.query, await _state(call)
    after = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    if query.cursor is not None:
        after = _instant(query.cursor)
    etag = etag_of(found.body + f"{call.media_type} {query!r}".encode())
    if call.has(etag):
        return Answer(etag=etag)
    start, end = query.start or FIRST_DAY, query.end or LAST_DAY
    values = _values(call) | {
        "start": start,
        "end": end,
        "first": _midnight(start - dt.timedelta(days=1)),
        "last": _midnight(end + dt.timedelta(days=2)),
        "after": after,
        "min_clear_fraction": query.min_clear_fraction,
        "with_empty": query.with_empty,
        "limit": query.limit + 1,
    }
    rows = await call.resources.database.tuples(series.PAGE, values)
    told = [observation_of(row) for row in rows[: query.limit]]
    cursor = _cursor(told[-1]["acquired_at"]) if len(rows) > query.limit else None
    headers = next_link(call.raw_path, cursor)
    if call.media_type == CSV:
        name = f"ndvi-{call.path.external_farm_id}.csv"
        headers["content-disposition"] = f'attachment; filename="{name}"'
        return Answer(
            body=csv_table(list(Observation.model_fields), told),
            media_type=f"{CSV}; charset=utf-8",
            has_envelope=False,
            etag=etag,
            headers=headers,
        )
    data = {
        "external_farm_id": call.path.external_farm_id,
        "index": INDEX,
        "mask_policy": values["mask_policy"],
        "observations": told,
        "next_cursor": cursor,
    }
    return Answer.of(data, etag=etag, headers=headers)


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def _cursor(instant: dt.datetime) -> str:
    return to_cursor("ndvi", instant.isoformat())


def _instant(cursor: str) -> dt.datetime:
    [told] = from_cursor("ndvi", cursor, str)
    try:
        instant = dt.datetime.fromisoformat(told)
    except ValueError:
        raise no_cursor() from None
    if instant.tzinfo is None:
        raise no_cursor()
    return instant


async def refresh(call: Call[FarmPath, None, None]) -> Answer:
    """Have a farm looked at anew; however many ask, one look is in flight."""
    farm = call.path.external_farm_id
    found = await _state(call)
    if not orjson.loads(found.body)["is_active"]:
        raise ApiError(409, f"farm {farm} is not active, so no imagery is read for it")
    try:
        asked = await call.resources.work.refresh(farm)
    except PrefectAway as error:
        raise unavailable("asking for work") from error
    message = "a fresh look was asked for" if asked.is_new else "a fresh look had been asked for and is not done yet"
    data = RefreshAsked(external_farm_id=farm, run_id=asked.run_id, asked_at=asked.asked_at, is_new=asked.is_new)
    answer = Answer.of(data.model_dump(), status=202, word="processing", message=message, cache_control="no-store")
    return answer.but(headers={"retry-after": str(RETRY_S)})


_FARM = "/api/v1/farms/{external_farm_id}"

ENDPOINTS = (
    Endpoint(
        method="GET",
        path=f"{_FARM}/state",
        handler=state,
        summary="How a farm looks now, or why that is not known",
        tag="ndvi",
        path_model=FarmPath,
        fetch=_fetch,
        answers={200: FarmState, 202: FarmState},
    ),
    Endpoint(
        method="GET",
        path=f"{_FARM}/ndvi",
        handler=observations,
        summary="A farm's observations over time",
        tag="ndvi",
        path_model=FarmPath,
        query_model=SeriesQuery,
        fetch=_fetch,
        answers={200: Series},
        documents={CSV: None},
        media_types=("application/json", CSV),
    ),
    Endpoint(
        method="GET",
        path=f"{_FARM}/ndvi/latest",
        handler=latest,
        summary="A farm's newest observation that is clear enough",
        tag="ndvi",
        path_model=FarmPath,
        query_model=LatestQuery,
        fetch=_fetch,
        answers={200: Latest, 202: Latest},
    ),
    Endpoint(
        method="POST",
        path=f"{_FARM}/ndvi/refresh",
        handler=refresh,
        summary="Have a farm looked at anew",
        tag="ndvi",
        scope="farms:write",
        path_model=FarmPath,
        fetch=_fetch,
        answers={202: RefreshAsked},
        refusals={409: "The farm is not active."},
    ),
)
