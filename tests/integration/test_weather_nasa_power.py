"""The NASA POWER client against a server that replays its answers and faults."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from models.errors import UpstreamRejected, UpstreamUnavailable, UpstreamUnreadable
from models.weather import Grain
from tasks.weather.cells import nasa_power_cell
from tasks.weather.nasa_power import NasaPower
from tasks.weather.nasa_power_requests import PowerRequest
from tasks.weather.polite import Manners
from tests.support.weather_answers import power_answer_to
from tests.support.weather_server import Received, Reply, WeatherServer, html_reply, json_reply, weather_server

NOW = dt.datetime(2026, 11, 23, 10, 20, 30, tzinfo=dt.UTC)
DAY = dt.date(2026, 11, 1)


@pytest.fixture
def server() -> Iterator[WeatherServer]:
    with weather_server() as running:
        yield running


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def power(server: WeatherServer, waits: list[float]) -> Iterator[NasaPower]:
    manners = Manners(at_once=2, read_timeout_s=0.5, retry_delay_s=1)
    with NasaPower(server.url, manners=manners, now=lambda: NOW, sleep=waits.append) as client:
        yield client


def request(longitude: float = 4.4, grain: Grain = Grain.DAILY) -> PowerRequest:
    return PowerRequest(cell=nasa_power_cell(longitude, 50.8), grain=grain, first_day=DAY, last_day=DAY)


def good(request: Received) -> Reply:
    return json_reply(power_answer_to(request))


def broken(change: Callable[[bytes], bytes]) -> Callable[[Received], Reply]:
    return lambda request: Reply(body=change(json.dumps(power_answer_to(request)).encode()))


@pytest.mark.parametrize("grain", [Grain.DAILY, Grain.HOURLY])
def test_weather_of_a_cell_comes_in_one_request(server: WeatherServer, power: NasaPower, grain: Grain) -> None:
    server.script(good)
    told = power.fetch(request(grain=grain))
    assert len(told.readings) == (1 if grain is Grain.DAILY else 24)
    [received] = server.received
    assert received.path == f"/api/temporal/{grain}/point"
    assert received.query["time-standard"] == "UTC"
    assert received.headers["user-agent"].startswith("swath/")


def test_many_cells_are_asked_for_gently(server: WeatherServer, power: NasaPower) -> None:
    def slow(request: Received) -> Reply:
        return Reply(body=good(request).body, delay_s=0.02)

    server.script(slow)
    requests = [request(-40 + 5 * number) for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(power.fetch, requests))
    assert [answer.readings[0].cell for answer in answers] == [each.cell for each in requests]
    assert server.most_at_once <= 2
    assert len({each.connection for each in server.received}) <= 2


@pytest.mark.shared_data
def test_the_recorded_refusal_is_told_in_its_own_words(
    server: WeatherServer, power: NasaPower, shared_data: Path
) -> None:
    [found] = json.loads((shared_data / "nasa-power/errors.json").read_text())
    server.script(json_reply(found["body"], status=found["http_status"]))
    with pytest.raises(UpstreamRejected, match=r"status 422: Please provide a correct start date formatting\."):
        power.fetch(request())
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"detail": [{"loc": ["query", "start"], "msg": "field required"}]}, "query.start: field required"),
        ({"detail": [{"msg": "bad"}, "worse"]}, "bad; worse"),
        ({"detail": "A maximum of 1 parameters"}, "A maximum of 1 parameters"),
        ({"header": "The POWER Daily API failed", "messages": []}, "The POWER Daily API failed"),
        ({"messages": ["one", "two"]}, "one; two"),
        ({"message": "Forbidden"}, "Forbidden"),
        ([], r"\[\]"),
    ],
)
def test_both_shapes_of_a_refusal_and_others_are_told(
    server: WeatherServer, power: NasaPower, body: Any, told: str
) -> None:
    server.script(json_reply(body, status=422))
    with pytest.raises(UpstreamRejected, match=f"status 422: {told}"):
        power.fetch(request())
    assert len(server.received) == 1


@pytest.mark.parametrize(
    "fault",
    [
        broken(lambda body: body[: len(body) // 2]),
        Reply(body=b"x" * 1000, send_fraction=0.5),
        Reply(body=b"x" * 1000, send_fraction=0.5, stall_s=2),
        html_reply(200),
        html_reply(502),
        json_reply({"message": "Endpoint request timed out"}, status=504),
        json_reply({"message": "Too Many Requests"}, status=429),
    ],
    ids=["truncated", "cut", "stalled", "html", "html 502", "json 504", "429"],
)
def test_faults_that_pass_cost_a_try_and_no_weather(
    server: WeatherServer, power: NasaPower, waits: list[float], fault: Any
) -> None:
    server.script(fault, good)
    assert power.fetch(request()).readings[0].values["precipitation_mm"] == 2.4
    assert len(waits) == 1


def test_a_page_of_html_with_a_refusal_is_a_refusal(server: WeatherServer, power: NasaPower) -> None:
    server.script(html_reply(403))
    with pytest.raises(UpstreamRejected, match="status 403: 502 Bad Gateway"):
        power.fetch(request())
    assert len(server.received) == 1


def test_a_service_that_stays_down_is_unavailable(server: WeatherServer, power: NasaPower) -> None:
    server.script(html_reply(503))
    with pytest.raises(UpstreamUnavailable, match="nasa-power: status 503"):
        power.fetch(request())
    assert len(server.received) == 5


def test_minus_999_and_nan_over_the_wire_are_never_numbers(server: WeatherServer, power: NasaPower) -> None:
    server.script(broken(lambda body: body.replace(b": 2.4", b": -999.0").replace(b": 40.0", b": NaN")))
    told = power.fetch(request())
    assert told.missing == {"power:282:295": ("cloud_cover_pct", "precipitation_mm")}
    assert min(told.readings[0].values.values()) > 0


def test_wrong_units_are_refused_at_once(server: WeatherServer, power: NasaPower) -> None:
    server.script(broken(lambda body: body.replace(b"mm/day", b"inch/day")))
    with pytest.raises(UpstreamUnreadable, match="PRECTOTCORR in 'inch/day'"):
        power.fetch(request())
    assert len(server.received) == 1
