"""Conversations with a catalog over HTTP: bounded in time and size, patient with what passes, clear about the rest."""

from __future__ import annotations

import datetime as dt
import email.utils
import itertools
import random
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from pystac_client.stac_api_io import StacApiIO

from models.errors import UpstreamRejected, UpstreamUnavailable, UpstreamUnreadable
from tasks.imagery.bodies import BodyTooLarge, BodyTooSlow, read_body

_PASSING = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """How patient to be with a catalog, and how much to take from it."""

    connect_timeout_s: float = 10
    read_timeout_s: float = 30
    """Longest silence in one answer; the whole answer may take four times as long."""
    retries: int = 4
    """Further tries of one request after 408, 425, 429, 5xx, a broken connection or an unreadable answer."""
    retry_delay_s: float = 0.5
    """Wait before the first further try; doubles each time, with jitter."""
    longest_wait_s: float = 60
    """Upper limit of any wait, also of one that the catalog asks for."""
    page_size: int = 100
    """Items a page. Earth Search cannot answer with more than 6 MB, and its items reach 45 kB."""
    max_items: int = 50_000
    """Items that one search box may give."""
    max_answer_bytes: int = 64 << 20


class _Passing(Exception):
    """A failure that may be gone at the next try, and how long the catalog asks us to wait."""

    def __init__(self, problem: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after_s = retry_after_s


class CatalogIO(StacApiIO):  # type: ignore[misc]  # pystac-client is not typed for us
    """The HTTP side of pystac-client, with limits, retries and the errors of this project."""

    def __init__(self, source: str, options: SearchOptions) -> None:
        super().__init__(timeout=(options.connect_timeout_s, options.read_timeout_s), max_retries=None)
        self.source = source
        self.options = options

    def read_json(self, source: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The JSON object at an address or link.

        Raises:
            UpstreamUnavailable: still failing after all tries, in a way that may pass.
            UpstreamRejected: refused with a 4xx that will stay.
        """
        url = _public(str(getattr(source, "href", source)))
        for tries in itertools.count(1):
            try:
                answer = super().read_json(source, *args, **kwargs)
                if not isinstance(answer, dict):
                    raise _Passing("the answer is not a JSON object")
                return answer
            except (_Passing, ValueError) as error:
                problem = error if isinstance(error, _Passing) else _Passing("the answer is not JSON")
                if tries > self.options.retries:
                    raise UpstreamUnavailable(self.source, str(problem), url=url) from error
                time.sleep(self._wait_s(tries, problem.retry_after_s))
        raise AssertionError("unreachable")

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """The text at an address, read once.

        Called by pystac-client. A failure that may pass is told by an exception that `read_json` understands.
        """
        method = (method or "GET").upper()
        sent: dict[str, Any] = {"json": parameters} if method == "POST" else {"params": parameters}
        try:
            with self.session.request(
                method, href, headers=headers, timeout=self.timeout, stream=True, **sent
            ) as response:
                if response.status_code in _PASSING or response.status_code >= 500:
                    wait_s = retry_after_s(response.headers.get("Retry-After"), now=dt.datetime.now(dt.UTC))
                    raise _Passing(f"status {response.status_code}", retry_after_s=wait_s)
                text = self._text_of(response)
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            raise UpstreamUnreadable(self.source, "led us to an address that is not one", url=_public(href)) from error
        except requests.RequestException as error:
            raise _Passing(_in_words(error)) from error
        if not response.ok:
            excerpt = " ".join(text.split())[:200]
            raise UpstreamRejected(self.source, f"status {response.status_code}: {excerpt}", url=_public(href))
        return text

    def _text_of(self, response: requests.Response) -> str:
        try:
            body = read_body(
                response, most_bytes=self.options.max_answer_bytes, within_s=4 * self.options.read_timeout_s
            )
        except BodyTooLarge as error:
            raise UpstreamUnreadable(self.source, f"answer {error}", url=_public(response.url)) from error
        except BodyTooSlow as error:
            raise _Passing("the answer trickles in too slowly") from error
        try:
            return body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _Passing("the answer is not text") from error

    def _wait_s(self, tries: int, asked_s: float | None) -> float:
        # Jitter only has to spread clients over time, so an ordinary generator does.
        backoff = self.options.retry_delay_s * 2.0 ** (tries - 1) * random.uniform(0.5, 1.5)  # noqa: S311
        return min(max(backoff, asked_s or 0), self.options.longest_wait_s)


def retry_after_s(header: str | None, *, now: dt.datetime) -> float | None:
    """Seconds that a `Retry-After` header asks for, given as seconds or as a date; None when it says neither."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)
    return max(0.0, (aware - now).total_seconds())


def _in_words(error: requests.RequestException) -> str:
    match error:
        case requests.exceptions.ConnectTimeout():
            return "no connection in time"
        case requests.exceptions.Timeout():
            return "no answer in time"
        case requests.exceptions.SSLError():
            return "no trusted connection"
        case requests.exceptions.ChunkedEncodingError():
            return "the answer broke off"
        case requests.exceptions.ConnectionError():
            return "no connection, or it broke"
        case _:
            return type(error).__name__


def _public(url: str) -> str:
    """The address without user, password and query, which may hold secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(unreadable address)"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
