"""A farm's state as readers are given it: one query and one function make the same bytes for Redis and for readers.

Written for psycopg (`%(name)s`), so that whoever reads needs nothing else.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import orjson

from models.domain import Status

Facts = Mapping[Any, Any]
"""A row, by the names of its columns."""

_PREFIX = "swath:v2:farm:"
"""The version changes with the shape of the body."""

FIELDS = ("client", "revision", "body")
"""What Redis has of a farm, in a hash: whose it is (empty: no client's), its last change, and the finished bytes."""

_WHY_NOT = {
    Status.CLOUD: "every pixel of the farm was cloud, shadow or otherwise not clear",
    Status.OUTSIDE: "the imagery of this pass does not reach the farm",
    Status.NODATA: "the imagery has no data over the farm",
}


class ReadModel(NamedTuple):
    """One farm's state, ready to be given out."""

    key: str
    client: int | None
    """The client of the API that may read it; None: nobody but an admin."""
    revision: int
    """Grows with every change to the farm or its observations."""
    body: bytes
    """JSON."""


def state_key(external_farm_id: uuid.UUID) -> str:
    """Where Redis has a farm's state."""
    return f"{_PREFIX}{external_farm_id}:state"


def read_model(row: Facts) -> ReadModel:
    """Make the read model of a row of `states_sql`."""
    return ReadModel(state_key(row["external_farm_id"]), row["client_id"], row["revision"], _body(row))


# One command carries many farms and the script itself: atomic for each, and nothing to load first, so a Redis that
# restarted in between needs no second try.
_PUBLISH = """
local written = 0
for i, key in ipairs(KEYS) do
  local n = 3 * (i - 1)
  local stored = redis.call('HGET', key, 'revision')
  if not stored or tonumber(stored) <= tonumber(ARGV[n + 1]) then
    redis.call('HSET', key, 'revision', ARGV[n + 1], 'client', ARGV[n + 2], 'body', ARGV[n + 3])
    written = written + 1
  end
end
return written
"""


def publish_command(models: Sequence[ReadModel]) -> tuple[Any, ...]:
    """The arguments of the one `EVAL` that puts read models into Redis, leaving out those older than what it has.

    It answers how many were written. Needs a single server or a Sentinel, not Redis Cluster.
    """
    arguments: list[int | str | bytes] = []
    for model in models:
        arguments += [model.revision, "" if model.client is None else model.client, model.body]
    return _PUBLISH, len(models), *(model.key for model in models), *arguments


_ABSENT = b'"coverage_pct":null'
_PLACE = len('{"external_farm_id":"",') + 36


def is_observed(body: bytes) -> bool:
    """Whether the farm of this body has a value of its present boundary."""
    return not body.startswith(_ABSENT, _PLACE)


def is_awaited(body: bytes) -> bool:
    """Whether nobody has looked at the farm's present boundary yet, although somebody should."""
    return not is_observed(body) and b'"last_pass":null' in body and b'"is_active":true' in body


def latest_of(body: bytes) -> bytes:
    """The newest observation of a farm that has one, cut out of its state: whose, of what, and the observation as JSON.

    What is searched for cannot be inside a text, where each quotation mark has a backslash before it.
    """
    observation = body[body.index(b'"latest":') + 9 : body.index(b',"last_pass":')]
    index = body[body.rindex(b',"index":') : body.rindex(b',"revision":')]
    return body[: _PLACE - 1] + index + b',"observation":' + observation + b"}"


def states_sql(which: str) -> str:
    """The query of the states of the farms `f` for which this condition holds, in order of their ids.

    Its parameters are `index`, `mask_policy` and those of the condition.
    """
    return _STATES.replace("which_farms", which)


# A satellite flies an orbit again after 10 days, within seconds; an orbit not seen for 23 days is not counted on. All
# is counted from the last pass and not from now, so that the same facts give the same bytes at any time.
_LAST = "(last_pass.acquired_at + interval '1 hour')"
_REPEATS = f"(1 + floor(extract(epoch FROM {_LAST} - o.acquired_at) / 864000))::int"

# Each LATERAL walks the primary key of `observations` backwards, newest year first, and stops at its first rows.
_OF_FARM = """o.farm_id = f.id AND o.boundary_version = f.boundary_version
        AND o."index" = %(index)s AND o.mask_policy = %(mask_policy)s"""

_STATES = f"""
SELECT f.external_farm_id, f.client_id, f.is_active, f.boundary_version,
       %(index)s::text AS told_index, %(mask_policy)s::text AS told_mask_policy,
       greatest(f.revision, changed.revision) AS revision,
       latest.status, latest.ndvi, latest.rule, latest.day, latest.acquired_at, latest.clear_fraction,
       latest.mean, latest.std, latest.min, latest.max, latest.median, latest.p10, latest.p25, latest.p75, latest.p90,
       latest.inner_mean, latest.inner_median, latest.inner_pixel_count, latest.pixel_count, latest.clear_area_ha,
       latest.item_ids, latest.processing_baseline, latest.catalog,
       earlier.ndvi AS earlier_ndvi, earlier.day AS earlier_day,
       last_pass.day AS pass_day, last_pass.acquired_at AS pass_acquired_at, last_pass.status AS pass_status,
       last_pass.clear_fraction AS pass_clear_fraction, last_pass.platform AS pass_platform,
       next_pass.expected_at AS next_at, next_pass.day AS next_day, next_pass.platform AS next_platform,
       old.ndvi AS old_ndvi, old.day AS old_day, old.acquired_at AS old_acquired_at,
       old.clear_fraction AS old_clear_fraction, old.boundary_version AS old_boundary_version
FROM farms AS f
LEFT JOIN LATERAL (
    SELECT max(o.revision) AS revision FROM observations AS o WHERE o.farm_id = f.id
) AS changed ON true
LEFT JOIN LATERAL (
    SELECT o.* FROM observations AS o
    WHERE {_OF_FARM} AND o.ndvi IS NOT NULL
    ORDER BY o.acquired_at DESC LIMIT 1
) AS latest ON true
LEFT JOIN LATERAL (
    SELECT o.ndvi, o.day FROM observations AS o
    WHERE {_OF_FARM} AND o.ndvi IS NOT NULL AND o.acquired_at < latest.acquired_at
    ORDER BY o.acquired_at DESC LIMIT 1
) AS earlier ON true
LEFT JOIN LATERAL (
    SELECT o.day, o.acquired_at, o.status, o.clear_fraction, split_part(o.pass_id, '/', 1) AS platform
    FROM observations AS o
    WHERE {_OF_FARM}
    ORDER BY o.acquired_at DESC LIMIT 1
) AS last_pass ON true
LEFT JOIN LATERAL (
    SELECT o.acquired_at + {_REPEATS} * interval '10 days' AS expected_at, o.day + {_REPEATS} * 10 AS day,
           split_part(o.pass_id, '/', 1) AS platform
    FROM observations AS o
    WHERE {_OF_FARM} AND o.status <> 'outside'
        AND o.acquired_at > last_pass.acquired_at - interval '23 days' AND o.acquired_at <= last_pass.acquired_at
    ORDER BY expected_at LIMIT 1
) AS next_pass ON true
LEFT JOIN LATERAL (
    SELECT o.ndvi, o.day, o.acquired_at, o.clear_fraction, o.boundary_version FROM observations AS o
    WHERE latest.ndvi IS NULL AND o.farm_id = f.id AND o.boundary_version < f.boundary_version
        AND o."index" = %(index)s AND o.mask_policy = %(mask_policy)s AND o.ndvi IS NOT NULL
    ORDER BY o.boundary_version DESC, o.acquired_at DESC LIMIT 1
) AS old ON true
WHERE which_farms
ORDER BY f.id
"""  # noqa: S608

STATISTICS = (
    *("mean", "std", "min", "max", "median", "p10", "p25", "p75", "p90"),
    *("inner_mean", "inner_median", "inner_pixel_count", "pixel_count", "clear_area_ha"),
)
"""What is told of an observation beside its headline value."""
OBSERVATION = (
    *("day", "acquired_at", "status", "ndvi", "rule", "clear_fraction"),
    *STATISTICS,
    *("item_ids", "processing_baseline", "catalog"),
)
"""What is told of an observation, here and in a series."""

_observation = itemgetter(*OBSERVATION)


def observation(row: Facts) -> dict[str, Any]:
    """An observation as readers are given it, from a row that has the columns of `OBSERVATION`."""
    return observation_of(_observation(row))


def observation_of(values: Iterable[Any]) -> dict[str, Any]:
    """The same from the values of these columns, in their order."""
    told = dict(zip(OBSERVATION, values, strict=True))
    told["acquired_at"] = _utc(told["acquired_at"])
    return told


def _body(row: Facts) -> bytes:
    has_value = row["ndvi"] is not None
    state = {
        "external_farm_id": row["external_farm_id"],
        "coverage_pct": round(row["clear_fraction"] * 100, 2) if has_value else None,
        "status": "ready" if has_value else "processing",
        "is_active": row["is_active"],
        "latest": observation(row) if has_value else None,
        "last_pass": None if row["pass_status"] is None else _last_pass(row),
        "next_pass": None if row["next_at"] is None else _next_pass(row),
        "trend": None if row["earlier_ndvi"] is None else _trend(row),
        "of_earlier_boundary": None if row["old_ndvi"] is None else _of_earlier_boundary(row),
        "why_empty": None if has_value else _why_empty(row),
        "boundary_version": row["boundary_version"],
        "index": row["told_index"],
        "mask_policy": row["told_mask_policy"],
        "revision": row["revision"],
    }
    return orjson.dumps(state, option=orjson.OPT_UTC_Z)


def _utc(value: Any) -> Any:
    if isinstance(value, dt.datetime) and value.tzinfo is not dt.UTC:
        return value.astimezone(dt.UTC)
    return value


def _last_pass(row: Facts) -> dict[str, Any]:
    return {
        "day": row["pass_day"],
        "acquired_at": _utc(row["pass_acquired_at"]),
        "platform": row["pass_platform"],
        "status": row["pass_status"],
        "clear_fraction": row["pass_clear_fraction"],
        "why_not_used": _WHY_NOT.get(row["pass_status"]),
    }


def _next_pass(row: Facts) -> dict[str, Any]:
    return {"day": row["next_day"], "expected_at": _utc(row["next_at"]), "platform": row["next_platform"]}


def _trend(row: Facts) -> dict[str, Any]:
    return {
        "ndvi_change": row["ndvi"] - row["earlier_ndvi"],
        "since": row["earlier_day"],
        "days": (row["day"] - row["earlier_day"]).days,
    }


def _of_earlier_boundary(row: Facts) -> dict[str, Any]:
    names = ("ndvi", "day", "acquired_at", "clear_fraction", "boundary_version")
    return {name: _utc(row[f"old_{name}"]) for name in names}


def _why_empty(row: Facts) -> str:
    """Why a farm has no value, in a sentence for its owner."""
    if row["pass_status"] is not None:
        return f"no pass has seen the farm clearly yet; at the last one {_WHY_NOT[row['pass_status']]}"
    if row["old_ndvi"] is not None:
        return "the boundary has changed and no pass has been looked at since; earlier values are of the old boundary"
    if not row["is_active"]:
        return "the farm is not active, so no imagery is read for it"
    return "no pass has been looked at yet"
