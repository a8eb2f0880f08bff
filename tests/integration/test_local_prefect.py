"""The embedded Prefect API server: it asks for a password, records what flows do, and dies with its parent."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import psutil
import pytest

from infra.local.postgres import PostgresServer
from infra.local.prefect import PrefectServer, local_prefect
from models.errors import ServerTrouble
from tests.support.other_process import Program

USE = """
import sys
from pathlib import Path
from infra.local.prefect import local_prefect
with local_prefect(sys.argv[1], Path(sys.argv[2]), services=False):
    print("ready", flush=True)
    sys.stdin.readline()
"""


def ask(server: PrefectServer, path: str) -> httpx.Response:
    user, _, password = server.auth.partition(":")
    return httpx.post(f"{server.api_url}/{path}", json={}, auth=(user, password))


def test_it_answers_only_to_its_password(prefect_api: PrefectServer, server_home: Path) -> None:
    assert httpx.post(f"{prefect_api.api_url}/flows/filter", json={}).status_code == 401
    assert ask(prefect_api, "flows/filter").status_code == 200
    assert prefect_api.auth not in repr(prefect_api)
    assert (server_home / "prefect" / "auth").stat().st_mode & 0o077 == 0


def test_a_flow_of_this_process_is_recorded(prefect_api: PrefectServer) -> None:
    from prefect import flow

    @flow(name="recorded")
    def recorded() -> int:
        return 41

    assert recorded() == 41
    assert "recorded" in [each["name"] for each in ask(prefect_api, "flows/filter").json()]


@pytest.mark.slow
def test_it_ends_when_its_parent_is_killed(postgres_server: PostgresServer, server_home: Path) -> None:
    with Program(USE, postgres_server.url, server_home) as other:
        assert other.says("ready")
        [child] = psutil.Process(other.pid).children()
        other.kill()
    deadline = time.monotonic() + 20
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_port_in_use_is_told(prefect_api: PrefectServer, postgres_server: PostgresServer, server_home: Path) -> None:
    port = httpx.URL(prefect_api.api_url).port
    assert port is not None
    with (
        pytest.raises(ServerTrouble, match=rf"127\.0\.0\.1:{port}"),
        local_prefect(postgres_server.url, server_home, port=port),
    ):
        pass


def test_a_database_that_does_not_answer_is_told(server_home: Path, tmp_path: Path) -> None:
    address = f"postgresql://swath@/swath?host={tmp_path}"
    with pytest.raises(ServerTrouble, match="database of Prefect's server"), local_prefect(address, server_home):
        pass
