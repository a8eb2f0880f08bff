"""What workers keep about a caller: read from Postgres by key or by name, kept in Redis, believed for a minute.

A record is a few bytes of JSON. Whoever changes a client tells Redis after the commit, so that the change holds in all
workers at once: what has ended gets a tombstone, which a worker that had read Postgres just before cannot overwrite;
what merely changed is removed and read again.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from redis import Redis

READ, WRITE_FARMS, ADMIN = "read", "farms:write", "admin"
SCOPES = (READ, WRITE_FARMS, ADMIN)

API, HMAC = "api", "hmac"
"""Kinds of key: presented whole, and signed with."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What clients may be called."""

TOMBSTONE = b""
"""In place of a record: this key, client or token is revoked."""

TOMBSTONE_S = 120
"""Longer than any request that has read the record just before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A client as one of its credentials found it."""

    client_id: int
    name: str
    scopes: frozenset[str]
    digest: str = field(default="", repr=False)
    """SHA-256, in hexadecimal, that a presented API key must match; empty where a signature has proven the caller."""
    expires_at: dt.datetime | None = None
    """When the credential ends, by rotation; None: never by itself."""


@dataclass(frozen=True, slots=True)
class Outdated:
    """Records that are no longer true, by where Redis has them."""

    ended: tuple[str, ...] = ()
    """Keys, clients and tokens that are no more."""
    changed: tuple[str, ...] = ()


def key_record(kind: str, prefix: str) -> str:
    """Where Redis has the record of the caller with this key."""
    return f"swath:v1:caller:{kind}:{prefix}"


def name_record(name: str, generation: int | None) -> str:
    """Where Redis has the record of a caller named by a token, of one generation of our own tokens or of foreign ones.

    Ending a generation ends the record, and so all tokens of it.
    """
    return f"swath:v1:caller:name:{name}:{'' if generation is None else generation}"


def to_record(row: Mapping[Any, Any]) -> bytes:
    """Make the record of a row of `BY_KEY` or `BY_NAME`."""
    digest, expires_at = row["digest"], row["expires_at"]
    facts = {
        "client_id": row["client_id"],
        "name": row["name"],
        "scopes": row["scopes"],
        "digest": "" if digest is None else bytes(digest).hex(),
        "expires_at": None if expires_at is None else expires_at.timestamp(),
    }
    return orjson.dumps(facts)


def from_record(record: bytes) -> Caller | None:
    """Read a record; None when these bytes are no record."""
    try:
        facts = orjson.loads(record)
        ends = facts["expires_at"]
        return Caller(
            client_id=facts["client_id"],
            name=facts["name"],
            scopes=frozenset(facts["scopes"]),
            digest=facts["digest"],
            expires_at=None if ends is None else dt.datetime.fromtimestamp(ends, dt.UTC),
        )
    except (ValueError, KeyError, TypeError):
        return None


def announce(client: Redis, outdated: Outdated) -> None:
    """Tell all workers at once, by way of Redis and in one exchange, what is no longer true.

    Raises:
        redis.RedisError: Redis could not be reached; workers may believe what it has for a minute.
    """
    if not outdated.ended and not outdated.changed:
        return
    with client.pipeline(transaction=False) as pipe:
        for name in outdated.ended:
            pipe.set(name, TOMBSTONE, ex=TOMBSTONE_S)
        if outdated.changed:
            pipe.delete(*outdated.changed)
        pipe.execute()


BY_KEY = """
SELECT c.id AS client_id, c.name, c.scopes, k.digest, k.expires_at
FROM client_keys AS k JOIN clients AS c ON c.id = k.client_id
WHERE k.prefix = %(prefix)s AND k.kind = %(kind)s AND k.revoked_at IS NULL AND c.revoked_at IS NULL
    AND (k.expires_at IS NULL OR k.expires_at > now())
"""
"""For psycopg: one caller, or no row for a key that is unknown, expired or revoked."""

BY_NAME = """
SELECT id AS client_id, name, scopes, NULL::bytea AS digest, NULL::timestamptz AS expires_at
FROM clients
WHERE name = %(name)s AND revoked_at IS NULL
    AND (%(generation)s::integer IS NULL OR token_generation = %(generation)s::integer)
"""
"""For psycopg: one caller, or no row for a client that is unknown or revoked, or whose tokens are of a later one."""
