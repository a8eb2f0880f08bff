"""What operating costs: orchestration beside the work, planning for a million farms, and the start of `swath up`.

    python benchmarks/operate.py [--quick] [--json]

A day of scenes goes through the real flow and a Prefect server of its own; files and catalog are served on loopback.
Planning is measured over made-up farms on a made-up planet in an embedded Postgres. The start is that of `swath up` on
an empty home. The quick run takes less of everything and says how much. A number that is not right ends with exit
code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, Python looks for modules beside it only
    sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402

from benchmarks.day_of_scenes import DayRun, measure_day  # noqa: E402
from benchmarks.ndvi_scene import default_cache  # noqa: E402
from benchmarks.planning import Planned, measure_planning, stored_world  # noqa: E402
from benchmarks.tile import FULL_SIZE, make_tile  # noqa: E402
from infra.local.home import temporary_home  # noqa: E402
from infra.settings import Settings  # noqa: E402
from infra.stores import Stores  # noqa: E402
from infra.telemetry import set_up_logs  # noqa: E402

FARMS_A_SCENE = 100
QUICK_SIZE = 4_096
MOST_OVERHEAD, MOST_PLAN_S, MOST_PLAN_MB = 0.10, 60.0, 2_000.0
UP_WITHIN_S, STOPPED_WITHIN_S = 180.0, 60.0
PARTS = ("overhead", "plan", "up")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much to measure with."""

    scenes: int
    tile_px: int
    farms_planned: int
    scenes_planned: int


WHOLE = Size(scenes=200, tile_px=FULL_SIZE, farms_planned=1_000_000, scenes_planned=10_000)
QUICK = Size(scenes=16, tile_px=QUICK_SIZE, farms_planned=50_000, scenes_planned=1_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Seconds from the start of `swath up`, its process included."""

    api_s: float
    """To the first answered request of the API."""
    ui_s: float
    """To the first page of Prefect's UI."""


def measure_start() -> Start:
    """Start everything on an empty home and stop it again."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SWATH_", "PREFECT_"))}
    api_port, ui_port = _free_ports()
    with temporary_home() as home:
        words = ["-m", "infra.cli", "up", "--port", str(api_port), "--ui-port", str(ui_port), "--json"]
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env=kept | {"SWATH_HOME": str(home)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            found = dict(_answers(process, begun, api=f":{api_port}/healthz", ui=f":{ui_port}/"))
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOPPED_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return Start(api_s=found["api"], ui_s=found["ui"])


def _answers(process: subprocess.Popen[bytes], begun: float, **addresses: str) -> Iterator[tuple[str, float]]:
    """For each address when it first answered."""
    waiting = dict(addresses)
    with httpx.Client(trust_env=False, timeout=2) as client:
        while waiting:
            for name, rest in list(waiting.items()):
                with contextlib.suppress(httpx.TransportError):
                    if client.get(f"http://127.0.0.1{rest}").status_code < 500:
                        yield name, time.perf_counter() - begun
                        del waiting[name]
            if process.poll() is not None or time.perf_counter() - begun > UP_WITHIN_S:
                raise RuntimeError(f"`swath up` does not answer on {', '.join(waiting.values())}")
            time.sleep(0.02)


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything measured; None where it was not."""

    day: DayRun | None
    plan: Planned | None
    start: Start | None

    def numbers(self) -> dict[str, float | None]:
        """For programs."""
        day, plan, start = self.day, self.plan, self.start
        return {
            "overhead_fraction": None if day is None else round(day.overhead_fraction, 4),
            "plan_s": None if plan is None else round(plan.seconds, 2),
            "plan_rss_mb": None if plan is None else round(plan.peak_rss_mb, 1),
            "up_to_api_s": None if start is None else round(start.api_s, 2),
            "up_to_ui_s": None if start is None else round(start.ui_s, 2),
        }

    def problems(self, size: Size) -> Iterator[str]:
        """What is not as it should be, times apart: a busy machine is not wrong."""
        if self.day is not None:
            if self.day.state != "COMPLETED":
                yield f"the day's run ended {self.day.state}: {self.day.message}"
            expected = size.scenes * FARMS_A_SCENE
            if self.day.observed != expected:
                yield f"{self.day.observed:,} answers of {expected:,}"
        if self.plan is not None and self.plan.peak_rss_mb > MOST_PLAN_MB:
            yield f"planning took {self.plan.peak_rss_mb:,.0f} MB"


def report(found: Findings, size: Size) -> Iterator[str]:
    """What was measured, for people."""
    if (day := found.day) is not None:
        yield (
            f"{size.scenes} scenes x {FARMS_A_SCENE} farms on a tile of {size.tile_px:,} pixels a side:"
            f" {day.flow_s:.1f} s, {day.work_s:.1f} s of them work;"
            f" overhead {day.overhead_fraction:.1%} (wanted: below {MOST_OVERHEAD:.0%})"
        )
    if (plan := found.plan) is not None:
        yield (
            f"{size.farms_planned:,} farms, {size.scenes_planned:,} scenes of a day: planned in {plan.seconds:.1f} s"
            f" ({plan.cpu_s:.1f} s of processor time, {plan.queries} queries; wanted: below {MOST_PLAN_S:.0f} s),"
            f" peak {plan.peak_rss_mb:,.0f} MB of which {plan.start_rss_mb:,.0f} MB before;"
            f" {plan.units:,} units of work, {plan.looks:,} observations due"
        )
        yield f"  {plan.boxes:,} boxes to search, found in {plan.boxes_s:.1f} s before"
    if (start := found.start) is not None:
        yield f"`swath up` on an empty home: API answers after {start.api_s:.1f} s, UI after {start.ui_s:.1f} s"


def measure(parts: Sequence[str], size: Size, cache: Path) -> Findings:
    """Measure these parts, one after the other; the planner's world is made while the servers of the day start."""
    day = plan = start = None
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as maker:
        world: Future[Stores] | None = None
        if "plan" in parts:
            settings = Settings(home=stack.enter_context(temporary_home()))
            made = stored_world(settings, farms=size.farms_planned, scenes=size.scenes_planned)
            world = maker.submit(stack.enter_context, made)
        if "overhead" in parts:
            tile, _ = make_tile(cache, size=size.tile_px)
            is_quiet = world.result if world is not None else lambda: None
            day = measure_day(tile, scenes=size.scenes, farms=FARMS_A_SCENE, is_quiet=is_quiet)
        if world is not None:
            plan = measure_planning(world.result())
    if "up" in parts:
        start = measure_start()
    return Findings(day=day, plan=plan, start=start)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of everything, in about a minute")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this alone; may be given again")
    parser.add_argument("--scenes", type=int, help="of the day that is observed; default: 200, quick: 16")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder of the tile (default: %(default)s)")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, and give the exit code: 1 when a number is not right."""
    asked = arguments(words)
    set_up_logs("WARNING", as_json=False)
    size = QUICK if asked.quick else WHOLE
    size = replace(size, scenes=asked.scenes or size.scenes)
    print(f"{os.cpu_count()} processors; simulated imagery, made-up farms{'; a quick run' * asked.quick}", flush=True)
    found = measure(asked.only or PARTS, size, asked.cache)
    print(*report(found, size), sep="\n")
    problems = list(found.problems(size))
    for problem in problems:
        print(f"not right: {problem}")
    if asked.json:
        numbers: dict[str, Any] = found.numbers()
        print(json.dumps(numbers), flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
