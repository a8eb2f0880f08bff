"""`swath weather` and `swath export weather` as a user and a program meet them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from infra.cli.export import WEATHER_COLUMNS
from infra.cli.export import app as export_app
from infra.cli.weather import app as weather_app
from infra.local.prefect import PrefectServer
from infra.local.valkey import ValkeyServer
from models.errors import BadInput
from tests.support.district import POWER, both_services, but, down, environment, farm, store_district
from tests.support.facts import engine_for
from tests.support.flow_runs import use
from tests.support.weather_server import WeatherServer, weather_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FARMS = 3

app = typer.Typer()
app.add_typer(weather_app, name="weather")
app.add_typer(export_app, name="export")


@pytest.fixture
def server() -> Iterator[WeatherServer]:
    with weather_server() as running:
        running.script(both_services)
        yield running


@pytest.fixture
def engine(
    server: WeatherServer,
    database_url: str,
    valkey_server: ValkeyServer,
    prefect_api: PrefectServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Engine]:
    del prefect_api
    stores = {"SWATH_DATABASE_URL": database_url, "SWATH_REDIS_URL": valkey_server.url, "COLUMNS": "200"}
    use(monkeypatch, environment(server, **stores))
    made = engine_for(database_url)
    store_district(made, FARMS)
    yield made
    made.dispose()


def swath(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.mark.usefixtures("engine")
def test_a_run_and_an_export_of_what_it_brought(server: WeatherServer, tmp_path: Path) -> None:
    done = swath("weather", "run", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["farms"], told["failed"], told["problems"]) == (FARMS, 0, [])
    assert told["asked"]["open-meteo"]["requests"] + told["asked"]["nasa-power"]["requests"] == len(server.received)
    again = swath("weather", "run")
    assert again.exit_code == 0
    assert "Nothing was due." in again.stdout

    file = tmp_path / "weather.csv"
    assert json.loads(swath("export", "weather", "-o", file, "--json").stdout)["rows"] == FARMS * (15 + 15)
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == FARMS * (15 + 15)
    assert tuple(rows[0]) == tuple(WEATHER_COLUMNS)
    oldest = rows[0]
    assert oldest["precipitation_mm"] == "2.4"
    assert (oldest["precipitation_mm_source"], oldest["precipitation_mm_kind"]) == ("open-meteo", "reanalysis")
    assert oldest["wind_speed_2m_m_s_source"] == "nasa-power"
    assert (oldest["soil_layer"], oldest["soil_temperature_top_c"]) == ("0-7cm", "11.0")

    file = tmp_path / "weather.parquet"
    swath("export", "weather", "-o", file, "--farm", farm(2), "--start", oldest["day"], "--end", oldest["day"])
    [row] = pq.read_table(file).to_pylist()
    assert (row["external_farm_id"], str(row["day"])) == (str(farm(2)), oldest["day"])
    assert row["et0_mm"] == pytest.approx(0.1)


@pytest.mark.usefixtures("engine")
def test_a_loss_is_said_and_ends_with_exit_code_1(server: WeatherServer) -> None:
    server.script(but({POWER: down}))
    done = swath("weather", "backfill", "--start", "2024-06-01", "--end", "2024-06-30", "--farm", farm(1))
    assert done.exit_code == 1
    assert "nasa-power: status 503" in done.stdout
    server.script(both_services)
    done = swath("weather", "backfill", "--start", "2024-06-01", "--end", "2024-06-30", "--farm", farm(1), "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["inserted"] == 30


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("weather", "backfill", "--start", "soon"), "--start"),
        (("weather", "backfill", "--start", "2024-02-02", "--end", "2024-02-01"), "--start"),
        (("weather", "backfill", "--start", "2024-02-02", "--farm", "7"), "--farm"),
        (("weather", "run", "--lookback-days", "-1"), "--lookback-days"),
        (("export", "weather", "-o", "weather.txt"), "--format"),
        (("export", "weather", "-o", "weather.csv", "--farm", farm(99)), "--farm"),
    ],
)
def test_bad_input_is_named(words: tuple[object, ...], problem: str) -> None:
    done = swath(*words)
    assert isinstance(done.exception, BadInput)
    assert done.exception.field == problem
