"""Bearer tokens (JWT): our own, signed with a key derived from the master secret, and foreign ones by a file of keys.

Every key has one algorithm and vouches for one issuer, so a token chooses nothing but the key, by `kid`. Signatures are
checked first; what a token says is looked at, and told, only when it holds.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.keys import MasterKey, MasterKeys
from models.principals import NAME, READ, WRITE_FARMS
from serving.token_keys import ALGORITHMS, KeyFile, VerifyingKey

if TYPE_CHECKING:
    import jwt  # loaded with the first token: with its cryptography it takes a sixth of a worker's start

OWN_ISSUER = "swath"
OWN_KEY_ID = "swath-"
"""How `kid` of our own tokens begins; the id of the master key follows."""

OWN_SCOPES = frozenset({READ, WRITE_FARMS})
"""What our own tokens are good for at most: a token that is shared never administers."""

LEEWAY_S = 30
"""How far the clocks of issuers may be off."""

MOST_CHARACTERS = 8_192
MOST_REMEMBERED = 1_024

NEEDED = ["iss", "aud", "sub", "exp"]


class TokenRefused(Exception):
    """A token that does not count, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a token that counts says."""

    client: str
    """Name of the client that it stands for."""
    generation: int | None
    """Of our own tokens; None for foreign ones."""
    scopes: frozenset[str]
    """What it may be used for at most."""
    good_from: float
    good_until: float
    """Seconds since 1970, leeway included."""


class TokenReader:
    """Tells whether a token counts."""

    def __init__(
        self,
        masters: MasterKeys,
        *,
        audience: str,
        foreign: KeyFile | None,
        clock: Callable[[], float],
    ) -> None:
        self._own = {
            OWN_KEY_ID + master.id: VerifyingKey(signing_key(master), "HS256", OWN_ISSUER) for master in masters.keys
        }
        self._audience = audience
        self._foreign = foreign
        self._clock = clock
        self._known: OrderedDict[bytes, Token] = OrderedDict()

    def read(self, text: str) -> Token:
        """Return what a token says; one that was checked before is not checked again, but for the time.

        Raises:
            TokenRefused: it does not count; the message says why.
        """
        if len(text) > MOST_CHARACTERS:
            raise TokenRefused("is too long")
        if self._foreign is not None and self._foreign.has_changed():
            self._known.clear()
        digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
        known = self._known.get(digest)
        token = known or self._checked(text)
        if not token.good_from <= self._clock() < token.good_until:
            raise TokenRefused("has expired (exp), or is not good yet (nbf)")
        self._known[digest] = token
        if len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)
        return token

    def _checked(self, text: str) -> Token:
        import jwt

        try:
            header = jwt.get_unverified_header(text)
            key = self._key(header)
            claims: dict[str, Any] = jwt.decode(
                text,
                key=key.key,
                algorithms=[key.algorithm],
                audience=self._audience,
                issuer=key.issuer,
                leeway=LEEWAY_S,
                options={"require": NEEDED},
            )
        except jwt.InvalidTokenError as error:
            raise TokenRefused(_why(error)) from None
        except (ValueError, TypeError, OverflowError, RecursionError):  # numbers and nesting that no issuer writes
            raise TokenRefused("is malformed") from None
        return _token(claims, is_own=key.issuer == OWN_ISSUER and header["kid"] in self._own)

    def _key(self, header: Mapping[str, Any]) -> VerifyingKey:
        if header.get("alg") not in ALGORITHMS:
            raise TokenRefused(f"is not signed by one of {', '.join(ALGORITHMS)}")
        name = header.get("kid")
        if not isinstance(name, str):
            raise TokenRefused("does not say by which key it is signed (kid)")
        key = self._own.get(name) or (self._foreign.find(name) if self._foreign is not None else None)
        if key is None:
            raise TokenRefused("is signed by a key that is not known (kid)")
        if header["alg"] != key.algorithm:
            raise TokenRefused("is signed by another algorithm than its key is for")
        return key


def _token(claims: Mapping[str, Any], *, is_own: bool) -> Token:
    name, generation, scope = claims["sub"], claims.get("gen"), claims.get("scope", READ)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise TokenRefused("does not name a client (sub)")
    if is_own and not isinstance(generation, int):
        raise TokenRefused("does not say of which generation it is (gen)")
    if not isinstance(scope, str):
        raise TokenRefused("has scopes that are no words separated by spaces (scope)")
    return Token(
        client=name,
        generation=generation if is_own else None,
        scopes=OWN_SCOPES if is_own else frozenset(scope.split()),
        good_from=float(claims.get("nbf", 0)) - LEEWAY_S,
        good_until=float(claims["exp"]) + LEEWAY_S,
    )


def _why(error: jwt.InvalidTokenError) -> str:
    import jwt

    reasons = {
        jwt.ExpiredSignatureError: "has expired (exp)",
        jwt.ImmatureSignatureError: "is not good yet (nbf, iat)",
        jwt.InvalidAudienceError: "is meant for somebody else (aud)",
        jwt.InvalidIssuerError: "is of another issuer than its key (iss)",
        jwt.InvalidSignatureError: "has a signature that does not hold",
    }
    for kind, reason in reasons.items():
        if isinstance(error, kind):
            return reason
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"lacks {error.claim}"
    return "is malformed"


def signing_key(master: MasterKey) -> bytes:
    """The key of our own tokens."""
    return master.derive("signature of tokens, HS256")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What one of our own tokens says. The same claims always make the same token, so tokens need not be stored."""

    client: str
    token_id: uuid.UUID
    generation: int
    issued_at: dt.datetime
    expires_at: dt.datetime


def signed(claims: Claims, master: MasterKey, *, audience: str) -> str:
    """Make the token."""
    import jwt

    said = {
        "iss": OWN_ISSUER,
        "aud": audience,
        "sub": claims.client,
        "gen": claims.generation,
        "jti": str(claims.token_id),
        "iat": int(claims.issued_at.timestamp()),
        "exp": int(claims.expires_at.timestamp()),
    }
    return jwt.encode(said, signing_key(master), algorithm="HS256", headers={"kid": OWN_KEY_ID + master.id})
