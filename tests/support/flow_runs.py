"""Flow runs of this process, and what Prefect's server recorded of them."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import State, TaskRun

from flows.ndvi import RunSummary, ndvi_days

RECORDED_WITHIN_S = 20
"""Prefect's server records task runs from events, some time after they ended."""


def use(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """Set these variables."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def run_days(
    start: dt.date, end: dt.date, *, farms: list[uuid.UUID] | None = None, again: bool = False
) -> tuple[State[Any], RunSummary]:
    """Run the flow and give the state in which it ended and its summary."""
    state = ndvi_days(start, end, farms=farms, again=again, return_state=True)
    summary = state.result(raise_on_failure=False)
    assert isinstance(summary, RunSummary), summary
    return state, summary


def recorded_task_runs(state: State[Any], *, expected: int) -> dict[str, TaskRun]:
    """The task runs of a flow run by name, once there are this many and all have ended."""
    flow_run = FlowRunFilter(id=FlowRunFilterId(any_=[_flow_run_id(state)]))
    deadline = time.monotonic() + RECORDED_WITHIN_S
    with get_client(sync_client=True) as client:
        while True:
            found = client.read_task_runs(flow_run_filter=flow_run, limit=200)
            ended = [each for each in found if each.state is not None and each.state.is_final()]
            if len(ended) >= expected or time.monotonic() > deadline:
                return {each.name: each for each in ended}
            time.sleep(0.2)


def artifact(state: State[Any], *, key: str = "ndvi-summary") -> str:
    """The summary that a flow run left in the Prefect UI, as Markdown."""
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[_flow_run_id(state)]))
    with get_client(sync_client=True) as client:
        [found] = client.read_artifacts(artifact_filter=of_run)
    assert found.key == key
    assert isinstance(found.data, str)
    return found.data


def artifact_rows(state: State[Any], *, key: str = "ndvi-summary") -> list[list[str]]:
    """The cells of the artifact's table of scenes or batches, its heading left out."""
    lines = [line for line in artifact(state, key=key).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def logged(state: State[Any]) -> list[str]:
    """The lines that Prefect has of a flow run's log, once there are any."""
    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[_flow_run_id(state)]))
    deadline = time.monotonic() + RECORDED_WITHIN_S
    with get_client(sync_client=True) as client:
        while True:
            found = [each.message for each in client.read_logs(log_filter=of_run, limit=200)]
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0.2)


def _flow_run_id(state: State[Any]) -> uuid.UUID:
    assert state.state_details.flow_run_id is not None
    return state.state_details.flow_run_id
