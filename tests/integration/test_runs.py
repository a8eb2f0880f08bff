"""Runs note themselves, are known to live, and are found when they died."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from infra.leases import is_dead, process_mark, run_lease, this_host
from models.runs import LIVING, Run, begin_run, end_run, recent_runs, unended_runs
from tests.support.facts import engine_for
from tests.support.other_process import Program

HOLDER = """
import sys
from sqlalchemy import create_engine
from infra.leases import run_lease
with run_lease(create_engine(sys.argv[1]), kind="test"):
    print("at work", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    yield made
    made.dispose()


def address(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def living(engine: Engine) -> set[uuid.UUID]:
    with engine.connect() as connection:
        return set(connection.execute(text(LIVING)).scalars())


def unended(engine: Engine) -> list[Run]:
    with engine.connect() as connection:
        return unended_runs(connection)


def test_a_run_lives_for_the_time_of_its_block_and_says_how_it_ended(engine: Engine) -> None:
    with run_lease(engine, kind="first") as first:
        assert living(engine) == {first}
        assert not is_dead(unended(engine)[0])
    with pytest.raises(KeyError), run_lease(engine, kind="second"):
        raise KeyError
    assert living(engine) == set()
    with engine.connect() as connection:
        ends = [(run.kind, run.outcome) for run in recent_runs(connection, limit=5)]
    assert ends == [("second", "broken"), ("first", "ended")]
    with engine.connect() as connection:
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        assert connection.execute(text(held)).scalar_one() == 0, "no connection of the pool keeps the lock"


def test_a_run_that_is_killed_is_known_to_be_dead_at_once(engine: Engine) -> None:
    with Program(HOLDER, address(engine)) as program:
        assert program.says("at work")
        [run] = unended(engine)
        assert living(engine) == {run.id}
        assert not is_dead(run)
        program.kill()
    [run] = unended(engine)
    assert is_dead(run)
    assert (run.ended_at, run.outcome) == (None, None), "finding it out notes nothing by itself"


def test_a_pid_that_is_used_again_is_another_process(engine: Engine) -> None:
    mark = process_mark(1)
    assert mark is not None
    facts = {"kind": "x", "flow_run_id": None, "host": this_host(), "pid": 1}
    with engine.begin() as connection:
        begin_run(connection, uuid.uuid4(), **facts, process=mark)
        begin_run(connection, uuid.uuid4(), **facts, process=f"{mark}0")
    assert sorted(is_dead(run) for run in unended(engine)) == [False, True]


def test_a_run_elsewhere_is_dead_when_its_lock_is_gone_and_it_is_silent_and_not_before(engine: Engine) -> None:
    with run_lease(engine, kind="elsewhere") as run_id:
        elsewhere = "UPDATE runs SET host = 'elsewhere', beat_at = now() - CAST(:age AS interval)"

        def is_dead_after(age: str) -> bool:
            with engine.begin() as connection:
                connection.execute(text(elsewhere), {"age": age})
            [run] = unended(engine)
            return is_dead(run)

        assert not is_dead_after("1 hour"), "a clock that jumps kills nobody: the lock is held"
        with engine.begin() as connection:
            query = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            assert connection.execute(text(query)).scalars().all() == [True]
        while run_id in living(engine):
            threading.Event().wait(0.02)
        assert not is_dead_after("1 minute"), "Postgres may have restarted"
        assert is_dead_after("1 hour")


def test_a_run_takes_its_lock_again_after_postgres_was_away(engine: Engine) -> None:
    with run_lease(engine, kind="steady", beat_s=0.05) as run_id:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"))
        for _ in range(200):
            if run_id in living(engine):
                break
            threading.Event().wait(0.05)
        assert run_id in living(engine)


def test_an_end_is_noted_once_and_runs_of_long_ago_are_forgotten(engine: Engine) -> None:
    with run_lease(engine, kind="x") as run_id, engine.begin() as connection:
        assert end_run(connection, run_id, outcome="died")
        assert not end_run(connection, run_id, outcome="ended")
    with engine.begin() as connection:
        connection.execute(text("UPDATE runs SET ended_at = now() - interval '91 days'"))
    with run_lease(engine, kind="y"), engine.connect() as connection:
        assert [run.kind for run in recent_runs(connection, limit=5)] == ["y"]
