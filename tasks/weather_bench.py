"""What the steps of one weather run share: settings, stores, both services within their limits, and what was asked."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from infra.settings import Settings
from infra.stores import Stores, open_stores
from models.errors import BadInput, UpstreamError, UpstreamExhausted, UpstreamUnavailable
from models.quota import Allowed, QuotaLimits, Span, WaitUntil, charge, note_refusal, one_in_flight
from models.weather import Source
from tasks.weather.cells import open_meteo_cell
from tasks.weather.nasa_power import NasaPower
from tasks.weather.open_meteo import Limit, OpenMeteo
from tasks.weather.open_meteo_requests import Hosts
from tasks.weather.polite import Manners, utc_now

OPEN_METEO = Source.OPEN_METEO.value
GIVE_UP_AFTER = 3
"""Failures in a row, each after several tries, after which a service counts as down for the rest of the run."""
LONGEST_TURN_S = 900.0
"""For the only request to Open-Meteo that may be in flight, while other processes take their turns."""

_SPANS = {Limit.MINUTE: Span.MINUTE, Limit.HOUR: Span.HOUR, Limit.DAY: Span.DAY, Limit.MONTH: Span.DAY}


@dataclass(slots=True)
class Asked:
    """What one source was asked in a run."""

    requests: int = 0
    """Every try counts."""
    weight: float = 0
    """Weighted calls as the service counts."""


class WeatherBench:
    """What the steps of one weather run share. Not a dataclass: Prefect walks through dataclasses among arguments.

    Args:
        settings: of this process.
        stores: open connections.
        is_live: False for backfills, which leave a part of Open-Meteo's allowance to live work.
        now: the clock.
        sleep: how to wait.
    """

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        *,
        is_live: bool,
        now: Callable[[], dt.datetime] = utc_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings
        self.stores = stores
        self.is_live = is_live
        self.now = now
        self.limits = quota_limits(settings)
        self.asked = {source: Asked() for source in Source}
        self._sleep = sleep
        self._account = settings.open_meteo_key.get_secret_value() if settings.open_meteo_key else ""
        self._lock = threading.Lock()
        self._failures: dict[str, int] = {}
        self._closed: dict[str, UpstreamError] = {}
        self.open_meteo = OpenMeteo(
            open_meteo_hosts(settings),
            manners=manners(settings),
            before_request=self._turn_at_open_meteo,
            on_limit=self._note_refusal,
            now=now,
            sleep=sleep,
        )
        self.nasa_power = NasaPower(
            settings.nasa_power_url,
            manners=manners(settings, at_once=settings.nasa_power_at_once),
            before_request=self._turn_at_nasa_power,
            now=now,
            sleep=sleep,
        )

    def close(self) -> None:
        """Close the connections to both services."""
        self.open_meteo.close()
        self.nasa_power.close()

    def note_answer(self, service: str) -> None:
        """Note that a service (a source, or one endpoint of it) answers."""
        with self._lock:
            self._failures.pop(service, None)

    def note_failure(self, source: Source, service: str, error: UpstreamError) -> None:
        """Note that a service failed; after some in a row, or without allowance, it is not asked again in this run."""
        with self._lock:
            if isinstance(error, UpstreamExhausted):
                self._closed.setdefault(source.value, error)
            elif error.is_retryable:
                self._failures[service] = self._failures.get(service, 0) + 1
                if self._failures[service] == GIVE_UP_AFTER:
                    problem = f"failed {GIVE_UP_AFTER} times in a row, not asked any more in this run: {error.problem}"
                    self._closed.setdefault(service, UpstreamUnavailable(source.value, problem, url=error.url))

    def closed(self, source: Source, service: str) -> UpstreamError | None:
        """Why a service is not to be asked any more in this run; None while it is."""
        with self._lock:
            return self._closed.get(source.value) or self._closed.get(service)

    def _tally(self, source: Source, weight: float) -> None:
        with self._lock:
            self.asked[source].requests += 1
            self.asked[source].weight += weight

    @contextlib.contextmanager
    def _turn_at_nasa_power(self, weight: float) -> Iterator[None]:
        self._tally(Source.NASA_POWER, weight)
        yield

    @contextlib.contextmanager
    def _turn_at_open_meteo(self, weight: float) -> Iterator[None]:
        """Hold the only place among all processes, from when the allowance covers the request until its answer.

        The place is free while waiting for an allowance: a backfill must not keep live work from its own.

        Raises:
            UpstreamExhausted: the day's allowance is used up.
        """
        while True:
            with one_in_flight(self.stores.engine, OPEN_METEO, account=self._account, timeout_s=LONGEST_TURN_S):
                verdict = self._charge(weight)
                if isinstance(verdict, Allowed):
                    self._tally(Source.OPEN_METEO, weight)
                    yield
                    return
            if verdict.span is Span.DAY:
                problem = "the allowance of weighted calls for the day is used up"
                raise UpstreamExhausted(OPEN_METEO, problem, until=verdict.at)
            self._sleep(max(0.0, (verdict.at - self.now()).total_seconds()))

    def _charge(self, weight: float) -> Allowed | WaitUntil:
        with self.stores.engine.begin() as connection:
            return charge(
                connection,
                OPEN_METEO,
                weight=weight,
                now=self.now(),
                limits=self.limits,
                is_live=self.is_live,
                account=self._account,
            )

    def _note_refusal(self, limit: Limit) -> None:
        with self.stores.engine.begin() as connection:
            note_refusal(
                connection,
                OPEN_METEO,
                span=_SPANS[limit],
                now=self.now(),
                limits=self.limits,
                account=self._account,
            )


@contextlib.contextmanager
def open_weather_bench(
    settings: Settings,
    *,
    is_live: bool = True,
    now: Callable[[], dt.datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[WeatherBench]:
    """Open the stores and connections to both services for one run.

    Raises:
        BadInput: a setting that cannot be used.
    """
    with open_stores(settings) as stores:
        bench = WeatherBench(settings, stores, is_live=is_live, now=now, sleep=sleep)
        try:
            yield bench
        finally:
            bench.close()


def open_meteo_hosts(settings: Settings) -> Hosts:
    """Where Open-Meteo is; with a key, addresses left at their defaults are those for customers."""
    chosen = {
        "forecast": settings.open_meteo_url,
        "archive": settings.open_meteo_archive_url,
        "historical_forecast": settings.open_meteo_historical_forecast_url,
    }
    if settings.open_meteo_key is None:
        return Hosts(**chosen)
    key = settings.open_meteo_key.get_secret_value()
    public, customers = Hosts(), Hosts.of_customers(key)
    return Hosts(
        **{name: getattr(customers, name) if url == getattr(public, name) else url for name, url in chosen.items()},
        api_key=key,
    )


def quota_limits(settings: Settings) -> QuotaLimits:
    """What Open-Meteo allows, from the settings."""
    return QuotaLimits(
        per_minute=settings.open_meteo_calls_per_minute,
        per_hour=settings.open_meteo_calls_per_hour,
        per_day=settings.open_meteo_calls_per_day,
    )


def manners(settings: Settings, *, at_once: int = 1) -> Manners:
    """Patience with the services, from the settings."""
    return Manners(
        connect_timeout_s=settings.http_connect_timeout_s,
        read_timeout_s=settings.http_timeout_s,
        retries=settings.http_retries,
        retry_delay_s=settings.http_retry_delay_s,
        at_once=at_once,
    )


def key_prefix(settings: Settings, source: Source) -> str:
    """How the keys of the grid in use begin.

    Raises:
        BadInput: the cells of the settings do not divide the globe.
    """
    if source is Source.NASA_POWER:
        return "power:"
    try:
        origin = open_meteo_cell(0, 0, step_degrees=settings.open_meteo_cell_degrees)
    except BadInput as error:
        raise BadInput("SWATH_OPEN_METEO_CELL_DEGREES", error.problem, allowed=error.allowed) from None
    return origin.key.partition(":")[0] + ":"
