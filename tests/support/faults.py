"""Which requests fail, and how: a script that a server consults before each answer."""

from __future__ import annotations

import enum
import fnmatch
import threading
from dataclasses import dataclass


class Kind(enum.Enum):
    """What goes wrong."""

    STATUS = "another status"
    CUT = "the connection closes before the whole body was sent"
    STALL = "a part of the body is sent, then nothing more"
    SHORTEN = "the file itself is shorter; all headers agree with that"
    REPLACE = "another content, with status 200"


@dataclass(slots=True, kw_only=True)
class Fault:
    """One rule: for matching paths, from which attempt on, how often, and what."""

    pattern: str
    kind: Kind
    after: int
    """So many matching requests are answered well first."""
    times: int | None
    """How many requests fail; None for all."""
    status: int = 200
    retry_after_s: int | None = None
    keep_fraction: float = 0.5
    limit_s: float = 60
    body: bytes = b""
    content_type: str = "text/html"
    seen: int = 0

    def strikes(self, path: str) -> bool:
        """Count a request, and say whether it fails by this rule."""
        if not fnmatch.fnmatchcase(path, self.pattern):
            return False
        self.seen += 1
        return self.seen > self.after and (self.times is None or self.seen <= self.after + self.times)


class Script:
    """Faults in the order in which they were told; the first that strikes decides.

    A pattern is a shell pattern over the whole path, as `*/B04.tif` or `*2023-05*`. Of the matching requests the
    first `after` are answered well, the next `times` fail (None: all), later ones are answered well again.
    """

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._faults_lock = threading.Lock()

    def fail(self, pattern: str, *, status: int, times: int | None = None, after: int = 0) -> None:
        """Answer with this status (404, 500, 503, ...)."""
        self._add(Fault(pattern=pattern, kind=Kind.STATUS, status=status, times=times, after=after))

    def throttle(self, pattern: str, *, retry_after_s: int, times: int | None = 1, after: int = 0) -> None:
        """Answer 429 with `Retry-After` in seconds."""
        self._add(
            Fault(pattern=pattern, kind=Kind.STATUS, status=429, retry_after_s=retry_after_s, times=times, after=after)
        )

    def cut(self, pattern: str, *, keep_fraction: float = 0.5, times: int | None = None, after: int = 0) -> None:
        """Promise the whole body, send a part of it and close the connection."""
        self._add(Fault(pattern=pattern, kind=Kind.CUT, keep_fraction=keep_fraction, times=times, after=after))

    def stall(
        self,
        pattern: str,
        *,
        keep_fraction: float = 0.5,
        limit_s: float = 60,
        times: int | None = None,
        after: int = 0,
    ) -> None:
        """Promise the whole body, send a part of it, then hang until the client leaves or the limit is reached."""
        self._add(
            Fault(
                pattern=pattern,
                kind=Kind.STALL,
                keep_fraction=keep_fraction,
                limit_s=limit_s,
                times=times,
                after=after,
            )
        )

    def shorten(self, pattern: str, *, keep_fraction: float = 0.5, times: int | None = None, after: int = 0) -> None:
        """Serve only the first part of the file, as if that were all of it: an upload that broke off."""
        self._add(Fault(pattern=pattern, kind=Kind.SHORTEN, keep_fraction=keep_fraction, times=times, after=after))

    def replace(
        self,
        pattern: str,
        *,
        body: bytes = b"<html><body>Sign in to continue</body></html>",
        content_type: str = "text/html",
        times: int | None = None,
        after: int = 0,
    ) -> None:
        """Answer 200 with something else than the file, as a captive portal does."""
        self._add(
            Fault(pattern=pattern, kind=Kind.REPLACE, body=body, content_type=content_type, times=times, after=after)
        )

    def heal(self) -> None:
        """Forget all faults."""
        with self._faults_lock:
            self._faults.clear()

    def has(self, fault: Fault) -> bool:
        """Whether it was told and not healed since."""
        with self._faults_lock:
            return any(each is fault for each in self._faults)

    def next_fault(self, path: str) -> Fault | None:
        """The fault for the request that just came for this path; counts it as an attempt."""
        with self._faults_lock:
            struck = [fault for fault in self._faults if fault.strikes(path)]
            return struck[0] if struck else None

    def _add(self, fault: Fault) -> None:
        with self._faults_lock:
            self._faults.append(fault)
