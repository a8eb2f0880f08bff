"""What the fixtures promise: a fresh database each, an empty Valkey, and a closed network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from pytest_socket import SocketConnectBlockedError
from redis import Redis

ELSEWHERE = "192.0.2.1"  # reserved for documentation, routed nowhere


@pytest.mark.parametrize("round_", [1, 2])
def test_each_test_has_a_database_of_its_own(database_url: str, round_: int) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE mine (n int)")
        row = connection.execute("SELECT current_database(), rolsuper FROM pg_roles WHERE rolname = current_user")
        name, is_superuser = row.fetchone() or ("", True)
    assert name.startswith("test_")
    assert not is_superuser


@pytest.mark.parametrize("round_", [1, 2])
def test_each_test_finds_an_empty_valkey(redis_url: str, round_: int) -> None:
    with Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_python_reaches_this_machine_only() -> None:
    import socket

    with (
        pytest.warns(UserWarning, match=ELSEWHERE),
        pytest.raises(SocketConnectBlockedError),
        socket.socket() as opened,
    ):
        opened.connect((ELSEWHERE, 80))


def test_gdal_reaches_this_machine_only() -> None:
    code = f"""
import rasterio
try:
    rasterio.open("/vsicurl/http://{ELSEWHERE}/a.tif")
except rasterio.errors.RasterioIOError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert ran.stdout


def test_settings_of_whoever_runs_the_tests_do_not_count() -> None:
    assert not [name for name in os.environ if name.startswith("SWATH_")]


def test_recorded_data_are_where_the_fixture_says(shared_data: Path) -> None:
    assert (shared_data / "README.md").is_file()
