"""Parts are started until they answer, started again when they die, and ended; runs they leave are handed back."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling, Completed, Running

from infra.leases import run_lease
from infra.local.prefect import PrefectServer
from infra.up.one import AlreadyRunning, only_one, write_note
from infra.up.parts import Keeper, Part
from infra.up.programs import program
from infra.up.runs import FLOW_RUN, MARK, MAX_STARTS, WORKER, end_leftovers, hand_back, living_runs
from models.errors import ServerTrouble
from tests.support.other_process import Program
from tests.support.simulated import query

ANSWER = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); print('here', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {ANSWER}"

Lines = list[tuple[str, str]]


def part(code: str, file: Path, **changes: Any) -> Part:
    """A part that answers once it has made its file."""

    async def answers() -> bool:
        return file.exists()

    facts: dict[str, Any] = {
        "name": "part",
        "command": (sys.executable, "-c", code, str(file)),
        "environment": dict(os.environ),
        "answers": answers,
    }
    return Part(**facts | changes)


def with_keeper(kept: Part, work: Callable[[Keeper, Lines], Coroutine[Any, Any, None]]) -> Lines:
    said: Lines = []

    async def run() -> None:
        keeper = Keeper(kept, lambda name, line: said.append((name, line)))
        try:
            await work(keeper, said)
        finally:
            await keeper.stop()

    asyncio.run(run())
    return said


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():
            await asyncio.sleep(0.02)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_part_that_dies_is_started_again_and_said(tmp_path: Path) -> None:
    file = tmp_path / "answers"

    async def work(keeper: Keeper, said: Lines) -> None:
        await keeper.start()
        keeping = asyncio.create_task(keeper.keep())
        first = keeper.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: said.count(("part", "here")) == 2)
        assert keeper.pid != first
        keeping.cancel()

    said = with_keeper(part(ANSWER, file), work)
    assert ("part", "was ended by SIGKILL; it is started again in 1 s") in said


def test_a_part_that_ends_before_it_answers_is_told_with_its_last_words(tmp_path: Path) -> None:
    async def work(keeper: Keeper, _said: Lines) -> None:
        with pytest.raises(ServerTrouble, match=r"part ended with exit code 3 before it answered:\nno port is free"):
            await keeper.start()

    with_keeper(part("import sys; print('no port is free'); sys.exit(3)", tmp_path / "never"), work)


def test_a_part_that_does_not_answer_in_time_is_ended(tmp_path: Path) -> None:
    async def work(keeper: Keeper, _said: Lines) -> None:
        with pytest.raises(ServerTrouble, match="part does not answer"):
            await keeper.start()
        assert keeper.pid is not None
        assert is_gone(keeper.pid)

    with_keeper(part("import time; time.sleep(60)", tmp_path / "never", start_timeout_s=0.5), work)


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    async def work(keeper: Keeper, _said: Lines) -> None:
        with pytest.raises(ServerTrouble, match="part cannot be run"):
            await keeper.start()

    with_keeper(part("", tmp_path / "never", command=(str(tmp_path / "nothing"),)), work)


def test_a_part_that_does_not_heed_sigterm_is_killed(tmp_path: Path) -> None:
    async def work(keeper: Keeper, _said: Lines) -> None:
        await keeper.start()
        await keeper.stop()
        assert keeper.pid is not None
        assert is_gone(keeper.pid)

    said = with_keeper(part(STUBBORN, tmp_path / "answers", stop_timeout_s=0.3), work)
    assert ("part", "is slow to stop and is killed") in said


def test_a_long_line_is_cut_and_does_not_fill_the_memory(tmp_path: Path) -> None:
    code = f"import sys; print('x' * 1_000_000); {ANSWER}"

    async def work(keeper: Keeper, said: Lines) -> None:
        await keeper.start()
        await until(lambda: any("here" in line for _, line in said))

    said = with_keeper(part(code, tmp_path / "answers"), work)
    assert max(len(line) for _, line in said) <= 16_384


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = f"""
import subprocess, sys, time, pathlib
child = subprocess.Popen({program("http.server", "0", "--bind", "127.0.0.1")!r}, stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
child.stdout.read(1)
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
print("ready", flush=True)
time.sleep(60)
"""
    with Program(code, file) as parent:
        assert parent.says("ready")
        child = psutil.Process(int(file.read_text()))
        parent.kill()
    psutil.wait_procs([child], timeout=30)
    assert is_gone(child.pid)


def test_only_processes_of_the_home_are_leftovers(tmp_path: Path) -> None:
    mine, other = f"mine-{uuid.uuid4()}", f"other-{uuid.uuid4()}"
    sleep = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    started = [subprocess.Popen(sleep, env=os.environ | {MARK: mark}, stdout=subprocess.PIPE) for mark in (mine, other)]
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        assert end_leftovers(mine, timeout_s=10) == 1
        assert is_gone(started[0].pid)
        assert started[1].poll() is None
    finally:
        for process in started:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def test_a_second_one_on_a_home_is_refused_and_told_where_the_first_is(server_home: Path) -> None:
    with only_one(server_home) as note:
        with pytest.raises(AlreadyRunning, match="already starting"), only_one(server_home):
            pass
        write_note(note, api_url="http://127.0.0.1:1", ui_url="http://127.0.0.1:2")
        with pytest.raises(AlreadyRunning, match=rf"process {os.getpid()} .*127\.0\.0\.1:1"), only_one(server_home):
            pass
    with only_one(server_home) as note:
        assert not note.exists()


@flow(name="handed-back")
def nothing() -> None:
    """Do nothing."""


def test_runs_of_our_workers_are_handed_back_and_others_are_left_alone(
    prefect_api: PrefectServer, database_url: str
) -> None:
    from infra.stores import postgres_engine

    ours, theirs = f"ours-{uuid.uuid4()}", f"theirs-{uuid.uuid4()}"
    with get_client(sync_client=True) as client:

        def run(worker: str, state: Any, starts: int = 1) -> FlowRun:
            made = client.create_flow_run(nothing)
            client.update_flow_run_labels(made.id, {WORKER: worker})
            for _ in range(starts):
                client.set_flow_run_state(made.id, Running(), force=True)
            client.set_flow_run_state(made.id, state, force=True)
            return made

        runs = {
            "at work": run(ours, Running()),
            "being cancelled": run(ours, Cancelling()),
            "done": run(ours, Completed()),
            "of somebody else": run(theirs, Running()),
            "goes on alone": run(ours, Running()),
            "often broken": run(ours, Running(), starts=MAX_STARTS),
        }
        engine = postgres_engine(database_url, pool_size=1)
        with run_lease(engine, kind="handed-back", flow_run_id=runs["at work"].id):
            names = hand_back(
                prefect_api.api_url,
                prefect_api.auth,
                database_url=database_url,
                workers={ours},
                has_no_others=False,
                living={str(runs["goes on alone"].id)},
            )
            assert query(database_url, "SELECT outcome FROM runs") == [("broken",)]
        engine.dispose()
        after = {what: client.read_flow_run(made.id).state_name for what, made in runs.items()}
        for made in runs.values():
            client.delete_flow_run(made.id)
    assert set(names) == {runs[what].name for what in ("at work", "being cancelled", "often broken")}
    assert after == {
        "at work": "AwaitingRetry",
        "being cancelled": "Cancelled",
        "done": "Completed",
        "of somebody else": "Running",
        "goes on alone": "Running",
        "often broken": "Crashed",
    }


def test_a_flow_run_is_known_to_live_by_its_process_whoever_began_it() -> None:
    mark, own, other = (str(uuid.uuid4()) for _ in range(3))
    environment = {**os.environ, MARK: mark, FLOW_RUN: own}
    with subprocess.Popen(["sleep", "60"], env=environment) as lives:
        with subprocess.Popen(["sleep", "60"], env=environment | {MARK: other}) as of_another_home:
            assert living_runs(mark) == {own}
            assert living_runs(other) == {own}
            of_another_home.kill()
        lives.kill()
    assert living_runs(mark) == set()
