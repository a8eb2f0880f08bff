"""Clients of the API and their keys: created, listed, rotated and revoked.

Each change of what is there also returns which records it made outdated. Call `models.principals.announce` with them
after the commit, and the change holds in all workers at once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, Row, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from models.errors import BadInput
from models.keys import MasterKeys, new_api_key, new_prefix, parse_api_key, signing_key_id, signing_secret
from models.principals import API, HMAC, NAME, SCOPES, Outdated, key_record, name_record
from models.shared_tokens import token_key
from models.tables import client_keys, clients, integration_tokens

MAX_OVERLAP = dt.timedelta(days=90)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key that was just made: the only moment at which its secret is shown."""

    kind: str
    prefix: str
    key_id: str
    """What requests name it by: the prefix of an API key, the id of a signing key."""
    secret: str = field(repr=False)
    """The whole API key, or the secret that requests are signed with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as it is listed, without its secret."""

    kind: str
    prefix: str
    created_at: dt.datetime
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client with its keys, oldest first."""

    id: int
    name: str
    scopes: tuple[str, ...]
    created_at: dt.datetime
    revoked_at: dt.datetime | None
    farms: int
    """Active farms that belong to it."""
    keys: tuple[Key, ...]


def create_client(
    connection: Connection, name: str, *, scopes: Collection[str], masters: MasterKeys, with_signing_key: bool = False
) -> tuple[NewKey, ...]:
    """Create a client, and return its keys: an API key and, if asked for, a signing key.

    Raises:
        BadInput: the name or a scope is not allowed, or there is, or was, a client of this name.
    """
    _check_name(name)
    _check_scopes(scopes)
    row = {"name": name, "scopes": [scope for scope in SCOPES if scope in scopes]}
    made = insert(clients).values(row).on_conflict_do_nothing(index_elements=["name"]).returning(clients.c.id)
    client_id = connection.execute(made).scalar()
    if client_id is None:
        raise BadInput("name", f"there is, or was, a client {name}", allowed="a name that was never used")
    return tuple(
        _new_key(connection, client_id, kind, masters) for kind in ((API, HMAC) if with_signing_key else (API,))
    )


def rotate_key(
    connection: Connection, name: str, *, kind: str, overlap: dt.timedelta, masters: MasterKeys
) -> tuple[NewKey, Outdated]:
    """Give a client a new key of this kind; older ones go on for `overlap`.

    Raises:
        BadInput: there is no such client, or the overlap is out of range.
    """
    if not dt.timedelta(0) <= overlap <= MAX_OVERLAP:
        raise BadInput("overlap", f"is {overlap}", allowed=f"0 to {MAX_OVERLAP.days} days")
    client_id = client_id_of(connection, name)
    ending = connection.execute(
        update(client_keys)
        .where(client_keys.c.client_id == client_id, client_keys.c.kind == kind, client_keys.c.revoked_at.is_(None))
        .values(expires_at=func.least(client_keys.c.expires_at, func.now() + overlap))
        .returning(client_keys.c.prefix)
    )
    records = tuple(key_record(kind, prefix) for prefix in ending.scalars())
    outdated = Outdated(changed=records) if overlap else Outdated(ended=records)
    return _new_key(connection, client_id, kind, masters), outdated


def revoke_client(connection: Connection, name: str) -> Outdated:
    """End a client with all its keys and its shared token for good. Its farms stay.

    Raises:
        BadInput: there is no such client.
    """
    client_id = client_id_of(connection, name, include_revoked=True)
    revoked = func.coalesce(clients.c.revoked_at, func.now())
    connection.execute(update(clients).where(clients.c.id == client_id).values(revoked_at=revoked))
    query = select(client_keys.c.kind, client_keys.c.prefix).where(client_keys.c.client_id == client_id)
    keys = [key_record(row.kind, row.prefix) for row in connection.execute(query)]
    return Outdated(ended=(name_record(name, None), *_end_shared_token(connection, client_id), *keys))


def revoke_key(connection: Connection, name: str, prefix: str) -> Outdated:
    """End one key of a client at once.

    With a signing key ends the shared token too: whoever has the key may have fetched it.

    Raises:
        BadInput: there is no such client, or it has no such key.
    """
    client_id = client_id_of(connection, name)
    bare = prefix.removeprefix("swk_").removeprefix("swh_")[:12]
    kind = connection.execute(
        update(client_keys)
        .where(client_keys.c.client_id == client_id, client_keys.c.prefix == bare)
        .values(revoked_at=func.coalesce(client_keys.c.revoked_at, func.now()))
        .returning(client_keys.c.kind)
    ).scalar()
    if kind is None:
        raise BadInput("key", f"{name} has no such key", allowed="a prefix that `swath clients list` shows")
    record = key_record(kind, bare)
    return Outdated(ended=(record,) if kind == API else (record, *_end_shared_token(connection, client_id)))


def list_clients(connection: Connection, *, include_revoked: bool = False) -> list[Client]:
    """Return all clients in order of name, with their keys; revoked ones only if asked for."""
    keys: dict[int, list[Key]] = {}
    for row in connection.execute(select(client_keys).order_by(client_keys.c.created_at, client_keys.c.prefix)):
        if include_revoked or row.revoked_at is None:
            keys.setdefault(row.client_id, []).append(_key(row))
    found = connection.execute(text(_LISTED), {"include_revoked": include_revoked})
    return [
        Client(
            id=row.id,
            name=row.name,
            scopes=tuple(row.scopes),
            created_at=row.created_at,
            revoked_at=row.revoked_at,
            farms=row.farms,
            keys=tuple(keys.get(row.id, ())),
        )
        for row in found
    ]


def client_id_of(connection: Connection, name: str, *, include_revoked: bool = False) -> int:
    """Return the id of the client of this name.

    Raises:
        BadInput: there is none, or it was revoked.
    """
    query = select(clients.c.id).where(clients.c.name == name)
    found: int | None = connection.execute(
        query if include_revoked else query.where(clients.c.revoked_at.is_(None))
    ).scalar()
    if found is None:
        raise BadInput("client", f"there is no client {name}", allowed="a name that `swath clients list` shows")
    return found


def _new_key(connection: Connection, client_id: int, kind: str, masters: MasterKeys) -> NewKey:
    prefix = new_prefix()
    if kind == API:
        key_id, secret = prefix, new_api_key(prefix)
        parsed = parse_api_key(secret)
        assert parsed is not None
        digest = parsed.digest
    else:
        key_id, secret, digest = signing_key_id(prefix), signing_secret(masters.newest, prefix), None
    connection.execute(insert(client_keys).values(prefix=prefix, client_id=client_id, kind=kind, digest=digest))
    return NewKey(kind=kind, prefix=prefix, key_id=key_id, secret=secret)


def _end_shared_token(connection: Connection, client_id: int) -> tuple[str, ...]:
    """Make the shared token worthless, for the next one is of another generation; return where Redis has it."""
    ended = connection.execute(
        update(clients)
        .where(clients.c.id == client_id)
        .values(token_generation=clients.c.token_generation + 1)
        .returning(clients.c.name, clients.c.token_generation - 1)
    ).one()
    connection.execute(integration_tokens.delete().where(integration_tokens.c.client_id == client_id))
    return (name_record(*ended), token_key(client_id))


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise BadInput("name", "is no name for a client", allowed="up to 64 letters, digits, dots, dashes, underscores")


def _check_scopes(scopes: Collection[str]) -> None:
    unknown: Sequence[str] = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        problem = f"{', '.join(unknown)} is not known" if unknown else "none is given"
        raise BadInput("scopes", problem, allowed=", ".join(SCOPES))


def _key(row: Row[tuple[object, ...]]) -> Key:
    return Key(
        kind=row.kind,
        prefix=row.prefix,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )


_LISTED = """
SELECT c.*, (SELECT count(*) FROM farms AS f WHERE f.client_id = c.id AND f.is_active) AS farms
FROM clients AS c
WHERE :include_revoked OR c.revoked_at IS NULL
ORDER BY c.name
"""
