"""The daily flow on a simulated month: what it finds, what it leaves behind, and what it does the second time."""

from __future__ import annotations

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State, StateType, TaskRun
from redis import Redis

from flows.ndvi import MAX_LOOKBACK_DAYS, RunSummary, daily_ndvi, ndvi_days
from infra.local.postgres import PostgresServer
from infra.local.prefect import PrefectServer
from infra.local.valkey import ValkeyServer
from models.domain import MaskPolicy
from models.errors import BadInput
from models.readmodel import read_models
from tests.support.databases import TEMPLATE, fresh_database
from tests.support.flow_runs import artifact, artifact_rows, recorded_task_runs, run_days, use
from tests.support.simulated import (
    C1,
    L2A,
    Rows,
    Season,
    Served,
    database,
    draw_season,
    import_farms,
    query,
    served,
    stored_rows,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

START, END = dt.date(2024, 6, 1), dt.date(2024, 6, 30)
GAP, TWICE, SPLIT = dt.date(2024, 6, 4), dt.date(2024, 6, 19), dt.date(2024, 6, 29)
"""A pass missing in the first collection, one processed twice in the second, one in two datastrips."""
SOUTH, EDGE = dt.date(2024, 6, 20), dt.date(2024, 6, 7)
COMPARED = (GAP, EDGE, TWICE, SOUTH, SPLIT)
SOMEBODY = uuid.UUID(int=1)
ROUNDING = 2e-4
"""Pixels are whole numbers, steps of 0.0001 in reflectance: half a step of red 0.02 beside near infrared 0.4 is 0.0002
in NDVI, and over the pixels of a farm it averages out."""


@dataclass(frozen=True)
class June:
    """The month after one run over it: made once, looked at by several tests."""

    season: Season
    archive: Served
    state: State[Any]
    summary: RunSummary
    rows: Rows
    task_runs: dict[str, TaskRun]
    in_redis: dict[str, tuple[int, bytes]]
    in_postgres: dict[str, tuple[int, bytes]]
    second: RunSummary
    rows_after: Rows
    requests_of_second: int


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> Season:
    return draw_season(tmp_path_factory.mktemp("june"), START, END)


@pytest.fixture(scope="module")
def june(
    season: Season, postgres_server: PostgresServer, valkey_server: ValkeyServer, prefect_api: PrefectServer
) -> Iterator[June]:
    with (
        fresh_database(postgres_server, template=TEMPLATE) as url,
        served(season.folder, season.items) as archive,
        pytest.MonkeyPatch.context() as patch,
        Redis.from_url(valkey_server.url) as client,
    ):
        client.flushall()
        use(patch, archive.environment | {"SWATH_DATABASE_URL": url, "SWATH_REDIS_URL": valkey_server.url})
        assert import_farms(url, season.farms_file) == len(season.truth.farms)
        state, summary = run_days(START, END)
        rows = stored_rows(url)
        in_redis = {key.decode(): read_hash(client, key) for key in client.scan_iter("swath:*:state")}
        with database(url) as engine, engine.connect() as connection:
            models = list(read_models(connection, None, mask_policy=MaskPolicy().name))
        archive.files.forget()
        _, second = run_days(START, END)
        requests, rows_after = archive.files.requests, stored_rows(url)
        yield June(
            season,
            archive,
            state,
            summary,
            rows,
            recorded_task_runs(state, expected=len(summary.scenes) + 2),
            in_redis,
            {model.key: (model.revision, model.body) for model in models},
            second,
            rows_after,
            requests,
        )


def read_hash(client: Redis, key: bytes) -> tuple[int, bytes]:
    found = client.hgetall(key)
    return int(found[b"revision"]), found[b"body"]


def test_every_farm_is_found_as_it_was_drawn(june: June) -> None:
    truth = june.season.truth
    checked: Counter[str] = Counter()
    for a_pass in truth.passes:
        for farm in truth.farms:
            row = june.rows.get((farm.external_farm_id, a_pass.day))
            if farm.district != a_pass.district:
                assert row is None
                continue
            clear = truth.clear_fraction(farm.external_farm_id, a_pass)
            if row is None:
                # the second orbit never reaches the eastern tile
                assert a_pass.is_partial
                assert clear == 0
                continue
            assert row["clear_fraction"] == pytest.approx(clear, abs=1e-6), (farm.name, a_pass.name)
            assert (row["status"] == "observed") == (clear > 0), (farm.name, a_pass.name)
            checked[row["status"]] += 1
            if clear > 1 - 1e-9 and a_pass.day in COMPARED:
                expected = truth.seen_ndvi(farm.external_farm_id, a_pass.day)
                assert row["mean"] == pytest.approx(expected, abs=ROUNDING), (farm.name, a_pass.name)
                checked[farm.trait] += 1
    assert checked["observed"] + checked["cloud"] + checked["outside"] == len(june.rows)
    # of every kind of farm there was one to look at under a clear sky
    assert {farm.trait for farm in truth.farms} - {"rim"} <= set(checked)


def test_gaps_splits_mosaics_and_edges_show_in_the_rows(june: June) -> None:
    by_day = {day: [row for (_, of), row in june.rows.items() if of == day] for day in (GAP, SPLIT)}
    assert {row["catalog"] for row in by_day[GAP]} == {L2A}, "the second collection fills the gap of the first"
    assert {row["catalog"] for (_, day), row in june.rows.items() if day != GAP} == {C1}
    long_meadow = june.season.farm_id("Long Meadow")
    for (farm_id, _), row in june.rows.items():
        tiles = {item_id.split("_")[1].removeprefix("T") for item_id in row["item_ids"]}
        assert len(tiles) == (2 if farm_id == long_meadow and len(row["item_ids"]) > 1 else 1)
    assert sum(len(row["item_ids"]) == 2 for row in by_day[SPLIT]) > 1, "a farm on the line needs both datastrips"
    outside = [day for (_, day), row in june.rows.items() if row["status"] == "outside"]
    assert set(outside) == {a_pass.day for a_pass in june.season.truth.passes if a_pass.is_partial}
    swaths_end = june.rows[june.season.farm_id("Swath's End"), EDGE]
    assert 0.1 < swaths_end["clear_fraction"] < 0.9


def test_the_run_is_completed_and_counts_every_row(june: June) -> None:
    assert june.state.type == StateType.COMPLETED
    by_status = Counter(row["status"] for row in june.rows.values())
    assert june.summary.observed == by_status.pop("observed")
    assert june.summary.not_observed == dict(sorted(by_status.items()))
    assert june.summary.failed == 0
    assert [report.catalog for report in june.summary.catalogs] == [C1, L2A]
    assert june.state.message is not None
    assert f"{june.summary.observed} observed" in june.state.message


def test_prefect_shows_a_run_a_scene_that_a_person_can_read_and_a_summary(june: June) -> None:
    scenes = {
        f"{each.tile_set} {each.day}: {each.farms} {'farm' if each.farms == 1 else 'farms'}"
        for each in june.summary.scenes
    }
    assert set(june.task_runs) == scenes | {f"search {C1}", f"search {L2A}"}
    assert any(name.startswith("34TDR 2024-06-29: ") for name in scenes)
    cells = {(each[0], each[1]): each for each in artifact_rows(june.state)}
    assert len(cells) == len(june.summary.scenes)
    for each in june.summary.scenes:
        counts = [each.not_observed.get(why, 0) for why in ("cloud", "outside", "nodata")]
        numbers = [str(number) for number in (each.farms, each.observed, *counts, each.failed)]
        assert cells[str(each.day), each.tile_set][2:9] == [each.catalog, *numbers]
    assert f"{june.summary.observed:,} observed" in artifact(june.state)


def test_what_readers_are_given_is_what_postgres_says(june: June) -> None:
    assert len(june.in_redis) == len(june.season.truth.farms)
    assert june.in_redis == june.in_postgres


def test_a_second_run_reads_nothing_and_writes_nothing(june: June) -> None:
    assert june.requests_of_second == 0
    assert june.second.scenes == ()
    assert june.rows_after == june.rows, "also the revisions"


@pytest.fixture
def stores(
    database_url: str, redis_url: str, prefect_api: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    environment = {"SWATH_DATABASE_URL": database_url, "SWATH_REDIS_URL": redis_url}
    use(monkeypatch, environment)
    return environment


def test_a_catalog_that_fails_stops_no_other_and_is_a_loss_that_is_said(
    june: June, stores: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import_farms(stores["SWATH_DATABASE_URL"], june.season.farms_file)
    use(monkeypatch, june.archive.environment)
    monkeypatch.setenv("SWATH_STAC_COLLECTION", "no-such-collection,sentinel-2-l2a")
    state, summary = run_days(TWICE, TWICE)
    rows = stored_rows(stores["SWATH_DATABASE_URL"])
    assert state.type == StateType.FAILED
    assert "catalog 127.0.0.1/no-such-collection could not be searched" in (state.message or "")
    assert summary.failed == 0
    assert {(row["catalog"], row["processing_baseline"]) for row in rows.values()} == {(L2A, "05.11")}
    # the older processing of the second collection has too much red, and the offset is out of its pixels
    for key, row in rows.items():
        same = june.rows[key]
        assert row["mean"] == pytest.approx(same["mean"], abs=1e-9) if same["mean"] else row["mean"] is None

    monkeypatch.setenv("SWATH_STAC_COLLECTION", "sentinel-2-c1-l2a,no-such-collection")
    state, summary = run_days(TWICE, TWICE)
    assert state.type == StateType.FAILED, "passes that only it has are missing"
    assert "no-such-collection could not be searched" in (state.message or "")
    assert "**catalog 127.0.0.1/no-such-collection could not be searched**" in artifact(state)
    assert {row["catalog"] for row in stored_rows(stores["SWATH_DATABASE_URL"]).values()} == {C1}

    monkeypatch.setenv("SWATH_STAC_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SWATH_STAC_COLLECTION", "sentinel-2-c1-l2a")
    state, summary = run_days(TWICE, TWICE)
    assert state.type == StateType.FAILED
    assert summary.scenes == ()


def test_todays_passes_are_observed_without_naming_days(
    tmp_path: Path, stores: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    today = dt.datetime.now(dt.UTC).date()
    recent = draw_season(tmp_path, today - dt.timedelta(days=12), today)
    import_farms(stores["SWATH_DATABASE_URL"], recent.farms_file)
    with served(recent.folder, recent.items) as archive:
        use(monkeypatch, archive.environment)
        state = daily_ndvi(return_state=True)
    summary = state.result(raise_on_failure=False)
    assert state.type == StateType.COMPLETED, state.message
    first = summary.start
    assert first in (today - dt.timedelta(days=10), today - dt.timedelta(days=9))
    days = {day for (_, day) in stored_rows(stores["SWATH_DATABASE_URL"])}
    assert days == {each.day for each in recent.truth.passes if each.day >= first and not each.is_missing}


def test_parameters_out_of_range_are_refused_and_no_farms_are_no_work(
    stores: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = {
        "lookback_days": daily_ndvi(lookback_days=MAX_LOOKBACK_DAYS + 1, return_state=True),
        "start": ndvi_days(END, START, return_state=True),
        "farm": ndvi_days(START, END, farms=[SOMEBODY], return_state=True),
    }
    for field, state in refused.items():
        error = state.result(raise_on_failure=False)
        assert isinstance(error, BadInput)
        assert error.field == field
        assert state.type == StateType.FAILED
    state, summary = run_days(START, END)
    assert state.type == StateType.COMPLETED
    assert (summary.farms, summary.scenes) == (0, ())
    assert query(stores["SWATH_DATABASE_URL"], "SELECT count(*) FROM work") == [(0,)]
