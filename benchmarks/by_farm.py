"""One of the other ways, measured in a process of its own."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

from benchmarks.by_scene import ROOT, peak_rss_mb
from benchmarks.fields import random_farms
from benchmarks.peers import PER_FARM, Means, fields_of, per_farm, whole_scene
from benchmarks.server import Counter
from benchmarks.tile import DAYS

WHOLE_SCENE = "exactextract over NDVI rasters"
WARM_UP_FARMS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerJob:
    """What a child process is asked to measure."""

    name: str
    size: int
    port: int
    farms: int
    sample: int
    """Farms measured one after the other, and again as many other farms several at once."""
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One way of going through some farms."""

    threads: int
    farms: int
    ms: float
    """For each farm and date."""
    requests: float
    bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRun:
    """What a child process measured, and what it found: mean NDVI by farm number, on each date."""

    name: str
    timings: tuple[Timing, ...]
    peak_rss_mb: float
    means: dict[int, Means]

    @property
    def best(self) -> Timing:
        """The quickest way."""
        return min(self.timings, key=lambda timing: timing.ms)


def measure_peer(job: PeerJob) -> PeerRun:
    """Measure in a new process."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.by_farm", json.dumps(asdict(job))]
    found = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return PeerRun(
        name=found["name"],
        timings=tuple(Timing(**timing) for timing in found["timings"]),
        peak_rss_mb=found["peak_rss_mb"],
        means={int(number): tuple(means) for number, means in found["means"].items()},
    )


def run(job: PeerJob) -> PeerRun:
    """Measure here and now."""
    fields = fields_of(random_farms(job.farms, size=job.size))
    server = Counter(job.port)
    means: dict[int, Means] = {}
    timings = []

    def timed(first: int, count: int, threads: int, go: Callable[[], list[Means]]) -> None:
        server.reset()
        start = time.perf_counter()
        found = go()
        ms = (time.perf_counter() - start) * 1000
        counts, answers = server.counts(), count * len(DAYS)
        means.update(zip(range(first, first + count), found, strict=True))
        timings.append(
            Timing(
                threads=threads,
                farms=count,
                ms=ms / answers,
                requests=counts.requests / answers,
                bytes=counts.bytes / answers,
            )
        )

    if job.name == WHOLE_SCENE:
        timed(0, job.farms, 2, lambda: whole_scene(server.url, fields, size=job.size))
    else:
        sample = min(job.sample, (job.farms - WARM_UP_FARMS) // 2)
        # the last farms are for warming up: imports and first opens are nobody's farm
        per_farm(job.name, server.url, fields[-WARM_UP_FARMS:], size=job.size, threads=1)
        for first, threads in ((0, 1), (sample, job.threads)):
            some = fields[first : first + sample]
            go = partial(per_farm, job.name, server.url, some, size=job.size, threads=threads)
            timed(first, sample, threads, go)
    return PeerRun(name=job.name, timings=tuple(timings), peak_rss_mb=peak_rss_mb(), means=means)


def main() -> None:
    """Measure what the first argument says and print it as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("job")
    print(json.dumps(asdict(run(PeerJob(**json.loads(parser.parse_args().job))))))


PEERS = (*PER_FARM, WHOLE_SCENE)

if __name__ == "__main__":
    main()
