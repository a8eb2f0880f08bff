"""What users give by mistake is refused in a sentence that says what is allowed, and destroys nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from infra.cli import main
from infra.cli.export import app as export_app
from infra.cli.farms import app as farms_app
from infra.cli.given import output_file
from infra.settings import Settings, load_settings
from infra.stores import open_stores
from models.errors import BadInput, ServerTrouble
from tasks.farms.boundaries import AreaLimits
from tasks.farms.files import read_farms
from tests.support.facts import engine_for, store_farms

app = typer.Typer()
app.add_typer(export_app, name="export")
app.add_typer(farms_app, name="farms")

LIMITS = AreaLimits(min_ha=0.001, max_ha=100_000)


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def a_link_to_a_pipe(folder: Path) -> Path:
    (folder / "link").symlink_to(a_pipe(folder))
    return folder / "link"


def a_link_to_itself(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


class TestOutput:
    @pytest.mark.parametrize("made", [a_pipe, a_link_to_a_pipe, a_link_to_itself, Path])
    def test_what_is_no_file_is_never_replaced(self, made: Callable[[Path], Path], tmp_path: Path) -> None:
        there = made(tmp_path)
        before = there.lstat()
        with pytest.raises(BadInput, match=r"--output: .*; allowed: a file"):
            output_file(there)
        assert (there.lstat().st_ino, there.lstat().st_mode) == (before.st_ino, before.st_mode)

    def test_a_file_behind_a_link_is_replaced_and_the_link_stays(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "file")
        assert output_file(tmp_path / "link") == tmp_path.resolve() / "file"
        (tmp_path / "file").touch()
        assert output_file(tmp_path / "link") == tmp_path.resolve() / "file"

    @pytest.mark.parametrize(
        "words",
        [
            ("export", "ndvi", "--format", "csv"),
            ("export", "weather", "--format", "csv"),
            ("farms", "export", "--format", "geojson"),
        ],
    )
    def test_no_export_puts_a_file_in_the_place_of_a_device(self, words: tuple[str, ...], tmp_path: Path) -> None:
        pipe = a_pipe(tmp_path)
        told: Result = CliRunner().invoke(app, [*words, "-o", str(pipe)])
        assert isinstance(told.exception, BadInput)
        assert pipe.is_fifo()


class TestImport:
    def refused(self, file: Path) -> str:
        with pytest.raises(BadInput) as told:
            read_farms(file, limits=LIMITS)
        return str(told.value)

    @pytest.mark.parametrize("ending", ["geojson", "gpkg", "parquet", "shp", "zip"])
    def test_a_file_of_no_bytes_is_called_empty(self, ending: str, tmp_path: Path) -> None:
        (tmp_path / f"farms.{ending}").touch()
        assert f"farms.{ending} is empty" in self.refused(tmp_path / f"farms.{ending}")

    def test_a_folder_is_called_one(self, tmp_path: Path) -> None:
        assert "is a folder" in self.refused(tmp_path)

    def test_a_name_that_no_file_can_have_is_refused(self, tmp_path: Path) -> None:
        assert "file: " in self.refused(tmp_path / ("x" * 300 + ".geojson"))


class TestSettings:
    @pytest.mark.parametrize(
        ("name", "value", "allowed"),
        [
            ("SWATH_READ_THREADS", "many", "a whole number from 1 up to 256"),
            ("SWATH_LIMIT_API_KEY_PER_MINUTE", "-3", "a whole number from 1 up to 10,000,000"),
            ("SWATH_HTTP_TIMEOUT_S", "nan", "a number above 0 up to 600"),
            ("SWATH_OPEN_METEO_CALLS_PER_DAY", "inf", "a number from 10"),
            ("SWATH_LOG_LEVEL", "loud", "DEBUG, INFO, WARNING, ERROR"),
            ("SWATH_LOG_JSON", "maybe", "true or false"),
            ("SWATH_NASA_POWER_URL", "power", "an address that begins with http:// or https://"),
            ("SWATH_OPEN_METEO_ARCHIVE_MODEL", "ERA 5", "small letters, digits and underscores"),
            ("SWATH_DASK_ADDRESS", "scheduler", "tcp://host:8786 or tls://host:8786"),
        ],
    )
    def test_what_is_allowed_is_told(
        self, name: str, value: str, allowed: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(name, value)
        with pytest.raises(BadInput) as told:
            load_settings()
        assert str(told.value).startswith(f"{name}: ")
        assert told.value.allowed == allowed

    @pytest.mark.parametrize(
        "name", [name for name, field in Settings.model_fields.items() if field.annotation in (int, float, bool)]
    )
    def test_every_setting_that_is_no_text_tells_what_is_allowed(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"SWATH_{name}".upper(), "-1e999")
        with pytest.raises(BadInput, match=f"SWATH_{name.upper()}: .+; allowed: (a |true)"):
            load_settings()

    def test_the_database_that_does_not_answer_is_told_by_its_setting_in_one_line(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        for url in (f"postgresql://u:hidden@127.0.0.1:{port}/d", "postgresql:///d?nonsense=1"):
            settings = Settings(database_url=url, redis_url="redis://127.0.0.1:9")
            with pytest.raises(ServerTrouble) as told, open_stores(settings):
                pass
            assert str(told.value).startswith("SWATH_DATABASE_URL: ")
            assert "\n" not in str(told.value)
            assert "hidden" not in str(told.value)


class TestOutputOfPrograms:
    """In processes of their own, because the streams of a process are told once how to write."""

    def run(self, *words: str, environment: dict[str, str], to: int) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", main.__module__, *words]
        return subprocess.run(
            command, env=os.environ | environment, stdout=to, stderr=subprocess.PIPE, check=False, timeout=60
        )

    def test_names_are_written_in_utf8_whatever_the_locale(self, database_url: str, redis_url: str) -> None:
        engine = engine_for(database_url)
        store_farms(engine, 1)
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE farms SET name = 'Größe ✓ 農場'")
        engine.dispose()
        stores = {"SWATH_DATABASE_URL": database_url, "SWATH_REDIS_URL": redis_url}
        ascii_only = stores | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
        listed = self.run("farms", "list", "--json", environment=ascii_only, to=subprocess.PIPE)
        assert (listed.returncode, listed.stderr) == (0, b"")
        [farm] = json.loads(listed.stdout)["farms"]
        assert farm["name"] == "Größe ✓ 農場"
        assert farm["external_farm_id"] == str(uuid.UUID(int=1))

    @pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="a disk that is always full is needed")
    def test_a_full_disk_is_said_in_one_line(self, database_url: str, redis_url: str) -> None:
        stores = {"SWATH_DATABASE_URL": database_url, "SWATH_REDIS_URL": redis_url}
        with Path("/dev/full").open("wb") as full:
            told = self.run("clients", "list", environment=stores, to=full.fileno())
        assert told.returncode != 0
        assert told.stderr.startswith(b"swath: ")
        assert b"No space left" in told.stderr
        assert b"Traceback" not in told.stderr


def test_an_interrupt_while_the_program_is_loaded_ends_it_without_a_word() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "infra.start", "farms", "list", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        # Loaded first, long before all else.
        assert any(line.endswith("typer\n") for line in program.stderr)
        program.send_signal(signal.SIGINT)
        rest, said = program.stderr.read(), program.stdout.read()
    assert program.returncode == -signal.SIGINT
    assert "Traceback" not in rest
    assert said == ""
