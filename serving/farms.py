"""The farm registry: create, sync, list, read, change and deactivate farms."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from models.farm_sync import Outcome, Ownership, Synced, sync_farms
from models.principals import READ, WRITE_FARMS
from models.registry import ONE_FARM, Changes, StoredFarm, Wanted, change_farm, page_query, stored_farm
from serving.cursors import from_cursor, to_cursor
from serving.endpoints import GEOJSON, JSON, Answer, Call, Endpoint, etag_of
from serving.envelope import dumps
from serving.farm_intake import Given, check_farms, checked_boundary, given_farms, refusal
from serving.farm_models import (
    FarmCollection,
    FarmFeature,
    FarmIn,
    FarmOut,
    FarmPatch,
    FarmQuery,
    FarmsOut,
    FarmWritten,
    SyncBody,
    SyncOut,
    facts,
    feature,
)
from serving.faults import ApiError, FieldError
from serving.fields import FarmPath
from serving.principal import Principal
from serving.reading import unknown_farm
from serving.tables import next_link

MOST_BYTES = 8 * 1024**2
"""Largest body of farms: 1,000 of 150 vertices, or one of 100,000 and more digits than anybody needs."""

DRAWN_AT_ONCE = 20_000
"""Bytes of boundaries that are turned into JSON before other requests have a turn: a millisecond."""


async def create(call: Call[None, None, FarmIn]) -> Answer:
    """Store a new farm; the same farm again changes nothing, so that a caller may repeat what got lost."""
    given = Given("body", None, farm=call.body)
    checked = await checked_boundary(call.body.drawn(), call.resources.boundaries)
    draft = given.drafted(call.body, checked)
    ownership = _ownership(call.principal)
    async with call.resources.database.transaction() as connection:
        [synced] = await sync_farms(connection, [draft], ownership=ownership, only_new=True)
    if synced.outcome in (Outcome.CONFLICT, Outcome.EXISTS):
        raise _taken(synced)
    await call.resources.aftermath.follow([synced])
    stored = await _one(call, FarmPath(external_farm_id=draft.external_farm_id))
    location = f"/api/v1/farms/{draft.external_farm_id}"
    is_new = synced.outcome is Outcome.CREATED
    return _written(stored, checked.repairs).but(
        status=201 if is_new else 200,
        message="created" if is_new else "the same farm is there already",
        headers={"location": location, "etag": f'"{stored.revision}"'},
    )


def _taken(synced: Synced) -> ApiError:
    if synced.outcome is Outcome.CONFLICT:
        problem, allowed = "is taken", "an id of your own, such as a random UUID"
    else:
        problem, allowed = "is the id of a farm that you have, with another content", "PATCH or sync to change it"
    return ApiError(409, f"body.external_farm_id: {problem}", [FieldError("body.external_farm_id", problem, allowed)])


async def sync(call: Call[None, None, Any]) -> Answer:
    """Bring farms up to date, each by itself: 200 when all were taken, 207 when some were, else 422 or 409."""
    given = given_farms(call.body)
    await check_farms(given, call.resources.boundaries)
    drafts = [each.draft for each in given if each.draft is not None]
    if not drafts and len(given) == 1:
        raise refusal(given)
    synced: list[Synced] = []
    if drafts:
        async with call.resources.database.transaction() as connection:
            synced = await sync_farms(connection, drafts, ownership=_ownership(call.principal))
        await call.resources.aftermath.follow(synced)
    return _told(given, synced)


def _told(given: Sequence[Given], synced: Sequence[Synced]) -> Answer:
    by_id = {each.external_farm_id: each for each in synced}
    farms = [each.outcome(by_id) for each in given]
    counted = {name: sum(farm["outcome"] == name for farm in farms) for name in _OUTCOMES}
    refused = counted["rejected"] + counted["conflict"]
    status = 200 if not refused else 207 if refused < len(farms) else 409 if not counted["rejected"] else 422
    errors = [error for farm in farms for error in farm["errors"]][:MOST_TOLD]
    return Answer.of(
        {**counted, "farms": farms},
        status=status,
        word="success" if status < 400 else "error",
        message=", ".join(f"{number} {name}" for name, number in counted.items() if number),
        errors=errors or None,
    )


_OUTCOMES = ("created", "updated", "unchanged", "rejected", "conflict")

MOST_TOLD = 50
"""Errors that the envelope repeats; each farm has its own."""


async def read(call: Call[FarmPath, None, None]) -> Answer:
    """Give one farm."""
    stored = await _one(call, call.path)
    if call.media_type == GEOJSON:
        body = dumps(feature(stored))
        return Answer(body=body, media_type=GEOJSON, has_envelope=False, etag=f"{stored.revision}-geojson")
    return Answer.of(facts(stored), etag=str(stored.revision))


async def listed(call: Call[None, FarmQuery, None]) -> Answer:
    """Give one page of farms, in the order in which they came."""
    query, principal = call.query, call.principal
    filters = etag_of(repr((query.external_user_id, query.bbox, query.active)).encode())[:8]
    after = 0
    if query.cursor is not None:
        after, of_filters = from_cursor("farms", query.cursor, int, str)
        if of_filters != filters or not 0 <= after < 2**63:
            problem = "is of a list with other filters"
            raise ApiError(422, f"query.cursor: {problem}", [FieldError("query.cursor", problem, "the same filters")])
    wanted = Wanted(
        client_id=principal.client_id,
        sees_all=principal.is_admin,
        external_user_id=query.external_user_id,
        bbox=query.bbox,
        is_active={"true": True, "false": False, "all": None}[query.active],
        after=after,
        limit=query.limit,
    )
    rows = await call.resources.database.rows(*page_query(wanted))
    page = [stored_farm(row) for row in rows[: query.limit]]
    has_more = bool(rows) and rows[0]["found"] > len(page)
    cursor = to_cursor("farms", page[-1].farm.id, filters) if has_more else None
    is_geojson = call.media_type == GEOJSON
    drawn = await _drawn(page, is_geojson=is_geojson)
    body = (_COLLECTION if is_geojson else _PAGE) % (drawn, dumps(cursor))
    return Answer(
        body=body,
        media_type=call.media_type,
        has_envelope=not is_geojson,
        etag=etag_of(body),
        headers=next_link(call.raw_path, cursor),
    )


_COLLECTION = b'{"type":"FeatureCollection","features":[%b],"next_cursor":%b}'
_PAGE = b'{"farms":[%b],"next_cursor":%b}'


async def _drawn(page: Sequence[StoredFarm], *, is_geojson: bool) -> bytes:
    """Turn farms into JSON, some at a time, so that nobody waits for a page of large ones."""
    parts, size = [], 0
    for stored in page:
        parts.append(dumps(feature(stored) if is_geojson else facts(stored)))
        size += len(stored.farm.boundary)
        if size > DRAWN_AT_ONCE:
            await asyncio.sleep(0)
            size = 0
    return b",".join(parts)


async def change(call: Call[FarmPath, None, FarmPatch]) -> Answer:
    """Change what is given; another boundary is a new version, of which nothing is observed yet."""
    patch = call.body
    changes = Changes(
        name=patch.name or None, external_user_id=patch.external_user_id or None, is_active=patch.is_active
    )
    repairs: tuple[str, ...] = ()
    if patch.geometry is not None or patch.bbox is not None:
        checked = await checked_boundary(patch.drawn(), call.resources.boundaries)
        repairs = checked.repairs
        changes = Changes(
            name=changes.name,
            external_user_id=changes.external_user_id,
            is_active=changes.is_active,
            boundary=checked.wkb,
            bbox=checked.bbox,
            area_ha=checked.area_ha,
        )
    return await _changed(call, changes, repairs)


async def deactivate(call: Call[FarmPath, None, None]) -> Answer:
    """Have no more imagery read for a farm; what was observed stays. Doing it again changes nothing."""
    return await _changed(call, Changes(is_active=False), ())


async def _changed(call: Call[FarmPath, Any, Any], changes: Changes, repairs: Sequence[str]) -> Answer:
    if_match = call.headers.get(b"if-match")

    def check(stored: StoredFarm) -> None:
        if if_match is not None and not _is_among(stored.revision, if_match):
            raise ApiError(412, "the farm has changed since; read it again", code="changed_since")

    async with call.resources.database.transaction() as connection:
        changed = await change_farm(
            connection, call.path.external_farm_id, changes, ownership=_ownership(call.principal), check=check
        )
    if changed is None:
        raise unknown_farm(call.path.external_farm_id)
    await call.resources.aftermath.follow([changed.synced])
    message = "updated" if changed.synced.outcome is Outcome.UPDATED else "nothing was to be changed"
    return _written(changed.stored, repairs).but(message=message)


def _is_among(revision: int, if_match: bytes) -> bool:
    tags = {tag.strip().removeprefix("W/").strip('"') for tag in if_match.decode("latin-1").split(",")}
    return bool(tags & {"*", str(revision), f"{revision}-geojson"})


def _written(stored: StoredFarm, repairs: Sequence[str]) -> Answer:
    # Not as `etag`: nobody who writes is to be answered 304.
    return Answer.of(facts(stored) | {"repairs": list(repairs)}, headers={"etag": f'"{stored.revision}"'})


async def _one(call: Call[Any, Any, Any], path: FarmPath) -> StoredFarm:
    values = {
        "external_farm_id": path.external_farm_id,
        "client_id": call.principal.client_id,
        "sees_all": call.principal.is_admin,
    }
    row = await call.resources.database.row(ONE_FARM, values)
    if row is None:
        raise unknown_farm(path.external_farm_id)
    return stored_farm(row)


def _ownership(principal: Principal) -> Ownership:
    return Ownership(client_id=principal.client_id, may_change_all=principal.is_admin)


_TAG = "farms"
_ONE = "/api/v1/farms/{external_farm_id}"

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        method="POST",
        path="/api/v1/farms/",
        handler=create,
        summary="Create a farm",
        tag=_TAG,
        scope=WRITE_FARMS,
        body_model=FarmIn,
        answers={201: FarmWritten, 200: FarmWritten},
        refusals={409: "The id is that of another farm; the same farm again is no conflict."},
        most_bytes=MOST_BYTES,
    ),
    Endpoint(
        method="GET",
        path="/api/v1/farms/",
        handler=listed,
        summary="List farms",
        tag=_TAG,
        scope=READ,
        query_model=FarmQuery,
        answers={200: FarmsOut},
        documents={GEOJSON: FarmCollection},
        media_types=(JSON, GEOJSON),
    ),
    Endpoint(
        method="POST",
        path="/api/v1/farms/sync",
        handler=sync,
        summary="Bring one farm or up to 1,000 up to date",
        tag=_TAG,
        scope=WRITE_FARMS,
        body_model=SyncBody,
        answers={200: SyncOut, 207: SyncOut, 409: SyncOut, 422: SyncOut},
        most_bytes=MOST_BYTES,
    ),
    Endpoint(
        method="GET",
        path=_ONE,
        handler=read,
        summary="Read a farm",
        tag=_TAG,
        scope=READ,
        path_model=FarmPath,
        answers={200: FarmOut},
        documents={GEOJSON: FarmFeature},
        media_types=(JSON, GEOJSON),
    ),
    Endpoint(
        method="PATCH",
        path=_ONE,
        handler=change,
        summary="Change a farm",
        tag=_TAG,
        scope=WRITE_FARMS,
        path_model=FarmPath,
        body_model=FarmPatch,
        answers={200: FarmWritten},
        refusals={412: "`If-Match` was sent, and the farm has changed since."},
        most_bytes=MOST_BYTES,
    ),
    Endpoint(
        method="DELETE",
        path=_ONE,
        handler=deactivate,
        summary="Deactivate a farm",
        tag=_TAG,
        scope=WRITE_FARMS,
        path_model=FarmPath,
        answers={200: FarmWritten},
        refusals={412: "`If-Match` was sent, and the farm has changed since."},
    ),
)
