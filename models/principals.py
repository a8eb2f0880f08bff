"""What workers keep about a caller: read from Postgres by key or by name, kept in Redis for a minute at most.

A record is a few bytes of JSON. Whatever changes a client puts its new records into Redis after the commit, so that
the change holds in all workers at once. Workers themselves only fill gaps (`SET ... NX`): one that had read Postgres
just before a change cannot bring back what was.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from redis import Redis

READ, WRITE_FARMS, ADMIN = "read", "farms:write", "admin"
SCOPES = (READ, WRITE_FARMS, ADMIN)

API, HMAC = "api", "hmac"
"""Kinds of key: presented whole, and signed with."""

KEPT_S = 60
"""Longest time, in seconds, that a record is believed."""

REVOKED = b"{}"
"""Record of a key or client that is no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A client as one of its credentials found it."""

    client_id: int
    name: str
    scopes: frozenset[str]
    token_generation: int
    digest: str = field(default="", repr=False)
    """SHA-256, in hexadecimal, that a presented API key must match; empty where a signature has proven the caller."""
    expires_at: dt.datetime | None = None
    """When the credential ends, by rotation; None: never by itself."""


def key_record(kind: str, prefix: str) -> str:
    """Where Redis has the record of the caller with this key."""
    return f"swath:v1:caller:{kind}:{prefix}"


def name_record(name: str) -> str:
    """Where Redis has the record of the caller of this name, as a token says it."""
    return f"swath:v1:caller:name:{name}"


def to_record(row: Mapping[Any, Any]) -> bytes:
    """Make the record of a row of `BY_KEY` or `BY_NAME`."""
    digest, expires_at = row["digest"], row["expires_at"]
    facts = {
        "client_id": row["client_id"],
        "name": row["name"],
        "scopes": row["scopes"],
        "generation": row["token_generation"],
        "digest": "" if digest is None else bytes(digest).hex(),
        "expires_at": None if expires_at is None else expires_at.timestamp(),
    }
    return orjson.dumps(facts)


def from_record(record: bytes) -> Caller | None:
    """Read a record; None when the key or client is no more, or these bytes are no record."""
    try:
        facts = orjson.loads(record)
        ends = facts["expires_at"]
        return Caller(
            client_id=facts["client_id"],
            name=facts["name"],
            scopes=frozenset(facts["scopes"]),
            token_generation=facts["generation"],
            digest=facts["digest"],
            expires_at=None if ends is None else dt.datetime.fromtimestamp(ends, dt.UTC),
        )
    except (ValueError, KeyError, TypeError):
        return None


def announce(client: Redis, records: Mapping[str, bytes]) -> None:
    """Put records that changed into Redis, for all workers, in one exchange.

    Raises:
        redis.RedisError: Redis could not be reached; workers may believe what it has for `KEPT_S` seconds.
    """
    if not records:
        return
    with client.pipeline(transaction=False) as pipe:
        for name, record in records.items():
            pipe.set(name, record, ex=KEPT_S)
        pipe.execute()


BY_KEY = """
SELECT c.id AS client_id, c.name, c.scopes, c.token_generation, k.digest, k.expires_at
FROM client_keys AS k JOIN clients AS c ON c.id = k.client_id
WHERE k.prefix = %(prefix)s AND k.kind = %(kind)s AND k.revoked_at IS NULL AND c.revoked_at IS NULL
    AND (k.expires_at IS NULL OR k.expires_at > now())
"""
"""For psycopg: one caller, or no row for a key that is unknown, expired or revoked."""

BY_NAME = """
SELECT id AS client_id, name, scopes, token_generation, NULL::bytea AS digest, NULL::timestamptz AS expires_at
FROM clients WHERE name = %(name)s AND revoked_at IS NULL
"""
