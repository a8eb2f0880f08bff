"""The other processes of the weather benchmark: the services it asks, and each run of a flow by itself."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, Python looks for modules beside it only
    sys.path.insert(0, str(ROOT))

SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the services heard since the last look."""

    open_meteo_requests: int
    weighted_calls: float
    nasa_power_requests: int
    refused: int
    """Answered by anything but 200."""
    told_before: int
    """Requests for days of places that the same endpoint had told all of before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRun:
    """One run of a flow in a process of its own."""

    state: str
    message: str
    seconds: float
    """Of the flow, without the start of its process."""
    rows: int
    """Readings stored or replaced."""
    failed: int


class Services:
    """The running services as the benchmark sees them."""

    def __init__(self, process: subprocess.Popen[str], settings: dict[str, str]) -> None:
        self._process = process
        self.settings = settings

    def look(self) -> Heard:
        """What they heard since the last look."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("look\n")
        self._process.stdin.flush()
        return Heard(**json.loads(self._process.stdout.readline()))


@contextlib.contextmanager
def services(*, is_unlimited: bool) -> Iterator[Services]:
    """Run both stand-ins in another process, with the free service's limits or without any."""
    command = [sys.executable, str(Path(__file__).resolve()), "serve", "unlimited" if is_unlimited else "free"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Services(process, json.loads(process.stdout.readline()))
        finally:
            process.stdin.close()  # the services end when their parent does, however that comes
            process.wait(timeout=20)


def start_flow(*words: str) -> subprocess.Popen[str]:
    """Start a run of a flow: `daily`, or `backfill` and its first and last day."""
    command = [sys.executable, str(Path(__file__).resolve()), *words]
    quiet = {"PREFECT_LOGGING_LEVEL": "CRITICAL", "SWATH_LOG_LEVEL": "ERROR"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **quiet})


def finished(process: subprocess.Popen[str]) -> FlowRun:
    """How a run came out.

    Raises:
        RuntimeError: its process ended without telling.
    """
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a run of a flow ended with exit code {process.returncode}")
    return FlowRun(**json.loads(said.splitlines()[-1]))


def _serve(limits: str) -> None:
    from infra.sandbox.weather_limits import UNLIMITED, Allowance
    from infra.sandbox.weather_services import weather_services

    allowance, per_minute = (UNLIMITED, 10**9) if limits == "unlimited" else (Allowance(), 30)
    with weather_services(SEED, allowance=allowance, power_per_minute=per_minute) as running:
        told: dict[tuple[str, Any], set[int]] = defaultdict(set)
        print(json.dumps(dict(running.settings)), flush=True)
        for _ in sys.stdin:
            open_meteo, power = _taken(running.open_meteo.heard), _taken(running.nasa_power.heard)
            questions = [(each.path, each.question.places, each.question) for each in open_meteo if each.question]
            questions += [
                (each.path, ((each.question.latitude, each.question.longitude),), each.question)
                for each in power
                if each.question
            ]
            heard = Heard(
                open_meteo_requests=len(open_meteo),
                weighted_calls=sum(each.weight for each in open_meteo),
                nasa_power_requests=len(power),
                refused=sum(each.status != 200 for each in [*open_meteo, *power]),
                told_before=sum(_is_known(told, *question) for question in questions),
            )
            print(json.dumps(asdict(heard)), flush=True)


def _taken(heard: list[Any]) -> list[Any]:
    taken = heard[:]
    del heard[: len(taken)]
    return taken


def _is_known(told: dict[tuple[str, Any], set[int]], path: str, places: Sequence[Any], question: Any) -> bool:
    """Whether all this was told before; from now on it was."""
    days = set(range(question.first_day.toordinal(), question.last_day.toordinal() + 1))
    is_known = all(days <= told[path, place] for place in places)
    for place in places:
        told[path, place] |= days
    return is_known


def _run(words: Sequence[str]) -> None:
    import datetime as dt

    from flows.weather import WeatherSummary, backfill_weather, daily_weather

    start = time.perf_counter()
    state: Any
    if words[0] == "daily":
        state = daily_weather(return_state=True)
    else:
        state = backfill_weather(*map(dt.date.fromisoformat, words[1:]), return_state=True)
    seconds = time.perf_counter() - start
    summary = state.result(raise_on_failure=False)
    if not isinstance(summary, WeatherSummary):
        raise summary if isinstance(summary, BaseException) else RuntimeError(state.message)
    run = FlowRun(
        state=state.type.value,
        message=state.message or "",
        seconds=seconds,
        rows=summary.inserted + summary.replaced,
        failed=summary.failed,
    )
    print(json.dumps(asdict(run)), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[2]) if sys.argv[1] == "serve" else _run(sys.argv[1:])
