"""What the API costs: cached reads against a bare route, series from Postgres, crowds, syncs, metrics, cold starts.

    python benchmarks/serving.py [--quick] [--json]

Embedded Postgres and Valkey, filled by SQL; `swath serve` as an operator runs it; wrk or oha to ask. The bare route is
one of Starlette that gives the same bytes from the same Redis, behind the same server, with the same settings; it and
Swath run in turns, and their ratio is the median over the pairs: a machine that is busy with something else slows
both. Processor time a request is a second figure. Milliseconds are those of this machine at this time. A crowd that is
not answered by one read of Postgres and one run, or an answer that is no success, ends with exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, Python looks for modules beside it only
    sys.path.insert(0, str(ROOT))

from redis import Redis  # noqa: E402
from sqlalchemy import create_engine, make_url  # noqa: E402

from benchmarks.serving_data import House, fill  # noqa: E402
from benchmarks.serving_load import Load, NoLoader, find_loader  # noqa: E402
from benchmarks.serving_runs import (  # noqa: E402
    CACHED,
    CONNECTIONS,
    CROWD,
    SYNCED,
    Cached,
    Cold,
    Plan,
    Scraped,
    Start,
    a_year,
    cached,
    crowd,
    scrape,
    series,
    start,
    sync,
    warm_up,
)
from benchmarks.serving_servers import Prefect, Stores, alone, prefect, swath_serve  # noqa: E402
from infra.local.home import temporary_home  # noqa: E402
from infra.local.postgres import local_postgres  # noqa: E402
from infra.local.valkey import local_valkey  # noqa: E402
from infra.settings import Settings  # noqa: E402
from infra.telemetry import set_up_logs  # noqa: E402
from models.schema import upgrade  # noqa: E402

FULL_PLAN = Plan(rounds=7, seconds=5, workers=4, stall_s=10, turns=5)
QUICK_PLAN = Plan(rounds=2, seconds=1, workers=4, stall_s=2, turns=1)
FEW = 4
"""Connections of the second measurement of a series."""


@dataclass(slots=True, kw_only=True)
class Findings:
    """Everything measured."""

    house: House
    starts: list[Start] = field(default_factory=list)
    cached: list[Cached] = field(default_factory=list)
    series: list[Load] = field(default_factory=list)
    series_of_few: list[Load] = field(default_factory=list)
    syncs: list[float] = field(default_factory=list)
    busy_rss_mb: float = 0.0
    cold: Cold | None = None
    scraped: Scraped | None = None


@contextlib.contextmanager
def filled(*, farms: int, passes: int, ready: int) -> Iterator[tuple[House, Stores, Redis, Prefect]]:
    """Servers of their own with a filled house."""
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(temporary_home())
        database_url = stack.enter_context(local_postgres(home, durable=False)).url
        redis_url = stack.enter_context(local_valkey(home)).url
        heard = stack.enter_context(prefect())
        upgrade(database_url)
        client = stack.enter_context(Redis.from_url(redis_url))
        engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
        try:
            mask_policy = Settings().mask_policy.name
            house = fill(engine, client, farms=farms, passes=passes, ready=ready, mask_policy=mask_policy)
        finally:
            engine.dispose()
        yield house, Stores(database_url=database_url, redis_url=redis_url, prefect_url=heard.url), client, heard


def measure(loader: str, house: House, stores: Stores, client: Redis, heard: Prefect, plan: Plan) -> Findings:
    """Measure everything, one thing after the other."""
    found = Findings(house=house)
    found.starts += [start(house, stores) for _ in range(plan.turns)]
    with swath_serve(stores, workers=1) as swath:
        with alone(stores, "benchmarks/serving_bare.py") as bare:
            for served in (bare, swath):
                warm_up(loader, house, served, CACHED[0])
            for what in CACHED:
                found.cached.append(cached(loader, house, what, client=client, bare=bare, swath=swath, plan=plan))
        warm_up(loader, house, swath, a_year(house))
        found.series += series(loader, house, swath, connections=CONNECTIONS, plan=plan)
        found.series_of_few += series(loader, house, swath, connections=FEW, plan=plan)
        found.syncs += sync(house, swath, plan)
        found.busy_rss_mb = swath.rss_mb()
    with swath_serve(stores, workers=plan.workers) as swath:
        found.cold = crowd(loader, house, swath, client=client, prefect=heard)
        found.scraped = scrape(loader, house, swath, prefect=heard, plan=plan)
    return found


def report(found: Findings, plan: Plan) -> list[str]:
    """Everything as lines of text."""
    lines = [
        "",
        f"cached reads, one worker, {CONNECTIONS} connections, medians of {plan.rounds} rounds in turns:",
        f"  {'':24}{'bytes':>7}{'a second':>10}{'p50 ms':>8}{'p95 ms':>8}{'p99 ms':>8}{'CPU us':>8}"
        f"{'ratio':>7}{'by CPU':>8}",
    ]
    for each in found.cached:
        lines += [
            _line(f"{each.what}", each.size, each.swath, f"{each.ratio:7.2f}{each.cpu_ratio:8.2f}"),
            _line("  bare route", each.size, each.bare, ""),
        ]
    lines += [
        _line(f"a year, {CONNECTIONS} connections", None, found.series, ""),
        _line(f"a year, {FEW} connections", None, found.series_of_few, ""),
        f"sync of {SYNCED:,} new farms: {_median(found.syncs):.2f} s",
        f"a worker answers first after {_median([each.seconds for each in found.starts]):.2f} s and then holds"
        f" {max(each.rss_mb for each in found.starts):.0f} MB; {found.busy_rss_mb:.0f} MB after all of the above",
    ]
    if found.cold is not None:
        cold = found.cold
        lines.append(
            f"{CROWD} clients at once, {plan.workers} workers, cold cache: {cold.database_reads} read of Postgres;"
            f" a farm nobody has looked at: {cold.runs_asked_for} run asked for ({cold.requests:,} requests)"
        )
    if found.scraped is not None:
        scraped = found.scraped
        lines.append(
            f"/metrics with {plan.workers} workers at {scraped.load.per_s:,.0f} requests a second while Prefect says"
            f" nothing for {plan.stall_s:g} s: p95 {scraped.p95_ms:.1f} ms, longest {scraped.longest_ms:.1f} ms"
            f" of {scraped.scrapes}"
        )
    return lines


def _line(title: str, size: int | None, runs: Sequence[Load], more: str) -> str:
    numbers = [_median([getattr(run, name) for run in runs]) for name in ("p50_ms", "p95_ms", "p99_ms")]
    told = "".join(f"{number:8.2f}" for number in numbers)
    shown = "" if size is None else f"{size:,}"
    per_s, cpu_us = _median([run.per_s for run in runs]), _median([run.cpu_us for run in runs])
    return f"  {title:24}{shown:>7}{per_s:10,.0f}{told}{cpu_us:8.0f}{more}"


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def problems(found: Findings) -> list[str]:
    """What is not right, whatever the machine."""
    runs = [*found.series, *found.series_of_few]
    runs += [run for each in found.cached for run in (*each.swath, *each.bare)]
    failed = sum(run.failed for run in runs)
    wrong = [f"{failed} answers were no success"] if failed else []
    if found.cold is not None:
        cold = found.cold
        if cold.failed:
            wrong.append(f"{cold.failed} of a crowd's requests failed")
        if (cold.database_reads, cold.runs_asked_for) != (1, 1):
            wrong.append(f"a crowd cost {cold.database_reads} reads and {cold.runs_asked_for} runs, not one each")
    if found.scraped is not None and not found.scraped.stalled_requests:
        wrong.append("nothing was waiting for the upstream that stalled")
    return wrong


def summary(found: Findings) -> dict[str, float | None]:
    """The line for programs: of cached reads the worst; None where something was not measured."""
    return {
        "throughput_ratio": round(min(each.ratio for each in found.cached), 3),
        "p99_ms": round(max(_median([run.p99_ms for run in each.swath]) for each in found.cached), 2),
        "series_p95_ms": round(_median([run.p95_ms for run in found.series]), 2),
        "metrics_p95_ms": None if found.scraped is None else round(found.scraped.p95_ms, 2),
        "sync_1000_s": round(_median(found.syncs), 3),
        "worker_rss_mb": round(max(each.rss_mb for each in found.starts), 1),
    }


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds, within 45 s")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--farms", type=int, help="farms with observations (default: 100,000; quick: 1,000)")
    parser.add_argument("--passes", type=int, default=50, help="observations of each, in a year (default: %(default)s)")
    parser.add_argument("--ready", type=int, help="farms that are in Redis (default: 5,000; quick: 200)")
    parser.add_argument("--rounds", type=int, help="pairs of runs (default: 7; quick: 2)")
    parser.add_argument("--seconds", type=float, help="of each run (default: 5; quick: 1)")
    parser.add_argument("--stall", type=float, help="seconds for which Prefect says nothing (default: 10; quick: 2)")
    parser.add_argument("--workers", type=int, help="where several are measured (default: 4)")
    parser.add_argument("--turns", type=int, help="cold starts and syncs (default: 5; quick: 1)")
    return parser.parse_args(words)


def plan_of(asked: argparse.Namespace) -> Plan:
    """How much to measure by what was asked."""
    usual = QUICK_PLAN if asked.quick else FULL_PLAN
    return Plan(
        rounds=asked.rounds or usual.rounds,
        seconds=asked.seconds or usual.seconds,
        workers=asked.workers or usual.workers,
        stall_s=asked.stall or usual.stall_s,
        turns=asked.turns or usual.turns,
    )


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, and give the exit code: 1 when something is not right, 2 when nothing can be measured."""
    asked = arguments(words)
    set_up_logs("ERROR", as_json=False)
    try:
        loader = find_loader()
    except NoLoader as error:
        print(error, file=sys.stderr)
        return 2
    plan = plan_of(asked)
    farms = asked.farms or (1_000 if asked.quick else 100_000)
    ready = min(asked.ready or (200 if asked.quick else 5_000), farms - 1)
    begun = time.perf_counter()
    with filled(farms=farms, passes=asked.passes, ready=ready) as (house, stores, client, heard):
        print(
            f"{house.farms:,} farms, {house.observations:,} observations, {house.ready:,} farms in Redis,"
            f" made in {time.perf_counter() - begun:.0f} s; {os.cpu_count()} processors, {Path(loader).name}",
            flush=True,
        )
        found = measure(loader, house, stores, client, heard, plan)
    print(*report(found, plan), sep="\n", flush=True)
    wrong = problems(found)
    for problem in wrong:
        print(f"not right: {problem}")
    if asked.json:
        print(json.dumps(summary(found)), flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
