"""What the serving benchmark measures, one thing after the other, on a house that is filled."""

from __future__ import annotations

import math
import random
import re
import statistics
import threading
import time
import uuid
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from functools import partial

from redis import Redis

from benchmarks.serving_bare import PREFIX
from benchmarks.serving_data import House, farm_id
from benchmarks.serving_load import Load, load
from benchmarks.serving_servers import Prefect, Served, Stores, alone, ask, wait_for
from models.state import state_key

CACHED = ("state", "ndvi/latest", "weather/current")
CONNECTIONS = 16
CROWD = 500
SYNCED = 1_000
SCRAPE_EVERY_S = 0.05
MOST_WAIT_S = 10.0
SECOND_RUN_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to measure."""

    rounds: int
    """Pairs of runs of the bare route and of Swath."""
    seconds: float
    """Of each run."""
    workers: int
    """Where several are asked for."""
    stall_s: float
    """How long an upstream says nothing."""
    turns: int
    """Cold starts, and syncs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """One cached read, against the bare route that gives the same bytes."""

    what: str
    size: int
    """Bytes."""
    bare: tuple[Load, ...]
    swath: tuple[Load, ...]

    @property
    def ratio(self) -> float:
        """Swath's requests a second over the bare route's, median over the pairs."""
        return statistics.median(mine.per_s / bare.per_s for mine, bare in zip(self.swath, self.bare, strict=True))

    @property
    def cpu_ratio(self) -> float:
        """The bare route's processor time a request over Swath's, median over the pairs."""
        return statistics.median(bare.cpu_us / mine.cpu_us for mine, bare in zip(self.swath, self.bare, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cold:
    """What became of a crowd that asked for one farm at once."""

    requests: int
    failed: int
    database_reads: int
    runs_asked_for: int
    """Of a crowd that asked for a farm nobody has looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraped:
    """The metrics page while workers are busy and an upstream says nothing."""

    scrapes: int
    p95_ms: float
    longest_ms: float
    stalled_requests: int
    """Requests to the upstream that were kept waiting."""
    load: Load


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A worker's first second."""

    seconds: float
    """Until the first answer."""
    rss_mb: float
    """Then."""


def paths(house: House, what: str) -> list[str]:
    """Addresses of a read of all farms that are in Redis, in no order."""
    numbers = list(range(1, house.ready + 1))
    random.Random(7).shuffle(numbers)
    return [f"/api/v1/farms/{farm_id(number)}/{what}" for number in numbers]


def cached(loader: str, house: House, what: str, *, client: Redis, bare: Served, swath: Served, plan: Plan) -> Cached:
    """Measure both in turns; the bare route gives the bytes that Swath gave."""
    asked = paths(house, what)
    size = 0
    for path in asked:
        status, body = ask(swath.url, path, key=house.key)
        assert status == 200, f"{path}: {status} {body[:300]!r}"
        client.set(PREFIX + path, body)
        size = max(size, len(body))
    found: dict[str, list[Load]] = {"bare": [], "swath": []}
    run = partial(load, loader, key=house.key, connections=CONNECTIONS, seconds=plan.seconds)
    for _ in range(plan.rounds):
        for name, served in (("bare", bare), ("swath", swath)):
            found[name].append(run(served.url, asked, pids=served.pids))
    return Cached(what=what, size=size, bare=tuple(found["bare"]), swath=tuple(found["swath"]))


def warm_up(loader: str, house: House, served: Served, what: str) -> None:
    """Ask for a read for a second, unmeasured: connections are opened, statements prepared."""
    asked = paths(house, what)
    load(loader, served.url, asked, key=house.key, connections=CONNECTIONS, seconds=1, pids=served.pids)


def a_year(house: House) -> str:
    """The read of all observations of a farm."""
    return f"ndvi?start={house.first_day}&end={house.last_day}"


def series(loader: str, house: House, served: Served, *, connections: int, plan: Plan) -> list[Load]:
    """Measure a year of observations of each farm, read from Postgres."""
    asked = paths(house, a_year(house))
    run = partial(load, loader, served.url, asked, key=house.key, connections=connections, seconds=plan.seconds)
    return [run(pids=served.pids) for _ in range(plan.rounds)]


def sync(house: House, served: Served, plan: Plan) -> list[float]:
    """Seconds that a sync of a thousand new farms takes, from the first byte sent to the last received."""
    seconds = []
    for turn in range(plan.turns):
        farms = [_farm(turn * SYNCED + number) for number in range(SYNCED)]
        start = time.perf_counter()
        status, body = ask(served.url, "/api/v1/farms/sync", key=house.key, body=farms)
        seconds.append(time.perf_counter() - start)
        assert status == 200, f"sync: {status} {body[:300]!r}"
    return seconds


def _farm(number: int) -> dict[str, object]:
    """A field of ten corners."""
    west, south = 20 + number % 100 * 0.01, 45 + number // 100 * 0.01
    corners = [
        (round(west + 0.001 * math.sin(each / 5 * math.pi), 7), round(south + 0.001 * math.cos(each / 5 * math.pi), 7))
        for each in range(10)
    ]
    return {
        "external_farm_id": str(uuid.UUID(int=10**30 + number)),
        "external_user_id": f"user-{number % 50}",
        "name": f"new field {number}",
        "geometry": {"type": "Polygon", "coordinates": [[*corners, corners[0]]]},
    }


def _wait_for(runs: Sized) -> None:
    """Wait for the run that is asked for off the request's path, and longer for a second, which would be wrong."""
    until = time.monotonic() + MOST_WAIT_S
    while not runs and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(SECOND_RUN_S)


def crowd(loader: str, house: House, served: Served, *, client: Redis, prefect: Prefect) -> Cold:
    """Let a crowd ask for a farm that is not in Redis, and for one that nobody has looked at."""
    client.delete(state_key(house.cold_farm))
    before = figure(served, "swath_read_models_read_total")
    told = _crowd(loader, house, served, f"/api/v1/farms/{house.cold_farm}/state")
    reads = figure(served, "swath_read_models_read_total") - before
    prefect.runs.clear()
    new = _crowd(loader, house, served, f"/api/v1/farms/{house.new_farm}/state")
    _wait_for(prefect.runs)
    return Cold(
        requests=told.requests + new.requests,
        failed=told.failed + new.failed,
        database_reads=reads,
        runs_asked_for=len(prefect.runs),
    )


def _crowd(loader: str, house: House, served: Served, path: str) -> Load:
    return load(loader, served.url, [path], key=house.key, connections=CROWD, seconds=1, pids=served.pids)


def figure(served: Served, name: str) -> int:
    """A number on the metrics page."""
    assert served.metrics_url is not None
    base, _, _ = served.metrics_url.rpartition("/")
    found = re.search(rf"^{name} (\d+)", ask(base, "/metrics")[1].decode(), re.MULTILINE)
    assert found is not None, f"{name} is not on the metrics page"
    return int(found[1])


def scrape(loader: str, house: House, served: Served, *, prefect: Prefect, plan: Plan) -> Scraped:
    """Ask for the metrics page again and again, while workers are busy and Prefect says nothing."""
    loads: list[Load] = []
    asked = paths(house, "state")
    how = {"key": house.key, "connections": CONNECTIONS, "seconds": plan.stall_s, "pids": served.pids}
    busy = threading.Thread(target=lambda: loads.append(load(loader, served.url, asked, **how)))  # type: ignore[arg-type]
    base = (served.metrics_url or "").removesuffix("/metrics")
    prefect.waiting = 0
    prefect.answers.clear()
    refreshing = [
        threading.Thread(
            target=ask,
            args=(served.url, f"/api/v1/farms/{farm_id(number)}/ndvi/refresh"),
            kwargs={"key": house.key, "body": {}},
        )
        for number in range(1, 5)
    ]
    for thread in (busy, *refreshing):
        thread.start()
    times = []
    while busy.is_alive():
        start = time.perf_counter()
        status, _ = ask(base, "/metrics")
        times.append((time.perf_counter() - start) * 1000)
        assert status == 200
        time.sleep(SCRAPE_EVERY_S)
    prefect.answers.set()
    for thread in refreshing:
        thread.join()
    p95 = percentile(times, 0.95)
    return Scraped(
        scrapes=len(times), p95_ms=p95, longest_ms=max(times), stalled_requests=prefect.waiting, load=loads[0]
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share lies, taken from the values themselves."""
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


def start(house: House, stores: Stores) -> Start:
    """Start a worker, and wait for its first answer: a farm's state."""
    begun = time.perf_counter()
    with alone(stores, "-m", "serving") as served:
        wait_for(served.url, f"/api/v1/farms/{farm_id(1)}/state", key=house.key)
        return Start(seconds=time.perf_counter() - begun, rss_mb=served.rss_mb())
