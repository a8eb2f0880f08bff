"""Asking Open-Meteo which model run it answers from, against a server that tells it, refuses and fails."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest

from models.errors import UpstreamUnavailable, UpstreamUnreadable
from tasks.weather.model_runs import ModelRun, newest_run
from tasks.weather.open_meteo_requests import Hosts
from tasks.weather.polite import Manners, PoliteClient
from tests.support.weather_server import Reply, Scripted, WeatherServer, html_reply, json_reply, weather_server

RUN = {
    "data_end_time": 1763643600,
    "last_run_availability_time": 1763006383,
    "last_run_initialisation_time": 1762992000,
    "last_run_modification_time": 1763006300,
    "temporal_resolution_seconds": 10800,
    "update_interval_seconds": 21600,
}


@pytest.fixture
def server() -> Iterator[WeatherServer]:
    with weather_server() as running:
        yield running


def ask(server: WeatherServer, *replies: Scripted, model: str = "ecmwf_ifs025") -> ModelRun | None:
    server.script(*replies)
    with PoliteClient("open-meteo", Manners(retries=1), sleep=lambda _: None) as client:
        return newest_run(client, Hosts(forecast=f"{server.url}/", api_key="secret"), model)


def test_the_run_and_when_every_server_has_it_are_told(server: WeatherServer) -> None:
    run = ask(server, json_reply(RUN))
    assert run == ModelRun(
        initialised_at=dt.datetime(2025, 11, 13, tzinfo=dt.UTC),
        available_at=dt.datetime(2025, 11, 13, 3, 59, 43, tzinfo=dt.UTC),
    )
    assert run.settled_at == dt.datetime(2025, 11, 13, 4, 9, 43, tzinfo=dt.UTC)


@pytest.mark.parametrize(("model", "folder"), [("ecmwf_ifs025", "ecmwf_ifs025"), ("icon_global", "dwd_icon")])
def test_a_model_is_looked_for_where_the_service_keeps_it_and_no_key_is_sent(
    server: WeatherServer, model: str, folder: str
) -> None:
    ask(server, json_reply(RUN), model=model)
    [request] = server.received
    assert request.path == f"/data/{folder}/static/meta.json"
    assert request.parameters == {}


def test_a_model_without_runs_has_none(server: WeatherServer) -> None:
    assert ask(server, json_reply({"error": True, "reason": "Not Found"}, status=404)) is None
    assert len(server.received) == 1


def test_a_broken_answer_is_asked_for_again(server: WeatherServer) -> None:
    assert ask(server, Reply(body=b'{"last_run'), json_reply(RUN)) is not None


@pytest.mark.parametrize("fault", [Reply(status=503), html_reply(), Reply(body=b"")])
def test_a_service_that_is_down_is_said_to_be_down(server: WeatherServer, fault: Reply) -> None:
    with pytest.raises(UpstreamUnavailable):
        ask(server, fault)
    assert len(server.received) == 2


@pytest.mark.parametrize("odd", [None, "1763006383", True, 1.5, -1, 0, 10**30])
def test_what_is_no_time_is_refused(server: WeatherServer, odd: object) -> None:
    with pytest.raises(UpstreamUnreadable, match="is not the time of a model run"):
        ask(server, json_reply({**RUN, "last_run_availability_time": odd}))


def test_a_list_is_no_run(server: WeatherServer) -> None:
    with pytest.raises(UpstreamUnreadable):
        ask(server, json_reply([RUN]))
