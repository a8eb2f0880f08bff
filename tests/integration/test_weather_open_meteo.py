"""The Open-Meteo client against a server that replays its answers, limits and faults."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.errors import UpstreamError, UpstreamExhausted, UpstreamRejected, UpstreamUnavailable, UpstreamUnreadable
from models.weather import Grain, WeatherAnswer
from tasks.weather.cells import open_meteo_cell
from tasks.weather.open_meteo import Limit, OpenMeteo
from tasks.weather.open_meteo_requests import Endpoint, Hosts, Request, requests_for
from tasks.weather.polite import Manners
from tests.support.weather_answers import open_meteo_answer_to
from tests.support.weather_server import Received, Reply, WeatherServer, html_reply, json_reply, weather_server

NOW = dt.datetime(2026, 11, 23, 10, 20, 30, tzinfo=dt.UTC)
DAY = dt.date(2026, 11, 1)


@pytest.fixture
def server() -> Iterator[WeatherServer]:
    with weather_server() as running:
        yield running


def good(request: Received) -> Reply:
    return json_reply(open_meteo_answer_to(request))


class Service:
    """A client whose waits are noted instead of waited, and what it charged."""

    def __init__(self, server: WeatherServer, *, api_key: str | None = None) -> None:
        self.waits: list[float] = []
        self.charged: list[float] = []
        self.limits: list[Limit] = []
        self.hosts = Hosts(forecast=server.url, archive=server.url, historical_forecast=server.url, api_key=api_key)

    def fetch(self, *, count: int = 1, endpoint: Endpoint = Endpoint.ARCHIVE) -> list[WeatherAnswer]:
        cells = [open_meteo_cell(number % 50 / 10, 50 + number // 50 / 10) for number in range(count)]
        asked = requests_for(cells, endpoint=endpoint, grains=[Grain.DAILY], first_day=DAY, last_day=DAY)
        return self._each(asked)

    def _each(self, asked: list[Request]) -> list[WeatherAnswer]:
        with OpenMeteo(
            self.hosts,
            manners=Manners(read_timeout_s=0.5, retry_delay_s=1),
            before_request=self._charge,
            on_limit=self.limits.append,
            now=lambda: NOW,
            sleep=self.waits.append,
        ) as client:
            return [client.fetch(each) for each in asked]

    @contextlib.contextmanager
    def _charge(self, weight: float) -> Iterator[None]:
        self.charged.append(weight)
        yield


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        (Endpoint.FORECAST, "/v1/forecast"),
        (Endpoint.ARCHIVE, "/v1/archive"),
        (Endpoint.HISTORICAL_FORECAST, "/v1/forecast"),
    ],
)
def test_weather_comes_from_the_endpoint_that_was_asked(server: WeatherServer, endpoint: Endpoint, path: str) -> None:
    server.script(good)
    service = Service(server)
    [answer] = service.fetch(count=3, endpoint=endpoint)
    assert [reading.values["temperature_mean_c"] for reading in answer.readings] == [12.0] * 3
    assert [request.path for request in server.received] == [path]


def test_a_thousand_farms_in_a_district_are_one_request_of_known_weight(server: WeatherServer) -> None:
    server.script(good)
    service = Service(server)
    answers = service.fetch(count=140)
    assert sum(len(answer.readings) for answer in answers) == 140
    assert [request.method for request in server.received] == ["POST"]
    assert max(request.target_bytes for request in server.received) < 100
    assert service.charged == [pytest.approx(140 * 1.3)]


def test_the_key_is_never_in_an_address_nor_in_an_error(server: WeatherServer) -> None:
    server.script(good, html_reply(401))
    service = Service(server, api_key="the-key")
    service.fetch()
    assert server.received[0].form["apikey"] == "the-key"
    assert "apikey" not in server.received[0].query
    with pytest.raises(UpstreamRejected) as caught:
        service.fetch()
    assert "the-key" not in str(caught.value)


def recorded_errors(shared_data: Path, containing: str) -> list[Reply]:
    found = json.loads((shared_data / "open-meteo/errors.json").read_text())
    replies = [
        Reply(body=each["body"].encode(), status=each["http_status"]) for each in found if containing in each["body"]
    ]
    assert replies
    return replies


@pytest.mark.shared_data
def test_a_used_up_minute_or_hour_is_waited_out(server: WeatherServer, shared_data: Path) -> None:
    server.script(*recorded_errors(shared_data, "Minutely"), *recorded_errors(shared_data, "Hourly"), good)
    service = Service(server)
    [answer] = service.fetch()
    assert len(answer.readings) == 1
    minute, hour = service.waits
    assert 30.5 <= minute <= 31.5  # 10:20:30 until 10:21:00, and a second more or less
    assert 2371 <= hour <= 2373  # until 11:00:00, and two seconds
    assert len(service.charged) == 3
    assert service.limits == [Limit.MINUTE, Limit.HOUR]


@pytest.mark.shared_data
def test_a_used_up_day_ends_the_task_with_the_time_at_which_it_may_go_on(
    server: WeatherServer, shared_data: Path
) -> None:
    for refusal in recorded_errors(shared_data, "Daily"):
        server.script(refusal)
        service = Service(server)
        with pytest.raises(UpstreamExhausted, match=r"Daily.*may go on at 2026-11-24 00:00 UTC") as caught:
            service.fetch()
        assert caught.value.until == dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
        assert service.waits == []
        assert service.limits == [Limit.DAY]
        assert not caught.value.is_retryable


def test_a_used_up_month_ends_the_task_too(server: WeatherServer) -> None:
    server.script(json_reply({"error": True, "reason": "Monthly API request limit exceeded."}, status=429))
    with pytest.raises(UpstreamExhausted) as caught:
        Service(server).fetch()
    assert caught.value.until == dt.datetime(2026, 12, 1, tzinfo=dt.UTC)


@pytest.mark.shared_data
@pytest.mark.parametrize("reason", ["concurrent", "overloaded"])
def test_too_many_at_once_and_overload_are_tried_again_soon(
    server: WeatherServer, shared_data: Path, reason: str
) -> None:
    server.script(*recorded_errors(shared_data, reason), good)
    service = Service(server)
    service.fetch()
    assert service.limits == []
    assert [0.5 <= wait <= 1.5 for wait in service.waits] == [True]


@pytest.mark.shared_data
def test_every_recorded_refusal_is_told_in_the_services_own_words_and_not_repeated(
    server: WeatherServer, shared_data: Path
) -> None:
    for found in json.loads((shared_data / "open-meteo/errors.json").read_text()):
        if found["http_status"] != 400:
            continue
        server.received.clear()
        server.script(Reply(body=found["body"].encode(), status=400))
        with pytest.raises(UpstreamRejected) as caught:
            Service(server).fetch()
        assert json.loads(found["body"])["reason"] in str(caught.value)
        assert len(server.received) == 1


def broken(change: Callable[[bytes], bytes]) -> Callable[[Received], Reply]:
    return lambda request: Reply(body=change(json.dumps(open_meteo_answer_to(request)).encode()))


@pytest.mark.parametrize(
    "fault",
    [
        broken(lambda body: body[: len(body) // 2]),
        Reply(body=b"x" * 1000, send_fraction=0.5),
        Reply(body=b"x" * 1000, send_fraction=0.5, stall_s=2),
        Reply(body=b""),
        html_reply(200),
        html_reply(503),
        json_reply({"error": True, "reason": "The service is overloaded"}, status=503),
    ],
    ids=["truncated", "cut", "stalled", "empty", "html", "html 503", "json 503"],
)
def test_faults_that_pass_cost_a_try_and_no_weather(server: WeatherServer, fault: Any) -> None:
    server.script(fault, good)
    service = Service(server)
    [answer] = service.fetch()
    assert answer.readings[0].values["precipitation_mm"] == 2.4
    assert len(service.waits) == 1


def test_faults_that_do_not_pass_end_unavailable(server: WeatherServer) -> None:
    server.script(broken(lambda body: body[:200]))
    with pytest.raises(UpstreamUnavailable, match="cut short"):
        Service(server).fetch()
    assert len(server.received) == 5


@pytest.mark.parametrize(
    ("fault", "error", "told"),
    [
        (broken(lambda body: body.replace(b"m/s", b"km/h")), UpstreamUnreadable, "km/h"),
        (json_reply({"error": True, "reason": "No data"}), UpstreamRejected, "No data"),
        (json_reply([]), UpstreamUnreadable, "0 locations"),
    ],
)
def test_wrong_answers_are_refused_at_once(
    server: WeatherServer, fault: Any, error: type[UpstreamError], told: str
) -> None:
    server.script(fault)
    with pytest.raises(error, match=told):
        Service(server).fetch()
    assert len(server.received) == 1


def test_a_bare_nan_over_the_wire_is_an_absent_value(server: WeatherServer) -> None:
    server.script(broken(lambda body: body.replace(b"2.4", b"nan")))
    [answer] = Service(server).fetch()
    assert answer.missing == {"om-0.1:500:0": ("precipitation_mm",)}
    assert "temperature_max_c" in answer.readings[0].values
