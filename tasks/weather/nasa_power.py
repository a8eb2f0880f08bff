"""NASA POWER: days and hours of one cell at a time, behind the present by days to months, without a forecast."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from models.weather import Source, WeatherAnswer
from tasks.weather.answers import NotJson, json_object_or_list
from tasks.weather.nasa_power_answers import power_weather_from
from tasks.weather.nasa_power_requests import DEFAULT_URL, PowerRequest, ask_power
from tasks.weather.polite import BeforeRequest, Manners, Passing, PoliteClient, Reply, at_liberty, refuse, utc_now

SOURCE = Source.NASA_POWER.value
GENTLE = Manners(at_once=2, read_timeout_s=60)
"""A service without published limits, which computes each answer: two at a time, and time to think."""


class NasaPower:
    """Connections to NASA POWER. Close it, or use it as a context manager."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        manners: Manners = GENTLE,
        before_request: BeforeRequest = at_liberty,
        now: Callable[[], dt.datetime] = utc_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url
        self._client = PoliteClient(SOURCE, manners, before_request=before_request, now=now, sleep=sleep)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def fetch(self, request: PowerRequest) -> WeatherAnswer:
        """The weather that a request asks for. Several threads may ask at once; two requests are in flight at most.

        Raises:
            UpstreamExhausted: the service asks for a longer wait than manners allow.
            UpstreamUnavailable: down, overloaded or incomprehensible after all tries.
            UpstreamRejected: refused, with the service's own reasons.
            UpstreamUnreadable: answered with something else than was asked for.
        """

        def read(reply: Reply) -> WeatherAnswer:
            now = self._client.now()
            return power_weather_from(power_document_of(reply, now=now), request, now=now)

        return self._client.fetch(ask_power(request, url=self.url), read=read)


def power_document_of(reply: Reply, *, now: dt.datetime) -> Any:
    """The JSON document of a good answer.

    Raises:
        Passing: the service is down or busy, or the answer is no JSON: its gateway tells errors as pages of HTML.
        UpstreamRejected: refused.
    """
    try:
        document = json_object_or_list(reply.body)
    except NotJson as error:
        refuse(SOURCE, reply, now=now)
        raise Passing(str(error)) from error
    refuse(SOURCE, reply, reason=_reasons(document), now=now)
    return document


def _reasons(document: Any) -> str | None:
    """What a refusal says, in either of its shapes: a list of messages, or `detail` entries that name a field."""
    if not isinstance(document, dict):
        return None
    messages, detail = document.get("messages"), document.get("detail")
    if isinstance(messages, list) and messages:
        said = [str(message) for message in messages]
    elif isinstance(detail, list):
        said = [_field_and_problem(entry) for entry in detail]
    elif isinstance(detail, str):
        said = [detail]
    else:
        said = [str(document[name]) for name in ("message", "header") if isinstance(document.get(name), str)]
    return " ".join("; ".join(said).split())[:300] or None


def _field_and_problem(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    place = entry.get("loc")
    field = ".".join(str(part) for part in place) if isinstance(place, list) else ""
    return f"{field}: {entry.get('msg', 'no reason given')}" if field else str(entry.get("msg", entry))
