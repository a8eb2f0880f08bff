"""A run on a Dask cluster that loses a worker loses nothing; one that loses its scheduler says so and is made up."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client
from prefect.client.schemas.objects import StateType

from infra.local.postgres import PostgresServer
from infra.local.prefect import PrefectServer
from tests.support.clusters import DaskProcesses, dask_processes
from tests.support.databases import TEMPLATE, fresh_database
from tests.support.flow_runs import artifact, logged, run_days, use
from tests.support.simulated import (
    Rows,
    Season,
    draw_season,
    import_farms,
    query,
    served,
    stored_rows,
    without_revisions,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

START = END = dt.date(2024, 6, 19)
NOBODY_LISTENS = "redis://127.0.0.1:9"


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> Season:
    return draw_season(tmp_path_factory.mktemp("june"), START, END)


@pytest.fixture(scope="module")
def calm(season: Season, postgres_server: PostgresServer, prefect_api: PrefectServer) -> Iterator[Rows]:
    """What a run in threads finds when nothing fails."""
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


@pytest.fixture
def url(season: Season, database_url: str, calm: Rows, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of a database with the farms, which flows of this process use."""
    use(monkeypatch, {"SWATH_DATABASE_URL": database_url, "SWATH_REDIS_URL": NOBODY_LISTENS})
    import_farms(database_url, season.farms_file)
    return database_url


@contextlib.contextmanager
def cluster_of(workers: int, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[DaskProcesses]:
    """A cluster that flows of this process use."""
    with dask_processes(folder, workers=workers) as running:
        use(patch, {"SWATH_DASK_ADDRESS": running.address, "SWATH_HTTP_CONNECT_TIMEOUT_S": "2"})
        with Client(running.address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=60)
        yield running


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DaskProcesses]:
    with cluster_of(2, tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture
def single(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DaskProcesses]:
    with cluster_of(1, tmp_path, monkeypatch) as running:
        yield running


def test_a_worker_killed_in_the_middle_of_a_scene_loses_nothing(
    season: Season, calm: Rows, url: str, pair: DaskProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(season.folder, season.items) as archive:
        archive.files.delay_s = 0.05
        use(monkeypatch, archive.environment)
        killing = pair.kill_a_busy_worker()
        state, summary = run_days(START, END)
        killing.join()
        assert len(pair.workers) == 1
        assert (state.type, summary.failed) == (StateType.COMPLETED, 0)
        assert without_revisions(stored_rows(url)) == without_revisions(calm)
        assert query(url, "SELECT DISTINCT state, attempts FROM work") == [("done", 1)], "the cluster healed it itself"

    with Client(pair.address, set_as_default=False) as client:
        dashboard = client.dashboard_link
        environments = client.run(lambda: dict(os.environ))
    assert dashboard in artifact(state)
    assert any(dashboard in line for line in logged(state))
    for environment in environments.values():
        assert not [name for name in environment if name.startswith(("SWATH_", "PREFECT_", "PG"))]


def test_a_scheduler_killed_in_the_middle_is_said_and_the_next_run_brings_the_rest(
    season: Season, calm: Rows, url: str, single: DaskProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(season.folder, season.items) as archive:
        archive.files.delay_s = 0.05
        use(monkeypatch, archive.environment | {"SWATH_SCENE_RETRIES": "1"})
        killing = threading.Thread(target=kill_when_something_is_saved, args=(single, url))
        killing.start()
        state, summary = run_days(START, END)
        killing.join()
        first = without_revisions(stored_rows(url))
        assert state.type == StateType.FAILED
        assert "Dask" in (state.message or "")
        assert summary.failed > 0
        assert summary.failed + len(first) == len(calm)
        assert first.items() <= without_revisions(calm).items()
        assert query(url, "SELECT bool_and(is_retryable) FROM work WHERE state = 'failed'") == [(True,)]

        monkeypatch.delenv("SWATH_DASK_ADDRESS")
        state, summary = run_days(START, END)
    assert (state.type, summary.failed) == (StateType.COMPLETED, 0)
    assert without_revisions(stored_rows(url)) == without_revisions(calm)


def kill_when_something_is_saved(cluster: DaskProcesses, url: str) -> None:
    while not query(url, "SELECT 1 FROM work WHERE state = 'done' LIMIT 1"):
        time.sleep(0.02)
    cluster.scheduler.kill()
