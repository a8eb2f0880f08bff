"""The command line as its users meet it: what it answers, what it refuses, and what it leaves behind."""

from __future__ import annotations

import csv
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyarrow.parquet as pq
import pytest
import rasterio
import typer
from typer.testing import CliRunner

from infra.cli import app
from infra.local.postgres import PostgresServer
from infra.local.prefect import PrefectServer
from infra.local.valkey import ValkeyServer
from tests.support.archives import ROOT
from tests.support.command import Swath, heed_interrupts, processes_of
from tests.support.databases import TEMPLATE, fresh_database
from tests.support.memory_home import memory_home
from tests.support.simulated import Season, Served, draw_season, import_farms, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

START, END = dt.date(2024, 6, 4), dt.date(2024, 6, 10)
DAYS = ("--start", str(START), "--end", str(END))
SECRET = "hunter2"
NOBODY_LISTENS = f"postgresql://me:{SECRET}@127.0.0.1:9/swath"
NOBODY = "00000000-0000-0000-0000-000000000001"


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> Season:
    return draw_season(tmp_path_factory.mktemp("june"), START, END)


@dataclass(frozen=True)
class Ready:
    """A command line over a database in which a week was observed."""

    swath: Swath
    season: Season
    archive: Served
    database_url: str
    rows: list[dict[str, str]]
    """Of the export as CSV."""

    def farm(self, name: str) -> str:
        return str(self.season.farm_id(name))


@pytest.fixture(scope="module")
def ready(
    season: Season,
    postgres_server: PostgresServer,
    valkey_server: ValkeyServer,
    prefect_api: PrefectServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Ready]:
    with (
        fresh_database(postgres_server, template=TEMPLATE) as url,
        served(season.folder, season.items) as archive,
    ):
        stores = {"SWATH_DATABASE_URL": url, "SWATH_REDIS_URL": valkey_server.url}
        swath = Swath(archive.environment | prefect_api.environment | stores | {"COLUMNS": "200"})
        import_farms(url, season.farms_file)
        file = tmp_path_factory.mktemp("rows") / "all.csv"
        run, export = swath.each([({}, ["ndvi", "run", *DAYS]), ({}, ["export", "ndvi", "-o", file])])
        assert (run.code, run.err) == (export.code, export.err) == (0, "")
        yield Ready(swath, season, archive, url, table(file))


def table(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with file.open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def every_command(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from every_command(command, (*path, name))


def test_every_command_has_help_and_the_version_is_told() -> None:
    commands = set(every_command(typer.main.get_command(app)))
    assert {("ndvi", "run"), ("export", "ndvi"), ("farms", "import"), ("status",), ("explain",), ("demo",)} <= commands
    for command in commands:
        told = CliRunner().invoke(app, [*command, "--help"])
        assert told.exit_code == 0, command
        assert "Usage: " in told.stdout
        assert told.stderr == ""
    assert Swath({}).ok("--version").out == "swath 0.1.0\n"


def test_bad_input_is_refused_in_one_sentence_that_names_what_is_allowed(ready: Ready, tmp_path: Path) -> None:
    folder, nowhere, farm = tmp_path / "folder", tmp_path / "nosuch" / "x.csv", ready.farm("Lark Field")
    folder.mkdir()
    refused: list[tuple[dict[str, str], list[str | Path], list[str]]] = [
        ({}, ["ndvi", "run", "--start", "2024-02-30"], ["--start", "2024-02-30", "YYYY-MM-DD"]),
        ({}, ["ndvi", "run", "--end", "yesterday"], ["--end", "yesterday", "YYYY-MM-DD"]),
        ({}, ["ndvi", "run", "--start", "2024-06-02", "--end", "2024-06-01"], ["--start", "after the end"]),
        ({}, ["ndvi", "run", "--end", "2999-01-01"], ["--end", "2999-01-01 is ahead"]),
        ({}, ["ndvi", "run", "--farm", "north"], ["--farm", "'north' is not a UUID", "swath farms list"]),
        ({}, ["ndvi", "run", *DAYS, "--farm", NOBODY], ["farm", NOBODY, "swath farms list"]),
        ({}, ["export", "ndvi", "-o", "x.csv", "--format", "xls"], ["--format", "'xls'", "csv, parquet, geojson"]),
        ({}, ["export", "ndvi", "-o", "x.ods"], ["--format", "x.ods", "csv, parquet, geojson"]),
        ({}, ["export", "ndvi", "-o", nowhere], ["--output", str(nowhere), "No such file or directory"]),
        ({}, ["export", "ndvi", "-o", folder, "--format", "csv"], ["--output", "is a folder"]),
        ({}, ["export", "ndvi", "-o", "x.csv", "--start", "2024-06-02", "--end", "2024-06-01"], ["--start"]),
        ({}, ["explain", "north", "2024-06-09"], ["FARM", "is not a UUID"]),
        ({}, ["explain", farm, "9 June"], ["DATE", "'9 June' is not a day", "YYYY-MM-DD"]),
        ({}, ["explain", farm, "2024-06-05"], [f"no observation of {farm} on 2024-06-05", "swath ndvi run"]),
        ({}, ["explain", farm, "2024-06-09", "--png", folder], ["--png", "is a folder"]),
        ({"SWATH_HTTP_RETRIES": "-1"}, ["status"], ["SWATH_HTTP_RETRIES", "a whole number from 0 up to 20"]),
        ({"SWATH_DASK_ADDRESS": "scheduler"}, ["ndvi", "run", *DAYS], ["SWATH_DASK_ADDRESS", "tcp://host:8786"]),
        ({"SWATH_CLEAR_CLASSES": "4,cow"}, ["status"], ["SWATH_CLEAR_CLASSES:", "integer"]),
        ({"SWATH_CLEAR_CLASSES": "0"}, ["status"], ["SWATH_CLEAR_CLASSES:", "from 1 to 11"]),
        ({"SWATH_LOG_LEVEL": "LOUD"}, ["status"], ["SWATH_LOG_LEVEL", "DEBUG, INFO, WARNING, ERROR"]),
        ({"SWATH_MIN_FARM_AREA_HA": "1e9"}, ["status"], ["SWATH_MIN_FARM_AREA_HA", "SWATH_MAX_FARM_AREA_HA"]),
        ({"SWATH_STAC_URL": "catalog"}, ["ndvi", "run", *DAYS], ["SWATH_STAC_URL", "http:// or https://"]),
        ({"SWATH_STAC_URL": "", "SWATH_CATALOGS": "x"}, ["ndvi", "run", *DAYS], ["SWATH_CATALOGS", "earth-search-c1"]),
        ({"SWATH_DATABASE_URL": f"mysql://me:{SECRET}@h/d"}, ["status"], ["SWATH_DATABASE_URL", "postgresql://"]),
        ({"SWATH_DATABASE_URL": SECRET}, ["status"], ["SWATH_DATABASE_URL", "postgresql://"]),
        ({"SWATH_REDIS_URL": f"http://me:{SECRET}@h"}, ["status"], ["SWATH_REDIS_URL", "redis://"]),
    ]
    ends = ready.swath.each([(more, words) for more, words, _ in refused])
    for (_, words, told), done in zip(refused, ends, strict=True):
        assert done.code == 2, (words, done)
        assert done.out == "", words
        assert done.err.startswith("swath: "), (words, done.err)
        assert done.err.count("\n") == 1, (words, done.err)
        assert all(part in done.err for part in told), (words, done.err)
        assert SECRET not in done.err, words
    assert not (ROOT / "x.csv").exists()


def test_a_server_that_is_not_there_is_said_without_its_password(ready: Ready) -> None:
    gone = {"SWATH_DATABASE_URL": NOBODY_LISTENS, "SWATH_LOG_LEVEL": "DEBUG"}
    *without_database, without_dask = ready.swath.each(
        [
            (gone, ["status"]),
            (gone, ["ndvi", "run"]),
            (gone, ["explain", NOBODY, "2024-06-09"]),
            (
                {"SWATH_DASK_ADDRESS": "tcp://127.0.0.1:9", "SWATH_HTTP_CONNECT_TIMEOUT_S": "1"},
                ["ndvi", "run", *DAYS],
            ),
        ]
    )
    for done in without_database:
        assert "the database does not answer" in done.err
    assert "no Dask scheduler at tcp://127.0.0.1:9 (SWATH_DASK_ADDRESS)" in without_dask.err
    # Prefect reads its settings once in a process
    no_prefect = {"PREFECT_API_URL": f"http://me:{SECRET}@127.0.0.1:9/api"}
    wrong_password = {"PREFECT_API_AUTH_STRING": f"swath:{SECRET}"}
    without_prefect, locked_out = (
        Swath(ready.swath.environment | more)("ndvi", "run", *DAYS) for more in (no_prefect, wrong_password)
    )
    assert "me:***@127.0.0.1:9/api (PREFECT_API_URL)" in without_prefect.err
    assert "401 Unauthorized" in locked_out.err
    for done in (*without_database, without_dask, without_prefect, locked_out):
        assert (done.code, done.out) == (1, ""), done
        assert SECRET not in done.err
        assert "Traceback" not in done.err


def test_all_formats_of_an_export_agree(ready: Ready, tmp_path: Path) -> None:
    files = [tmp_path / f"rows.{ending}" for ending in ("csv", "parquet", "geojson")]
    ends = ready.swath.each([({}, ["export", "ndvi", "-o", file, "--json"]) for file in files])
    for file, done in zip(files, ends, strict=True):
        assert done.json() == {"file": str(file), "format": file.suffix[1:], "rows": len(ready.rows)}
    text, parquet = table(files[0]), pq.read_table(files[1])
    document = json.loads(files[2].read_text())
    shapes = gpd.read_file(files[2])
    assert text == ready.rows
    assert parquet.schema.field("acquired_at").type.tz == "UTC"
    assert list(text[0]) == parquet.column_names == list(document["features"][0]["properties"])
    for line, row, feature in zip(text, parquet.to_pylist(), document["features"], strict=True):
        properties = feature["properties"]
        assert {**row, "acquired_at": rfc3339(row["acquired_at"]), "day": str(row["day"])} == properties
        for name, value in properties.items():
            assert line[name] == as_text(value), name
        assert dt.datetime.fromisoformat(line["acquired_at"]).utcoffset() == dt.timedelta(0)
    assert any(len(row["item_ids"]) == 2 for row in parquet.to_pylist())
    drawn = {str(farm.external_farm_id): farm.boundary for farm in ready.season.truth.farms}
    for farm_id, outline in zip(shapes["external_farm_id"], shapes.geometry, strict=True):
        assert outline.symmetric_difference(drawn[farm_id]).area < 1e-12


def rfc3339(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def as_text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(value)
    return "" if value is None else str(value)


def test_a_number_is_explained_and_drawn(ready: Ready, tmp_path: Path) -> None:
    long_meadow, swaths_end = ready.farm("Long Meadow"), ready.farm("Swath's End")
    pictures = tmp_path / "long.png", tmp_path / "edge.png"
    mosaic, edge, told = ready.swath.each(
        [
            ({}, ["explain", long_meadow, "2024-06-09", "--png", pictures[0]]),
            ({}, ["explain", swaths_end, "2024-06-07", "--png", pictures[1], "--json"]),
            ({}, ["explain", long_meadow, "2024-06-04", "--json"]),
        ]
    )
    assert (mosaic.code, mosaic.err) == (0, "")
    for word in (
        "identical to the last bit",
        "05.11",
        "earth-search-c1",
        "scl-4.5.6.7.11-d0-v1",
        "vegetation",
        "34TER",
    ):
        assert word in mosaic.out
    [explained] = edge.json()
    assert explained["is_identical"] is True
    assert explained["differences"] == []
    assert explained["problem"] is None
    assert explained["pixels_by_class"]["no data"] > 0, "beyond the edge of the swath"
    assert 0 < explained["clear_fraction"] < 1
    [gap] = told.json()
    assert (gap["catalog"], gap["rescale_rule"].split(":")[0]) == ("127.0.0.1/sentinel-2-l2a", "earth-search-l2a")
    row = next(row for row in ready.rows if (row["external_farm_id"], row["day"]) == (long_meadow, "2024-06-04"))
    assert {name: as_text(gap[name]) for name in row} == row
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert size_of(pictures[0])[0] > 3 * size_of(pictures[0])[1], "a long meadow"
    assert all(100 < side <= 1600 for picture in pictures for side in size_of(picture))


def size_of(picture: Path) -> tuple[int, int]:
    """Width and height in pixels."""
    header = picture.read_bytes()[16:24]
    return int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")


def test_imagery_that_changed_or_went_away_is_told_apart_from_a_number_that_stands(ready: Ready) -> None:
    farm, day = ready.farm("Lark Field"), "2024-06-09"
    [row] = [row for row in ready.rows if (row["external_farm_id"], row["day"]) == (farm, day)]
    [red] = ready.season.folder.glob(f"20240609-*/sentinel-2-c1-l2a/{row['item_ids']}/B04.tif")
    pixels = red.read_bytes()
    try:
        with rasterio.open(red) as dataset:
            profile, values = dict(dataset.profile), dataset.read(1)
        values[values > 0] += 100
        with rasterio.open(red, "w", **profile) as dataset:
            dataset.write(values, 1)
        changed = ready.swath("explain", farm, day)
        ready.archive.files.fail("*/B04.tif", status=404)
        gone, gone_for_people = ready.swath.each([({}, ["explain", farm, day, "--json"]), ({}, ["explain", farm, day])])
    finally:
        ready.archive.files.heal()
        red.write_bytes(pixels)
    assert changed.code == gone.code == gone_for_people.code == 1
    assert f"mean: stored {row['mean']}, now 0." in changed.out
    [told] = gone.json()
    assert (told["is_identical"], told["problem"]) == (False, "imagery not read: missing")
    assert "not possible: imagery not read: missing" in gone_for_people.out


def test_how_things_stand_is_told_to_people_and_to_programs(ready: Ready) -> None:
    people, programs = ready.swath.each([({}, ["status"]), ({}, ["status", "--json"])])
    found = programs.json()
    by_status = {name: sum(row["status"] == name for row in ready.rows) for name in found["observations"]}
    assert found["observations"] == by_status
    assert sum(by_status.values()) == len(ready.rows)
    assert (found["farms"], found["failed"]) == (len(ready.season.truth.farms), [])
    assert found["newest_acquired_at"].startswith("2024-06-10T14:")
    assert set(found["work"]) == {"done"}
    assert (people.code, programs.code) == (0, 0)
    assert f"{found['farms']} active" in people.out
    assert f"{by_status['observed']} observed" in people.out


def test_one_farm_alone_is_observed_when_it_is_named(
    ready: Ready, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    stores = {"SWATH_DATABASE_URL": database_url, "SWATH_REDIS_URL": redis_url}
    import_farms(database_url, ready.season.farms_file)
    farm, file = ready.farm("Lark Field"), tmp_path / "one.csv"
    words = ["ndvi", "run", *DAYS, "--farm", farm, "--json"]
    run, _ = ready.swath.each([(stores, words), (stores, ["export", "ndvi", "-o", file])])
    counts, rows = run.json(), table(file)
    expected = [row for row in ready.rows if row["external_farm_id"] == farm]
    assert [{**row, "revision": ""} for row in rows] == [{**row, "revision": ""} for row in expected]
    assert (counts["scenes"], counts["failed"]) == (len(rows), 0)
    assert counts["observed"] + sum(counts["not_observed"].values()) == len(rows)


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty home for servers, all of which are gone at the end."""
    with memory_home() as folder:
        yield folder
        assert processes_of(folder) == []


def test_a_run_that_is_ended_or_killed_leaves_a_state_from_which_the_next_one_completes(
    ready: Ready, home: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, **ready.archive.environment, "SWATH_HOME": str(home)}
    with_prefect = {name: value for name, value in environment.items() if not name.startswith("PREFECT_API_")}
    own = Alone(environment)
    assert own("farms", "import", ready.season.farms_file).returncode == 0
    ready.archive.files.delay_s = 0.3
    try:
        code, said = Alone(with_prefect).interrupted(signal.SIGTERM, ready.archive)
        assert code == 143, said
        assert processes_of(home) == [], "its servers end with it"
        code, said = own.interrupted(signal.SIGKILL, ready.archive)
        assert code == -signal.SIGKILL
    finally:
        ready.archive.files.delay_s = 0
    done = own("ndvi", "run", *DAYS, "--json")
    assert done.returncode == 0, done.stderr
    assert processes_of(home) == [], "also those that the killed one left"
    told, exported = Swath(environment).each(
        [({}, ["status", "--json"]), ({}, ["export", "ndvi", "-o", tmp_path / "rows.csv"])]
    )
    assert exported.code == 0, exported.err
    rows, status = table(tmp_path / "rows.csv"), told.json()
    assert [{**row, "revision": ""} for row in rows] == [{**row, "revision": ""} for row in ready.rows]
    assert (set(status["work"]), status["failed"]) == ({"done"}, [])


@dataclass(frozen=True)
class Alone:
    """`swath` with servers of its own."""

    environment: dict[str, str]

    def __call__(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(words), env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=200
        )

    def interrupted(self, number: signal.Signals, archive: Served) -> tuple[int, str]:
        """Run over all days and send it a signal in the middle: exit code and standard error."""
        archive.files.forget()
        run = subprocess.Popen(
            self._command(["ndvi", "run", *DAYS]),
            env=self.environment,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_interrupts,
        )
        try:
            while archive.files.requests_for("B04") < 2 and run.poll() is None:
                time.sleep(0.05)
            assert run.poll() is None, "it ended before it could be interrupted"
            run.send_signal(number)
            _, said = run.communicate(timeout=60)
        finally:
            run.kill()
        return run.returncode, said

    @staticmethod
    def _command(words: Sequence[str | Path]) -> list[str]:
        return [str(Path(sys.executable).with_name("swath")), *map(str, words)]
