"""The client under all weather sources, against a server that misbehaves."""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import gzip
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from models.errors import UpstreamExhausted, UpstreamRejected, UpstreamUnavailable, UpstreamUnreadable
from tasks.weather.polite import Ask, BeforeRequest, Manners, PoliteClient, at_liberty, refuse, retry_after
from tasks.weather.polite import Reply as Heard
from tests.support.weather_server import Reply, WeatherServer, html_reply, json_reply, weather_server

NOW = dt.datetime(2026, 11, 23, 10, 20, 30, tzinfo=dt.UTC)


@pytest.fixture
def server() -> Iterator[WeatherServer]:
    with weather_server() as running:
        yield running


class Patient:
    """A client whose waits are noted instead of waited."""

    def __init__(self, manners: Manners | None = None, *, before_request: BeforeRequest = at_liberty) -> None:
        self.waits: list[float] = []
        self.client = PoliteClient(
            "the source",
            manners or Manners(read_timeout_s=5, retry_delay_s=1),
            before_request=before_request,
            now=lambda: NOW,
            sleep=self.waits.append,
        )

    def body(self, url: str, **parameters: str) -> bytes:
        return self.client.fetch(Ask(url=url, parameters=parameters), read=self._read)

    def _read(self, reply: Heard) -> bytes:
        refuse("the source", reply, now=NOW)
        return reply.body


@contextlib.contextmanager
def patient(manners: Manners | None = None, *, before_request: BeforeRequest = at_liberty) -> Iterator[Patient]:
    one = Patient(manners, before_request=before_request)
    with one.client:
        yield one


def test_it_names_itself_and_reuses_its_connection(server: WeatherServer) -> None:
    server.script(json_reply({}))
    with patient() as one:
        for _ in range(3):
            one.body(server.url)
    assert len({request.connection for request in server.received}) == 1
    assert all(request.headers["user-agent"].startswith("swath/") for request in server.received)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_with_growing_jittered_waits(server: WeatherServer, status: int) -> None:
    server.script(html_reply(status), html_reply(status), html_reply(status), json_reply({"a": 1}))
    with patient() as one:
        assert one.body(server.url) == b'{"a": 1}'
    assert [low <= wait <= 3 * low for low, wait in zip((0.5, 1, 2), one.waits, strict=True)] == [True] * 3


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 422])
def test_what_stays_is_not_asked_again(server: WeatherServer, status: int) -> None:
    server.script(json_reply({"no": "reason"}, status=status, headers={"Location": "http://127.0.0.1:9/"}))
    with patient() as one, pytest.raises(UpstreamRejected, match=f"the source: status {status}"):
        one.body(server.url)
    assert len(server.received) == 1
    assert one.waits == []


def test_after_all_tries_it_says_what_was_wrong_without_the_secrets_of_the_address(server: WeatherServer) -> None:
    server.script(html_reply(503))
    address = server.url.replace("//", "//user:secret@")
    with patient(Manners(retries=2)) as one, pytest.raises(UpstreamUnavailable, match=r"503.*Bad Gateway") as caught:
        one.body(f"{address}/v1", apikey="secret")
    assert len(server.received) == 3
    assert "secret" not in str(caught.value)
    assert caught.value.is_retryable


def test_it_waits_as_long_as_the_service_asks(server: WeatherServer) -> None:
    date = email.utils.format_datetime(NOW + dt.timedelta(seconds=90), usegmt=True)
    server.script(
        json_reply({}, status=429, headers={"Retry-After": "20"}),
        json_reply({}, status=503, headers={"Retry-After": date}),
        json_reply({}),
    )
    with patient(Manners(retry_delay_s=1)) as one:
        one.body(server.url)
    assert 20.5 <= one.waits[0] <= 21.5
    assert 91 <= one.waits[1] <= 93


def test_a_wait_longer_than_it_has_ends_with_the_time_at_which_it_may_go_on(server: WeatherServer) -> None:
    server.script(json_reply({}, status=429, headers={"Retry-After": "600"}))
    with patient(Manners(longest_wait_s=60)) as one, pytest.raises(UpstreamExhausted) as caught:
        one.body(server.url)
    assert caught.value.until == NOW + dt.timedelta(seconds=600)
    assert one.waits == []


@pytest.mark.parametrize("header", ["soon", "-5", "", "1e3", "²"])
def test_a_retry_after_that_says_nothing_is_left_aside(header: str) -> None:
    assert retry_after(header, now=NOW) is None


def test_an_absurd_retry_after_is_bounded() -> None:
    moment = retry_after("9" * 400, now=NOW)
    assert moment == NOW + dt.timedelta(days=366)


@pytest.mark.parametrize("broken", [Reply(body=b"x" * 1000, send_fraction=0.5), Reply(body=b"x", send_fraction=0)])
def test_an_answer_that_breaks_off_is_asked_for_again(server: WeatherServer, broken: Reply) -> None:
    server.script(broken, json_reply({}))
    with patient() as one:
        assert one.body(server.url) == b"{}"
    assert len(one.waits) == 1


@pytest.mark.parametrize(
    "stalled", [Reply(delay_s=3), Reply(body=b"x" * 1000, send_fraction=0.5, stall_s=3)], ids=["silent", "half"]
)
def test_a_stalled_answer_is_given_up_and_asked_for_again(server: WeatherServer, stalled: Reply) -> None:
    server.script(stalled, json_reply({}))
    with patient(Manners(read_timeout_s=0.2)) as one:
        assert one.body(server.url) == b"{}"
    assert len(one.waits) == 1


def test_nobody_listening_is_unavailable() -> None:
    with patient(Manners(retries=1)) as one, pytest.raises(UpstreamUnavailable, match="no connection"):
        one.body("http://127.0.0.1:9/")
    assert len(one.waits) == 1


def test_an_address_that_is_none_is_refused_at_once() -> None:
    with patient() as one, pytest.raises(UpstreamRejected, match="not an address"):
        one.body("ftp://127.0.0.1/")
    assert one.waits == []


def test_an_answer_larger_than_allowed_is_dropped_while_it_comes_in(server: WeatherServer) -> None:
    packed = gzip.compress(b"x" * 10_000_000)
    server.script(Reply(body=packed, headers={"Content-Encoding": "gzip"}))
    with patient(Manners(max_answer_bytes=100_000)) as one, pytest.raises(UpstreamUnreadable, match="100,000"):
        one.body(server.url)
    assert len(server.received) == 1


def test_no_more_requests_are_in_flight_than_allowed(server: WeatherServer) -> None:
    server.script(Reply(delay_s=0.05))
    with patient(Manners(at_once=2)) as one, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: one.body(server.url), range(8))) == [b"{}"] * 8
    assert server.most_at_once == 2


def test_the_caller_is_told_the_weight_before_each_try_and_may_say_no(server: WeatherServer) -> None:
    told: list[float] = []

    @contextlib.contextmanager
    def charge(weight: float) -> Iterator[None]:
        if len(told) == 2:
            raise UpstreamExhausted("the source", "the day is used up", until=NOW)
        told.append(weight)
        yield
        told.append(-weight)

    server.script(html_reply(503), json_reply({}))
    with patient(before_request=charge) as one, pytest.raises(UpstreamExhausted, match="used up"):
        one.client.fetch(Ask(url=server.url, parameters={}, weight=7.5), read=one._read)
    assert told == [7.5, -7.5]
    assert len(server.received) == 1
