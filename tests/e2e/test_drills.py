"""Fault drills: something breaks in the middle of a run, and in the end not one observation is lost or doubled.

All drills share one small archive, and one truth: what a run makes of it when nobody disturbs it. Whole tables are
compared. The days are the last ones, as for every daily run: eight, in which each orbit comes by. What is killed are
parts of one `swath up`, by which they are started again.

Losing a Dask worker is in `test_observe_distributed.py`, two backfills at once in `test_backfill.py`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.schemas.objects import StateType
from redis import Redis

from infra.local.home import temporary_home
from infra.local.postgres import PostgresServer, local_postgres
from infra.local.prefect import PrefectServer
from infra.local.processes import pid_in
from models.readmodel import state_key
from models.schema import upgrade
from tests.support.archives import ROOT
from tests.support.clock import jumping_clock
from tests.support.databases import TEMPLATE, fresh_database
from tests.support.faults import Kind
from tests.support.file_server import FileServer
from tests.support.flow_runs import run_days, use
from tests.support.house import DONE_WITHIN_S, House, house_of, until
from tests.support.simulated import Season, draw_season, execute, import_farms, query, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LAST = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=2)
FIRST = LAST - dt.timedelta(days=7)
LOOKBACK_DAYS = 12

OBSERVATIONS = """
SELECT to_jsonb(o) - 'farm_id' - 'revision' - 'updated_at' || jsonb_build_object('farm', f.external_farm_id)
FROM observations AS o JOIN farms AS f ON f.id = o.farm_id
ORDER BY f.external_farm_id, o.boundary_version, o.acquired_at, o."index", o.mask_policy
"""
"""All but when it was written; numbers of rows differ between databases."""
UNFINISHED = "SELECT day, tile_set, state, pending_farm_ids FROM work WHERE state <> 'done' OR pending_farm_ids <> '{}'"
OUTCOMES = "SELECT outcome FROM runs WHERE kind = 'daily-ndvi' ORDER BY started_at"
FORGET = "TRUNCATE observations, work, scenes, gaps, catalog_searches, runs"
NOBODY_LISTENS = "redis://127.0.0.1:9"
IN_HAND = "*20HNH*/SCL.tif"
"""Files of one scene, of a tile of its own."""

Table = list[Any]


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> Season:
    return draw_season(tmp_path_factory.mktemp("days"), FIRST, LAST)


@pytest.fixture(scope="module")
def house(season: Season) -> Iterator[House]:
    with served(season.folder, season.items) as archive, house_of(archive) as found:
        import_farms(found.database_url, season.farms_file)
        yield found


@pytest.fixture(scope="module")
def truth(house: House, season: Season, postgres_server: PostgresServer, prefect_api: PrefectServer) -> Table:
    """What a run makes of the archive when nobody disturbs it."""
    with fresh_database(postgres_server, template=TEMPLATE) as url, pytest.MonkeyPatch.context() as patch:
        use(patch, house.archive.environment | {"SWATH_DATABASE_URL": url, "SWATH_REDIS_URL": NOBODY_LISTENS})
        import_farms(url, season.farms_file)
        state, _ = run_days(FIRST, LAST)
        assert state.type == StateType.COMPLETED
        found = observations(url)
    assert len({row["farm"] for row in found}) > 30
    return found


def observations(url: str) -> Table:
    return [row for (row,) in query(url, OBSERVATIONS)]


def is_in_the_middle(files: FileServer, url: str) -> bool:
    """Whether one scene is in hand and others are saved."""
    is_stalled = any(request.fault is Kind.STALL for request in files.log)
    return is_stalled and bool(query(url, "SELECT 1 FROM observations LIMIT 1"))


@contextlib.contextmanager
def run_in_the_middle(house: House) -> Iterator[str]:
    """Give the id of a daily run that has saved some scenes and has one in hand; after the block it goes on."""
    execute(house.database_url, FORGET)
    with Redis.from_url(house.redis_url) as client:
        client.flushall()
    files = house.archive.files
    files.forget()
    files.stall(IN_HAND, limit_s=DONE_WITHIN_S)
    try:
        run_id = house.start_run(lookback_days=LOOKBACK_DAYS)
        assert until(lambda: is_in_the_middle(files, house.database_url)), house.log()
        assert query(house.database_url, UNFINISHED)
        yield run_id
    finally:
        files.heal()


def process_in(file: Path) -> psutil.Process:
    """The process whose number is in a file."""
    pid = pid_in(file)
    assert pid is not None
    return psutil.Process(pid)


def is_whole(url: str, truth: Table) -> bool:
    """Whether nothing is lost, nothing doubled, and nothing left to do; says what is."""
    assert query(url, UNFINISHED) == []
    assert observations(url) == truth
    return True


def test_a_killed_flow_process_is_told_and_the_next_run_does_the_rest(house: House, truth: Table) -> None:
    with run_in_the_middle(house) as run_id:
        [(pid,)] = query(house.database_url, "SELECT pid FROM runs WHERE ended_at IS NULL AND kind = 'daily-ndvi'")
        psutil.Process(pid).kill()
        assert house.end_of(run_id) == "CRASHED"
    status = house.status()
    assert status["queue"]["left_behind"] == len(query(house.database_url, UNFINISHED)) > 0
    assert status["queue"]["at_work"] == 0
    told = [(run["flow_run_id"], run["outcome"]) for run in status["runs"] if run["kind"] == "daily-ndvi"]
    assert told == [(run_id, "died")]
    assert status["needs_person"] == [], "it heals by itself"
    assert house.end_of(house.start_run(lookback_days=LOOKBACK_DAYS)) == "COMPLETED", house.log()
    assert is_whole(house.database_url, truth)
    assert query(house.database_url, OUTCOMES) == [("died",), ("ended",)]


def test_the_run_of_a_killed_worker_and_all_its_children_goes_on_by_itself(house: House, truth: Table) -> None:
    with run_in_the_middle(house) as run_id:
        worker = house.part("worker", "swath")
        for process in [worker, *worker.children(recursive=True)]:
            process.kill()
    assert house.end_of(run_id) == "COMPLETED", house.log()
    assert house.run(run_id)["run_count"] == 2
    assert is_whole(house.database_url, truth)
    assert query(house.database_url, OUTCOMES) == [("broken",), ("ended",)]


def test_postgres_may_be_killed_under_a_run(house: House, truth: Table) -> None:
    with run_in_the_middle(house) as run_id:
        process_in(house.home / "postgres" / "data" / "postmaster.pid").kill()
    if house.end_of(run_id) != "COMPLETED":  # away for longer than a scene is patient; then the next run does the rest
        assert house.end_of(house.start_run(lookback_days=LOOKBACK_DAYS)) == "COMPLETED", house.log()
    assert is_whole(house.database_url, truth)


def test_redis_and_prefects_server_may_be_killed_under_a_run_which_keeps_its_place(house: House, truth: Table) -> None:
    with run_in_the_middle(house) as run_id:
        killed = [house.part("prefect_child.py"), process_in(house.home / "valkey" / "valkey.pid")]
        for process in killed:
            process.kill()
        psutil.wait_procs(killed)
        assert until(lambda: house.redis_answers() and house.run(run_id)), house.log()
        # Prefect's client asks for this every few minutes, and ends a run whose place is forgotten.
        lease = house.run(run_id)["state"]["state_details"]["deployment_concurrency_lease_id"]
        renewal = house.prefect.post(f"v2/concurrency_limits/leases/{lease}/renew", json={"lease_duration": 300})
        assert renewal.is_success, renewal.text
    assert house.end_of(run_id) == "COMPLETED", house.log()
    assert is_whole(house.database_url, truth)
    newest = {row["farm"]: row["ndvi"] for row in sorted(truth, key=lambda row: str(row["acquired_at"])) if row["ndvi"]}
    with Redis.from_url(house.redis_url) as client:
        for farm, ndvi in newest.items():
            body = json.loads(client.hget(state_key(uuid.UUID(farm)), "body") or b"{}")
            assert body["latest"]["ndvi"] == ndvi, "readers are told of what was saved while Redis was away"


@contextlib.contextmanager
def swath_run(house: House, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """`swath ndvi run` over all days, on stores of its own, in the middle of its work; after the block it goes on."""
    files = house.archive.files
    files.forget()
    files.stall(IN_HAND, limit_s=DONE_WITHIN_S)
    run = subprocess.Popen(
        [Path(sys.executable).with_name("swath"), "ndvi", "run", "--start", str(FIRST), "--end", str(LAST), "--json"],
        env=os.environ | house.archive.environment | environment | {"SWATH_HTTP_TIMEOUT_S": "120"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = environment["SWATH_DATABASE_URL"]
        assert until(lambda: run.poll() is not None or is_in_the_middle(files, url))
        yield run
    finally:
        files.heal()
        try:
            run.communicate(timeout=DONE_WITHIN_S)
        finally:
            run.kill()


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    """A home on a file system of its own that is soon full."""
    with temporary_home() as home:
        command = ["mount", "-t", "tmpfs", "-o", "size=400m,mode=0711", "tmpfs", str(home)]
        if os.geteuid() != 0 or sys.platform != "linux":
            pytest.skip("only root, on Linux, can mount a small file system")
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
        try:
            yield home
        finally:
            subprocess.run(["umount", "--lazy", home], check=True)


def fill(file: Path) -> None:
    """Write until nothing more goes onto the disk."""
    with file.open("wb", buffering=0) as opened:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while opened.write(bytes(size)) == size:
                    pass


def test_a_disk_that_is_full_loses_nothing_that_was_saved_and_the_next_run_does_the_rest(
    house: House,
    truth: Table,
    season: Season,
    redis_url: str,
    prefect_api: PrefectServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with small_disk() as home:
        with local_postgres(home) as postgres:
            url = postgres.url
            upgrade(url)
            import_farms(url, season.farms_file)
            own = {"SWATH_HOME": str(home), "SWATH_DATABASE_URL": url, "SWATH_REDIS_URL": redis_url}
            with swath_run(house, own) as run:
                saved = observations(url)
                fill(home / "filler")
            assert run.returncode == 1
            (home / "filler").unlink()
        with local_postgres(home):  # started again, should it have given up
            after = observations(url)
            assert all(row in truth for row in after)
            assert all(row in after for row in saved)
            assert len(after) < len(truth), "the disk was not full"
            use(monkeypatch, own | house.archive.environment)
            state, _ = run_days(FIRST, LAST)
            assert state.type == StateType.COMPLETED
            assert is_whole(url, truth)


def test_a_clock_that_jumps_an_hour_and_back_under_a_run_changes_nothing(
    house: House,
    truth: Table,
    season: Season,
    database_url: str,
    redis_url: str,
    prefect_api: PrefectServer,
    tmp_path: Path,
) -> None:
    import_farms(database_url, season.farms_file)
    clock = jumping_clock(tmp_path)
    own = {"SWATH_DATABASE_URL": database_url, "SWATH_REDIS_URL": redis_url}
    with swath_run(house, own | clock.environment) as run:
        clock.jump(3600)
        assert until(lambda: len(query(database_url, UNFINISHED)) == 1)
        clock.jump(-3600)
    assert run.returncode == 0
    assert is_whole(database_url, truth)
    assert query(database_url, "SELECT outcome, started_at <= ended_at FROM runs") == [("ended", True)]
