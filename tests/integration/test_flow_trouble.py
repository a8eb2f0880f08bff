"""The flow in trouble: what passes is tried again, what stays is said, and the next run brings the rest."""

from __future__ import annotations

import copy
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rasterio
from prefect.client.schemas.objects import StateType
from redis import Redis
from structlog.testing import capture_logs

from infra.local.postgres import PostgresServer
from infra.local.prefect import PrefectServer
from models.readmodel import state_key
from tests.support.archives import ROOT
from tests.support.databases import TEMPLATE, fresh_database
from tests.support.flow_runs import artifact_rows, recorded_task_runs, run_days, use
from tests.support.simulated import (
    Row,
    Rows,
    Season,
    draw_season,
    execute,
    import_farms,
    query,
    served,
    stored_rows,
    without_revisions,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

START, END = dt.date(2024, 6, 9), dt.date(2024, 6, 20)
NOBODY_LISTENS = "redis://127.0.0.1:9"


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> Season:
    return draw_season(tmp_path_factory.mktemp("june"), START, END)


@pytest.fixture
def url(
    season: Season, database_url: str, redis_url: str, prefect_api: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Address of a database with the farms, which flows of this process use."""
    use(monkeypatch, {"SWATH_DATABASE_URL": database_url, "SWATH_REDIS_URL": redis_url})
    import_farms(database_url, season.farms_file)
    return database_url


@pytest.fixture(scope="module")
def calm(season: Season, postgres_server: PostgresServer, prefect_api: PrefectServer) -> Iterator[Rows]:
    """What a run finds when nothing fails."""
    with (
        fresh_database(postgres_server, template=TEMPLATE) as own,
        served(season.folder, season.items) as archive,
        pytest.MonkeyPatch.context() as patch,
    ):
        use(patch, archive.environment | {"SWATH_DATABASE_URL": own, "SWATH_REDIS_URL": NOBODY_LISTENS})
        import_farms(own, season.farms_file)
        state, _ = run_days(START, END)
        assert state.type == StateType.COMPLETED
        yield stored_rows(own)


# A sequence counts on when a transaction is undone, so the first try fails and the second does not.
DEADLOCK_ONCE = """
CREATE SEQUENCE tries;
CREATE FUNCTION deadlock_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('tries') = 1 THEN
        RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER deadlock_once BEFORE UPDATE ON work FOR EACH ROW
    WHEN (NEW.day = '2024-06-19' AND NEW.tile_set = '34TDR' AND NEW.finished_at IS DISTINCT FROM OLD.finished_at)
    EXECUTE FUNCTION deadlock_once();
"""
NEVER = """
CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'nobody | foresaw
this';
END $$;
CREATE TRIGGER never BEFORE INSERT ON observations FOR EACH ROW WHEN (NEW.day = '2024-06-10') EXECUTE FUNCTION never();
"""
MENDED = "DROP TRIGGER deadlock_once ON work; DROP TRIGGER never ON observations"


def test_what_may_pass_is_tried_again_and_what_does_not_is_left_for_the_next_run(
    season: Season, calm: Rows, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(url, DEADLOCK_ONCE + NEVER)
    with served(season.folder, season.items) as archive:
        use(monkeypatch, archive.environment)
        archive.files.fail("*20240609*T34TDR*/SCL.tif", status=503, times=6)
        archive.files.fail("*20240614*T34TDR*/B04.tif", status=404)
        archive.files.replace("*20240620*/B08.tif")
        with capture_logs() as logs:
            state, summary = run_days(START, END)
        statuses = [request.status for request in archive.files.log if "20240609" in request.path]
        runs = recorded_task_runs(state, expected=len(summary.scenes) + 2)
        found = without_revisions(stored_rows(url))

        expected = without_revisions(calm)
        lost = {key for key, row in calm.items() if is_lost(row)}
        assert found == {key: row for key, row in expected.items() if key not in lost}
        assert summary.failed == len(lost)
        assert statuses.count(503) == 6
        again = {name.partition(":")[0]: each.run_count for name, each in runs.items() if each.run_count > 1}
        assert set(again) <= {"34TDR 2024-06-09", "34TDR+34TER 2024-06-09", "34TDR 2024-06-19"}
        assert again["34TDR 2024-06-19"] == 2, "a transaction that was undone has answered nobody"
        assert any(name.endswith("2024-06-09") for name in again)

        assert state.type == StateType.FAILED
        assert f"{len(lost)} failed" in (state.message or "")
        problems = {(str(each.day), each.tile_set): each.problem or "" for each in summary.scenes if each.failed}
        assert "missing" in problems["2024-06-14", "34TDR"]
        assert "unreadable" in problems["2024-06-20", "20HNH"]
        assert "nobody | foresaw this" in problems["2024-06-10", "20HNH"]
        assert any(text in (state.message or "") for text in problems.values())
        cells = {(row[0], row[1]): row for row in artifact_rows(state)}
        assert {len(row) for row in cells.values()} == {10}, "no problem breaks the table"
        assert "nobody / foresaw this" in cells["2024-06-10", "20HNH"][-1]
        assert any(entry["event"] == "scene failed" and entry["exc_info"] for entry in logs)
        failed = query(url, "SELECT day, tile_set, cardinality(pending_farm_ids) FROM work WHERE state = 'failed'")
        assert {(str(day), tiles) for day, tiles, _ in failed} == set(problems)
        assert sum(pending for *_, pending in failed) == len(lost)

        execute(url, MENDED)
        archive.files.heal()
        state, summary = run_days(START, END)
        assert state.type == StateType.COMPLETED
        assert summary.observed + sum(summary.not_observed.values()) == len(lost)
        assert without_revisions(stored_rows(url)) == expected
        assert query(url, "SELECT DISTINCT state, pending_farm_ids FROM work") == [("done", [])]


def is_lost(row: Row) -> bool:
    """Whether a farm's answer needed what stayed broken: red and near infrared only where it has a clear pixel."""
    if row["day"] == dt.date(2024, 6, 10):
        return True
    if row["status"] != "observed":
        return False
    is_missing = any("T34TDR_20240614" in item_id for item_id in row["item_ids"])
    return is_missing or row["day"] == dt.date(2024, 6, 20)


def test_without_redis_everything_is_saved_and_redis_catches_up_later(
    season: Season, calm: Rows, url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = dt.date(2024, 6, 20)
    with served(season.folder, season.items) as archive:
        use(monkeypatch, archive.environment | {"SWATH_REDIS_URL": NOBODY_LISTENS})
        with capture_logs() as logs:
            state, _ = run_days(day, day)
        assert state.type == StateType.COMPLETED
        rows = stored_rows(url)
        assert without_revisions(rows) == without_revisions({key: calm[key] for key in rows})
        assert len(rows) == sum(of == day for _, of in calm)
        said = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
        assert said == ["read models not published", "Redis is not complete; the next run tries again"]

        monkeypatch.setenv("SWATH_REDIS_URL", redis_url)
        state, summary = run_days(day, day)
        assert (state.type, summary.scenes) == (StateType.COMPLETED, ())
    with Redis.from_url(redis_url) as client:
        for (farm_id, _), row in rows.items():
            body = json.loads(client.hget(state_key(farm_id), "body") or b"{}")
            assert body["latest"]["ndvi"] == row["ndvi"]


def test_a_failed_second_look_is_taken_again_by_the_next_run(
    season: Season, calm: Rows, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = dt.date(2024, 6, 20)
    with served(season.folder, season.items) as archive:
        use(monkeypatch, archive.environment)
        run_days(day, day)
        before = stored_rows(url)
        archive.files.fail("*/SCL.tif", status=404)
        state, summary = run_days(day, day, again=True)
        assert (state.type, summary.failed) == (StateType.FAILED, len(before))
        archive.files.heal()
        archive.files.forget()
        state, summary = run_days(day, day)
        assert (state.type, summary.observed) == (StateType.COMPLETED, len(before))
        assert archive.files.requests > 0
        assert stored_rows(url) == before, "the same numbers keep their revision"
        assert run_days(day, day)[1].scenes == ()


def swath_run(start: dt.date, end: dt.date) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("swath")), "ndvi", "run", "--start", str(start), "--end", str(end)]
    pipe = subprocess.PIPE
    return subprocess.Popen([*command, "--json"], cwd=ROOT, env=dict(os.environ), stdout=pipe, stderr=pipe)


def test_runs_at_once_share_the_scenes_and_lose_nothing(
    season: Season, calm: Rows, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(season.folder, season.items) as archive:
        archive.files.delay_s = 0.1
        use(monkeypatch, archive.environment)
        runs = [swath_run(START, END) for _ in range(2)]
        while not query(url, "SELECT 1 FROM work LIMIT 1"):
            time.sleep(0.1)
        run_days(END, END)  # a third one, of a day that the others are at
        ends = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], ends
    for out, _ in ends:
        assert json.loads(out)["failed"] == 0
    assert without_revisions(stored_rows(url)) == without_revisions(calm)
    assert query(url, "SELECT DISTINCT state, attempts FROM work") == [("done", 1)], "no scene was read twice"
    assert query(url, "SELECT DISTINCT pending_farm_ids FROM work") == [([],)]


def test_a_reprocessed_item_replaces_what_it_made_and_nothing_else(
    season: Season, calm: Rows, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "archive"
    days = dt.date(2024, 6, 9), dt.date(2024, 6, 10)
    for day in ("20240609", "20240610"):
        [source] = season.folder.glob(f"{day}-*")
        shutil.copytree(source, folder / source.name)
    items = [item for item in season.items if item["assets"]["red"]["href"].startswith(("20240609", "20240610"))]
    with served(folder, items) as archive:
        use(monkeypatch, archive.environment)
        run_days(*days)
        first = stored_rows(url)

    renewed = copy.deepcopy(items)
    [item] = [each for each in renewed if each["id"].startswith("S2B_T34TDR_20240609")]
    item["properties"] |= {"updated": "2024-09-01T00:00:00Z", "s2:processing_baseline": "05.12"}
    brighten(folder / item["assets"]["red"]["href"])
    touched = [each for each in renewed if "20240610" in each["id"]]
    for each in touched:
        each["properties"]["updated"] = "2024-09-02T00:00:00Z"
    with served(folder, renewed) as archive:
        use(monkeypatch, archive.environment)
        state, summary = run_days(*days)
        second = stored_rows(url)
        state, third = run_days(*days)
    assert state.type == StateType.COMPLETED
    newest = max(row["revision"] for row in first.values())
    replaced = {key for key, row in first.items() if item["id"] in row["item_ids"]}
    assert len(replaced) > 10
    for key, row in second.items():
        if key not in replaced:
            assert row == first[key], "also the revision"
            continue
        assert "05.12" in row["processing_baseline"]
        assert row["revision"] > newest
        assert row["ndvi"] < first[key]["ndvi"]
    assert {str(scene.day) for scene in summary.scenes} == {"2024-06-09", "2024-06-10"}, "both were looked at again"
    assert sum(scene.saved for scene in summary.scenes) == len(replaced)
    assert third.scenes == (), "what changed nothing is not looked at for ever"


def brighten(file: Path) -> None:
    """Make red brighter by 0.05 where there are data."""
    with rasterio.open(file) as dataset:
        profile: dict[str, Any] = dict(dataset.profile)
        pixels = dataset.read(1)
    pixels[pixels > 0] += 500
    with rasterio.open(file, "w", **profile) as dataset:
        dataset.write(pixels, 1)
