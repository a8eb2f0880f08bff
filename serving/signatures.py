"""Signed requests: HMAC-SHA256 over what is asked, when, and which one time.

A caller signs five lines, joined by line feeds, with the secret of its signing key taken as it stands:

    POST
    /api/v1/integrations/token
    1767225600                                  seconds since 1970, as X-Swath-Timestamp
    5f2b8c1e9a7d4036b1c2d3e4f5061728            anything that was never used before, as X-Swath-Nonce
    e3b0c44298fc1c149afbf4c8996fb92427ae41e…    SHA-256 of the body, hexadecimal; of nothing when there is no body

and sends the result, hexadecimal, as X-Swath-Signature, and the key's id (`swh_…`) as X-Swath-Key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

from models.keys import MasterKeys, parse_signing_key_id, signing_secret
from serving.faults import ApiError, FieldError
from serving.principal import UNAUTHENTICATED, Headers

WINDOW_S = 300
"""How far the caller's clock may be off, either way."""

_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_NONCE = re.compile(r"[A-Za-z0-9_-]{16,64}")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")

EXPECTED = {
    "x-swath-key": "the id of a signing key, swh_ and 12 digits",
    "x-swath-timestamp": "seconds since 1970",
    "x-swath-nonce": "16 to 64 letters, digits, dashes, underscores",
    "x-swath-signature": "64 hexadecimal digits, lower case",
}
"""Headers of a signed request, and what each must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A request whose signature holds."""

    prefix: str
    """Of the key that it is signed with; that the key is still good is not said."""
    nonce: str
    timestamp: int


def message(*, method: str, target: str, timestamp: str, nonce: str, body: bytes) -> bytes:
    """What is signed; `target` is the path with its query, as it is sent."""
    return "\n".join([method, target, timestamp, nonce, hashlib.sha256(body).hexdigest()]).encode("latin-1")


def sign(secret: str, signed: bytes) -> str:
    """The signature, as a caller sends it."""
    return hmac.new(secret.encode(), signed, "sha256").hexdigest()


def read_signed(headers: Headers, *, method: str, target: str, body: bytes, masters: MasterKeys, now: float) -> Signed:
    """Check the signature of a request, and that it was made within five minutes of now.

    Raises:
        ApiError: 401, a header is missing or malformed, the signature does not hold, or the time is too far off.
    """
    given = {name: headers.get(name.encode(), b"").decode("latin-1") for name in EXPECTED}
    key, timestamp, nonce, signature = given.values()
    prefix = parse_signing_key_id(key)
    fits = (prefix, _TIMESTAMP.fullmatch(timestamp), _NONCE.fullmatch(nonce), _SIGNATURE.fullmatch(signature))
    if wrong := [name for name, found in zip(given, fits, strict=True) if found is None]:
        raise refused((name, "is malformed" if given[name] else "is required") for name in wrong)
    assert prefix is not None
    text = message(method=method, target=target, timestamp=timestamp, nonce=nonce, body=body)
    # One for each master secret, all of them always: time tells nothing of which one it was.
    holds = [hmac.compare_digest(sign(signing_secret(master, prefix), text), signature) for master in masters.keys]
    if not any(holds):
        raise refused([("x-swath-signature", "does not hold")])
    if abs(now - int(timestamp)) > WINDOW_S:
        problem = f"is more than {WINDOW_S} s off; it is {int(now)} here"
        raise refused([("x-swath-timestamp", problem)])
    return Signed(prefix=prefix, nonce=nonce, timestamp=int(timestamp))


def refused(problems: Iterable[tuple[str, str]]) -> ApiError:
    """The answer to a signed request that does not count, by header."""
    errors = [FieldError(f"header.{name}", problem, EXPECTED[name]) for name, problem in problems]
    return ApiError(401, f"{errors[0].field}: {errors[0].problem}", errors, headers=UNAUTHENTICATED)
