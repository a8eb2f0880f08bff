"""Scenes that failed: how long they rest before a later run tries them again, and when they are given up."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

from models.domain import SceneWork
from models.ledger import PLAN_LOCK

GROWTH = 3
"""Each rest is so many times as long as the one before."""

LONGEST_REST = dt.timedelta(days=3)

Item = tuple[str, str]
"""Catalog and item id."""

PassTiles = tuple[str, str]
"""pass_id and tile set: a unit of work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often a scene may fail, and how long it rests in between."""

    runs: int = 5
    """Runs in a row in which a scene may fail before it is given up."""
    first_rest: dt.timedelta = dt.timedelta(hours=1)

    def rest_after(self, failed_runs: int) -> dt.timedelta:
        """How long a scene rests after so many runs in which it failed, one after the other."""
        times: int = GROWTH ** min(failed_runs - 1, 12)  # what outgrows a timedelta has long been at the longest
        return min(self.first_rest * times, LONGEST_REST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is to become of a scene after a run in which it failed."""

    failed_runs: int
    not_before: dt.datetime
    """When it is worth another try."""
    is_given_up: bool
    """No later run tries it again by itself, unless its imagery changes."""
    replaced: tuple[Item, ...]
    """Items that were given up because another catalog or processing has the same imagery: that is read next."""


def note_failed_run(
    connection: Connection,
    work: SceneWork,
    *,
    unread: Collection[Item],
    catalogs: Collection[str],
    now: dt.datetime,
    patience: Patience,
    index: str,
    mask_policy: str,
) -> Verdict:
    """Note that a run ended without answering all farms of a scene, and decide what is to become of it.

    Runs that failed from other inputs do not count: what was reprocessed, or is read from another catalog, begins
    anew. A scene that is given up is read from elsewhere at the next run where another item has the same piece.

    Args:
        connection: of the ledger.
        work: the scene.
        unread: items of it whose files could not be read.
        catalogs: those that are read; others have nothing to give in their stead.
        now: the time.
        patience: how often it may fail.
        index, mask_policy: of the work.

    Raises:
        LookupError: it was never planned.
    """
    key = _key(work, index, mask_policy)
    row = connection.execute(text(_FAILED_RUNS), key | {"inputs": work.inputs}).one_or_none()
    if row is None:
        raise LookupError(f"{work.label} was never planned")
    failed_runs = row.failed_runs + 1
    is_over = failed_runs >= patience.runs
    replaced = _give_up_items(connection, work, unread, catalogs, now) if is_over else ()
    is_given_up = is_over and not replaced
    not_before = now if replaced else now + patience.rest_after(failed_runs)
    noted = {"failed_runs": failed_runs, "not_before": not_before, "given_up_at": now if is_given_up else None}
    connection.execute(text(_NOTE), key | noted | {"inputs": work.inputs})
    return Verdict(failed_runs=failed_runs, not_before=not_before, is_given_up=is_given_up, replaced=replaced)


_ONE = 'pass_id = :pass_id AND tile_set = :tile_set AND "index" = :index AND mask_policy = :mask_policy'

_FAILED_RUNS = f"""
SELECT CASE WHEN inputs = :inputs THEN failed_runs ELSE 0 END AS failed_runs FROM work WHERE {_ONE} FOR UPDATE
"""  # noqa: S608

_NOTE = f"""
UPDATE work SET inputs = :inputs, failed_runs = :failed_runs, not_before = :not_before, given_up_at = :given_up_at
WHERE {_ONE}
"""  # noqa: S608


def _key(work: SceneWork, index: str, mask_policy: str) -> dict[str, object]:
    return {"pass_id": work.pass_id, "tile_set": work.tile_set, "index": index, "mask_policy": mask_policy}


def _give_up_items(
    connection: Connection, work: SceneWork, unread: Collection[Item], catalogs: Collection[str], now: dt.datetime
) -> tuple[Item, ...]:
    """Give up those unread items whose piece another item has as well; return them.

    Also those that other work of the same tile has given up already: several units of work may read one item.
    """
    scenes = sorted(
        {
            (scene.catalog, scene.item_id, scene.tile, scene.datastrip)
            for scene in work.scenes
            if (scene.catalog, scene.item_id) in set(unread)
        }
    )
    columns = ("catalogs", "item_ids", "tiles", "datastrips")
    given = dict(zip(columns, map(list, zip(*scenes, strict=True)), strict=True)) if scenes else {}
    if not given:
        return ()
    asked = {"pass_id": work.pass_id, "catalogs_read": sorted(set(catalogs)), "now": now}
    rows = connection.execute(text(_GIVE_UP), given | asked)
    return tuple(sorted((row.catalog, row.item_id) for row in rows))


_GIVE_UP = """
UPDATE scenes AS s SET given_up_at = coalesce(s.given_up_at, :now)
FROM unnest(CAST(:catalogs AS text[]), CAST(:item_ids AS text[]), CAST(:tiles AS text[]), CAST(:datastrips AS text[]))
     AS lost (catalog, item_id, tile, datastrip)
WHERE s.catalog = lost.catalog AND s.item_id = lost.item_id AND EXISTS (
    SELECT 1 FROM scenes AS other
    WHERE other.pass_id = :pass_id AND other.tile = lost.tile AND other.document ->> 'datastrip' = lost.datastrip
        AND other.catalog = ANY(:catalogs_read) AND other.given_up_at IS NULL
        AND (other.catalog, other.item_id) <> (lost.catalog, lost.item_id)
)
RETURNING s.catalog, s.item_id
"""


def given_up_items(connection: Connection, pass_ids: Collection[str]) -> set[Item]:
    """Return the items of these passes that were given up."""
    rows = connection.execute(text(_GIVEN_UP), {"passes": sorted(set(pass_ids))})
    return {(row.catalog, row.item_id) for row in rows}


_GIVEN_UP = "SELECT catalog, item_id FROM scenes WHERE pass_id = ANY(:passes) AND given_up_at IS NOT NULL"


def resting(
    connection: Connection, pass_ids: Collection[str], *, now: dt.datetime, index: str, mask_policy: str
) -> dict[PassTiles, str]:
    """Return the units of work of these passes that rest or were given up, with the inputs from which they failed."""
    asked = {"passes": sorted(set(pass_ids)), "now": now, "index": index, "mask_policy": mask_policy}
    return {(row.pass_id, row.tile_set): row.inputs for row in connection.execute(text(_RESTING), asked)}


_RESTING = """
SELECT pass_id, tile_set, inputs FROM work
WHERE pass_id = ANY(:passes) AND "index" = :index AND mask_policy = :mask_policy AND state <> 'done'
    AND inputs IS NOT NULL AND (not_before > :now OR given_up_at IS NOT NULL)
"""


def awake(works: Iterable[SceneWork], asleep: Mapping[PassTiles, str]) -> tuple[list[SceneWork], list[SceneWork]]:
    """Part work into what may be tried now, and what rests: those that failed from exactly the inputs they have."""
    now: list[SceneWork] = []
    later: list[SceneWork] = []
    for each in works:
        (later if asleep.get((each.pass_id, each.tile_set)) == each.inputs else now).append(each)
    return now, later


def hold(connection: Connection, works: Iterable[SceneWork], *, index: str, mask_policy: str) -> None:
    """Note the farms of resting work as pending, so that none is forgotten; all else stays as it is."""
    rows = [_key(each, index, mask_policy) | {"farms": list(each.farm_ids)} for each in works]
    if rows:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": PLAN_LOCK})
        connection.execute(text(_HOLD), rows)


_HOLD = f"""
UPDATE work
SET pending_farm_ids = ARRAY(SELECT unnest(pending_farm_ids) UNION SELECT unnest(CAST(:farms AS bigint[])) ORDER BY 1)
WHERE {_ONE} AND state <> 'done'
"""  # noqa: S608
