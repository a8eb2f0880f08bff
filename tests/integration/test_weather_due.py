"""What a weather run asks for as days go by, and how it waits for its allowance: with a clock of its own."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from shapely.geometry import box
from sqlalchemy import Engine, text

from infra.settings import Settings
from infra.stores import Stores, redis_client
from models.errors import BadInput
from models.farms import upsert_farms
from models.weather import Source
from models.weather_cells import cells_of_active_farms
from models.weather_missing import DaySpan
from tasks.weather.places import middle_of
from tasks.weather_bench import WeatherBench, key_prefix, open_meteo_hosts
from tasks.weather_due import assign_missing_cells, due_of_days, due_today
from tasks.weather_steps import BatchReport, fetch_and_save
from tests.support.district import ARCHIVE, FORECAST, POWER, asked, both_services, but
from tests.support.facts import engine_for
from tests.support.shapes import draft
from tests.support.weather_server import Received, Reply, WeatherServer, json_reply, weather_server

NOON = dt.datetime(2026, 11, 20, 12, 0, 30, tzinfo=dt.UTC)
ONE = dt.timedelta(days=1)


class World:
    """Farms, both services, and a clock that moves only when somebody waits or it is told to."""

    def __init__(self, engine: Engine, server: WeatherServer, **settings: Any) -> None:
        self.engine = engine
        self.server = server
        self.now = NOON
        self.waits: list[float] = []
        self.settings = Settings(
            open_meteo_url=server.url,
            open_meteo_archive_url=server.url,
            open_meteo_historical_forecast_url=server.url,
            nasa_power_url=server.url,
            http_retries=3,
            http_retry_delay_s=0.01,
            **settings,
        )

    def bench(self, *, is_live: bool = True) -> WeatherBench:
        """A bench over these stores, on this clock."""
        stores = Stores(self.engine, redis_client("redis://127.0.0.1:1"), "", "")
        return WeatherBench(self.settings, stores, is_live=is_live, now=lambda: self.now, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += dt.timedelta(seconds=seconds)

    def live_day(self, *, lookback_days: int = 10) -> list[str]:
        """Do what is due today and give what was asked for."""
        return self._do(self.bench(), lookback_days)[0]

    def reports(self) -> list[BatchReport]:
        """Do what is due today and tell how it came out."""
        return self._do(self.bench(), 10)[1]

    def _do(self, bench: WeatherBench, lookback_days: int) -> tuple[list[str], list[BatchReport]]:
        try:
            assign_missing_cells(bench)
            works = due_today(bench, lookback_days=lookback_days)
            return [work.label for work in works], [fetch_and_save(bench, work) for work in works]
        finally:
            bench.close()

    def backfill(self, first: dt.date, last: dt.date) -> list[str]:
        """Fill some days of the past."""
        bench = self.bench(is_live=False)
        try:
            assign_missing_cells(bench)
            works = due_of_days(bench, DaySpan(first, last))
            for work in works:
                fetch_and_save(bench, work)
            return [work.label for work in works]
        finally:
            bench.close()


@pytest.fixture(scope="module")
def server() -> Iterator[WeatherServer]:
    with weather_server() as running:
        yield running


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    yield made
    made.dispose()


@pytest.fixture
def world(engine: Engine, server: WeatherServer) -> World:
    server.received.clear()
    server.script(both_services)
    with engine.begin() as connection:
        upsert_farms(connection, [draft(1, box(6.0, 51.0, 6.001, 51.001)), draft(2, box(6.01, 51.01, 6.011, 51.011))])
    return World(engine, server)


def test_the_first_day_asks_for_the_forecast_and_for_the_last_days_of_each_source(world: World) -> None:
    assert world.live_day() == [
        "open-meteo forecast 1 cell 2026-11-15..2026-12-05",
        "open-meteo archive 1 cell 2026-11-10..2026-11-15",
        "nasa-power 1 cell 2026-11-10..2026-11-18",
    ]
    assert world.live_day() == []


def test_the_next_day_asks_for_what_is_new_and_what_was_replaced(world: World) -> None:
    world.live_day()
    world.now += ONE
    assert world.live_day() == [
        "open-meteo forecast 1 cell 2026-11-16..2026-12-06",
        "open-meteo archive 1 cell 2026-11-16..2026-11-16",
        # The 11th is due to be read again after ten days; days in between cannot be final yet.
        "nasa-power 1 cell 2026-11-11..2026-11-19",
    ]


def test_a_forecast_is_asked_for_again_when_the_next_run_of_the_model_may_be_there(world: World) -> None:
    world.live_day()
    world.now += dt.timedelta(hours=5)
    assert world.live_day() == []
    world.now += dt.timedelta(hours=1, seconds=1)
    assert world.live_day() == ["open-meteo forecast 1 cell 2026-11-15..2026-12-05"]


def test_days_that_were_missed_heal_by_themselves(world: World) -> None:
    world.live_day()
    world.now += 7 * ONE
    asked_for = world.live_day(lookback_days=14)
    assert asked_for[1] == "open-meteo archive 1 cell 2026-11-16..2026-11-22"
    assert world.live_day() == []


def test_what_the_sources_replace_months_later_is_read_again_once_and_a_week_at_a_time(world: World) -> None:
    world.live_day()
    first, last = NOON.date() - 10 * ONE, NOON.date() - 5 * ONE
    again = []
    for day in (120, 124, 126, 127, 128, 140):
        world.now = NOON - 10 * ONE + day * ONE
        again += [label for label in world.live_day(lookback_days=3) if str(first) in label]
    assert again == [
        f"open-meteo archive 1 cell {first}..{last}",
        f"nasa-power 1 cell {first}..{first + 124 * ONE}",
    ]
    with world.engine.connect() as connection:
        query = "SELECT bool_and(is_final) FROM weather_daily WHERE day BETWEEN :first AND :last AND kind <> 'forecast'"
        assert connection.execute(text(query), {"first": first, "last": last - ONE}).scalar_one()


def test_a_backfill_asks_for_final_days_once_and_for_what_was_forecast_where_no_analysis_is_yet(world: World) -> None:
    today = NOON.date()
    assert world.backfill(dt.date(2026, 1, 1), today) == [
        f"open-meteo historical-forecast 1 cell {today - 4 * ONE}..{today - ONE}",
        f"open-meteo archive 1 cell 2026-01-01..{today - 5 * ONE}",
        f"nasa-power 1 cell 2026-01-01..{today - 2 * ONE}",
    ]
    assert world.backfill(dt.date(2026, 1, 1), today) == []


def test_a_year_of_many_cells_is_asked_for_in_requests_that_the_allowance_covers(world: World) -> None:
    with world.engine.begin() as connection:
        upsert_farms(
            connection,
            [draft(number, box(6 + number / 10, 51, 6.001 + number / 10, 51.001)) for number in range(3, 23)],
        )
    world.settings = world.settings.model_copy(update={"open_meteo_calls_per_minute": 200})
    world.backfill(dt.date(2024, 1, 1), dt.date(2024, 12, 31))
    archive = [each for each in world.server.received if each.path == ARCHIVE]
    assert sum(len(each.parameters["latitude"].split(",")) for each in archive) == 21
    assert len(archive) == 6  # of 34 calls each, four fit into three quarters of 200
    assert any(wait > 1 for wait in world.waits)


def test_power_is_not_asked_for_years_before_it_began(world: World) -> None:
    assert world.backfill(dt.date(1980, 12, 1), dt.date(1981, 1, 2)) == [
        "open-meteo archive 1 cell 1980-12-01..1981-01-02",
        "nasa-power 1 cell 1981-01-01..1981-01-02",
    ]


class TestLimits:
    @pytest.mark.parametrize(
        ("limit", "until"),
        [("Minutely", NOON.replace(second=0) + dt.timedelta(minutes=1)), ("Hourly", NOON.replace(hour=13, second=0))],
    )
    def test_a_minute_or_an_hour_that_is_used_up_is_waited_for_and_nothing_is_lost(
        self, world: World, limit: str, until: dt.datetime
    ) -> None:
        refusal = json_reply({"error": True, "reason": f"{limit} API request limit exceeded."}, status=429)
        refusals = [refusal]

        def answer(request: Received) -> Reply:
            return refusals.pop() if refusals else both_services(request)

        world.server.script(but({FORECAST: answer}))
        assert [report.failed for report in world.reports()] == [0, 0, 0]
        assert asked(world.server)[FORECAST] == 2
        assert until < world.now < until + dt.timedelta(seconds=10)

    def test_the_allowance_is_kept_over_several_runs(self, world: World) -> None:
        world.settings = world.settings.model_copy(update={"open_meteo_calls_per_minute": 10})
        for number in range(4):
            with world.engine.begin() as connection:
                connection.execute(text("TRUNCATE weather_daily"))
            world.live_day()
            assert bool(world.waits) == (number > 2)  # each of 1.95 and 1.3 calls

    def test_too_many_at_the_same_time_is_only_tried_again(self, world: World) -> None:
        refusals = [json_reply({"error": True, "reason": "Too many concurrent requests"}, status=429)]
        world.server.script(but({FORECAST: lambda each: refusals.pop() if refusals else both_services(each)}))
        assert [report.failed for report in world.reports()] == [0, 0, 0]
        assert max(world.waits) < 1


class TestCells:
    def test_farms_of_one_cell_share_it_and_a_farm_that_moves_gets_another(self, world: World) -> None:
        world.live_day()
        with world.engine.begin() as connection:
            assert list(cells_of_active_farms(connection, Source.OPEN_METEO).values()) == [(1, 2)]
            upsert_farms(connection, [draft(2, box(7.0, 51.0, 7.001, 51.001))])
        world.live_day()
        with world.engine.connect() as connection:
            assert sorted(cells_of_active_farms(connection, Source.OPEN_METEO).values()) == [(1,), (2,)]

    def test_a_new_size_of_cells_moves_every_farm(self, world: World) -> None:
        world.live_day()
        world.settings = world.settings.model_copy(update={"open_meteo_cell_degrees": 0.25})
        world.live_day()
        with world.engine.connect() as connection:
            assert {cell.key for cell in cells_of_active_farms(connection, Source.OPEN_METEO)} == {"om-0.25:204:24"}

    @pytest.mark.parametrize(
        ("bbox", "middle"),
        [
            ((6.0, 51.0, 6.2, 51.4), (6.1, 51.2)),
            ((179.9, -17.0, -179.7, -16.0), (-179.9, -16.5)),
            ((179.7, -17.0, -179.9, -16.0), (179.9, -16.5)),
        ],
    )
    def test_the_middle_of_a_box_also_across_the_antimeridian(
        self, bbox: tuple[float, float, float, float], middle: tuple[float, float]
    ) -> None:
        assert middle_of(bbox) == pytest.approx(middle)

    def test_cells_that_do_not_divide_the_globe_are_refused_by_the_name_of_their_setting(self) -> None:
        with pytest.raises(BadInput, match="SWATH_OPEN_METEO_CELL_DEGREES"):
            key_prefix(Settings(open_meteo_cell_degrees=0.7), Source.OPEN_METEO)


def test_a_key_goes_to_the_addresses_of_customers_but_not_in_place_of_ones_own() -> None:
    hosts = open_meteo_hosts(Settings(open_meteo_key=SecretStr("k"), open_meteo_archive_url="http://127.0.0.1:9"))
    assert (hosts.forecast, hosts.archive) == ("https://customer-api.open-meteo.com", "http://127.0.0.1:9")
    assert hosts.api_key == "k"
    assert open_meteo_hosts(Settings()).forecast == "https://api.open-meteo.com"


def test_power_is_asked_once_for_each_cell(world: World) -> None:
    world.live_day()
    assert asked(world.server) == {FORECAST: 1, ARCHIVE: 1, POWER: 1}
