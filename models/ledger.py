"""The ledger: which scenes the catalogs have, which work that makes, and how each came out."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from sqlalchemy import ARRAY, Connection, Engine, Text, func, literal, or_, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import Executable

from models.domain import Scene, SceneWork, SkippedItem
from models.runs import LIVING
from models.scene_json import scene_from_json, scene_to_json
from models.tables import scenes

PLAN_LOCK = 0x5357_4154_4803
"""Key of the Postgres advisory lock held while work is planned ("SWATH", 3). Never reuse it."""

LEFT_BEHIND_AT_ONCE = 500
"""Units of work from outside a run's days that one run takes up, the newest first."""

ROWS_AT_ONCE = 500
"""Scenes or units of work that are written or read in one go."""


def record_scenes(connection: Connection, found: Iterable[Scene], skipped: Iterable[SkippedItem]) -> None:
    """Note what a catalog has, usable or not; what is noted already with the same facts stays as it is.

    An item that has become usable, or unusable, replaces what was noted of it. Given both ways, it is usable.
    """
    rows = {(each.catalog, each.item_id): _skipped_row(each) for each in skipped}
    rows |= {(each.catalog, each.item_id): _scene_row(each) for each in found}
    new = insert(scenes)
    facts = ("collection", "skipped_reason", "tile", "pass_id", "acquired_at", "day", "relative_orbit", "document")
    statement = new.on_conflict_do_update(
        index_elements=[scenes.c.catalog, scenes.c.item_id],
        # What has changed is worth reading again, even if it was given up.
        set_={name: new.excluded[name] for name in facts} | {"changed_at": func.now(), "given_up_at": None},
        where=or_(*(scenes.c[name].is_distinct_from(new.excluded[name]) for name in facts)),
    )
    _write(connection, statement, [rows[key] for key in sorted(rows)])


def _scene_row(scene: Scene) -> dict[str, Any]:
    names = ("catalog", "item_id", "collection", "tile", "pass_id", "acquired_at", "day", "relative_orbit")
    row = {name: getattr(scene, name) for name in names}
    return row | {"skipped_reason": None, "document": scene_to_json(scene)}


def _skipped_row(item: SkippedItem) -> dict[str, Any]:
    known = {"catalog": item.catalog, "item_id": item.item_id, "collection": item.collection}
    return known | {
        "skipped_reason": item.reason,
        **dict.fromkeys(("tile", "pass_id", "acquired_at", "day", "relative_orbit", "document")),
    }


def _write(connection: Connection, statement: Executable, rows: Sequence[Mapping[str, Any]]) -> None:
    """Run a statement for each row. Rows come in one order everywhere, so that two writers never wait in a ring."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        connection.execute(statement, rows[start : start + ROWS_AT_ONCE])


def known_scenes(connection: Connection, start: dt.date, end: dt.date) -> list[Scene]:
    """Return the usable scenes of all catalogs from solar day `start` to `end`, both included, by instant."""
    query = (
        select(scenes.c.document)
        .where(scenes.c.day.between(start, end), scenes.c.document.is_not(None))
        .order_by(scenes.c.acquired_at, scenes.c.catalog, scenes.c.item_id)
    )
    with connection.execute(query, execution_options={"stream_results": True, "yield_per": ROWS_AT_ONCE}) as rows:
        return [scene_from_json(document) for document in rows.scalars()]


def scenes_of_passes(connection: Connection, pass_ids: Collection[str]) -> dict[str, list[Scene]]:
    """Return the usable scenes of all catalogs of these passes, by instant; passes without any are left out."""
    query = (
        select(scenes.c.pass_id, scenes.c.document)
        .where(
            scenes.c.pass_id == func.any(literal(sorted(set(pass_ids)), ARRAY(Text))), scenes.c.document.is_not(None)
        )
        .order_by(scenes.c.acquired_at, scenes.c.catalog, scenes.c.item_id)
    )
    found: dict[str, list[Scene]] = {}
    for pass_id, document in connection.execute(query):
        found.setdefault(pass_id, []).append(scene_from_json(document))
    return found


def skipped_items(connection: Connection, *, limit: int) -> list[SkippedItem]:
    """Return items that cannot be used and why, those that were noted last first."""
    query = (
        select(scenes.c.catalog, scenes.c.collection, scenes.c.item_id, scenes.c.skipped_reason.label("reason"))
        .where(scenes.c.skipped_reason.is_not(None))
        .order_by(scenes.c.changed_at.desc(), scenes.c.catalog, scenes.c.item_id)
        .limit(limit)
    )
    return [SkippedItem(**row) for row in connection.execute(query).mappings()]


def plan_work(
    connection: Connection,
    works: Iterable[SceneWork],
    *,
    index: str,
    mask_policy: str,
    run_id: uuid.UUID | None = None,
) -> None:
    """Note work as planned, its farms as pending; `run_id` is the run that is going to do it.

    Of a row that is there already, attempts, failed runs and the last problem stay, and so do farms that are still
    pending from an earlier plan. A farm is pending in one unit of work of a pass only: others of that pass let go
    of it.
    """
    # Whoever plans waits here for others who do: the statements below lock rows of many passes in several orders.
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": PLAN_LOCK})
    planned = sorted(works, key=lambda each: (each.pass_id, each.tile_set))
    method = {"index": index, "mask_policy": mask_policy}
    rows = [
        {"pass_id": each.pass_id, "tile_set": each.tile_set, "day": each.day, "acquired_at": each.acquired_at}
        | {"farms": sorted(set(each.farm_ids)), "run_id": run_id}
        | method
        for each in planned
    ]
    unfinished = connection.execute(text(_UNFINISHED), {"passes": sorted({each.pass_id for each in planned}), **method})
    for pass_id in list(unfinished.scalars()):
        moved = {farm: each.tile_set for each in planned if each.pass_id == pass_id for farm in each.farm_ids}
        given = {"pass_id": pass_id, "farms": list(moved), "tile_sets": list(moved.values()), **method}
        connection.execute(text(_LET_GO), given)
    _write(connection, text(_PLAN), rows)


_UNFINISHED = """
SELECT DISTINCT pass_id FROM work
WHERE pass_id = ANY(:passes) AND "index" = :index AND mask_policy = :mask_policy AND state <> 'done'
ORDER BY pass_id
"""

_LET_GO = """
WITH kept AS (
    SELECT w.tile_set,
           coalesce(array_agg(p.id ORDER BY p.id) FILTER (WHERE g.tile_set IS NOT DISTINCT FROM w.tile_set
                                                             OR g.tile_set IS NULL), '{}') AS farm_ids
    FROM work AS w CROSS JOIN unnest(w.pending_farm_ids) AS p (id)
        LEFT JOIN unnest(CAST(:farms AS bigint[]), CAST(:tile_sets AS text[])) AS g (farm_id, tile_set)
        ON g.farm_id = p.id
    WHERE w.pass_id = :pass_id AND w."index" = :index AND w.mask_policy = :mask_policy AND w.state <> 'done'
    GROUP BY w.tile_set
)
UPDATE work AS w
SET pending_farm_ids = kept.farm_ids, state = CASE WHEN kept.farm_ids = '{}' THEN 'done' ELSE w.state END
FROM kept
WHERE w.pass_id = :pass_id AND w.tile_set = kept.tile_set AND w."index" = :index AND w.mask_policy = :mask_policy
    AND w.pending_farm_ids <> kept.farm_ids
"""

_PLAN = """
INSERT INTO work AS w (pass_id, tile_set, "index", mask_policy, day, acquired_at, state, pending_farm_ids, run_id)
VALUES (:pass_id, :tile_set, :index, :mask_policy, :day, :acquired_at, 'planned', :farms, :run_id)
ON CONFLICT (pass_id, tile_set, "index", mask_policy) DO UPDATE
SET day = excluded.day, acquired_at = excluded.acquired_at, state = 'planned', planned_at = now(),
    run_id = excluded.run_id,
    pending_farm_ids
        = ARRAY(SELECT unnest(w.pending_farm_ids) UNION SELECT unnest(excluded.pending_farm_ids) ORDER BY 1)
"""


def pending_farms(
    connection: Connection, pass_ids: Collection[str], *, index: str, mask_policy: str
) -> dict[str, set[int]]:
    """Return for each of these passes with unfinished work the farms that are waiting for an answer."""
    found: dict[str, set[int]] = {}
    asked = {"passes": sorted(set(pass_ids)), "index": index, "mask_policy": mask_policy}
    for pass_id, farm_ids in connection.execute(text(_PENDING), asked):
        found.setdefault(pass_id, set()).update(farm_ids)
    return found


def left_behind(
    connection: Connection, start: dt.date, end: dt.date, *, now: dt.datetime, index: str, mask_policy: str
) -> dict[str, set[int]]:
    """Return for passes outside of these days the farms that still wait for an answer, newest passes first.

    Work that a living run has planned is that run's; what failed of late rests until `now` is late enough, and what
    was given up is left alone.
    """
    asked = {"start": start, "end": end, "index": index, "mask_policy": mask_policy, "limit": LEFT_BEHIND_AT_ONCE}
    asked |= {"now": now}
    found: dict[str, set[int]] = {}
    for pass_id, farm_ids in connection.execute(text(_LEFT_BEHIND), asked):
        found.setdefault(pass_id, set()).update(farm_ids)
    return found


_LEFT_BEHIND = f"""
SELECT pass_id, pending_farm_ids FROM work
WHERE (day < :start OR day > :end) AND "index" = :index AND mask_policy = :mask_policy AND state <> 'done'
    AND given_up_at IS NULL AND (not_before IS NULL OR not_before <= :now)
    AND NOT (state = 'planned' AND run_id IS NOT NULL AND run_id IN ({LIVING}))
ORDER BY acquired_at DESC LIMIT :limit
"""  # noqa: S608


def release_farms(
    connection: Connection, farms: Mapping[str, Collection[int]], *, index: str, mask_policy: str
) -> None:
    """Let go of farms that wait in passes that do not concern them any more; work without others is done."""
    rows = [
        {"pass_id": pass_id, "farms": sorted(ids), "index": index, "mask_policy": mask_policy}
        for pass_id, ids in sorted(farms.items())
    ]
    if rows:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": PLAN_LOCK})
        _write(connection, text(_RELEASE), rows)


_RELEASE = """
UPDATE work SET pending_farm_ids = left_over.ids, state = CASE WHEN left_over.ids = '{}' THEN 'done' ELSE state END
FROM (
    SELECT w.tile_set, coalesce(array_agg(p.id) FILTER (WHERE p.id <> ALL(CAST(:farms AS bigint[]))), '{}') AS ids
    FROM work AS w CROSS JOIN unnest(w.pending_farm_ids) AS p (id)
    WHERE w.pass_id = :pass_id AND w."index" = :index AND w.mask_policy = :mask_policy AND w.state <> 'done'
    GROUP BY w.tile_set
) AS left_over
WHERE work.pass_id = :pass_id AND work.tile_set = left_over.tile_set
    AND work."index" = :index AND work.mask_policy = :mask_policy
"""


_PENDING = """
SELECT pass_id, pending_farm_ids FROM work
WHERE pass_id = ANY(:passes) AND "index" = :index AND mask_policy = :mask_policy AND state <> 'done'
"""


def begin_work(connection: Connection, each: SceneWork, *, index: str, mask_policy: str) -> int:
    """Count another attempt and return how many there were, this one included.

    Raises:
        LookupError: it was never planned.
    """
    return _changed(connection, _BEGIN, each, {"index": index, "mask_policy": mask_policy})


def finish_work(
    connection: Connection,
    each: SceneWork,
    *,
    index: str,
    mask_policy: str,
    observed: int,
    not_observed: Mapping[str, int],
    failed_farm_ids: Sequence[int],
    problem: str | None,
    is_retryable: bool | None,
) -> None:
    """Note how its farms came out: done when none failed, else failed, and those that failed are pending.

    When none failed, earlier runs in which some did are forgotten.

    Farms that another plan has added meanwhile stay pending, and the work planned.

    Raises:
        LookupError: it was never planned.
    """
    outcome = {
        "observed": observed,
        "not_observed": json.dumps({str(reason): count for reason, count in not_observed.items()}),
        "asked": list(each.farm_ids),
        "failed": sorted(set(failed_farm_ids)),
        "is_failed": bool(failed_farm_ids),
        "problem": problem,
        "is_retryable": is_retryable,
    }
    _changed(connection, _FINISH, each, {"index": index, "mask_policy": mask_policy} | outcome)


def _changed(connection: Connection, statement: str, each: SceneWork, values: dict[str, Any]) -> int:
    key = {"pass_id": each.pass_id, "tile_set": each.tile_set}
    attempts: int | None = connection.execute(text(statement), key | values).scalar()
    if attempts is None:
        raise LookupError(f"{each.label} was never planned")
    return attempts


_ONE = 'pass_id = :pass_id AND tile_set = :tile_set AND "index" = :index AND mask_policy = :mask_policy'

_BEGIN = f"UPDATE work SET attempts = attempts + 1 WHERE {_ONE} RETURNING attempts"  # noqa: S608

_FINISH = f"""
WITH others AS (
    SELECT ARRAY(SELECT unnest(pending_farm_ids) EXCEPT SELECT unnest(CAST(:asked AS bigint[]))) AS farm_ids
    FROM work WHERE {_ONE}
)
UPDATE work
SET observed = :observed, not_observed = CAST(:not_observed AS jsonb), problem = :problem,
    is_retryable = :is_retryable, finished_at = now(),
    failed_runs = CASE WHEN :is_failed THEN failed_runs ELSE 0 END, inputs = CASE WHEN :is_failed THEN inputs END,
    not_before = CASE WHEN :is_failed THEN not_before END, given_up_at = CASE WHEN :is_failed THEN given_up_at END,
    state = CASE WHEN :is_failed THEN 'failed'
                 WHEN others.farm_ids <> '{{}}' THEN 'planned' ELSE 'done' END,
    pending_farm_ids
        = ARRAY(SELECT unnest(others.farm_ids) UNION SELECT unnest(CAST(:failed AS bigint[])) ORDER BY 1)
FROM others
WHERE {_ONE}
RETURNING attempts
"""  # noqa: S608


@contextmanager
def work_lock(engine: Engine, pass_id: str, tile_set: str) -> Iterator[bool]:
    """Give True while this is the only process, of all on this database, that has the work in hand; never waits.

    Holds a connection of its own: the lock ends with it, so a process that dies leaves none behind. Not for use
    through a pooler that shares sessions between transactions.
    """
    digest = sha256(f"work {pass_id} {tile_set}".encode()).digest()
    key = int.from_bytes(digest[:8], "big", signed=True)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        is_ours: bool = connection.execute(select(func.pg_try_advisory_lock(key))).scalar_one()
        try:
            yield is_ours
        finally:
            if is_ours:
                _unlock(connection, key)


def _unlock(connection: Connection, key: int) -> None:
    try:
        connection.execute(select(func.pg_advisory_unlock(key)))
    except DBAPIError:  # the server went away, and the lock with the session
        connection.invalidate()
