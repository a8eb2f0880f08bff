"""Counting runs of flows and of tasks while they happen; what cannot be told to Redis is not worth failing for."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import redis
import structlog

from models.work_figures import COMPLETED, FAILED, note_run, note_task

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Outcome:
    """How a run comes out; whoever leaves the block by an error has failed anyway."""

    is_failure: bool = False


@contextlib.contextmanager
def counted_task(client: redis.Redis, task: str) -> Iterator[Outcome]:
    """Count the block as one try of a task, with the time it took."""
    with _counted(lambda outcome, seconds: note_task(client, task, outcome=outcome, seconds=seconds)) as outcome:
        yield outcome


@contextlib.contextmanager
def counted_run(client: redis.Redis, flow: str) -> Iterator[Outcome]:
    """Count the block as one run of a flow, with the time it took."""

    def note(outcome: str, seconds: float) -> None:
        note_run(client, flow, outcome=outcome, seconds=seconds, ended_at=dt.datetime.now(dt.UTC))

    with _counted(note) as outcome:
        yield outcome


@contextlib.contextmanager
def _counted(note: Callable[[str, float], None]) -> Iterator[Outcome]:
    begun = time.monotonic()
    outcome = Outcome()
    has_ended = False
    try:
        yield outcome
        has_ended = True
    finally:
        word = COMPLETED if has_ended and not outcome.is_failure else FAILED
        try:
            note(word, time.monotonic() - begun)
        except redis.RedisError as error:
            log.debug("run not counted", error=str(error))
