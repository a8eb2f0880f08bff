"""What runs of flows leave for the metrics page."""

from __future__ import annotations

import datetime as dt

import pytest
from redis import Redis

from flows.weather import daily_weather
from models.work_figures import read_work_figures
from tests.support.facts import engine_for, store_farms
from tests.support.flow_runs import run_days, use

NOWHERE = "http://127.0.0.1:1"
FAILING = {
    "SWATH_STAC_URL": NOWHERE,
    "SWATH_OPEN_METEO_URL": NOWHERE,
    "SWATH_OPEN_METEO_ARCHIVE_URL": NOWHERE,
    "SWATH_OPEN_METEO_HISTORICAL_FORECAST_URL": NOWHERE,
    "SWATH_NASA_POWER_URL": NOWHERE,
    "SWATH_HTTP_RETRIES": "0",
    "SWATH_HTTP_CONNECT_TIMEOUT_S": "1",
}


@pytest.mark.usefixtures("prefect_api")
def test_runs_and_their_tasks_are_counted_by_how_they_came_out(
    monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str
) -> None:
    use(monkeypatch, {"SWATH_DATABASE_URL": database_url, "SWATH_REDIS_URL": redis_url, **FAILING})
    began = dt.datetime.now(dt.UTC)
    day = dt.date(2026, 5, 14)
    over_no_farms, _ = run_days(day, day)
    assert over_no_farms.is_completed()
    engine = engine_for(database_url)
    store_farms(engine, 1)
    engine.dispose()
    without_a_catalog, _ = run_days(day, day)
    assert without_a_catalog.is_failed()
    assert daily_weather(lookback_days=0, return_state=True).is_failed()
    with Redis.from_url(redis_url) as client:
        found = read_work_figures(client)
    assert found.runs == {
        ("ndvi-days", "completed"): 1,
        ("ndvi-days", "failed"): 1,
        ("daily-weather", "failed"): 1,
    }
    assert set(found.last_success) == {"ndvi-days"}
    assert found.last_success["ndvi-days"] >= began
    assert {task for task, outcome in found.tasks if outcome == "failed"} == {"search-catalog", "fetch-weather"}
    assert not [task for task, outcome in found.tasks if outcome == "completed"]
