"""Farms brought up to date in bulk: one list of steps, for whoever drives them, the import or the API.

The steps say what to ask of Postgres and in which order, and touch no connection themselves. `upsert_farms` runs them
over SQLAlchemy, `sync_farms` over asyncio, and both keep the same rules. Loaded by serving: no SQLAlchemy here.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import namedtuple_row

from models.boundaries import is_same_boundary
from models.domain import FarmDraft
from models.errors import BadInput
from models.revision import TAKE_LOCK

COMPARED_AT_ONCE = 250
"""Pairs of boundaries that are compared, and held in memory, before others have a turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """On whose behalf farms are written: whose the new ones become, and which of those there are may change."""

    client_id: int | None
    """None: the operator's own, or nobody in particular."""
    may_change_all: bool = False
    """Whoever they belong to; they stay with whom they belong to."""
    takes_unowned: bool = False
    """Farms that are the operator's own become the client's."""

    def __post_init__(self) -> None:
        if self.takes_unowned and self.client_id is None:
            raise ValueError("farms can be given to a client only")


OPERATOR = Ownership(client_id=None, may_change_all=True)
"""Who imports a file for nobody in particular."""


class Outcome(enum.StrEnum):
    """What became of one farm that was given."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    EXISTS = "exists"
    """It should have been new, and is there already with another content. Nothing was changed."""
    CONFLICT = "conflict"
    """The id is somebody else's. Nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """One farm after `sync_farms`. Of somebody else's farm nothing is told but the id that was given."""

    external_farm_id: uuid.UUID
    outcome: Outcome
    farm_id: int | None
    boundary_version: int | None
    is_active: bool | None
    revision: int | None
    has_new_boundary: bool
    """A new farm, or a farm with another boundary than before: it has no observations yet."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A statement for Postgres; the answer to it is its rows."""

    statement: str
    values: Mapping[str, Any] | None = None
    has_rows: bool = False


@dataclass(frozen=True, slots=True)
class CopyIn:
    """Rows to be copied into a table."""

    statement: str
    rows: Iterable[tuple[Any, ...]]


Steps = Generator[Ask | CopyIn, Sequence[Any] | None, None]
"""What to do next; sent the rows of what was done last, and None to begin."""


async def sync_farms(
    connection: AsyncConnection[Any], drafts: Sequence[FarmDraft], *, ownership: Ownership, only_new: bool = False
) -> list[Synced]:
    """Store farms by `external_farm_id` and return what became of each, in the order given.

    Runs inside the caller's transaction, so that all land or none; other writers of farms and observations wait until
    it ends. The same farms again change nothing. With `only_new`, farms that are there already are left as they are.

    Raises:
        BadInput: when a farm is given twice.
    """
    async with connection.cursor(row_factory=namedtuple_row) as cursor:
        steps = storing(drafts, ownership=ownership, only_new=only_new)
        rows: Sequence[Any] | None = None
        while True:
            try:
                step = steps.send(rows)
            except StopIteration:
                break
            rows = ()
            if isinstance(step, CopyIn):
                async with cursor.copy(step.statement.encode()) as copy:
                    for row in step.rows:
                        await copy.write_row(row)
            else:
                await cursor.execute(step.statement.encode(), step.values)
                rows = await cursor.fetchall() if step.has_rows else ()
        await cursor.execute(_OUTCOMES)
        return [_synced(row) for row in await cursor.fetchall()]


def _synced(row: Any) -> Synced:
    if row.is_conflict:
        return Synced(
            external_farm_id=row.external_farm_id,
            outcome=Outcome.CONFLICT,
            farm_id=None,
            boundary_version=None,
            is_active=None,
            revision=None,
            has_new_boundary=False,
        )
    outcome = Outcome.UPDATED if row.is_known else Outcome.CREATED
    if not row.is_changed:
        outcome = Outcome.UNCHANGED
    elif row.is_left:
        outcome = Outcome.EXISTS
    return Synced(
        external_farm_id=row.external_farm_id,
        outcome=outcome,
        farm_id=row.farm_id,
        boundary_version=row.version,
        is_active=row.is_active,
        revision=row.revision,
        has_new_boundary=row.has_new_boundary and not row.is_left,
    )


def storing(
    drafts: Sequence[FarmDraft], *, ownership: Ownership, reactivate: bool = False, only_new: bool = False
) -> Steps:
    """Yield the steps that store farms: new ones are created, others brought up to date, equal ones left alone.

    The temporary table `staged_farms` then says until the end of the transaction what became of each.

    Raises:
        BadInput: when a farm is given twice.
    """
    if len({draft.external_farm_id for draft in drafts}) < len(drafts):
        raise BadInput("external_farm_id", "a farm is given twice", allowed="each farm once")
    yield Ask("DROP TABLE IF EXISTS pg_temp.staged_farms")
    yield Ask(_STAGED)
    yield CopyIn(_COPY, (_row(draft) for draft in drafts))
    yield Ask("ANALYZE pg_temp.staged_farms")
    yield Ask(TAKE_LOCK)
    whose = {
        "client_id": ownership.client_id,
        "may_change_all": ownership.may_change_all,
        "takes_unowned": ownership.takes_unowned,
    }
    yield Ask(_MATCH, whose | {"reactivate": reactivate})
    yield from _comparing()
    yield Ask(_DECIDE)
    if only_new:
        yield Ask(_LEAVE_KNOWN)
    yield Ask(_WRITE_FARMS, {"client_id": ownership.client_id})
    yield Ask(_WRITE_BOUNDARIES)


def _row(draft: FarmDraft) -> tuple[Any, ...]:
    is_active = draft.is_active is not False
    who = (draft.external_farm_id, draft.external_user_id, draft.name, is_active, draft.is_active)
    return (*who, *draft.bbox, draft.area_ha, draft.boundary)


def _comparing() -> Steps:
    """Keep the stored boundary where the new one is the same shape."""
    last = 0
    while True:
        pairs = (yield Ask(_DIFFERING, {"last": last, "limit": COMPARED_AT_ONCE}, has_rows=True)) or ()
        same = [pair.place for pair in pairs if is_same_boundary(bytes(pair.stored), bytes(pair.given))]
        if same:
            yield Ask("UPDATE staged_farms SET has_new_boundary = false WHERE place = ANY(%(same)s)", {"same": same})
        if len(pairs) < COMPARED_AT_ONCE:
            return
        last = pairs[-1].place


_STAGED = """
CREATE TEMPORARY TABLE staged_farms (
    place integer GENERATED ALWAYS AS IDENTITY UNIQUE,
    external_farm_id uuid PRIMARY KEY,
    external_user_id text,
    name text NOT NULL,
    is_active boolean NOT NULL,
    wanted_active boolean,
    west double precision NOT NULL,
    south double precision NOT NULL,
    east double precision NOT NULL,
    north double precision NOT NULL,
    area_ha double precision NOT NULL,
    wkb bytea NOT NULL,
    farm_id bigint,
    client_id bigint,
    version integer NOT NULL DEFAULT 1,
    was_active boolean,
    has_new_boundary boolean NOT NULL DEFAULT true,
    is_changed boolean NOT NULL DEFAULT true,
    is_conflict boolean NOT NULL DEFAULT false,
    is_left boolean NOT NULL DEFAULT false
) ON COMMIT DROP
"""

_COPY = """
COPY staged_farms (external_farm_id, external_user_id, name, is_active, wanted_active,
                   west, south, east, north, area_ha, wkb) FROM STDIN
"""

_MATCH = """
UPDATE staged_farms AS s
SET farm_id = f.id, version = f.boundary_version, was_active = f.is_active,
    is_active = coalesce(s.wanted_active, f.is_active OR %(reactivate)s),
    has_new_boundary = b.wkb IS DISTINCT FROM s.wkb,
    external_user_id = coalesce(s.external_user_id, f.external_user_id),
    client_id = CASE WHEN %(takes_unowned)s THEN coalesce(f.client_id, %(client_id)s::bigint) ELSE f.client_id END,
    is_conflict = NOT (%(may_change_all)s OR coalesce(f.client_id = %(client_id)s::bigint, %(takes_unowned)s))
FROM farms AS f LEFT JOIN farm_boundaries AS b ON b.farm_id = f.id AND b.version = f.boundary_version
WHERE f.external_farm_id = s.external_farm_id
"""

_DIFFERING = """
SELECT s.place, b.wkb AS stored, s.wkb AS given
FROM staged_farms AS s JOIN farm_boundaries AS b ON b.farm_id = s.farm_id AND b.version = s.version
WHERE s.has_new_boundary AND NOT s.is_conflict AND s.place > %(last)s
ORDER BY s.place
LIMIT %(limit)s
"""

# Box and area belong to the boundary: they stay as they are when it does.
_DECIDE = """
UPDATE staged_farms AS s
SET version = f.boundary_version + has_new_boundary::integer,
    west = CASE WHEN has_new_boundary THEN s.west ELSE f.west END,
    south = CASE WHEN has_new_boundary THEN s.south ELSE f.south END,
    east = CASE WHEN has_new_boundary THEN s.east ELSE f.east END,
    north = CASE WHEN has_new_boundary THEN s.north ELSE f.north END,
    area_ha = CASE WHEN has_new_boundary THEN s.area_ha ELSE f.area_ha END,
    is_changed = has_new_boundary
        OR (s.name, s.external_user_id, s.is_active, s.client_id)
            IS DISTINCT FROM (f.name, f.external_user_id, f.is_active, f.client_id),
    is_left = is_conflict
FROM farms AS f
WHERE f.id = s.farm_id
"""

_LEAVE_KNOWN = "UPDATE staged_farms SET is_left = true WHERE farm_id IS NOT NULL"

_WRITE_FARMS = """
INSERT INTO farms (external_farm_id, external_user_id, name, is_active, boundary_version,
                   west, south, east, north, area_ha, client_id)
SELECT external_farm_id, external_user_id, name, is_active, version, west, south, east, north, area_ha,
       CASE WHEN farm_id IS NULL THEN %(client_id)s::bigint ELSE client_id END
FROM staged_farms
WHERE is_changed AND NOT is_left
ORDER BY place
ON CONFLICT (external_farm_id) DO UPDATE
SET external_user_id = excluded.external_user_id, name = excluded.name, is_active = excluded.is_active,
    boundary_version = excluded.boundary_version, west = excluded.west, south = excluded.south,
    east = excluded.east, north = excluded.north, area_ha = excluded.area_ha, client_id = excluded.client_id,
    revision = excluded.revision, updated_at = now()
"""

_WRITE_BOUNDARIES = """
INSERT INTO farm_boundaries (farm_id, version, wkb)
SELECT f.id, s.version, s.wkb
FROM staged_farms AS s JOIN farms AS f USING (external_farm_id)
WHERE s.has_new_boundary AND NOT s.is_left
"""

_OUTCOMES = """
SELECT s.external_farm_id, f.id AS farm_id, f.boundary_version AS version, f.is_active, f.revision,
       s.farm_id IS NOT NULL AS is_known, s.has_new_boundary, s.is_changed, s.is_conflict, s.is_left
FROM staged_farms AS s JOIN farms AS f USING (external_farm_id)
ORDER BY s.place
"""

COUNT = """
SELECT count(*) FILTER (WHERE farm_id IS NULL) AS created,
       count(*) FILTER (WHERE farm_id IS NOT NULL AND is_changed) AS updated,
       count(*) FILTER (WHERE NOT is_changed) AS unchanged,
       count(*) FILTER (WHERE farm_id IS NOT NULL AND has_new_boundary) AS new_boundaries,
       count(*) FILTER (WHERE NOT was_active AND is_active) AS reactivated,
       count(*) FILTER (WHERE NOT is_active) AS inactive
FROM staged_farms
"""
"""What storing came to, in farms; for when nothing was in conflict."""

IN_CONFLICT = "SELECT external_farm_id FROM staged_farms WHERE is_conflict ORDER BY place LIMIT 4"
