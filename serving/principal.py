"""Who is calling, what they presented, how often they may: the words that gate, credentials and throttle share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from models.principals import ADMIN
from serving.database import Database

ScopeKind = Literal["api_key", "jwt", "nextcloud_hmac", "anonymous"]
"""In which way somebody showed who they are; each way has its own limit of requests."""

Headers = Mapping[bytes, bytes]
"""Headers of a request by lower-case name; of one that was sent twice, the last."""

UNAUTHENTICATED = {"www-authenticate": 'Bearer realm="swath", ApiKey realm="swath"'}
"""Headers of an answer to credentials that are missing or not good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A caller whose identity is known."""

    client_id: int | None
    """None: nobody in particular."""
    name: str
    scopes: frozenset[str]
    scope_kind: ScopeKind

    @property
    def is_admin(self) -> bool:
        """Whether they see the farms of all clients, and those of none."""
        return ADMIN in self.scopes

    def has(self, scope: str) -> bool:
        """Whether they may do what needs this scope; `admin` may do all."""
        return scope in self.scopes or self.is_admin

    def may_see(self, owner: int | None) -> bool:
        """Whether a farm of this client is theirs to see."""
        return self.is_admin or (owner is not None and owner == self.client_id)


ANYBODY = Principal(client_id=None, name="anonymous", scopes=frozenset(), scope_kind="anonymous")


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What a caller presented, checked as far as that needs no store: a signature is, an API key is not."""

    kind: ScopeKind
    record_key: str
    """Redis key under which the client's record is cached."""
    bucket: str
    """With whom their requests are counted. Made from all that was presented: a wrong secret counts by itself."""
    lookup: str
    """What names the client in Postgres: the prefix of an API key, the name in a token."""
    digest: str | None = None
    """SHA-256 of the presented secret in hexadecimal; None where a signature has shown who it is."""
    scopes: frozenset[str] | None = None
    """What a token is limited to; None: all that the client may."""


class Doorkeeper(Protocol):
    """Tells who is at the door. A record is a few bytes that say all that must be known of a client."""

    def presented(self, headers: Headers) -> Presented | None:
        """Read what a request presents; None when it presents nothing.

        Raises:
            ApiError: 401, it is malformed, expired or not signed by anybody known.
        """

    def principal(self, presented: Presented, record: bytes) -> Principal | None:
        """Who this is according to the client's record; None when the secret is another or the client is revoked."""

    async def record(self, presented: Presented, database: Database) -> bytes | None:
        """Read the client's record from Postgres; None when there is no such client, or it is revoked.

        Raises:
            DatabaseAway: Postgres does not answer.
        """


@dataclass(frozen=True, slots=True)
class Limit:
    """How often callers of one kind may ask."""

    requests: int
    window_s: int
    name: str = "requests"
    """What callers read it by."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What is left of a limit after one more request."""

    is_allowed: bool
    limit: Limit
    remaining: int
    reset_s: int
    """Seconds until there is more."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """As draft-ietf-httpapi-ratelimit-headers-10 has it; `Retry-After` too where it was too often."""
        name = self.limit.name.encode()
        told = [
            (b"ratelimit-policy", b'"%b";q=%d;w=%d' % (name, self.limit.requests, self.limit.window_s)),
            (b"ratelimit", b'"%b";r=%d;t=%d' % (name, self.remaining, self.reset_s)),
        ]
        return told if self.is_allowed else [*told, (b"retry-after", b"%d" % max(1, self.reset_s))]


class Throttle(Protocol):
    """Counts requests: by a piece of Lua inside the gate's one exchange with Redis, or here while that is away."""

    lua: str
    """Defines `take(key, requests, window_s)`: counts one request and returns {allowed 0|1, remaining, reset_s}."""

    def limit(self, kind: ScopeKind) -> Limit:
        """How often callers of this kind may ask."""

    def take(self, bucket: str, limit: Limit) -> Taken:
        """Count one request in this process alone."""
