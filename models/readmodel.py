"""What readers are given of a farm: made from Postgres after commit, kept ready in Redis as finished bytes.

Redis holds for each farm a hash of two fields, `revision` and `body`: one `HGET key body` (or `HMGET` with the
revision, for an ETag) answers a reader, and nothing has to be parsed. Losing it costs speed, not an answer.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import orjson
from redis import Redis
from sqlalchemy import Connection, Row, text

from models.domain import Status
from models.observations import INDEX

FARMS_AT_ONCE = 500
"""Read models that one command to Redis carries: about 400 kB and a few milliseconds."""

_WHY_NOT = {
    Status.CLOUD: "every pixel of the farm was cloud, shadow or otherwise not clear",
    Status.OUTSIDE: "the imagery of this pass does not reach the farm",
    Status.NODATA: "the imagery has no data over the farm",
}


class ReadModel(NamedTuple):
    """One farm's state, ready to be given out."""

    key: str
    revision: int
    """Grows with every change to the farm or its observations."""
    body: bytes
    """JSON."""


def state_key(external_farm_id: uuid.UUID) -> str:
    """Where Redis has a farm's state. The version in it changes with the shape of the body."""
    return f"swath:v1:farm:{external_farm_id}:state"


def read_models(
    connection: Connection, farm_ids: Collection[int] | None, *, mask_policy: str, index: str = INDEX
) -> Iterator[ReadModel]:
    """Yield the state of these farms, active or not, or of all active ones for None; by one query, some at a time.

    Read them after the commit of what they tell, in a transaction begun since.
    """
    which = "f.is_active" if farm_ids is None else "f.id = ANY(:farm_ids)"
    given = {} if farm_ids is None else {"farm_ids": sorted(set(farm_ids))}
    query = text(_STATES.replace("which_farms", which))
    options = {"stream_results": True, "yield_per": 1_000}
    values = {"mask_policy": mask_policy, "index": index, **given}
    with connection.execute(query, values, execution_options=options) as rows:
        for row in rows:
            yield ReadModel(state_key(row.external_farm_id), row.revision, _body(row, index, mask_policy))


# Each LATERAL walks the primary key of `observations` backwards, newest year first, and stops at its first rows.
_STATES = """
SELECT f.external_farm_id, f.is_active, greatest(f.revision, changed.revision) AS revision,
       latest.ndvi, latest.rule, latest.day, latest.acquired_at, latest.clear_fraction,
       earlier.ndvi AS earlier_ndvi, earlier.day AS earlier_day,
       last_pass.day AS pass_day, last_pass.acquired_at AS pass_acquired_at, last_pass.status AS pass_status,
       last_pass.clear_fraction AS pass_clear_fraction
FROM farms AS f
LEFT JOIN LATERAL (
    SELECT max(o.revision) AS revision FROM observations AS o WHERE o.farm_id = f.id
) AS changed ON true
LEFT JOIN LATERAL (
    SELECT o.ndvi, o.rule, o.day, o.acquired_at, o.clear_fraction FROM observations AS o
    WHERE o.farm_id = f.id AND o.boundary_version = f.boundary_version
        AND o."index" = :index AND o.mask_policy = :mask_policy AND o.ndvi IS NOT NULL
    ORDER BY o.acquired_at DESC LIMIT 1
) AS latest ON true
LEFT JOIN LATERAL (
    SELECT o.ndvi, o.day FROM observations AS o
    WHERE o.farm_id = f.id AND o.boundary_version = f.boundary_version
        AND o."index" = :index AND o.mask_policy = :mask_policy AND o.ndvi IS NOT NULL
        AND o.acquired_at < latest.acquired_at
    ORDER BY o.acquired_at DESC LIMIT 1
) AS earlier ON true
LEFT JOIN LATERAL (
    SELECT o.day, o.acquired_at, o.status, o.clear_fraction FROM observations AS o
    WHERE o.farm_id = f.id AND o.boundary_version = f.boundary_version
        AND o."index" = :index AND o.mask_policy = :mask_policy
    ORDER BY o.acquired_at DESC LIMIT 1
) AS last_pass ON true
WHERE which_farms
ORDER BY f.id
"""


def _body(row: Row[Any], index: str, mask_policy: str) -> bytes:
    has_value = row.ndvi is not None
    state = {
        "external_farm_id": row.external_farm_id,
        "coverage_pct": round(row.clear_fraction * 100, 2) if has_value else None,
        "status": "ready" if has_value else "processing",
        "is_active": row.is_active,
        "latest": _latest(row) if has_value else None,
        "last_pass": None if row.pass_status is None else _last_pass(row),
        "trend": None if row.earlier_ndvi is None else _trend(row),
        "index": index,
        "mask_policy": mask_policy,
        "revision": row.revision,
    }
    return orjson.dumps(state, option=orjson.OPT_UTC_Z)


def _latest(row: Row[Any]) -> dict[str, Any]:
    return {
        "ndvi": row.ndvi,
        "rule": row.rule,
        "day": row.day,
        "acquired_at": row.acquired_at.astimezone(dt.UTC),
        "clear_fraction": row.clear_fraction,
    }


def _last_pass(row: Row[Any]) -> dict[str, Any]:
    return {
        "day": row.pass_day,
        "acquired_at": row.pass_acquired_at.astimezone(dt.UTC),
        "status": row.pass_status,
        "clear_fraction": row.pass_clear_fraction,
        "why_not_used": _WHY_NOT.get(row.pass_status),
    }


def _trend(row: Row[Any]) -> dict[str, Any]:
    return {
        "ndvi_change": row.ndvi - row.earlier_ndvi,
        "since": row.earlier_day,
        "days": (row.day - row.earlier_day).days,
    }


# One command carries many farms and the script itself: atomic for each, and nothing to load first, so a Redis that
# restarted in between needs no second try.
_PUBLISH = """
local written = 0
for i, key in ipairs(KEYS) do
  local revision = ARGV[2 * i - 1]
  local stored = redis.call('HGET', key, 'revision')
  if not stored or tonumber(stored) <= tonumber(revision) then
    redis.call('HSET', key, 'revision', revision, 'body', ARGV[2 * i])
    written = written + 1
  end
end
return written
"""


def publish(client: Redis, models: Iterable[ReadModel]) -> int:
    """Put read models into Redis, and return how many; one that is older than what Redis has is left out.

    Needs a single server or a Sentinel, not Redis Cluster.

    Raises:
        redis.RedisError: Redis could not be reached or did not take them. Those of earlier batches are in; doing it
            again is safe.
    """
    written = 0
    remaining = iter(models)
    while batch := list(islice(remaining, FARMS_AT_ONCE)):
        arguments = [part for model in batch for part in (model.revision, model.body)]
        written += int(client.eval(_PUBLISH, len(batch), *(model.key for model in batch), *arguments))
    return written


def republish(connection: Connection, client: Redis, *, mask_policy: str, index: str = INDEX) -> int:
    """Put the states of all active farms into Redis, as after it lost everything; return how many.

    Raises:
        redis.RedisError: as `publish`.
    """
    return publish(client, read_models(connection, None, mask_policy=mask_policy, index=index))


def catch_up(connection: Connection, client: Redis, *, mask_policy: str, index: str = INDEX) -> int:
    """Publish every farm that changed since Redis was last known to be complete; return how many were written.

    Redis itself holds the revision up to which it is complete: one that lost everything has none, and gets all farms;
    one that was away for a while gets what it missed.

    Raises:
        redis.RedisError: as `publish`; the next call starts from the same revision.
    """
    mark = f"swath:v1:complete:{mask_policy}:{index}"
    newest: int = connection.execute(text(_NEWEST)).scalar_one()
    known = client.get(mark)
    if known is None:
        written = republish(connection, client, mask_policy=mask_policy, index=index)
    else:
        changed = connection.execute(text(_CHANGED_SINCE), {"revision": int(known)}).scalars().all()
        written = publish(client, read_models(connection, changed, mask_policy=mask_policy, index=index))
    client.set(mark, newest)
    return written


_NEWEST = """
SELECT greatest((SELECT max(revision) FROM farms), (SELECT max(revision) FROM observations), 0)
"""

_CHANGED_SINCE = """
SELECT id FROM farms WHERE revision > :revision
UNION
SELECT farm_id FROM observations WHERE revision > :revision
"""
