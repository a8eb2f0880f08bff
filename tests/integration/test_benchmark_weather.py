"""The weather benchmark on a few farms: it ends well, counts what services heard, and knows what a quota carries."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
from dataclasses import replace

import httpx
import pytest

from benchmarks import weather
from benchmarks.weather_quota import Quota, backfill_weight_a_cell, quota
from benchmarks.weather_report import Backfill, Day, problems_of
from benchmarks.weather_runs import FlowRun, Heard, services
from models.quota import QuotaLimits

QUIET = Heard(open_meteo_requests=0, weighted_calls=0, nasa_power_requests=0, refused=0, told_before=0)
DONE = FlowRun(state="COMPLETED", message="", seconds=1, rows=10, failed=0)
GOOD = Day(
    run=DONE,
    heard=replace(QUIET, open_meteo_requests=2, nasa_power_requests=9),
    again=DONE,
    heard_again=QUIET,
    open_meteo_cells=150,
    nasa_power_cells=9,
)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_ends_with_one_line_for_programs_and_leaves_no_trace_in_the_environment(
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = dict(os.environ)
    code = weather.main(["--quick", "--json", "--farms", "20"])
    assert dict(os.environ) == before
    *readable, last = capfd.readouterr().out.splitlines()
    numbers = json.loads(last)
    assert code == 0, readable
    assert numbers["open_meteo_requests"] == 2  # forecast and archive, of 20 cells or less
    assert 1 <= numbers["nasa_power_requests"] == numbers["nasa_power_cells"] <= 12
    assert numbers["repeated"] == numbers["refused"] == 0
    # Ten days back, today and 15 ahead; of the past each source tells what it has by now.
    assert numbers["rows"] > 15 * numbers["open_meteo_cells"]
    assert numbers["backfill_rows"] is None


def test_the_services_tell_what_they_heard_and_what_they_had_told_before() -> None:
    with services(is_unlimited=False) as running, httpx.Client() as client:
        url = f"{running.settings['SWATH_OPEN_METEO_ARCHIVE_URL']}/v1/archive"
        asked = {"latitude": "45.5,46", "longitude": "21,22", "daily": "temperature_2m_max", "end_date": "2024-05-09"}
        client.get(url, params=asked | {"start_date": "2024-05-01"})
        client.get(url, params=asked | {"start_date": "2024-05-02"})
        client.get(url, params=asked | {"start_date": "2024-04-30"})
        client.get(url, params=asked)
        first = running.look()
        second = running.look()
    assert first == replace(QUIET, open_meteo_requests=4, weighted_calls=6, refused=1, told_before=1)
    assert second == QUIET


@pytest.mark.parametrize(
    ("day", "problem"),
    [
        (GOOD, None),
        (replace(GOOD, heard=replace(GOOD.heard, open_meteo_requests=11)), "more than 10 requests"),
        (replace(GOOD, heard=replace(GOOD.heard, nasa_power_requests=13)), "12 to NASA POWER"),
        (replace(GOOD, heard_again=replace(QUIET, nasa_power_requests=1)), "1 requests repeated"),
        (replace(GOOD, run=replace(DONE, state="FAILED", message="no")), "a run ended FAILED: no"),
    ],
)
def test_what_is_not_right_is_said(day: Day, problem: str | None) -> None:
    found = problems_of(day, None)
    assert (found == []) if problem is None else (len(found) == 1 and problem in found[0])


def test_a_lost_or_doubled_row_is_not_right() -> None:
    backfill = Backfill(
        first=dt.date(2024, 1, 1),
        last=dt.date(2024, 12, 31),
        seconds=1,
        rows_when_killed=5,
        rows=11,
        lost=0,
        doubled=1,
        heard=QUIET,
        after=DONE,
    )
    assert problems_of(GOOD, backfill) == ["0 rows lost and 1 doubled by the kill"]


def test_a_free_day_carries_fewer_farms_alone_than_cells_and_a_country_of_coarse_cells_whole() -> None:
    worth = quota()
    assert worth.a_day == QuotaLimits().per_day
    # 11 variables of an hour, every 55 minutes, and the daily run; by cell only four times a day.
    assert worth.calls_a_farm_alone == pytest.approx(1.1 * 24 * 60 / 55 + 1.3 * (21 / 14 + 1 + 1 / 7))
    assert worth.calls_a_cell == pytest.approx(1.1 * 4 + 1.3 * (21 / 14 + 1 + 1 / 7))
    assert worth.farms_alone < worth.cells < worth.farms_over_country(step_degrees=0.1)
    assert worth.farms_over_country(step_degrees=0.25) == math.inf


def test_farms_that_fall_into_the_same_cell_cost_nothing_more() -> None:
    few = Quota(calls_a_farm_alone=10, calls_a_cell=100, a_day=10_000)
    assert few.cells < few.farms_over_country(step_degrees=0.1) < 1.02 * few.cells


def test_years_weigh_as_much_as_their_days() -> None:
    day = dt.date
    assert backfill_weight_a_cell(day(2022, 1, 1), day(2023, 12, 31)) == pytest.approx(2 * 1.3 * 365 / 14)
    assert backfill_weight_a_cell(day(2023, 12, 1), day(2024, 1, 31)) == pytest.approx(2 * 1.3 * 31 / 14)
