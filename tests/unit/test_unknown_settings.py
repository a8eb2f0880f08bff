"""A typo in the name of a setting is seen; what we use ourselves, and what is not ours, is not told of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

from infra.cli import app
from infra.settings import Settings, load_settings
from infra.telemetry import ensure_logs
from infra.unknown_settings import OTHERS, STARTED_BY_UP, unknown_settings
from infra.up.runs import MARK

ROOT = Path(__file__).parents[2]
KNOWN = {f"SWATH_{name.upper()}" for name in Settings.model_fields} | OTHERS


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SWATH_HOEM", "SWATH_HOME"),
        ("SWATH_READ_TREADS", "SWATH_READ_THREADS"),
        ("swath_database_uri", "SWATH_DATABASE_URL"),
        ("SWATH_OPENMETEO_KEY", "SWATH_OPEN_METEO_KEY"),
        ("SWATH_COLOUR_OF_THE_TRACTOR", None),
    ],
)
def test_an_unknown_name_is_told_with_the_one_most_like_it(name: str, meant: str | None) -> None:
    assert unknown_settings({name: "x", "SWATH_HOME": "/here", "HOME": "/there"}) == {name: meant}


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_name_of_ours_is_known_in_any_case(name: str) -> None:
    assert unknown_settings({name: "x", name.lower(): "x"}) == {}


def test_an_empty_variable_counts_as_unset() -> None:
    assert unknown_settings({"SWATH_HOEM": ""}) == {}


def test_what_kubernetes_tells_of_a_service_is_not_taken_for_a_setting() -> None:
    told = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR")
    service = {f"SWATH_API_{name}": "10.0.0.1" for name in told}
    assert unknown_settings(service | {"SWATH_API_HOST": "x"}) == {"SWATH_API_HOST": None}
    assert unknown_settings({"SWATH_API_PORT": "80"}) == {"SWATH_API_PORT": None}, "there is no such service"


def test_every_variable_that_the_deploy_files_name_is_known() -> None:
    files = [ROOT / "prefect.yaml", *(path for path in (ROOT / "infra/deploy").rglob("*") if path.is_file())]
    named = {name for path in files for name in re.findall(r"\bSWATH_[A-Z_]+[A-Z]\b", path.read_text(encoding="utf-8"))}
    assert named >= {"SWATH_DATABASE_URL", "SWATH_DB_PASSWORD"}
    assert named <= KNOWN


def test_what_swath_up_starts_leaves_the_telling_to_it() -> None:
    assert STARTED_BY_UP == MARK
    assert unknown_settings({"SWATH_HOEM": "x", MARK: "/home"}) == {}


@pytest.fixture
def unconfigured_logs() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


def test_a_process_of_prefect_says_it_once_and_without_the_value(
    unconfigured_logs: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWATH_SECRET_KEI", "hunter2" * 8)
    monkeypatch.setenv("SWATH_LOG_JSON", "true")
    for _flow in range(3):
        ensure_logs(load_settings())
    told = capsys.readouterr()
    assert told.out == ""
    event = json.loads(told.err)
    assert (event["level"], event["event"]) == (
        "warning",
        "SWATH_SECRET_KEI is no setting and is ignored; did you mean SWATH_SECRET_KEY?",
    )
    assert "hunter2" not in told.err


def test_a_command_says_it_once_on_standard_error_alone(
    unconfigured_logs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWATH_HOEM", "hunter2")
    boundaries = tmp_path / "farms.geojson"
    told = CliRunner().invoke(app, ["farms", "import", str(boundaries), "--json"])
    assert told.stderr == "swath: SWATH_HOEM is no setting and is ignored; did you mean SWATH_HOME?\n"
    assert "SWATH_HOEM" not in told.stdout
