"""The one shared token of a client: what it says is kept, in Postgres by one row and in Redis for speed.

The token is these facts signed again, which gives the same token each time: neither store holds it.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFacts:
    """What a shared token says."""

    token_id: uuid.UUID
    generation: int
    signed_by: str
    """Id of the master key that its key is derived from."""
    issued_at: dt.datetime
    expires_at: dt.datetime


def token_key(client_id: int) -> str:
    """Where Redis has the facts of a client's shared token."""
    return f"swath:v1:token:{client_id}"


def lock_key(client_id: int) -> str:
    """Where Redis has the lock of whoever is minting one."""
    return f"swath:v1:token:{client_id}:lock"


def nonce_key(prefix: str, nonce: str) -> str:
    """Where Redis has a nonce that was used with a signing key."""
    return f"swath:v1:nonce:{prefix}:{nonce}"


def to_cache(facts: TokenFacts) -> bytes:
    """Write facts as Redis keeps them."""
    return orjson.dumps(facts)


def from_cache(kept: bytes | None) -> TokenFacts | None:
    """Read facts as Redis keeps them; None for a tombstone and whatever else is none."""
    try:
        facts = orjson.loads(kept or b"")
        return TokenFacts(
            token_id=uuid.UUID(facts["token_id"]),
            generation=facts["generation"],
            signed_by=facts["signed_by"],
            issued_at=dt.datetime.fromisoformat(facts["issued_at"]),
            expires_at=dt.datetime.fromisoformat(facts["expires_at"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


def from_row(row: Mapping[str, Any]) -> TokenFacts:
    """Read a row of `MINT` or `STORED`."""
    return TokenFacts(
        token_id=row["token_id"],
        generation=row["generation"],
        signed_by=row["signed_by"],
        issued_at=row["issued_at"],
        expires_at=row["expires_at"],
    )


# FOR SHARE: a client that is being revoked is waited for, so that no token of an ended generation is left behind.
# Of many that mint at once one row comes back, to whoever was first; the others find `STORED` good.
MINT = """
INSERT INTO integration_tokens AS t (client_id, token_id, generation, signed_by, issued_at, expires_at)
SELECT id, %(token_id)s, token_generation, %(signed_by)s, %(issued_at)s, %(expires_at)s
FROM clients WHERE id = %(client_id)s AND revoked_at IS NULL
FOR SHARE
ON CONFLICT (client_id) DO UPDATE
SET token_id = excluded.token_id, generation = excluded.generation, signed_by = excluded.signed_by,
    issued_at = excluded.issued_at, expires_at = excluded.expires_at
WHERE t.expires_at < %(good_until)s OR t.generation <> excluded.generation OR t.signed_by <> ALL(%(known_keys)s)
RETURNING token_id, generation, signed_by, issued_at, expires_at
"""
"""For psycopg: make a token unless there is a good one; no row when there is, or when the client is revoked."""

STORED = """
SELECT t.token_id, t.generation, t.signed_by, t.issued_at, t.expires_at
FROM integration_tokens AS t JOIN clients AS c ON c.id = t.client_id
WHERE t.client_id = %(client_id)s AND t.generation = c.token_generation AND c.revoked_at IS NULL
"""
"""For psycopg: the token there is, good or not; waits for nobody."""

USE_NONCE = """
WITH forgotten AS (
    DELETE FROM used_nonces
    WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM used_nonces WHERE expires_at < now() - interval '1 hour' LIMIT 100 FOR UPDATE SKIP LOCKED
    ))
)
INSERT INTO used_nonces (prefix, nonce, expires_at) VALUES (%(prefix)s, %(nonce)s, %(expires_at)s)
ON CONFLICT DO NOTHING
RETURNING true AS is_new
"""
"""For psycopg: use a nonce; no row when it was used before. Sweeps some that could not be used again anyway."""
