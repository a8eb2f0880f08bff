"""Open-Meteo: the newest forecast, reanalysis, and what was forecast in the past, many cells in one request."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from models.errors import UpstreamExhausted, UpstreamRejected
from models.weather import Source, WeatherAnswer
from tasks.weather.answers import NotJson, json_object_or_list
from tasks.weather.open_meteo_answers import weather_from
from tasks.weather.open_meteo_requests import Hosts, Request, ask_for
from tasks.weather.polite import BeforeRequest, Manners, Passing, PoliteClient, Reply, at_liberty, refuse, utc_now

SOURCE = Source.OPEN_METEO.value


class OpenMeteo:
    """Connections to Open-Meteo. Close it, or use it as a context manager."""

    def __init__(
        self,
        hosts: Hosts,
        *,
        manners: Manners | None = None,
        before_request: BeforeRequest = at_liberty,
        now: Callable[[], dt.datetime] = utc_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.hosts = hosts
        self._client = PoliteClient(SOURCE, manners or Manners(), before_request=before_request, now=now, sleep=sleep)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def fetch(self, request: Request) -> WeatherAnswer:
        """The weather that a request asks for.

        Where the minute's or the hour's allowance is used up, waits for the next one, if manners allow so long.

        Raises:
            UpstreamExhausted: the day's or month's allowance is used up; it says when it is renewed.
            UpstreamUnavailable: down, overloaded or incomprehensible after all tries.
            UpstreamRejected: refused, with the service's own reason.
            UpstreamUnreadable: answered with something else than was asked for.
        """

        def read(reply: Reply) -> WeatherAnswer:
            now = self._client.now()
            return weather_from(document_of(reply, now=now), request, now=now)

        return self._client.fetch(ask_for(request, self.hosts), read=read)


def document_of(reply: Reply, *, now: dt.datetime) -> Any:
    """The JSON document of a good answer.

    Raises:
        Passing: too many requests for now, the service is down, or the answer is no JSON.
        UpstreamExhausted: too many requests for today or this month.
        UpstreamRejected: refused.
    """
    try:
        document = json_object_or_list(reply.body)
    except NotJson as error:
        refuse(SOURCE, reply, now=now)
        raise Passing(str(error)) from error
    reason = _reason(document)
    if reply.status == 429 and reason is not None:
        _refuse_by_limit(reply, reason, now=now)
    refuse(SOURCE, reply, reason=reason, now=now)
    if reason is not None:
        raise UpstreamRejected(SOURCE, reason, url=reply.url)
    return document


def _reason(document: Any) -> str | None:
    if not isinstance(document, dict) or document.get("error") is not True:
        return None
    return " ".join(str(document.get("reason", "no reason given")).split())[:300]


def _refuse_by_limit(reply: Reply, reason: str, *, now: dt.datetime) -> None:
    """Raise for a limit that the reason names. The service's counters start anew with the clock, in UTC."""
    words = reason.lower()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if "minutely" in words:
        raise Passing(reason, not_before=now.replace(second=0, microsecond=0) + dt.timedelta(minutes=1))
    if "hourly" in words:
        raise Passing(reason, not_before=now.replace(minute=0, second=0, microsecond=0) + dt.timedelta(hours=1))
    if "daily" in words:
        raise UpstreamExhausted(SOURCE, reason, until=midnight + dt.timedelta(days=1), url=reply.url)
    if "monthly" in words:
        next_month = (midnight.replace(day=1) + dt.timedelta(days=32)).replace(day=1)
        raise UpstreamExhausted(SOURCE, reason, until=next_month, url=reply.url)
