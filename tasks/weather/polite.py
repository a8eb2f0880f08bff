"""One HTTP client under all weather sources: bounded in time and size, patient with what passes, gentle to the service.

A request is tried again only where another try may succeed: no connection, an answer that breaks off or stalls, 408,
425, 429 and 5xx, and whatever the reader of the answer calls passing. Waits grow with jitter and are never shorter than
the service asks by `Retry-After`.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import itertools
import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

import httpx

from models.errors import UpstreamExhausted, UpstreamRejected, UpstreamUnavailable, UpstreamUnreadable
from tasks.weather.answers import excerpt

T = TypeVar("T")

_PASSING = frozenset({408, 425, 429})
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How patient to be with a service, how much to take from it, and how much to ask at once."""

    connect_timeout_s: float = 10
    read_timeout_s: float = 30
    """Longest silence within one answer."""
    total_timeout_s: float = 120
    """Longest time from the start of a try to the end of its answer."""
    retries: int = 4
    """Further tries of one request."""
    retry_delay_s: float = 0.5
    """Wait before the first further try; doubles each time, with jitter."""
    longest_delay_s: float = 60
    """Upper limit of our own growing waits."""
    longest_wait_s: float = 3700
    """Longest wait that the service may ask for; a longer one ends the request with `UpstreamExhausted`."""
    max_answer_bytes: int = 64 << 20
    """Largest answer, unpacked."""
    at_once: int = 1
    """Requests in flight at the same time, from all threads that share the client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer of a service."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    url: str
    """Where it came from, without user, password and query, which may hold secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request: a GET with a query, or a POST of a form."""

    url: str
    parameters: Mapping[str, str] = field(repr=False)
    is_form: bool = False
    weight: float = 1
    """What the request costs, as the service counts."""


class Passing(Exception):
    """A failure that may be gone at another try, not sooner than `not_before`."""

    def __init__(self, problem: str, *, not_before: dt.datetime | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.not_before = not_before


BeforeRequest = Callable[[float], AbstractContextManager[object]]
"""Called with the weight of each try before it is sent; what it returns is held open until the answer has come. It may
wait, or raise `UpstreamExhausted`."""


def at_liberty(_: float) -> AbstractContextManager[object]:
    """Let every request pass: nobody counts."""
    return nullcontext()


def utc_now() -> dt.datetime:
    """The present instant."""
    return dt.datetime.now(dt.UTC)


class PoliteClient:
    """Connections to one service, kept open and shared by threads. Close it, or use it as a context manager."""

    def __init__(
        self,
        source: str,
        manners: Manners,
        *,
        before_request: BeforeRequest = at_liberty,
        now: Callable[[], dt.datetime] = utc_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.source = source
        self.manners = manners
        self.now = now
        self._before_request = before_request
        self._sleep = sleep
        self._in_flight = threading.BoundedSemaphore(manners.at_once)
        self._http = httpx.Client(
            timeout=httpx.Timeout(
                manners.read_timeout_s, connect=manners.connect_timeout_s, pool=manners.total_timeout_s
            ),
            limits=httpx.Limits(max_connections=manners.at_once, max_keepalive_connections=manners.at_once),
            headers={"User-Agent": user_agent(), "Accept": "application/json"},
            follow_redirects=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def fetch(self, ask: Ask, *, read: Callable[[Reply], T]) -> T:
        """What `read` makes of the answer, after as many tries as manners allow.

        Args:
            ask: The request.
            read: Called with every whole answer, whatever its status. It raises `Passing` for what may pass, an
                `UpstreamError` for what stays; `refuse` does both for statuses.

        Raises:
            UpstreamUnavailable: still failing after all tries, in a way that may pass.
            UpstreamExhausted: the service asks for a longer wait than manners allow, or `before_request` said so.
            UpstreamError: as raised by `read`.
            UpstreamUnreadable: the answer is larger than manners allow.
        """
        for tries in itertools.count(1):
            try:
                with self._in_flight, self._before_request(ask.weight):
                    reply = self._try(ask)
                return read(reply)
            except Passing as passing:
                if tries > self.manners.retries:
                    raise UpstreamUnavailable(self.source, passing.problem, url=public(ask.url)) from passing
                self._wait(passing, tries, ask)
        raise AssertionError("unreachable")

    def _try(self, ask: Ask) -> Reply:
        deadline = time.monotonic() + self.manners.total_timeout_s
        try:
            request = (
                self._http.build_request("POST", ask.url, data=dict(ask.parameters))
                if ask.is_form
                else self._http.build_request("GET", ask.url, params=dict(ask.parameters))
            )
            response = self._http.send(request, stream=True)
            try:
                body = self._body(response, deadline)
            finally:
                response.close()
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise UpstreamRejected(self.source, f"not an address: {public(ask.url)}") from error
        except httpx.HTTPError as error:
            raise Passing(_in_words(error)) from error
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Reply(status=response.status_code, headers=headers, body=body, url=public(ask.url))

    def _body(self, response: httpx.Response, deadline: float) -> bytes:
        body = bytearray()
        for chunk in response.iter_bytes(_CHUNK_BYTES):
            body += chunk
            if len(body) > self.manners.max_answer_bytes:
                raise UpstreamUnreadable(
                    self.source,
                    f"answer above {self.manners.max_answer_bytes:,} bytes",
                    url=public(str(response.url)),
                )
            if time.monotonic() > deadline:
                raise Passing("the answer trickles in too slowly")
        return bytes(body)

    def _wait(self, passing: Passing, tries: int, ask: Ask) -> None:
        # Jitter only has to spread clients over time, so an ordinary generator does.
        jitter = random.uniform(0.5, 1.5)  # noqa: S311
        wait_s = min(self.manners.retry_delay_s * 2.0 ** (tries - 1) * jitter, self.manners.longest_delay_s)
        if passing.not_before is not None:
            asked_s = (passing.not_before - self.now()).total_seconds()
            if asked_s > self.manners.longest_wait_s:
                raise UpstreamExhausted(
                    self.source, passing.problem, until=passing.not_before, url=public(ask.url)
                ) from passing
            # After the moment asked for, not all at that very moment.
            wait_s += max(0.0, asked_s)
        self._sleep(wait_s)


def refuse(source: str, reply: Reply, *, reason: str | None = None, now: dt.datetime) -> None:
    """Raise for every status that is not 200.

    Args:
        source: Name of the service.
        reply: Its answer.
        reason: What the service says in the body; an excerpt of the body if None.
        now: From which `Retry-After` counts.

    Raises:
        Passing: 408, 425, 429, 5xx.
        UpstreamRejected: any other status.
    """
    if reply.status == 200:
        return
    said = reason or excerpt(reply.body[:4096].decode("utf-8", "replace")) or "no reason given"
    problem = f"status {reply.status}: {said}"
    if reply.status in _PASSING or reply.status >= 500:
        raise Passing(problem, not_before=retry_after(reply.headers.get("retry-after"), now=now))
    raise UpstreamRejected(source, problem, url=reply.url)


def retry_after(header: str | None, *, now: dt.datetime) -> dt.datetime | None:
    """The moment that a `Retry-After` header names, given as seconds or as a date; None when it says neither."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return now + dt.timedelta(seconds=min(int(text[:9]), 366 * 86_400))
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)


def user_agent() -> str:
    """How we name ourselves to services."""
    try:
        return f"swath/{version('swath')}"
    except PackageNotFoundError:
        return "swath/unknown"


def public(url: str) -> str:
    """The address without user, password and query, which may hold secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(unreadable address)"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _in_words(error: httpx.HTTPError) -> str:
    match error:
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return "no connection in time"
        case httpx.TimeoutException():
            return "no answer in time"
        case httpx.RemoteProtocolError() | httpx.ReadError() | httpx.DecodingError():
            return "the answer broke off"
        case httpx.ConnectError():
            return "no connection"
        case _:
            return type(error).__name__
