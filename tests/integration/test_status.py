"""What `swath status` tells of gaps, rests, runs and sources, to people and to programs."""

from __future__ import annotations

import dataclasses
import datetime as dt
import io
import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from click.testing import Result
from rich.console import Console
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from infra.cli.status import show, status
from infra.cli.status_report import Report, gather
from infra.leases import run_lease
from infra.settings import load_settings
from infra.stores import open_stores
from models.domain import SkippedItem
from models.ledger import finish_work, plan_work, record_scenes
from models.quota import QuotaLimits, charge
from models.retries import Patience, note_failed_run
from models.searches import note_answer, note_no_answer
from tests.support.facts import POLICY, engine_for, scene, store_farms, work

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
METHOD: dict[str, Any] = {"index": "ndvi", "mask_policy": POLICY}

app = typer.Typer()
app.command("status")(status)


@pytest.fixture
def engine(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("SWATH_DATABASE_URL", database_url)
    monkeypatch.setenv("SWATH_REDIS_URL", redis_url)
    monkeypatch.setenv("COLUMNS", "160")
    made = engine_for(database_url)
    yield made
    made.dispose()


def told(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def facts() -> Any:
    return json.loads(told("--json").stdout)


def scene_of(engine: Engine, farms: list[int], age: dt.timedelta, **changes: Any) -> Any:
    at = NOW - age
    facts = {"pass_id": f"sentinel-2b/{at:%Y%m%dT%H%M%S}", "item_id": f"{at:%Y%m%d}{changes.get('tile', '')}"}
    each = work(farms, acquired_at=at, **facts, **changes)
    with engine.begin() as connection:
        record_scenes(connection, each.scenes, [])
        plan_work(connection, [each], **METHOD)
    return each


def finish(engine: Engine, each: Any, *failed: int) -> None:
    outcome = {
        "observed": 1,
        "not_observed": {},
        "problem": f"{len(failed)} x imagery not read: missing",
        "is_retryable": False,
    }
    with engine.begin() as connection:
        finish_work(connection, each, failed_farm_ids=failed, **METHOD, **outcome)


def fail(engine: Engine, each: Any, *, runs: int) -> None:
    finish(engine, each, *each.farm_ids)
    patience = Patience(runs=runs, first_rest=dt.timedelta(hours=5))
    with engine.begin() as connection:
        note_failed_run(connection, each, unread=(), catalogs=(), now=NOW, patience=patience, **METHOD)


def gap(engine: Engine, tile: str, age: dt.timedelta) -> None:
    given = {"tile": tile, "at": NOW - age, "day": (NOW - age).date()}
    query = """
    INSERT INTO gaps (tile, platform, relative_orbit, day, expected_at, like_pass, farms)
    VALUES (:tile, 'sentinel-2b', 22, :day, :at, 'before', 7)
    """
    with engine.begin() as connection:
        connection.execute(text(query), given)


def test_a_calm_installation_needs_nobody(engine: Engine) -> None:
    finish(engine, scene_of(engine, store_farms(engine, 2), DAY))
    people = told()
    assert people.exit_code == 0, people.exception
    assert "Nothing needs a person." in people.stdout
    assert facts()["needs_person"] == []
    assert facts()["stores"]["redis_version"]


def test_an_empty_installation_has_nothing_to_tell_and_needs_nobody(engine: Engine) -> None:
    assert told().exit_code == 0
    assert (facts()["regions"], facts()["gaps"], facts()["runs"]) == ([], [], [])


def test_gaps_are_listed_by_what_is_done_about_them(engine: Engine) -> None:
    finish(engine, scene_of(engine, store_farms(engine, 1), 2 * DAY))
    for tile, days in [("33TWA", 1.5), ("33TWB", 5), ("33TWC", 15), ("33TWD", 40)]:
        gap(engine, tile, days * DAY)
    found = facts()
    assert [[each["tile"] for each in found[name]] for name in ("late", "gaps", "lost")] == [
        ["33TWA"],
        ["33TWB"],
        ["33TWC"],
    ]
    people = told()
    assert people.exit_code == 1
    for words in ("missing, asked for", "lost, not asked for any more", "late, asked for", "R022"):
        assert words in people.stdout


def test_scenes_that_rest_need_nobody_and_those_given_up_do(engine: Engine) -> None:
    farms = store_farms(engine, 3)
    with run_lease(engine, kind="daily-ndvi"):
        pass
    fail(engine, scene_of(engine, farms[:1], DAY), runs=5)
    assert told().exit_code == 0
    assert "in 5 h" in told().stdout
    fail(engine, scene_of(engine, farms[1:], 2 * DAY), runs=1)
    people, found = told(), facts()
    assert people.exit_code == 1
    assert "1 scene was given up, 2 farms wait" in people.stdout
    assert (found["queue"]["resting"], found["queue"]["given_up"]) == (1, 1)
    assert found["reasons"] == [{"problem": "imagery not read: missing", "scenes": 2, "farms": 3}]
    assert [each["given_up_at"] is not None for each in found["failed"]] == [False, True]


def test_regions_runs_and_sources_are_told(engine: Engine) -> None:
    farms = store_farms(engine, 2)
    finish(engine, scene_of(engine, farms, DAY))
    finish(engine, scene_of(engine, farms, 6 * DAY))
    finish(engine, scene_of(engine, farms, DAY, tiles=("20HNH",), tile="20HNH"))
    with engine.begin() as connection:
        record_scenes(connection, [scene(9, acquired_at=NOW - 9 * DAY, catalog="earth-search-l2a")], [])
        note_answer(connection, "earth-search-c1", (NOW.date(), NOW.date()), scenes=14, now=NOW)
        note_no_answer(connection, "earth-search-l2a", problem="status [503]", now=NOW)
        charge(connection, "open-meteo", weight=120, now=NOW, limits=QuotaLimits(edge=dt.timedelta(0)), is_live=True)
    with run_lease(engine, kind="daily-ndvi", flow_run_id=uuid.uuid4()):
        people, found = told(), facts()
    assert {each["zone"]: (each["tiles"], each["used"], each["seen"]) for each in found["regions"]} == {
        "20": (1, 1, {"earth-search-c1": 1}),
        "33": (1, 2, {"earth-search-c1": 2, "earth-search-l2a": 1}),
    }
    assert [(run["kind"], run["outcome"]) for run in found["runs"]] == [("daily-ndvi", "running")]
    assert {each["span"]: each["limit"] - each["used"] for each in found["quotas"]}["day"] == 9_880
    for words in ("14 scenes of", "status [503]", "120, 9,880 left", "daily-ndvi"):
        assert words in people.stdout
    assert people.exit_code == 1, "the second catalog has never answered"


CATALOGS = ("earth-search-c1", "earth-search-l2a", "planetary-computer")
PROBLEM = "status [503] from https://earth-search.aws.element84.com/v1/search"
OF_ONE_HOST = "stac.dataspace.copernicus.eu/sentinel-2-l2a"


def much_to_tell(engine: Engine) -> Report:
    """Three catalogs over ten zones, with scenes that failed and gaps; every kind of source; what `status` gathers."""
    farms = store_farms(engine, 3)
    for number in range(10):
        tile = f"{28 + number}TWM"
        each = scene_of(engine, farms, (1 + number) * DAY, tiles=(tile,), tile=tile)
        with engine.begin() as connection:
            others = [dataclasses.replace(each.scenes[0], catalog=name) for name in CATALOGS]
            record_scenes(connection, others, [SkippedItem(catalog="c", collection="k", item_id=tile, reason=PROBLEM)])
        fail(engine, each, runs=1 + number % 4) if number % 2 else finish(engine, each)
        gap(engine, tile, (1.5 + number) * DAY)
    days = NOW.date() - 40 * DAY, NOW.date()
    with engine.begin() as connection:
        for name in (*CATALOGS, OF_ONE_HOST):
            note_answer(connection, name, days, scenes=12_345, now=NOW - 30 * DAY)
        note_no_answer(connection, "earth-search-l2a", problem=PROBLEM, now=NOW)
        charge(connection, "open-meteo", weight=599, now=NOW, limits=QuotaLimits(edge=dt.timedelta(0)), is_live=True)
    for kind in ("daily-ndvi", "backfill-weather"):
        with run_lease(engine, kind=kind, flow_run_id=uuid.uuid4()):
            pass
    settings = load_settings()
    with open_stores(settings) as stores:
        return gather(stores, settings, now=NOW)


def screen(report: Report, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(console, report)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_on_a_narrow_screen_every_word_and_number_is_whole_and_none_is_left_out(engine: Engine) -> None:
    report = much_to_tell(engine)
    many = [
        dataclasses.replace(each, tiles=1_200, used=12_345, clear=12_345, seen=dict.fromkeys(CATALOGS, 12_345))
        for each in report.regions
    ]
    for regions in (report.regions, tuple(many)):
        wide = screen(dataclasses.replace(report, regions=regions), 500)
        for width in (80, 120):
            narrow = screen(dataclasses.replace(report, regions=regions), width)
            assert max(map(len, narrow.splitlines())) <= width
            assert words(wide) - words(narrow) == set()
            legend = {f"{letter}={name}" for letter, name in zip("ABC", CATALOGS, strict=True)}
            assert words(narrow) - words(wide) <= {"A", "B", "C", "Passes", *legend}


def words(shown: str) -> set[str]:
    return {word for word in shown.split() if set(word) != {"─"}}


def test_catalogs_are_called_by_their_names_where_there_is_room_and_else_by_letters(engine: Engine) -> None:
    report = much_to_tell(engine)
    assert "earth-search-l2a  planetary-computer  used" in screen(report, 120)
    assert "A=earth-search-c1 B=earth-search-l2a C=planetary-computer" in screen(report, 80)


def test_numbers_stand_below_one_another(engine: Engine) -> None:
    lines = screen(much_to_tell(engine), 80).splitlines()
    header = next(line for line in lines if line.startswith("zone"))
    rows = [line for line in lines if line[:2].isdigit() and line[2] == " "]
    assert len(rows) == 10
    ends = [match.end() for match in re.finditer(r"\S+", header)][-4:]
    assert all([match.end() for match in re.finditer(r"\S+", row)][-4:] == ends for row in rows)


def test_a_long_problem_is_told_once_over_the_whole_width(engine: Engine) -> None:
    assert screen(much_to_tell(engine), 80).count("imagery not read: missing") == 1


def test_a_redis_that_is_away_is_told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWATH_REDIS_URL", "redis://127.0.0.1:9")
    people = told()
    assert people.exit_code == 1
    assert "Redis does not answer" in people.stdout
