"""In Prefect's UI every run is called by what it does, of which days."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State

from flows.maintenance import maintenance
from flows.ndvi import MAX_LOOKBACK_DAYS, daily_ndvi, ndvi_days, newest_day
from flows.prewarm import prewarm
from flows.refresh import refresh_farm
from flows.weather import backfill_weather, daily_weather
from infra.local.prefect import PrefectServer
from tests.support.flow_runs import use

START, END, FARM = dt.date(2024, 5, 1), dt.date(2024, 5, 31), uuid.UUID(int=1)
ASKED = {"start": START, "end": END}


@pytest.fixture(autouse=True)
def stores(database_url: str, redis_url: str, prefect_api: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without farms nobody outside is asked for anything."""
    use(monkeypatch, {"SWATH_DATABASE_URL": database_url, "SWATH_REDIS_URL": redis_url})


def run_of(flow: Callable[..., State[Any]], **given: Any) -> FlowRun:
    state = flow(**given, return_state=True)
    assert state.state_details.flow_run_id is not None
    with get_client(sync_client=True) as client:
        return client.read_flow_run(state.state_details.flow_run_id)


def days_ago(days: int, *, before: dt.date) -> dt.date:
    return before - dt.timedelta(days=days)


def test_the_daily_ndvi_is_called_by_the_days_it_looks_back_on() -> None:
    last = newest_day()
    assert run_of(daily_ndvi).name == f"NDVI of {days_ago(10, before=last)} to {last}"
    assert run_of(daily_ndvi, lookback_days=3).name == f"NDVI of {days_ago(3, before=last)} to {last}"
    assert run_of(daily_ndvi, lookback_days=0).name == f"NDVI of {last}"


def test_a_number_of_days_that_is_refused_is_the_failure_and_not_the_name() -> None:
    too_many: tuple[tuple[Callable[..., State[Any]], int, str], ...] = (
        (daily_ndvi, -1, "NDVI"),
        (daily_ndvi, MAX_LOOKBACK_DAYS + 1, "NDVI"),
        (daily_weather, 10**12, "weather"),
    )
    for flow, refused, name in too_many:
        run = run_of(flow, lookback_days=refused)
        assert run.name == name
        assert run.state is not None
        assert run.state.is_failed()
        assert "lookback_days" in (run.state.message or "")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (ASKED, "NDVI of 2024-05-01 to 2024-05-31"),
        ({"start": START, "end": START, "farms": [FARM]}, "NDVI of 2024-05-01, 1 farm"),
        (ASKED | {"farms": [FARM, uuid.UUID(int=2)]}, "NDVI of 2024-05-01 to 2024-05-31, 2 farms"),
        (ASKED | {"bbox": [6.0, 51.0, 7.0, 52.0]}, "NDVI of 2024-05-01 to 2024-05-31, in a box"),
    ],
)
def test_ndvi_that_was_asked_for_is_called_by_what_was_asked(given: dict[str, Any], name: str) -> None:
    assert run_of(ndvi_days, **given).name == name


def test_the_daily_weather_takes_its_days_from_the_settings_where_none_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    today = dt.datetime.now(dt.UTC).date()
    assert run_of(daily_weather, lookback_days=2).name == f"weather of {days_ago(2, before=today)} to {today}"
    monkeypatch.setenv("SWATH_WEATHER_LOOKBACK_DAYS", "5")
    assert run_of(daily_weather).name == f"weather of {days_ago(5, before=today)} to {today}"
    monkeypatch.setenv("SWATH_WEATHER_LOOKBACK_DAYS", "many")
    broken = run_of(daily_weather)
    assert broken.name == "weather"
    assert broken.state is not None
    assert "SWATH_WEATHER_LOOKBACK_DAYS" in (broken.state.message or "")


def test_weather_of_the_past_a_refresh_and_what_runs_by_the_clock_have_names_as_well() -> None:
    assert run_of(backfill_weather, **ASKED).name == "weather of 2024-05-01 to 2024-05-31"
    assert run_of(refresh_farm, external_farm_ids=[FARM]).name == f"refresh of farm {FARM}"
    assert run_of(refresh_farm, external_farm_ids=[FARM, uuid.uuid4()]).name == "refresh of 2 farms"
    now = f"{dt.datetime.now(dt.UTC):%Y-%m-%d}"
    assert run_of(prewarm).name.startswith(f"weather at {now} ")
    assert run_of(maintenance).name == f"housekeeping of {now}"
