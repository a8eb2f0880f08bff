"""Runs whose process is gone do not stay Running for ever."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from sqlalchemy import Engine

from flows.reconcile import reconcile_runs
from infra.leases import run_lease
from infra.local.prefect import PrefectServer
from models.runs import recent_runs, unended_runs
from tests.support.facts import engine_for
from tests.support.other_process import Program

pytestmark = pytest.mark.timeout(120)

FLOW = """
import sys
from prefect import flow
from prefect.runtime import flow_run
from sqlalchemy import create_engine
from infra.leases import run_lease

@flow(name="to-be-killed", persist_result=False)
def killed():
    with run_lease(create_engine(sys.argv[1]), kind="to-be-killed", flow_run_id=flow_run.id):
        print("at work", flush=True)
        sys.stdin.readline()

killed()
"""


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    yield made
    made.dispose()


def state_of(flow_run_id: uuid.UUID | None) -> State:
    assert flow_run_id is not None
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(flow_run_id).state
    assert state is not None
    return state


def test_a_run_killed_at_work_is_told_to_have_crashed_and_a_living_one_is_left_alone(
    engine: Engine, prefect_api: PrefectServer
) -> None:
    address = engine.url.render_as_string(hide_password=False)
    with Program(FLOW, address) as dead, run_lease(engine, kind="living") as living:
        assert dead.says("at work")
        assert reconcile_runs(engine) == []
        dead.kill()
        [found] = reconcile_runs(engine)
        state = state_of(found.flow_run_id)
        assert (state.type, found.kind) == (StateType.CRASHED, "to-be-killed")
        assert f"process {found.pid} " in (state.message or "")
        assert reconcile_runs(engine) == [], "once"
        assert state_of(found.flow_run_id).timestamp == state.timestamp
        with engine.connect() as connection:
            assert [run.id for run in unended_runs(connection)] == [living]
            assert {run.kind: run.outcome for run in recent_runs(connection, limit=2)}["to-be-killed"] == "died"


def test_what_prefect_does_not_know_any_more_is_closed_and_without_prefect_it_is_left_for_later(
    engine: Engine, prefect_api: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = FLOW.replace("flow_run_id=flow_run.id", f"flow_run_id={uuid.uuid4()!r}").replace("UUID(", "(")
    with Program(code, engine.url.render_as_string(hide_password=False)) as dead:
        assert dead.says("at work")
        dead.kill()
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        assert reconcile_runs(engine) == []
    with engine.connect() as connection:
        assert len(unended_runs(connection)) == 1
    assert len(reconcile_runs(engine)) == 1
