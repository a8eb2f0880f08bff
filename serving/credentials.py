"""What callers show of themselves: an API key or a bearer token, and what becomes of it."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable

from infra.settings import Settings
from models.keys import API_KEY_CHARACTERS, MasterKeys, parse_api_key
from models.principals import API, BY_KEY, BY_NAME, HMAC, from_record, key_record, name_record, to_record
from serving.database import Database
from serving.faults import ApiError, FieldError
from serving.principal import UNAUTHENTICATED, Headers, Presented, Principal
from serving.token_keys import KeyFile
from serving.tokens import TokenReader, TokenRefused


class Credentials:
    """Reads credentials, and compares them with the records of clients."""

    def __init__(self, tokens: TokenReader, *, clock: Callable[[], float] = time.time) -> None:
        self._tokens = tokens
        self._clock = clock

    def presented(self, headers: Headers) -> Presented | None:
        """Read what a request presents; None when it presents nothing.

        Raises:
            ApiError: 401, it is malformed, expired or not signed by anybody known; 400, there are two.
        """
        key, authorization = headers.get(b"x-api-key"), headers.get(b"authorization")
        if key is not None and authorization is not None:
            raise ApiError(400, "X-API-Key and Authorization are both given; allowed: one of them")
        if key is not None:
            return _api_key(key.decode("latin-1"))
        if authorization is not None:
            return self._token(authorization.decode("latin-1"))
        return None

    def _token(self, authorization: str) -> Presented:
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() != "bearer" or not text.strip():
            raise _refused("authorization", "is no bearer token", "Bearer and a token")
        if text.startswith("swk_"):
            raise _refused("authorization", "is an API key, not a token", "API keys by X-API-Key")
        try:
            token = self._tokens.read(text.strip())
        except TokenRefused as error:
            raise _refused("authorization", f"the token {error}") from None
        return Presented(
            kind="jwt",
            record_key=name_record(token.client, token.generation),
            bucket=f"jwt:{token.client}",
            lookup=f"{token.client}:{'' if token.generation is None else token.generation}",
            scopes=token.scopes,
        )

    def principal(self, presented: Presented, record: bytes) -> Principal | None:
        """Who this is according to the client's record; None when the secret is another or the key has ended."""
        caller = from_record(record)
        if caller is None or (caller.expires_at is not None and caller.expires_at.timestamp() <= self._clock()):
            return None
        if not hmac.compare_digest(presented.digest or "", caller.digest):
            return None
        scopes = caller.scopes if presented.scopes is None else caller.scopes & presented.scopes
        return Principal(client_id=caller.client_id, name=caller.name, scopes=scopes, scope_kind=presented.kind)

    async def record(self, presented: Presented, database: Database) -> bytes | None:
        """Read the client's record from Postgres; None when there is no such client or key, or it is revoked.

        Raises:
            DatabaseAway: Postgres does not answer.
        """
        if presented.kind == "jwt":
            name, _, generation = presented.lookup.partition(":")
            row = await database.row(BY_NAME, {"name": name, "generation": int(generation) if generation else None})
        else:
            kind = API if presented.kind == "api_key" else HMAC
            row = await database.row(BY_KEY, {"prefix": presented.lookup, "kind": kind})
        return None if row is None else to_record(row)


def signing_key(prefix: str) -> Presented:
    """What a request presents whose signature holds."""
    return Presented(
        kind="nextcloud_hmac",
        record_key=key_record(HMAC, prefix),
        bucket=f"nextcloud_hmac:{prefix}",
        lookup=prefix,
    )


def _api_key(text: str) -> Presented:
    key = parse_api_key(text) if len(text) == API_KEY_CHARACTERS else None
    if key is None:
        raise _refused("x-api-key", "is no API key", "swk_, 12 digits, _ and 43 characters")
    digest = key.digest.hex()
    return Presented(
        kind="api_key",
        record_key=key_record(API, key.prefix),
        bucket=f"api_key:{digest[:32]}",
        lookup=key.prefix,
        digest=digest,
    )


def _refused(header: str, problem: str, allowed: str | None = None) -> ApiError:
    error = FieldError(f"header.{header}", problem, allowed)
    return ApiError(401, f"{error.field}: {problem}", [error], headers=UNAUTHENTICATED)


def make_token_reader(
    settings: Settings, masters: MasterKeys, *, clock: Callable[[], float] = time.time
) -> TokenReader:
    """What reads tokens, as the settings describe it.

    Raises:
        BadInput: the file of keys cannot be used.
    """
    foreign = None
    if settings.jwt_keys_file is not None and settings.jwt_issuer is not None:
        foreign = KeyFile(settings.jwt_keys_file, issuer=settings.jwt_issuer)
    return TokenReader(masters, audience=settings.jwt_audience, foreign=foreign, clock=clock)


def make_doorkeeper(settings: Settings, masters: MasterKeys) -> Credentials:
    """What reads credentials, as the settings describe it.

    Raises:
        BadInput: the file of keys cannot be used.
    """
    return Credentials(make_token_reader(settings, masters))
