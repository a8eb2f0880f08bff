"""The weather flows over a district: how often they ask, what they leave behind, and what they do when a source fails."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from prefect.client.schemas.objects import State, StateType
from sqlalchemy import Engine, text

from flows.weather import WeatherSummary, backfill_weather, daily_weather
from infra.local.prefect import PrefectServer
from infra.local.valkey import ValkeyServer
from models.weather import Kind, Source
from models.weather_answers import Weather, reconciled_daily
from tests.support.district import (
    ARCHIVE,
    FORECAST,
    POWER,
    asked,
    both_services,
    environment,
    store_district,
    stored,
)
from tests.support.facts import engine_for
from tests.support.flow_runs import use
from tests.support.weather_server import WeatherServer, weather_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FARMS = 1_000
ONE = dt.timedelta(days=1)
ANALYSED = (Source.OPEN_METEO, Kind.REANALYSIS)
NEAR = (Source.NASA_POWER, Kind.REANALYSIS)
"""Days that ERA5 does not have yet."""
AHEAD = (Source.OPEN_METEO, Kind.FORECAST)
YEAR = dt.date(2024, 1, 1), dt.date(2024, 12, 31)


@dataclass(frozen=True)
class District:
    """Farms in a database, with the services that the settings name."""

    engine: Engine
    server: WeatherServer

    def daily(self, **given: Any) -> tuple[State[Any], WeatherSummary]:
        """Run the daily flow."""
        return _ended(daily_weather(**given, return_state=True))

    def backfill(self, *given: Any, **more: Any) -> tuple[State[Any], WeatherSummary]:
        """Run the backfill."""
        return _ended(backfill_weather(*given, **more, return_state=True))

    def requests(self) -> dict[str, int]:
        """Requests by path since the last look."""
        found = asked(self.server)
        self.server.received.clear()
        return found

    def weather(self, first: dt.date, last: dt.date) -> list[Weather]:
        """Of all farms."""
        with self.engine.connect() as connection:
            ids = list(connection.execute(text("SELECT id FROM farms")).scalars())
            return list(reconciled_daily(connection, ids, start=first, end=last))


def _ended(state: State[Any]) -> tuple[State[Any], WeatherSummary]:
    summary = state.result(raise_on_failure=False)
    assert isinstance(summary, WeatherSummary), summary
    return state, summary


@pytest.fixture(scope="module")
def server() -> Iterator[WeatherServer]:
    with weather_server() as running:
        yield running


@pytest.fixture
def district(
    server: WeatherServer,
    database_url: str,
    valkey_server: ValkeyServer,
    prefect_api: PrefectServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[District]:
    del prefect_api
    server.received.clear()
    server.script(both_services)
    stores = {"SWATH_DATABASE_URL": database_url, "SWATH_REDIS_URL": valkey_server.url}
    use(monkeypatch, environment(server, **stores))
    engine = engine_for(database_url)
    yield District(engine, server)
    engine.dispose()


@pytest.fixture
def thousand(district: District) -> District:
    store_district(district.engine, FARMS)
    return district


def test_a_days_weather_of_a_thousand_farms_takes_few_requests_and_none_the_second_time(thousand: District) -> None:
    state, first = thousand.daily()
    assert state.type is StateType.COMPLETED, state.message
    asked_first = thousand.requests()
    assert asked_first[FORECAST] + asked_first[ARCHIVE] <= 10
    assert asked_first[POWER] <= 12
    assert first.asked[Source.OPEN_METEO].requests == asked_first[FORECAST] + asked_first[ARCHIVE]
    assert first.asked[Source.NASA_POWER].requests == asked_first[POWER]
    before = stored(thousand.engine)

    state, second = thousand.daily()
    assert state.type is StateType.COMPLETED, state.message
    assert thousand.requests() == {}
    assert second.batches == ()
    assert stored(thousand.engine) == before


def test_every_farm_has_weather_for_every_day_marked_with_its_source(thousand: District) -> None:
    _, summary = thousand.daily()
    today = summary.end
    found = thousand.weather(summary.start, today + 15 * ONE)
    assert len(found) == FARMS * (10 + 16)
    told = {each.at.date(): each.values["precipitation_mm"] for each in found}
    assert {day: (value.source, value.kind) for day, value in told.items()} == {
        day: ANALYSED if day <= today - 5 * ONE else NEAR if day <= today - 2 * ONE else AHEAD for day in told
    }
    assert all(len({value.source for value in each.values.values()}) <= 2 for each in found)
