"""What readers are given of a farm: made from Postgres after commit, kept ready in Redis as finished bytes.

Redis holds for each farm a hash of three fields, `client`, `revision` and `body`: one `HMGET` tells a reader whose farm
it is, the tag of the answer and the answer, and nothing has to be parsed. Losing it costs speed, not an answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from redis import Redis
from sqlalchemy import Connection, text

from models.domain import INDEX
from models.state import ReadModel, publish_command, read_model, state_key, states_sql

__all__ = [
    "FARMS_AT_ONCE",
    "ReadModel",
    "catch_up",
    "newest_revision",
    "publish",
    "publish_changed",
    "read_models",
    "republish",
    "state_key",
]

FARMS_AT_ONCE = 500
"""Read models that one command to Redis carries: about 400 kB and a few milliseconds."""


def read_models(
    connection: Connection, farm_ids: Collection[int] | None, *, mask_policy: str, index: str = INDEX
) -> Iterator[ReadModel]:
    """Yield the state of these farms, active or not, or of all active ones for None; by one query, some at a time.

    Read them after the commit of what they tell, in a transaction begun since.
    """
    which = "f.is_active" if farm_ids is None else "f.id = ANY(%(farm_ids)s)"
    given = {} if farm_ids is None else {"farm_ids": sorted(set(farm_ids))}
    values = {"mask_policy": mask_policy, "index": index, **given}
    options = {"stream_results": True, "yield_per": 1_000}
    with connection.exec_driver_sql(states_sql(which), values, execution_options=options) as rows:
        for row in rows.mappings():
            yield read_model(row)


def publish(client: Redis, models: Iterable[ReadModel]) -> int:
    """Put read models into Redis, and return how many; one that is older than what Redis has is left out.

    Raises:
        redis.RedisError: Redis could not be reached or did not take them. Those of earlier batches are in; doing it
            again is safe.
    """
    written = 0
    remaining = iter(models)
    while batch := list(islice(remaining, FARMS_AT_ONCE)):
        written += int(client.eval(*publish_command(batch)))
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
    mark = f"swath:v2:complete:{mask_policy}:{index}"
    newest = newest_revision(connection)
    known = client.get(mark)
    if known is None:
        written = republish(connection, client, mask_policy=mask_policy, index=index)
    else:
        written = publish_changed(connection, client, since=int(known), mask_policy=mask_policy, index=index)
    client.set(mark, newest)
    return written


def newest_revision(connection: Connection) -> int:
    """Return the last revision of a farm or an observation; 0 when there are none."""
    return int(connection.execute(text(_NEWEST)).scalar_one())


def publish_changed(connection: Connection, client: Redis, *, since: int, mask_policy: str, index: str = INDEX) -> int:
    """Publish every farm, active or not, that changed after a revision; return how many were written.

    Whoever changes farms does this after the commit, so that no reader is given the state of before, or told that a
    farm is still somebody else's.

    Raises:
        redis.RedisError: as `publish`.
    """
    changed = connection.execute(text(_CHANGED_SINCE), {"revision": since}).scalars().all()
    return publish(client, read_models(connection, changed, mask_policy=mask_policy, index=index))


_NEWEST = """
SELECT greatest((SELECT max(revision) FROM farms), (SELECT max(revision) FROM observations), 0)
"""

_CHANGED_SINCE = """
SELECT id FROM farms WHERE revision > :revision
UNION
SELECT farm_id FROM observations WHERE revision > :revision
"""
