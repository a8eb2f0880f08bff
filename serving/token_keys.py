"""Keys of foreign tokens: a JWK set in a file, read again when it changes, so that keys rotate without a restart."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from models.errors import BadInput

if TYPE_CHECKING:
    import jwt  # loaded with the first key: not every worker has a file of them

log = structlog.get_logger(__name__)

ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")
"""All that are taken, whatever a token or a key asks for."""

SETTING = "SWATH_JWT_KEYS_FILE"
LOOK_EVERY_S = 1.0
MOST_KEYS = 100
MOST_BYTES = 1_000_000
MIN_SECRET_BYTES = 32
MIN_RSA_BITS = 2_048

_CURVES = {"ES256": "P-256", "EdDSA": "Ed25519"}


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key that can check signatures of one algorithm, and the one issuer that it vouches for."""

    key: Any = field(repr=False)
    algorithm: str
    issuer: str


class KeyFile:
    """A file of keys that may change while it is used."""

    def __init__(self, path: Path, *, issuer: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the keys.

        Raises:
            BadInput: the file cannot be read, or a key in it cannot be used; says which.
        """
        self._path = path
        self._issuer = issuer
        self._clock = clock
        self._stamp = self._look()
        self._keys = read_keys(path, issuer=issuer)
        self._look_again_at = clock() + LOOK_EVERY_S

    def find(self, key_id: str) -> VerifyingKey | None:
        """The key of this `kid`."""
        return self._keys.get(key_id)

    def has_changed(self) -> bool:
        """Look whether the file is another one by now, once a second at most; True when other keys count from now on.

        A file that cannot be read leaves the keys as they are: half a file must not lock everybody out.
        """
        now = self._clock()
        if now < self._look_again_at:
            return False
        self._look_again_at = now + LOOK_EVERY_S
        stamp = self._look()
        if stamp == self._stamp:
            return False
        try:
            self._keys = read_keys(self._path, issuer=self._issuer)
        except BadInput as error:
            log.warning("keys of tokens stay as they were", problem=str(error))
            return False
        self._stamp = stamp
        log.info("keys of tokens read again", keys=sorted(self._keys))
        return True

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino)


def read_keys(path: Path, *, issuer: str) -> dict[str, VerifyingKey]:
    """Read a JWK set.

    Raises:
        BadInput: the file cannot be read, or a key in it cannot be used; says which, and no part of a key.
    """
    try:
        with path.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
        listed = orjson.loads(content)["keys"]
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise BadInput(
            SETTING, f"cannot be read: {type(error).__name__}", allowed='a file with {"keys": […]}'
        ) from None
    if not isinstance(listed, list) or not 1 <= len(listed) <= MOST_KEYS:
        raise BadInput(SETTING, "has no list of keys", allowed=f"1 to {MOST_KEYS} keys")
    keys: dict[str, VerifyingKey] = {}
    for place, each in enumerate(listed, start=1):
        name, key = _key(each, place, issuer)
        if name in keys:
            raise BadInput(SETTING, f"key {place}: its kid {name} was there already", allowed="each kid once")
        keys[name] = key
    return keys


def _key(given: Any, place: int, issuer: str) -> tuple[str, VerifyingKey]:
    def wrong(problem: str, allowed: str) -> BadInput:
        return BadInput(SETTING, f"key {place}: {problem}", allowed=allowed)

    if not isinstance(given, dict) or not isinstance(given.get("kid"), str) or given["kid"].startswith("swath-"):
        raise wrong("has no kid, or one of Swath's own", "a word that does not begin with swath-")
    if "d" in given:
        raise wrong("is a private key", "public keys; who checks signatures needs no other")
    if given.get("use", "sig") != "sig":
        raise wrong("is not for signatures", "use: sig")
    import jwt

    try:
        read = jwt.PyJWK(given)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        raise wrong("cannot be read", "a JWK") from None
    if problem := _weakness(given, read):
        raise wrong(problem, f"{', '.join(ALGORITHMS)}")
    return given["kid"], VerifyingKey(read.key, read.algorithm_name, issuer)


def _weakness(given: Mapping[str, Any], read: jwt.PyJWK) -> str | None:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    name = read.algorithm_name
    if name not in ALGORITHMS:
        return "is for an algorithm that is not taken"
    if name == "HS256" and len(read.key) < MIN_SECRET_BYTES:
        return f"is shorter than {MIN_SECRET_BYTES} bytes"
    if isinstance(read.key, RSAPublicKey) and read.key.key_size < MIN_RSA_BITS:
        return f"is shorter than {MIN_RSA_BITS} bits"
    if name in _CURVES and given.get("crv") != _CURVES[name]:
        return f"is not on the curve {_CURVES[name]}"
    return None
