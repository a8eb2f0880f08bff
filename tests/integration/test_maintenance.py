"""Housekeeping lets go of what is replaced or old, and of nothing else."""

from __future__ import annotations

import datetime as dt
import uuid
from pathlib import Path

import pytest
from prefect import flow, tags
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.states import Running

from flows.maintenance import forget_runs, maintenance
from flows.refresh import refresh_farm
from infra.local.prefect import PrefectServer
from models.upkeep import forget_forecasts, partitions_ahead
from models.weather import Kind
from models.weather_store import save_readings
from tests.support.flow_runs import use
from tests.support.readings import DAY, cell, daily, hourly, midnight
from tests.support.simulated import database, draw_season, import_farms, query
from tests.support.stac_server import stac_server

STORED = "SELECT count(*) FILTER (WHERE kind = 'forecast'), count(*) FILTER (WHERE kind <> 'forecast') FROM "


@flow(name="kept-or-not")
def nothing() -> None:
    """Do nothing."""


@pytest.fixture
def stores(database_url: str, redis_url: str, prefect_api: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> str:
    use(monkeypatch, {"SWATH_DATABASE_URL": database_url, "SWATH_REDIS_URL": redis_url})
    return database_url


def test_forecasts_that_better_values_replaced_are_let_go_and_those_that_are_all_there_is_are_kept(
    database_url: str,
) -> None:
    here, elsewhere = cell(0), cell(1)
    readings = [
        daily(here, kind=Kind.FORECAST),
        daily(here),
        daily(elsewhere, kind=Kind.FORECAST),
        hourly(here, kind=Kind.FORECAST),
        hourly(here),
        hourly(here, midnight(DAY) + dt.timedelta(hours=1), kind=Kind.FORECAST),
    ]
    with database(database_url) as engine, engine.begin() as connection:
        save_readings(connection, readings)
        assert forget_forecasts(connection, before=DAY) == 0
        assert forget_forecasts(connection, before=DAY + dt.timedelta(days=1)) == 2
        assert forget_forecasts(connection, before=DAY + dt.timedelta(days=1)) == 0
    assert query(database_url, STORED + "weather_daily") == [(1, 1)]
    assert query(database_url, STORED + "weather_hourly") == [(1, 1)]


def test_in_autumn_the_partitions_of_the_coming_year_are_there(database_url: str) -> None:
    with database(database_url) as engine, engine.begin() as connection:
        partitions_ahead(connection, today=dt.date(2031, 11, 1))
        partitions_ahead(connection, today=dt.date(2031, 11, 1))
    made = query(database_url, "SELECT relname FROM pg_class WHERE relname ~ '_203[0-9]$' ORDER BY relname")
    tables = ("observations", "weather_daily", "weather_hourly")
    assert [name for (name,) in made] == [f"{table}_{year}" for table in tables for year in (2031, 2032)]


def test_only_our_own_runs_that_ended_are_forgotten(prefect_api: PrefectServer) -> None:
    mark = f"mark-{uuid.uuid4()}"
    with tags("swath", mark):
        nothing()
    with tags(mark):
        nothing()
    with get_client(sync_client=True) as client:
        going = client.create_flow_run(nothing, state=Running(), tags=["swath", mark])

        def left() -> set[str]:
            marked = FlowRunFilter(tags=FlowRunFilterTags(all_=[mark]))
            found = client.read_flow_runs(flow_run_filter=marked)
            return {each.state_name or "" for each in found}

        assert forget_runs(before=dt.datetime.now(dt.UTC) - dt.timedelta(days=1)) == 0
        assert forget_runs(before=dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)) >= 1
        assert left() == {"Completed", "Running"}
        client.delete_flow_run(going.id)


def test_a_night_of_maintenance_says_what_it_did(stores: str) -> None:
    state = maintenance(return_state=True)
    assert state.is_completed(), state.message
    assert state.message is not None
    assert "0 old forecasts deleted, 0 farms published to Redis" in state.message


def test_maintenance_does_the_rest_when_redis_is_away_and_ends_failed(
    stores: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, {"SWATH_REDIS_URL": "redis://127.0.0.1:9"})
    state = maintenance(return_state=True)
    assert state.is_failed()
    assert state.message is not None
    assert "old flow runs deleted" in state.message
    assert "Redis: " in state.message
    assert query(stores, "SELECT count(*) > 0 FROM pg_class WHERE relname ~ '^observations_20'") == [(True,)]


def test_a_refresh_is_of_the_farms_asked_for_and_of_no_others(
    stores: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    season = draw_season(tmp_path, dt.date(2024, 6, 9), dt.date(2024, 6, 10))
    assert import_farms(stores, season.farms_file) > 1
    with stac_server(season.items) as url:
        use(monkeypatch, {"SWATH_STAC_URL": url})
        [farm, *_] = season.truth.farms
        state = refresh_farm([farm.external_farm_id], lookback_days=3, return_state=True)
        assert state.is_completed(), state.message
        assert state.result(raise_on_failure=False).farms == 1
        unknown = refresh_farm([uuid.uuid4()], return_state=True)
        assert unknown.is_failed()
        assert "no active farm" in (unknown.message or "")
