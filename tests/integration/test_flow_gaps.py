"""Passes that are missing: in one catalog they come from the other, in both they are said to be missing."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

import pytest
from prefect.client.schemas.objects import StateType

from infra.local.prefect import PrefectServer
from infra.sandbox.archive import write_passes
from tests.support.flow_runs import artifact, run_days, use
from tests.support.simulated import C1, L2A, Season, draw_season, execute, import_farms, query, served, stored_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

START, END = dt.date(2024, 7, 9), dt.date(2024, 7, 24)
IN_L2A_ALONE, IN_NEITHER, IN_C1_ALONE = dt.date(2024, 7, 9), dt.date(2024, 7, 19), dt.date(2024, 7, 24)
GAPS = "SELECT tile, platform, relative_orbit, day, farms, filled_at IS NOT NULL FROM gaps ORDER BY tile"


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> Season:
    return draw_season(tmp_path_factory.mktemp("july"), START, END)


@pytest.fixture
def url(
    season: Season, database_url: str, redis_url: str, prefect_api: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Address of a database with the farms, which flows of this process use."""
    use(monkeypatch, {"SWATH_DATABASE_URL": database_url, "SWATH_REDIS_URL": redis_url})
    import_farms(database_url, season.farms_file)
    return database_url


def test_gaps_are_filled_from_the_other_catalog_and_told_of_where_neither_has_the_pass(
    season: Season, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(season.folder, season.items) as archive:
        use(monkeypatch, archive.environment)
        state, summary = run_days(START, END)
    rows = stored_rows(url)
    assert {row["catalog"] for (_, day), row in rows.items() if day == IN_L2A_ALONE} == {L2A}
    assert {row["catalog"] for (_, day), row in rows.items() if day == IN_C1_ALONE} == {C1}
    assert not [day for _, day in rows if day == IN_NEITHER]
    seen_before = {farm for (farm, day), row in rows.items() if day == IN_L2A_ALONE and row["status"] != "outside"}
    found = query(url, GAPS)
    assert [row[:4] + row[5:] for row in found] == [
        ("34TDR", "sentinel-2b", 36, IN_NEITHER, False),
        ("34TER", "sentinel-2b", 36, IN_NEITHER, False),
    ]
    assert len(seen_before) <= sum(row[4] for row in found) <= len(seen_before) + 2, "some see both tiles"
    assert state.type == StateType.COMPLETED, "nobody here can fill it"
    assert "2 passes missing in all catalogs" in (state.message or "")
    assert summary.completeness.told == (), "of passes of long ago nobody is told"

    execute(url, "UPDATE gaps SET expected_at = now() - interval '5 days'")
    with served(season.folder, season.items) as archive:
        use(monkeypatch, archive.environment)
        for expected in (["34TDR", "34TER"], []):
            state, summary = run_days(IN_C1_ALONE, IN_C1_ALONE)
            assert [gap.tile for gap in summary.completeness.told] == expected, "once"
            assert ("**in no catalog**: 34TDR 2024-07-19 by sentinel-2b" in artifact(state)) == bool(expected)

    [missing] = [each for each in season.truth.passes if each.is_missing]
    late = dataclasses.replace(missing, is_missing_in_l2a=False)
    other = next(each for each in season.truth.passes if each.day == IN_C1_ALONE)
    items = write_passes(season.truth.world, (late, other), tmp_path / "late")
    with served(tmp_path / "late", items) as archive:
        use(monkeypatch, archive.environment)
        state, summary = run_days(IN_NEITHER, IN_NEITHER)
    assert (state.type, summary.completeness.missing) == (StateType.COMPLETED, 0)
    assert {day for _, day in stored_rows(url)} >= {IN_NEITHER}
    assert [row[-1] for row in query(url, GAPS)] == [True, True]


def test_files_that_are_never_delivered_are_read_from_the_next_catalog_once_given_up(
    season: Season, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = dt.date(2024, 7, 14)
    with served(season.folder, season.items) as archive:
        use(monkeypatch, archive.environment | {"SWATH_SCENE_RUNS": "2"})
        archive.files.fail("*/sentinel-2-c1-l2a/*", status=404)
        state, summary = run_days(day, day)
        assert (state.type, summary.observed) == (StateType.FAILED, 0)
        assert all("to be tried again from" in (scene.outlook or "") for scene in summary.scenes)
        state, summary = run_days(day, day)
        assert state.type == StateType.FAILED
        assert all("read from elsewhere next time" in (scene.outlook or "") for scene in summary.scenes)
        state, summary = run_days(day, day)
        assert state.type == StateType.COMPLETED
        assert summary.observed > 10
        assert {row["catalog"] for row in stored_rows(url).values()} == {L2A}
        assert run_days(day, day)[1].scenes == (), "and that is that"

        archive.files.fail("*", status=404)
        for expected in ("to be tried again", "given up after 2 runs"):
            _, summary = run_days(IN_L2A_ALONE, IN_L2A_ALONE)
            assert all(expected in (scene.outlook or "") for scene in summary.scenes)
        archive.files.heal()
        _, summary = run_days(day, day)
        assert summary.scenes == (), "a run of other days leaves it alone"
        state, summary = run_days(IN_L2A_ALONE, IN_L2A_ALONE)
        assert (state.type, len(summary.scenes)) == (StateType.COMPLETED, 3), "somebody who asks gets it tried"
