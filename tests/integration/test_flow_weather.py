"""The weather flows over a district: how often they ask, what they leave, and what happens when a source fails."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from prefect.client.schemas.objects import State, StateType
from sqlalchemy import Engine, text

from flows.weather import MAX_LOOKBACK_DAYS, WeatherSummary, backfill_weather, daily_weather
from infra.local.prefect import PrefectServer
from infra.local.valkey import ValkeyServer
from models.errors import BadInput
from models.weather import Kind, Source
from models.weather_answers import Weather, reconciled_daily
from tasks.weather_bench import GIVE_UP_AFTER
from tests.support.district import (
    ARCHIVE,
    FORECAST,
    POWER,
    Scripted,
    asked,
    both_services,
    but,
    days_of,
    down,
    environment,
    farm,
    store_district,
    stored,
)
from tests.support.facts import engine_for
from tests.support.flow_runs import artifact_rows, recorded_task_runs, use
from tests.support.other_process import Program
from tests.support.weather_server import Received, Reply, WeatherServer, json_reply, weather_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FARMS, SOME = 1_000, 12
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


def empty(engine: Engine) -> None:
    """Forget all weather."""
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE weather_daily"))


def wait_for(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def refused(reason: str) -> Scripted:
    """What Open-Meteo answers beyond a limit."""
    return lambda _: json_reply({"error": True, "reason": reason}, status=429)


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


def test_a_days_weather_of_a_thousand_farms_takes_few_requests_and_none_the_second_time(
    district: District,
) -> None:
    store_district(district.engine, FARMS)
    state, first = district.daily()
    assert state.type is StateType.COMPLETED, state.message
    requests = district.requests()
    assert requests[FORECAST] + requests[ARCHIVE] <= 10
    assert requests[POWER] <= 12
    assert first.asked[Source.OPEN_METEO].requests == requests[FORECAST] + requests[ARCHIVE]
    assert first.asked[Source.NASA_POWER].requests == requests[POWER]
    names = {f"{each.service.replace(':', ' ')} {each.cells} cell" for each in first.batches}
    runs = recorded_task_runs(state, expected=len(first.batches))
    assert {name.partition(" cell")[0] + " cell" for name in runs} == names
    assert sum(int(row[3]) for row in artifact_rows(state, key="weather-summary")) == first.inserted

    found = district.weather(first.start, first.end + 15 * ONE)
    assert len(found) == FARMS * len(days_of(first.start, first.end + 15 * ONE))
    told = {each.at.date(): each.values["precipitation_mm"] for each in found}
    assert {day: (value.source, value.kind) for day, value in told.items()} == {
        day: ANALYSED if day <= first.end - 5 * ONE else NEAR if day <= first.end - 2 * ONE else AHEAD for day in told
    }

    before = stored(district.engine)
    state, second = district.daily()
    assert state.type is StateType.COMPLETED, state.message
    assert (second.batches, district.requests()) == ((), {})
    assert stored(district.engine) == before


class TestSources:
    @pytest.mark.parametrize("broken", [(FORECAST, ARCHIVE), (POWER,)], ids=["open-meteo", "nasa-power"])
    def test_with_one_source_down_the_other_tells_every_day_and_the_run_is_failed(
        self, district: District, broken: tuple[str, ...]
    ) -> None:
        store_district(district.engine, SOME)
        district.daily()
        district.server.script(but(dict.fromkeys(broken, down)))
        empty(district.engine)

        state, summary = district.daily()
        other = Source.NASA_POWER if POWER not in broken else Source.OPEN_METEO
        assert state.type is StateType.FAILED
        assert state.message is not None
        assert "503" in state.message
        found = district.weather(summary.start, summary.end - 2 * ONE)
        assert len(found) == SOME * len(days_of(summary.start, summary.end - 2 * ONE))
        assert {value.source for each in found for value in each.values.values()} == {other}
        assert {batch.source for batch in summary.batches if batch.failed} == set(Source) - {other}

    def test_with_both_down_the_run_is_failed_and_the_last_known_weather_stays(self, district: District) -> None:
        store_district(district.engine, SOME)
        _, summary = district.daily(lookback_days=3)
        before = stored(district.engine)
        district.server.script(down)
        state, summary = district.daily(lookback_days=20)
        assert state.type is StateType.FAILED
        assert summary.failed
        assert stored(district.engine) == before
        assert district.weather(summary.end, summary.end)

    def test_a_source_that_stays_down_is_not_asked_for_every_batch(self, district: District) -> None:
        store_district(district.engine, SOME)
        district.server.script(but({ARCHIVE: down, POWER: down}))
        state, summary = district.backfill(dt.date(2015, 1, 1), dt.date(2024, 12, 31))
        assert state.type is StateType.FAILED
        tries_each = 2
        # Some may be on their way when the third one in a row fails.
        assert district.requests()[POWER] <= tries_each * (GIVE_UP_AFTER + 1)
        assert set(summary.not_asked) == {"open-meteo:archive", "nasa-power"}

    def test_a_run_over_no_farms_asks_nobody(self, district: District) -> None:
        state, summary = district.daily()
        assert state.type is StateType.COMPLETED
        assert (summary.farms, summary.batches, district.requests()) == (0, (), {})


class TestLimits:
    def test_where_the_day_is_used_up_the_run_ends_and_says_when_to_go_on(self, district: District) -> None:
        store_district(district.engine, SOME)
        reason = "Daily API request limit exceeded. Please try again tomorrow."
        district.server.script(but({FORECAST: refused(reason), ARCHIVE: refused(reason)}))
        state, summary = district.daily()
        assert state.type is StateType.FAILED
        assert "may go on at" in (state.message or "")
        requests = district.requests()
        assert (requests[FORECAST], requests.get(ARCHIVE, 0)) == (1, 0)
        behind = summary.start, summary.end - 2 * ONE
        assert len(district.weather(*behind)) == SOME * len(days_of(*behind))

        district.server.script(both_services)
        state, _ = district.daily()
        assert state.type is StateType.FAILED
        assert district.requests() == {}  # the refusal is remembered in the ledger

    def test_a_backfill_leaves_a_part_of_the_day_to_live_work(
        self, district: District, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store_district(district.engine, SOME)
        use(monkeypatch, {"SWATH_OPEN_METEO_CALLS_PER_DAY": "600"})
        state, summary = district.backfill(*YEAR)
        assert state.type is StateType.COMPLETED, state.message
        state, summary = district.backfill(YEAR[0] - 365 * ONE, YEAR[0] - ONE)
        assert state.type is StateType.FAILED
        assert summary.asked[Source.OPEN_METEO].weight <= 450
        state, _ = district.daily()
        assert state.type is StateType.COMPLETED, state.message


BACKFILL = """
import datetime as dt
from flows.weather import backfill_weather
backfill_weather(dt.date(2023, 1, 1), dt.date(2024, 12, 31), return_state=True)
"""


class TestBackfill:
    DAYS = dt.date(2023, 1, 1), dt.date(2024, 12, 31)

    def test_killed_and_started_again_it_loses_and_doubles_nothing_and_asks_for_nothing_twice(
        self, district: District
    ) -> None:
        store_district(district.engine, SOME)
        stuck, is_over = threading.Event(), threading.Event()

        def answer(request: Received) -> Reply:
            if request.path == ARCHIVE and asked(district.server)[ARCHIVE] > 2:
                stuck.set()
                is_over.wait(120)
            return both_services(request)

        district.server.script(answer)
        with Program(BACKFILL) as program:
            assert stuck.wait(120)
            wait_for(lambda: len(stored(district.engine)) > 0)
            program.kill()
        is_over.set()
        district.server.script(both_services)
        killed = stored(district.engine)
        district.requests()

        state, summary = district.backfill(*self.DAYS)
        assert state.type is StateType.COMPLETED, state.message
        with district.engine.connect() as connection:
            cells = connection.execute(text("SELECT count(*) FROM weather_cells")).scalar_one()
        after = stored(district.engine)
        assert 0 < len(killed) < len(after) == cells * len(days_of(*self.DAYS))
        assert summary.inserted == len(after) - len(killed)
        assert summary.replaced == 0
        assert sum(batch.unchanged for batch in summary.batches) == 0
        assert set(killed) <= set(after)

        district.requests()
        _, third = district.backfill(*self.DAYS)
        assert (third.batches, district.requests()) == ((), {})

    def test_it_fills_the_cells_of_the_farms_that_are_named_up_to_today(self, district: District) -> None:
        store_district(district.engine, SOME)
        today = dt.datetime.now(dt.UTC).date()
        state, summary = district.backfill(today - 8 * ONE, today, farms=[farm(3)])
        assert state.type is StateType.COMPLETED, state.message
        assert summary.farms == 1
        assert {batch.cells for batch in summary.batches} == {1}
        assert {batch.service for batch in summary.batches} == {
            "open-meteo:archive",
            "open-meteo:historical-forecast",
            "nasa-power",
        }
        with district.engine.connect() as connection:
            days = {each.at.date() for each in reconciled_daily(connection, [3], start=today - 9 * ONE, end=today)}
        assert days == set(days_of(summary.end - 8 * ONE, summary.end - ONE))


def test_what_cannot_be_asked_for_is_refused_before_anything_is_done(district: District) -> None:
    for given in ((dt.date(2024, 2, 1), dt.date(2024, 1, 1)), (dt.date(1939, 1, 1), dt.date(2024, 1, 1))):
        with pytest.raises(BadInput, match="start"):
            backfill_weather(*given)
    ahead = dt.datetime.now(dt.UTC).date() + 3 * ONE
    with pytest.raises(BadInput, match="ahead"):
        backfill_weather(ahead, ahead)
    with pytest.raises(BadInput, match="no active farm"):
        backfill_weather(*YEAR, farms=[farm(1)])
    with pytest.raises(BadInput, match="lookback_days"):
        daily_weather(MAX_LOOKBACK_DAYS + 1)
    assert district.requests() == {}
