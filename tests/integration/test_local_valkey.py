"""The embedded Valkey: private, shared, bounded, and warm after a restart."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from redis import Redis

from infra.local.home import temporary_home
from infra.local.valkey import SNAPSHOT_VERSION, ValkeyServer, local_valkey
from models.errors import DataDirectoryTooNew, ServerTrouble
from tests.support.other_process import Program, run_as_nobody

USE = """
import sys
from pathlib import Path
from redis import Redis
from infra.local.valkey import local_valkey
with local_valkey(Path(sys.argv[1])) as server:
    with Redis.from_url(server.url) as client:
        client.incr("seen")
    print("ready", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with temporary_home() as made:
        yield made


def process_of(home: Path) -> psutil.Process | None:
    file = home / "valkey" / "valkey.pid"
    return psutil.Process(int(file.read_text())) if file.exists() else None


def seen(server: ValkeyServer) -> int:
    with Redis.from_url(server.url) as client:
        return int(client.get("seen") or 0)


def test_what_it_held_is_there_after_a_restart(home: Path) -> None:
    with local_valkey(home) as server, Redis.from_url(server.url) as client:
        client.set("seen", 41)
    assert process_of(home) is None
    with local_valkey(home) as server:
        assert seen(server) == 41


def test_no_tcp_port_is_open_and_the_socket_is_private(home: Path) -> None:
    with local_valkey(home) as server:
        process = process_of(home)
        assert process is not None
        assert process.net_connections("inet") == []
        assert process.uids().real != 0
        assert os.getsid(process.pid) != os.getsid(0)
        assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
        assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700


def test_memory_is_bounded_and_the_oldest_goes_first(home: Path) -> None:
    with local_valkey(home) as server, Redis.from_url(server.url, decode_responses=True) as client:
        assert client.config_get("maxmemory*") == {
            "maxmemory": str(256 * 1024 * 1024),
            "maxmemory-policy": "allkeys-lru",
            "maxmemory-samples": "5",
            "maxmemory-eviction-tenacity": "10",
            "maxmemory-clients": "0",
        }


def test_another_user_of_the_machine_cannot_connect(home: Path) -> None:
    with local_valkey(home) as server:
        if server.socket.owner() == "nobody":
            pytest.skip("here the servers themselves run as nobody")
        tried = run_as_nobody(
            "import sys, socket; socket.socket(socket.AF_UNIX).connect(sys.argv[1])", str(server.socket)
        )
    assert "PermissionError" in tried.stderr


def test_the_last_of_two_users_stops_the_server(home: Path) -> None:
    with Program(USE, home) as other:
        assert other.says("ready")
        first = process_of(home)
        with local_valkey(home):
            assert process_of(home) == first
            other.go_on()
            assert other.finish() == 0
            assert process_of(home) == first
        assert process_of(home) is None


def test_it_outlives_a_killed_parent_and_is_found_again(home: Path) -> None:
    with Program(USE, home) as other:
        assert other.says("ready")
        other.kill()
    left = process_of(home)
    with local_valkey(home) as server:
        assert process_of(home) == left
        assert seen(server) == 1
    assert process_of(home) is None


def test_it_starts_again_after_it_was_killed(home: Path) -> None:
    with local_valkey(home):
        process = process_of(home)
        assert process is not None
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        with local_valkey(home) as server:
            assert seen(server) == 0


def test_a_snapshot_of_a_newer_server_is_refused_and_not_touched(home: Path) -> None:
    with local_valkey(home):
        pass
    snapshot = home / "valkey" / "dump.rdb"
    content = f"REDIS{SNAPSHOT_VERSION + 1:04}".encode() + snapshot.read_bytes()[9:]
    snapshot.write_bytes(content)
    with pytest.raises(DataDirectoryTooNew, match=r"dump\.rdb.*REDIS0011"), local_valkey(home):
        pass
    assert snapshot.read_bytes() == content


def test_a_broken_snapshot_is_told_with_the_log(home: Path) -> None:
    with local_valkey(home) as server, Redis.from_url(server.url) as client:
        client.set("field", "x" * 1000)
    snapshot = home / "valkey" / "dump.rdb"
    snapshot.write_bytes(snapshot.read_bytes()[:40])
    with pytest.raises(ServerTrouble, match=r"(?s)Valkey ended while it started.*RDB"), local_valkey(home):
        pass
