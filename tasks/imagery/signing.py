"""Signatures for addresses that are read with one: asked for late, kept as long as they are good, never stored."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import os
import random
import re
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

from tasks.imagery.bodies import BodyTooLarge, BodyTooSlow, read_body
from tasks.imagery.files import HttpLimits, NotRead, Unread
from tasks.imagery.items import instant

PLANETARY_COMPUTER = "planetary-computer"
TOKEN_SERVICE = "https://planetarycomputer.microsoft.com/api/sas/v1/token"  # noqa: S105  an address
"""`PC_SDK_SAS_URL` names another one, and `PC_SDK_SUBSCRIPTION_KEY` a key for it, as in Planetary Computer's own
package, which asks without a limit in time and ten times over."""
SIGNED_HOSTS = ".blob.core.windows.net"
"""End of the names of hosts whose files Planetary Computer signs."""

_PLACE = re.compile(r"[a-z0-9-]+/[a-z0-9$-]+")
_PASSING = frozenset({408, 425, 429})
_SPARE_S = 60
_LONGEST_WAIT_S = 10.0
_LARGEST_ANSWER = 1 << 16


@dataclass(frozen=True, slots=True)
class _Token:
    query: str
    expires_at: dt.datetime

    def is_good(self) -> bool:
        return (self.expires_at - dt.datetime.now(dt.UTC)).total_seconds() > _SPARE_S


_tokens: dict[str, _Token] = {}
_asking = threading.Lock()


def sign(url: str, signer: str | None, *, limits: HttpLimits) -> str:
    """The address to read from now: signed addresses expire within the hour, so they are never stored.

    The token service is asked with the same patience as a file server, once for all files of a container.

    Raises:
        NotRead: the token service refused, or did not answer in time and after further tries.
    """
    parts = urlsplit(url)
    if signer != PLANETARY_COMPUTER or not (parts.hostname or "").endswith(SIGNED_HOSTS):
        return url
    if {"st", "se", "sp"} & set(parse_qs(parts.query)):
        return url  # signed already
    place = f"{(parts.hostname or '').partition('.')[0]}/{parts.path.lstrip('/').partition('/')[0]}"
    if not _PLACE.fullmatch(place):
        raise NotRead("no signature: the address names no container", why=Unread.UNREADABLE)
    return f"{url}{'&' if parts.query else '?'}{_token(place, limits).query}"


def _token(place: str, limits: HttpLimits) -> _Token:
    """A token for an account and container, from memory while it is good."""
    token = _tokens.get(place)
    if token is not None and token.is_good():
        return token
    # One asks, the others wait for what it gets; whoever waited in vain does not wait all over again.
    if not _asking.acquire(timeout=_longest_s(limits)):
        raise NotRead("no signature: others have been waiting for one for too long", why=Unread.UNAVAILABLE)
    try:
        token = _tokens.get(place)
        if token is None or not token.is_good():
            token = _tokens[place] = _asked(place, limits)
        return token
    finally:
        _asking.release()


def _longest_s(limits: HttpLimits) -> float:
    """How long asking may take with all its tries."""
    return limits.connect_timeout_s + limits.timeout_s


def _asked(place: str, limits: HttpLimits) -> _Token:
    """Ask the token service, again after what passes, until tries or time are used up."""
    deadline = time.monotonic() + _longest_s(limits)
    for tries in itertools.count(1):
        try:
            return _answer(place, limits, deadline)
        except NotRead as error:
            # Jitter only has to spread clients over time, so an ordinary generator does.
            wait_s = min(limits.retry_delay_s * 2.0 ** (tries - 1), _LONGEST_WAIT_S) * random.uniform(0.5, 1.5)  # noqa: S311
            if not error.why.is_retryable or tries > limits.retries or time.monotonic() + wait_s >= deadline:
                raise
            time.sleep(wait_s)
    raise AssertionError("unreachable")


def _answer(place: str, limits: HttpLimits, deadline: float) -> _Token:
    """What the token service says now."""
    service, key = os.environ.get("PC_SDK_SAS_URL") or TOKEN_SERVICE, os.environ.get("PC_SDK_SUBSCRIPTION_KEY")
    left_s = max(0.1, deadline - time.monotonic())
    headers = {"Ocp-Apim-Subscription-Key": key} if key else None
    timeout = (min(limits.connect_timeout_s, left_s), min(limits.timeout_s, left_s))
    try:
        with requests.get(f"{service.rstrip('/')}/{place}", headers=headers, timeout=timeout, stream=True) as response:
            status = response.status_code
            if 400 <= status < 500 and status not in _PASSING:
                raise NotRead(f"no signature for {place}: status {status}", why=Unread.REJECTED)
            if status != 200:
                raise NotRead(f"no signature for {place}: status {status}", why=Unread.UNAVAILABLE)
            told = json.loads(read_body(response, most_bytes=_LARGEST_ANSWER, within_s=left_s))
    except (requests.RequestException, BodyTooLarge, BodyTooSlow, ValueError) as error:
        problem = f"no signature for {place}: {type(error).__name__}"
        raise NotRead(problem, why=Unread.UNAVAILABLE) from error
    return _token_of(told, place)


def _token_of(told: Any, place: str) -> _Token:
    expires_at = instant(told.get("msft:expiry")) if isinstance(told, dict) else None
    query = told.get("token") if isinstance(told, dict) else None
    if expires_at is None or not isinstance(query, str) or not query.isascii() or not query.isprintable():
        raise NotRead(f"no signature for {place}: the answer holds no token", why=Unread.UNAVAILABLE)
    return _Token(query, expires_at)
