"""What keys look like, and the secrets derived from the master secret. Standard library alone.

Two kinds of key. An *API key* `swk_<prefix>_<secret>` is presented whole; Swath keeps its SHA-256 only, which is
enough for a secret of 256 random bits. A *signing key* never travels, so Swath must know it in order to check a
signature: it is derived (HKDF, RFC 5869) from the master secret and the key's prefix. So neither the database nor a
backup of it holds anything that opens a door, there is nothing to encrypt again, and a signature is checked without
asking any store. The price: a signing key ends with the master secret it was derived from, which is why there may be
several of those, newest first.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

from models.errors import BadInput

MIN_MASTER_CHARACTERS = 32
MAX_MASTERS = 4
API_KEY_CHARACTERS = 4 + 12 + 1 + 43

_API_KEY = re.compile(r"swk_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_SIGNING_KEY_ID = re.compile(r"swh_([0-9a-f]{12})")


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One master secret; its `id` may be shown, the rest is never printed."""

    id: str
    _root: bytes = field(repr=False)

    def derive(self, purpose: str) -> bytes:
        """Return 32 bytes that belong to this purpose alone and do not tell the master secret."""
        return _expand(self._root, purpose)


@dataclass(frozen=True, slots=True)
class MasterKeys:
    """All master secrets that are still good, newest first."""

    keys: tuple[MasterKey, ...]

    @property
    def newest(self) -> MasterKey:
        """The one that new secrets are derived from."""
        return self.keys[0]

    def find(self, key_id: str) -> MasterKey | None:
        """The one with this id, if it is still good."""
        return next((key for key in self.keys if key.id == key_id), None)


def master_keys(secret: str) -> MasterKeys:
    """Read one or several master secrets, newest first, separated by commas.

    Raises:
        BadInput: one is too short, or there are too many. The secrets are not repeated.
    """
    parts = [part for part in (each.strip() for each in secret.split(",")) if part]
    if not 1 <= len(parts) <= MAX_MASTERS or min(map(len, parts)) < MIN_MASTER_CHARACTERS:
        raise BadInput(
            "SWATH_SECRET_KEY",
            "is too short, or too many are given",
            allowed=f"up to {MAX_MASTERS} of at least {MIN_MASTER_CHARACTERS} characters each, separated by commas",
        )
    return MasterKeys(tuple(_master(part) for part in parts))


def _master(secret: str) -> MasterKey:
    root = hmac.digest(b"swath master secret v1", secret.encode(), "sha256")
    return MasterKey(_expand(root, "key id")[:4].hex(), root)


def _expand(root: bytes, purpose: str) -> bytes:
    """HKDF's expansion, one block of SHA-256."""
    return hmac.digest(root, purpose.encode() + b"\x01", "sha256")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A presented API key: by what it is found, and what it must match."""

    prefix: str
    digest: bytes = field(repr=False)
    """SHA-256 of the whole key."""


def new_prefix() -> str:
    """Return 12 random hexadecimal digits, by which a key is found; no secret."""
    return secrets.token_hex(6)


def new_api_key(prefix: str) -> str:
    """Return a new API key with 256 random bits; nothing can show it again."""
    return f"swk_{prefix}_{secrets.token_urlsafe(32)}"


def parse_api_key(text: str) -> ApiKey | None:
    """Read an API key, or return None when this is none."""
    found = _API_KEY.fullmatch(text)
    return ApiKey(found[1], hashlib.sha256(text.encode()).digest()) if found else None


def signing_key_id(prefix: str) -> str:
    """The public name of a signing key, which a request says."""
    return f"swh_{prefix}"


def parse_signing_key_id(text: str) -> str | None:
    """Return the prefix in a signing key's id, or None when this is none."""
    found = _SIGNING_KEY_ID.fullmatch(text)
    return found[1] if found else None


def signing_secret(master: MasterKey, prefix: str) -> str:
    """Return the secret of a signing key: 43 characters, used as they stand (nothing to decode)."""
    return base64.urlsafe_b64encode(master.derive(f"signing key {prefix}")).rstrip(b"=").decode()
