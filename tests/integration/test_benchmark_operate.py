"""The benchmark of operating: what it measures on little of everything, and what it calls wrong."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
from pathlib import Path

import pytest

from benchmarks import operate
from benchmarks.day_of_scenes import DayRun, measure_day
from benchmarks.operate import Findings, Size, Start
from benchmarks.planet import fields, is_land, land_tiles, scenes_of
from benchmarks.planning import Planned, measure_planning, stored_world
from benchmarks.tile import make_tile
from infra.local.home import temporary_home
from infra.settings import Settings

SIZE = Size(scenes=3, tile_px=2048, farms_planned=2_000, scenes_planned=500)
RUN = DayRun(state="COMPLETED", message="", flow_s=10, searches_s=1, scenes_s=16, scenes=3, observed=300, at_once=2)
PLANNED = Planned(
    seconds=20.123, cpu_s=15, peak_rss_mb=400.04, start_rss_mb=150, queries=9, boxes=9, boxes_s=1, units=9, looks=9
)


def test_the_planet_has_tiles_like_the_real_ones_and_a_day_of_passes_over_land() -> None:
    tiles = list(land_tiles())
    assert len({(tile.name, tile.grid) for tile in tiles}) == len(tiles) > 10_000
    day = scenes_of(dt.date(2026, 6, 1), 10_000)
    assert len(day) == len({(scene.pass_id, scene.tile) for scene in day}) == 10_000
    assert 20 < len({scene.pass_id for scene in day}) < 60
    assert {scene.red.grid.bounds[2] - scene.red.grid.bounds[0] for scene in day} == {109_800.0}
    drawn = fields(5_000)
    assert is_land(drawn.corners[:, 0], drawn.corners[:, 1]).mean() > 0.9


@pytest.mark.timeout(120)
def test_planning_is_measured_in_a_process_of_its_own_with_few_queries() -> None:
    with (
        temporary_home() as home,
        stored_world(Settings(home=home), farms=SIZE.farms_planned, scenes=SIZE.scenes_planned) as stores,
    ):
        found = measure_planning(stores)
    assert 0 < found.units <= found.looks < SIZE.farms_planned
    assert found.queries < 100
    assert found.start_rss_mb < found.peak_rss_mb < 1_000
    assert found.boxes > 100


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_day_goes_through_the_real_flow_and_every_farm_is_answered(tmp_path: Path) -> None:
    tile, _ = make_tile(tmp_path, size=SIZE.tile_px)
    before = dict(os.environ)
    asked: list[bool] = []
    day = measure_day(
        tile, scenes=SIZE.scenes, farms=operate.FARMS_A_SCENE, is_quiet=lambda: asked.append("SWATH_HOME" in os.environ)
    )
    assert asked == [True], "once, when the servers are up"
    assert dict(os.environ) == before
    assert list(Findings(day=day, plan=None, start=None).problems(SIZE)) == []
    assert 0 < day.work_s < day.flow_s


def test_numbers_are_null_where_nothing_was_measured() -> None:
    nothing = Findings(day=None, plan=None, start=None)
    assert json.loads(json.dumps(nothing.numbers())) == dict.fromkeys(
        ("overhead_fraction", "plan_s", "plan_rss_mb", "up_to_api_s", "up_to_ui_s")
    )
    everything = Findings(day=RUN, plan=PLANNED, start=Start(api_s=3.456, ui_s=9.0))
    assert everything.numbers() == {
        "overhead_fraction": 0.1,
        "plan_s": 20.12,
        "plan_rss_mb": 400.0,
        "up_to_api_s": 3.46,
        "up_to_ui_s": 9.0,
    }
    assert list(everything.problems(SIZE)) == []
    assert len(list(operate.report(everything, SIZE))) == 4


def test_a_run_that_failed_lost_answers_or_took_too_much_memory_is_not_right() -> None:
    failed = dataclasses.replace(RUN, state="FAILED", message="no catalog", observed=299)
    large = dataclasses.replace(PLANNED, peak_rss_mb=2_001)
    problems = list(Findings(day=failed, plan=large, start=None).problems(SIZE))
    assert problems == [
        "the day's run ended FAILED: no catalog",
        "299 answers of 300",
        "planning took 2,001 MB",
    ]
