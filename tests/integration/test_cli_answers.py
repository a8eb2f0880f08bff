"""What `swath export`, `status`, `explain` and the end of a run tell, whatever words upstreams put in."""

from __future__ import annotations

import datetime as dt
import io
import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from flows.ndvi import RunSummary
from infra.cli.explain import explain
from infra.cli.export import app as export_app
from infra.cli.ndvi import print_summary
from infra.cli.status import status
from models.domain import Observation, SkippedItem
from models.errors import BadInput
from models.ledger import begin_work, finish_work, plan_work, record_scenes
from models.observation_rows import differences
from models.observations import observation_of, save_observations
from tasks.steps import CatalogReport, SceneReport
from tests.support.facts import NOON, POLICY, engine_for, observed, statistics, store_farms, unseen, work
from tests.support.flow_runs import run_days, use
from tests.support.simulated import draw_season, import_farms, served, stored_rows

app = typer.Typer()
app.command("status")(status)
app.command("explain")(explain)
app.add_typer(export_app, name="export")

MARKUP = "status 400: [/api/v1/search] [bold]bad"
"""As a catalog answers: `[/...]` without a beginning is an error to rich, `[bold]` would be swallowed."""


HALF_WAY = float.fromhex("0x1.f80c7fp-7")
"""Exactly between two numbers of single precision: Postgres takes the lower one, Python the upper one."""


@pytest.fixture
def engine(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("SWATH_DATABASE_URL", database_url)
    monkeypatch.setenv("SWATH_REDIS_URL", redis_url)
    monkeypatch.setenv("COLUMNS", "200")
    made = engine_for(database_url)
    yield made
    made.dispose()


def swath(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def save(engine: Engine, *given: Observation) -> None:
    with engine.begin() as connection:
        save_observations(connection, given)


def deactivate(engine: Engine, farm_id: int) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE farms SET is_active = false WHERE id = :id"), {"id": farm_id})


def stored_row(engine: Engine) -> dict[str, Any]:
    with engine.connect() as connection:
        [row] = observation_of(connection, uuid.UUID(int=1), NOON.date(), POLICY)
    return row


class TestEndOfARun:
    DAYS: dict[str, Any] = {"start": dt.date(2024, 6, 1), "end": dt.date(2024, 6, 2)}
    BROKEN = SceneReport(
        tile_set="[/33TWM]",
        day=dt.date(2024, 6, 1),
        catalog="c",
        farms=3,
        observed=2,
        not_observed={"cloud": 1},
        failed=1,
        saved=2,
        problem=MARKUP,
        warnings=(),
        is_elsewhere=False,
    )
    SEARCHED = CatalogReport(catalog="c", scenes=0, skipped={})

    def told(self, summary: RunSummary) -> str:
        console = Console(file=io.StringIO(), width=200)
        print_summary(console, summary)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    def test_what_an_upstream_said_is_told_word_for_word(self) -> None:
        told = self.told(RunSummary(**self.DAYS, farms=3, scenes=(self.BROKEN,), catalog_problems={"[/c]": MARKUP}))
        assert f"catalog [/c] could not be searched: {MARKUP}" in told
        [row] = [line for line in told.splitlines() if "[/33TWM]" in line]
        assert MARKUP in row

    def test_nothing_was_due_is_said_only_when_it_is_known(self) -> None:
        problems = {"d": "status 503"}
        assert "no farms yet" in self.told(RunSummary(**self.DAYS, farms=0))
        assert "Nothing was due.\n" in self.told(RunSummary(**self.DAYS, farms=3, catalogs=(self.SEARCHED,)))
        unknown = self.told(RunSummary(**self.DAYS, farms=3, catalog_problems=problems))
        assert "No catalog could be searched, so what is due is not known." in unknown
        partly = self.told(RunSummary(**self.DAYS, farms=3, catalogs=(self.SEARCHED,), catalog_problems=problems))
        assert "Nothing was due in the catalogs that could be searched." in partly


class TestStatus:
    def test_problems_and_reasons_are_told_word_for_word(self, engine: Engine) -> None:
        farm_ids = store_farms(engine, 2)
        job = work(farm_ids)
        method: dict[str, Any] = {"index": "ndvi", "mask_policy": POLICY}
        outcome: dict[str, Any] = {"observed": 1, "not_observed": {}, "problem": MARKUP, "is_retryable": True}
        with engine.begin() as connection:
            plan_work(connection, [job], **method)
            begin_work(connection, job, **method)
            finish_work(connection, job, **method, **outcome, failed_farm_ids=farm_ids[:1])
            skipped = SkippedItem(catalog="c", collection="k", item_id="i", reason="no [/red] asset")
            record_scenes(connection, [], [skipped])
        result = swath("status")
        assert result.exit_code == 1, result.exception
        assert MARKUP in result.stdout
        assert "items skipped     1: no [/red] asset" in result.stdout
        [item] = json.loads(swath("status", "--json").stdout)["skipped_items"]
        assert item == {"catalog": "c", "collection": "k", "item_id": "i", "reason": "no [/red] asset"}


class TestExport:
    @pytest.fixture
    def farm_ids(self, engine: Engine) -> list[int]:
        farm_ids = store_farms(engine, 2)
        save(engine, *(observed(farm_id) for farm_id in farm_ids))
        deactivate(engine, farm_ids[0])
        return farm_ids

    @pytest.mark.usefixtures("farm_ids")
    @pytest.mark.parametrize("ending", ["csv", "parquet", "geojson"])
    def test_a_farm_that_is_named_is_exported_active_or_not(self, tmp_path: Path, ending: str) -> None:
        out = tmp_path / f"[out].{ending}"
        result = swath("export", "ndvi", "--farm", uuid.UUID(int=1), "-o", out)
        assert result.exit_code == 0, result.exception
        assert f"1 rows in {out}" in result.stdout

    @pytest.mark.usefixtures("farm_ids")
    def test_the_outline_is_that_of_the_farm(self, tmp_path: Path) -> None:
        swath("export", "ndvi", "--farm", uuid.UUID(int=1), "-o", tmp_path / "out.geojson")
        [found] = json.loads((tmp_path / "out.geojson").read_text())["features"]
        assert found["geometry"]["type"] == "Polygon"
        assert found["properties"]["external_farm_id"] == str(uuid.UUID(int=1))

    @pytest.mark.usefixtures("farm_ids")
    @pytest.mark.parametrize("ending", ["csv", "geojson"])
    def test_a_farm_that_nobody_knows_is_refused_and_nothing_written(self, tmp_path: Path, ending: str) -> None:
        out = tmp_path / f"out.{ending}"
        result = swath("export", "ndvi", "--farm", uuid.UUID(int=2), "--farm", uuid.UUID(int=9), "-o", out)
        assert isinstance(result.exception, BadInput)
        assert str(uuid.UUID(int=9)) in str(result.exception)
        assert str(uuid.UUID(int=2)) not in str(result.exception)
        assert not out.exists()


class TestExplain:
    @pytest.mark.slow
    @pytest.mark.timeout(200)
    @pytest.mark.usefixtures("prefect_api")
    def test_a_number_is_made_again_to_the_last_bit_unless_scenes_or_settings_changed(
        self, engine: Engine, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        days = dt.date(2024, 6, 9), dt.date(2024, 6, 10)
        season = draw_season(tmp_path, *days)
        import_farms(database_url, season.farms_file)
        with served(season.folder, season.items) as archive:
            use(monkeypatch, archive.environment)
            run_days(*days)
            farm_id, day = next(key for key, row in stored_rows(database_url).items() if row["status"] == "observed")
            with engine.begin() as connection:
                connection.execute(text("UPDATE farms SET is_active = false"))
            [same] = json.loads(swath("explain", farm_id, day, "--json").stdout)
            monkeypatch.setenv("SWATH_INNER_MARGIN_M", "3")
            [other] = json.loads(swath("explain", farm_id, day, "--json").stdout)
        assert same["differences"] == []
        assert (same["is_identical"], same["problem"]) == (True, None)
        assert "scenes or settings have changed" in other["problem"]

    def test_a_farm_that_was_deactivated_is_explained_word_for_word(self, engine: Engine) -> None:
        [farm_id] = store_farms(engine, 1)
        save(engine, observed(farm_id, item_ids=("[/S2B_33TWM]",)))
        deactivate(engine, farm_id)
        result = swath("explain", uuid.UUID(int=1), NOON.date())
        assert result.exit_code == 1, result.exception
        assert "[/S2B_33TWM]" in result.stdout
        assert "not possible: its scenes are not in the ledger any more" in result.stdout

    def test_what_is_stored_is_identical_to_what_was_computed(self, engine: Engine) -> None:
        [farm_id] = store_farms(engine, 1)
        numbers = replace(statistics(), histogram=(HALF_WAY, *(number / 7 for number in range(1, 40))))
        for given in (observed(farm_id, statistics=numbers), unseen(farm_id)):
            save(engine, given)
            assert differences(stored_row(engine), given) == {}

    @pytest.mark.parametrize(
        "name", ["inner_median", "inner_pixel_count", "pixel_count", "clipped_count", "histogram", "mean", "p10"]
    )
    def test_every_statistic_counts(self, engine: Engine, name: str) -> None:
        [farm_id] = store_farms(engine, 1)
        given = observed(farm_id)
        save(engine, given)
        assert given.statistics is not None
        old = getattr(given.statistics, name)
        new = (0.1, *old[1:]) if name == "histogram" else old + 1 if isinstance(old, int) else old * (1 + 1e-15)
        changes: dict[str, Any] = {name: new}
        again = replace(given, statistics=replace(given.statistics, **changes))
        assert set(differences(stored_row(engine), again)) == {name}

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("rule", None),
            ("class_counts", (1,) * 12),
            ("item_ids", ("another",)),
            ("catalog", "another"),
            ("processing_baseline", None),
            ("rescale_rule", "another"),
            ("clear_fraction", 0.5),
        ],
    )
    def test_where_it_came_from_counts(self, engine: Engine, name: str, value: Any) -> None:
        [farm_id] = store_farms(engine, 1)
        given = observed(farm_id)
        save(engine, given)
        again = replace(given, **{name: value})
        assert set(differences(stored_row(engine), again)) == {name}
