"""Open-Meteo: the newest forecast, reanalysis, and what was forecast in the past, many cells in one request."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from models.errors import UpstreamExhausted, UpstreamRejected
from models.weather import Source, WeatherAnswer
from tasks.weather.answers import NotJson, json_object_or_list
from tasks.weather.open_meteo_answers import weather_from
from tasks.weather.open_meteo_requests import Hosts, Request, ask_for
from tasks.weather.polite import BeforeRequest, Manners, Passing, PoliteClient, Reply, at_liberty, refuse, utc_now

SOURCE = Source.OPEN_METEO.value


class Limit(StrEnum):
    """An allowance of weighted calls, as the service's refusals name it."""

    MINUTE = "minutely"
    HOUR = "hourly"
    DAY = "daily"
    MONTH = "monthly"


class OpenMeteo:
    """Connections to Open-Meteo. Close it, or use it as a context manager.

    Args:
        hosts: Where the service is.
        manners: How patient and how gentle to be; one request at a time by default, as the free service asks.
        before_request: Called with the weight of every try before it is sent, and held open until its answer has come.
        on_limit: Called with the limit that the service itself says is used up, before anything is made of it.
        now: The clock.
        sleep: How to wait.
    """

    def __init__(
        self,
        hosts: Hosts,
        *,
        manners: Manners | None = None,
        before_request: BeforeRequest = at_liberty,
        on_limit: Callable[[Limit], None] = lambda _: None,
        now: Callable[[], dt.datetime] = utc_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.hosts = hosts
        self._on_limit = on_limit
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
            if (limit := limit_of(reply)) is not None:
                self._on_limit(limit)
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
    if (limit := limit_of(reply)) is not None:
        _refuse_by(limit, reply, reason or str(limit), now=now)
    refuse(SOURCE, reply, reason=reason, now=now)
    if reason is not None:
        raise UpstreamRejected(SOURCE, reason, url=reply.url)
    return document


def limit_of(reply: Reply) -> Limit | None:
    """Which allowance a refusal (429) says is used up; None for other answers, also for too many at the same time."""
    if reply.status != 429:
        return None
    words = reply.body[:2000].decode("utf-8", "replace").lower()
    return next((limit for limit in Limit if limit.value in words), None)


def _reason(document: Any) -> str | None:
    if not isinstance(document, dict) or document.get("error") is not True:
        return None
    return " ".join(str(document.get("reason", "no reason given")).split())[:300]


def _refuse_by(limit: Limit, reply: Reply, reason: str, *, now: dt.datetime) -> None:
    # The service's counters start anew with the clock, in UTC.
    minute = now.replace(second=0, microsecond=0)
    midnight = minute.replace(hour=0, minute=0)
    match limit:
        case Limit.MINUTE:
            raise Passing(reason, not_before=minute + dt.timedelta(minutes=1))
        case Limit.HOUR:
            raise Passing(reason, not_before=minute.replace(minute=0) + dt.timedelta(hours=1))
        case Limit.DAY:
            raise UpstreamExhausted(SOURCE, reason, until=midnight + dt.timedelta(days=1), url=reply.url)
        case Limit.MONTH:
            next_month = (midnight.replace(day=1) + dt.timedelta(days=32)).replace(day=1)
            raise UpstreamExhausted(SOURCE, reason, until=next_month, url=reply.url)
