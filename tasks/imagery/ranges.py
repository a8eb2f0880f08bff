"""Parts of a file over HTTP, as a stream of pieces of known length, tried again where that may help."""

from __future__ import annotations

import email.utils
import functools
import random
import re
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

import requests
import urllib3
from requests.adapters import HTTPAdapter

from tasks.imagery.files import HttpLimits, NotRead, Unread, why_refused

_PIECE_BYTES = 1 << 20
_LEAST_BYTES_PER_S = 100
"""A transfer slower than this for as long as the longest wait counts as stalled."""
_LONGEST_TRANSFER = 10
"""Times the longest wait that one answer may take in all."""
_LONGEST_DELAY_S = 60.0
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

Result = TypeVar("Result")


class NoRanges(Exception):
    """The server answers with the whole file whatever part is asked for."""


class _Passing(Exception):
    """May work in a moment."""

    def __init__(self, problem: str, *, why: Unread = Unread.UNAVAILABLE, not_before_s: float = 0) -> None:
        super().__init__(problem)
        self.why = why
        self.not_before_s = not_before_s


class RangeBody:
    """The bytes of one answer, from `start` on. Skips and takes pieces in order."""

    def __init__(self, response: requests.Response, *, start: int, size: int, limits: HttpLimits) -> None:
        self._response = response
        self._at = start
        self._end = start + size
        self._limits = limits
        self._began = self._mark = time.monotonic()
        self._since_mark = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()

    def take(self, start: int, size: int) -> memoryview:
        """The `size` bytes that begin at `start` of the file, which must not lie before what was taken last.

        Raises:
            NotRead: they did not come, or are not there.
        """
        if start > self._at:
            self._read(start - self._at)
        return self._read(size)

    def rest(self) -> bytes:
        """All that is left of the answer."""
        return bytes(self._read(self._end - self._at))

    def _read(self, size: int) -> memoryview:
        body = memoryview(bytearray(size))
        got = 0
        while got < size:
            try:
                piece = self._response.raw.read1(min(_PIECE_BYTES, size - got), decode_content=False)
            except urllib3.exceptions.ReadTimeoutError as error:
                raise NotRead(f"stalled: {error}", why=Unread.UNAVAILABLE) from error
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise _Passing(f"broke off: {error}") from error
            if not piece:
                raise _Passing(f"ended {size - got:,} bytes too early")
            body[got : got + len(piece)] = piece
            got += len(piece)
            self._watch(len(piece))
        self._at += size
        return body

    def _watch(self, came: int) -> None:
        now = time.monotonic()
        self._since_mark += came
        if now - self._began > _LONGEST_TRANSFER * self._limits.timeout_s:
            raise NotRead("still coming after the longest time", why=Unread.UNAVAILABLE)
        if now - self._mark > self._limits.timeout_s:
            if self._since_mark < _LEAST_BYTES_PER_S * self._limits.timeout_s:
                raise NotRead("stalled: hardly anything comes", why=Unread.UNAVAILABLE)
            self._mark, self._since_mark = now, 0


def with_range(
    url: str, start: int, size: int, *, limits: HttpLimits, read: Callable[[RangeBody], Result], may_end: bool = False
) -> Result:
    """Ask for a part of a file and give what `read` makes of it; asked again when it breaks off.

    Args:
        url: where the file is.
        start, size: the bytes wanted.
        limits: how patient to be.
        read: consumes the answer; called anew at each try.
        may_end: whether the file may be shorter than what is asked for.

    Raises:
        NotRead: refused, not there, or still failing after all tries.
        NoRanges: the server sends the whole file instead.
    """
    for tries_left in range(limits.retries, -1, -1):
        try:
            with _ask(url, start, size, limits=limits, may_end=may_end) as body:
                return read(body)
        except _Passing as error:
            delay_s = limits.retry_delay_s * 2 ** (limits.retries - tries_left) * random.uniform(0.75, 1.25)  # noqa: S311
            delay_s = max(min(delay_s, _LONGEST_DELAY_S), error.not_before_s)
            if not tries_left or delay_s > _LONGEST_DELAY_S:
                raise NotRead(str(error), why=error.why) from error
            time.sleep(delay_s)
    raise AssertionError("unreachable")


def _ask(url: str, start: int, size: int, *, limits: HttpLimits, may_end: bool) -> RangeBody:
    try:
        response = _session().get(
            url,
            headers={"Range": f"bytes={start}-{start + size - 1}"},
            timeout=(limits.connect_timeout_s, limits.timeout_s),
            stream=True,
        )
    except requests.exceptions.ReadTimeout as error:
        raise NotRead(f"no answer in {limits.timeout_s:g} s", why=Unread.UNAVAILABLE) from error
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        raise NotRead(f"not an address: {error}", why=Unread.UNREADABLE) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise _Passing(f"no answer: {error}") from error
    try:
        size = _size_of(response, start, size, may_end=may_end)
    except BaseException:
        response.close()
        raise
    return RangeBody(response, start=start, size=size, limits=limits)


def _size_of(response: requests.Response, start: int, size: int, *, may_end: bool) -> int:
    """How many bytes come; those asked for, or fewer where the file may end before."""
    status = response.status_code
    if status == 416:
        raise NotRead("the file ends before this part", why=Unread.UNREADABLE)
    if status == 200:
        raise NoRanges
    if status != 206:
        why = why_refused(status)
        problem = f"HTTP response code: {status}"
        if why.is_retryable:
            raise _Passing(problem, not_before_s=_retry_after_s(response.headers.get("Retry-After")))
        raise NotRead(problem, why=why)
    told = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if told is None or int(told[1]) != start:
        raise _Passing(f"another part than asked for: {response.headers.get('Content-Range')!r:.60}")
    if int(told[2]) < start + size - 1 and not may_end:
        raise NotRead("the file ends before this part does", why=Unread.UNREADABLE)
    return min(size, int(told[2]) - start + 1)


def _retry_after_s(header: str | None) -> float:
    """Seconds that the server asks us to wait; 0 when it does not say, or not so that it can be understood."""
    if header is None:
        return 0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0


@functools.cache
def _session() -> requests.Session:
    """The connections of this process, shared by all threads: one for each read in flight, kept open."""
    session = requests.Session()
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": "swath"})
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_connections=16, pool_maxsize=256, max_retries=0))
    return session
