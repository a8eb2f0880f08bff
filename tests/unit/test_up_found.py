"""Where commands find the Prefect server of a running `swath up`, and to whom they show its password."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from infra.up.found import prefect_of_up
from infra.up.one import write_note

OWN = "http://127.0.0.1:4200"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "up").mkdir()
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "auth").write_text("swath:secret\n")
    return tmp_path


def test_a_running_one_is_found_with_its_password(home: Path) -> None:
    write_note(home / "up" / "running.json", api_url="http://127.0.0.1:8080", ui_url=OWN)
    assert prefect_of_up(home) == {"PREFECT_API_URL": f"{OWN}/api", "PREFECT_API_AUTH_STRING": "swath:secret"}


def test_a_server_elsewhere_is_not_shown_our_password(home: Path) -> None:
    write_note(home / "up" / "running.json", api_url="http://127.0.0.1:8080", ui_url="https://prefect.example.org")
    assert prefect_of_up(home) == {"PREFECT_API_URL": "https://prefect.example.org/api"}


def test_one_that_was_killed_is_not_taken_for_a_running_one_nor_is_a_later_process_of_its_number(home: Path) -> None:
    file = home / "up" / "running.json"
    write_note(file, api_url="http://127.0.0.1:8080", ui_url=OWN)
    note = orjson.loads(file.read_bytes())
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    file.write_bytes(orjson.dumps(note | {"pid": gone.pid}))
    assert prefect_of_up(home) == {}
    before = dt.datetime.fromisoformat(note["started_at"]) - dt.timedelta(days=1)
    file.write_bytes(orjson.dumps(note | {"pid": os.getpid(), "started_at": before.isoformat()}))
    assert prefect_of_up(home) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_without_a_note_that_can_be_read_there_is_none(home: Path, text: str) -> None:
    assert prefect_of_up(home) == {}
    (home / "up" / "running.json").write_text(text)
    assert prefect_of_up(home) == {}
