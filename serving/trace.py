"""What is noted of one request while it is answered: its id, its route, who asked, and where the time went."""

from __future__ import annotations

import secrets
import time
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(slots=True)
class Trace:
    """One request."""

    request_id: str = field(default_factory=lambda: secrets.token_hex(8))
    started_at: float = field(default_factory=time.perf_counter)
    route: str | None = None
    """Template of its path, e.g. `/api/v1/farms/{external_farm_id}/state`."""
    client: str | None = None
    """Name of who asked, once that is known."""
    cache: str | None = None
    """Whether the answer came from the cache: `hit`, `miss` or `away`."""
    times: dict[str, float] = field(default_factory=dict)
    """Seconds spent waiting, by store."""


current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def note_time(what: str, seconds: float) -> None:
    """Add time spent waiting for a store to the request at hand, if there is one."""
    trace = current.get()
    if trace is not None:
        trace.times[what] = trace.times.get(what, 0.0) + seconds
