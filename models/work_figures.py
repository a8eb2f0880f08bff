"""Figures of flow runs and of their task runs: one Redis hash, added to by the flows, read for the metrics page.

Redis may lose it: then the figures begin at 0 again, as those of any program that was started again.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

KEY = "swath:v1:work-figures"

TASK_BUCKETS_S = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Upper ends, seconds; a scene takes seconds to minutes."""

COMPLETED = "completed"
FAILED = "failed"

_REST = "+Inf"


@dataclass(slots=True)
class Durations:
    """How long runs of one task with one outcome took."""

    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    """By upper end of the bucket, each run in one."""

    @property
    def up_to(self) -> list[tuple[str, int]]:
        """Runs up to each upper end, and all."""
        ends = [*(f"{end:g}" for end in TASK_BUCKETS_S), _REST]
        counts = [self.counts.get(end, 0) for end in ends]
        return [(end, sum(counts[: place + 1])) for place, end in enumerate(ends)]


@dataclass(frozen=True, slots=True)
class WorkFigures:
    """What the flows have told since Redis last lost it. Outcomes are `completed` and `failed`."""

    runs: dict[tuple[str, str], int] = field(default_factory=dict)
    """By flow and outcome."""
    run_seconds: dict[tuple[str, str], float] = field(default_factory=dict)
    """Of all of them together."""
    last_seconds: dict[str, float] = field(default_factory=dict)
    """Of the last run, by flow."""
    last_success: dict[str, dt.datetime] = field(default_factory=dict)
    """When a run last completed, by flow."""
    tasks: dict[tuple[str, str], Durations] = field(default_factory=dict)
    """By task and outcome; each try counts."""


def note_task(client: Redis, task: str, *, outcome: str, seconds: float) -> None:
    """Add one try of a task.

    Raises:
        RedisError: Redis does not answer; nothing is added then.
    """
    place = bisect_left(TASK_BUCKETS_S, seconds)
    end = f"{TASK_BUCKETS_S[place]:g}" if place < len(TASK_BUCKETS_S) else _REST
    with client.pipeline(transaction=True) as pipe:
        pipe.hincrby(KEY, f"task|{task}|{outcome}|{end}", 1)
        pipe.hincrbyfloat(KEY, f"task-s|{task}|{outcome}", seconds)
        pipe.execute()


def note_run(client: Redis, flow: str, *, outcome: str, seconds: float, ended_at: dt.datetime) -> None:
    """Add one run of a flow.

    Raises:
        RedisError: Redis does not answer; nothing is added then.
    """
    with client.pipeline(transaction=True) as pipe:
        pipe.hincrby(KEY, f"run|{flow}|{outcome}", 1)
        pipe.hincrbyfloat(KEY, f"run-s|{flow}|{outcome}", seconds)
        pipe.hset(KEY, f"last-s|{flow}", repr(seconds))
        if outcome == COMPLETED:
            pipe.hset(KEY, f"success|{flow}", repr(ended_at.timestamp()))
        pipe.execute()


def read_work_figures(client: Redis) -> WorkFigures:
    """Return all of them, by one command.

    Raises:
        RedisError: Redis does not answer.
    """
    found: Any = client.hgetall(KEY)
    return _parsed(found)


def _parsed(fields: Mapping[bytes, bytes]) -> WorkFigures:
    found = WorkFigures()
    for name, value in fields.items():
        match name.decode().split("|"):
            case ["run", flow, outcome]:
                found.runs[flow, outcome] = int(value)
            case ["run-s", flow, outcome]:
                found.run_seconds[flow, outcome] = float(value)
            case ["last-s", flow]:
                found.last_seconds[flow] = float(value)
            case ["success", flow]:
                found.last_success[flow] = dt.datetime.fromtimestamp(float(value), dt.UTC)
            case ["task", task, outcome, end]:
                found.tasks.setdefault((task, outcome), Durations()).counts[end] = int(value)
            case ["task-s", task, outcome]:
                found.tasks.setdefault((task, outcome), Durations()).seconds = float(value)
    return found
