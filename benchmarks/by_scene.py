"""Swath and the floor under it, each measured in a process of its own so that its time and memory are its own.

The floor is the least that anyone who wants these numbers must do: decode each needed block once, with plain
rasterio, as many threads, the same GDAL options, from the same server. It knows beforehand which blocks those are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window

from benchmarks.fields import random_farms
from benchmarks.server import Counter
from benchmarks.tile import BLOCK, DAYS, FULL_SIZE, Tile, grid_of, scene_works
from infra.dask import threaded_compute
from models.domain import Farm, MaskPolicy, SceneAnswer
from tasks.imagery.pixels import place_on
from tasks.imagery.reader import HttpLimits, gdal_path, use_gdal_options
from tasks.indices.clear_sky import CLASS_COUNT, is_clear_class
from tasks.indices.footprints import FootprintCache, Footprints, Lattice
from tasks.look import Method
from tasks.observe import observe

ROOT = Path(__file__).resolve().parents[1]
LIMITS = HttpLimits()
SCENES_AT_ONCE = 2
"""As the flow does by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a child process is asked to measure."""

    what: str
    """`swath` or `floor`."""
    folder: str
    size: int
    port: int
    farms: int
    threads: int
    delay_ms: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a child process measured, all three dates together."""

    ms: float
    cpu_ms: float
    """Processor time of the measuring process, all threads together; the file server's is not in it."""
    requests: int
    bytes: int
    peak_rss_mb: float
    start_rss_mb: float
    """Resident before the measurement: the interpreter and its libraries."""
    blocks: int = 0
    footprints_ms: float = 0
    scenes_ms: float = 0
    observed: int = 0
    means: tuple[tuple[float | None, ...], ...] = field(default=(), repr=False)
    """Swath's mean of every farm on every date, None where it was not observed."""


def measure(job: Job) -> Run:
    """Measure in a new process."""
    command = [sys.executable, "-m", "benchmarks.by_scene", json.dumps(asdict(job))]
    found = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return Run(**json.loads(found.stdout))


def measure_swath(job: Job) -> Run:
    """Observe the farms on all dates, footprints included, from a cold start of everything but imports."""
    farms = random_farms(job.farms, size=job.size)
    server = Counter(job.port)
    works = scene_works(server.url, size=job.size, farm_ids=tuple(farm.id for farm in farms))
    server.reset(delay_ms=job.delay_ms)
    rss = peak_rss_mb()
    start, cpu = time.perf_counter(), time.process_time()
    marks = [start]
    cache = FootprintCache()
    with threaded_compute(job.threads) as compute:
        method = Method(policy=MaskPolicy(), software_version="benchmark", compute=compute, http=LIMITS)
        cache.footprints(farms, Lattice.of(works[0].scenes[0].red.grid), inner_margin_m=method.inner_margin_m)
        marks.append(time.perf_counter())
        with ThreadPoolExecutor(SCENES_AT_ONCE) as scenes:
            answers = list(scenes.map(lambda work: observe(work, farms, method=method, cache=cache), works))
        marks.append(time.perf_counter())
    took = np.diff(marks) * 1000
    counts = server.counts()
    return Run(
        ms=(marks[-1] - start) * 1000,
        cpu_ms=(time.process_time() - cpu) * 1000,
        requests=counts.requests,
        bytes=counts.bytes,
        peak_rss_mb=peak_rss_mb(),
        start_rss_mb=rss,
        footprints_ms=took[0],
        scenes_ms=took[1],
        observed=sum(found.statistics is not None for answer in answers for found in answer.observations),
        means=tuple(_means(answer, len(farms)) for answer in answers),
    )


def _means(answer: SceneAnswer, farms: int) -> tuple[float | None, ...]:
    if answer.failures:
        raise RuntimeError(f"{len(answer.failures)} farms not read: {answer.failures[0].problem}")
    if len(answer.observations) != farms:
        raise RuntimeError(f"{len(answer.observations)} answers for {farms} farms")
    return tuple(found.statistics.mean if found.statistics else None for found in answer.observations)


Block = tuple[str, int, int]
"""Name of a file, and row and column of a block of it."""


def needed_blocks(tile: Tile, farms: Sequence[Farm]) -> tuple[list[Block], list[Block]]:
    """Blocks of scene classes that hold farm pixels, and blocks of red and near infrared that hold clear ones."""
    lattice = Lattice.of(grid_of("red", tile.size))
    found = FootprintCache().footprints(farms, lattice, inner_margin_m=0)
    scl_blocks: list[Block] = []
    blocks: list[Block] = []
    for day in DAYS:
        rows, cols, is_clear, scl = _clear_pixels(tile, found, lattice, file=tile.file(day, "scl"))
        scl_blocks += [(tile.file(day, "scl").name, *block) for block in _blocks(*scl)]
        clear = _blocks(rows[is_clear], cols[is_clear])
        blocks += [(tile.file(day, band).name, *block) for band in ("red", "nir") for block in clear]
    return scl_blocks, blocks


def _clear_pixels(tile: Tile, found: Footprints, lattice: Lattice, *, file: Path) -> tuple[Any, ...]:
    top, left = lattice.origin(grid_of("red", tile.size))
    rows, cols = found.rows.astype(np.intp) - top, found.cols.astype(np.intp) - left
    corners = [
        (grid.left, grid.top, grid.resolution_m) for grid in (grid_of("red", tile.size), grid_of("scl", tile.size))
    ]
    scl = place_on(rows, cols, of=corners[0], to=corners[1])
    with rasterio.open(file) as dataset:
        classes = dataset.read(1)[scl]
    return rows, cols, is_clear_class(MaskPolicy())[np.minimum(classes, CLASS_COUNT - 1)], scl


def _blocks(rows: Any, cols: Any) -> list[tuple[int, int]]:
    across = FULL_SIZE // BLOCK + 1
    return [divmod(place, across) for place in np.unique(rows // BLOCK * across + cols // BLOCK).tolist()]


def measure_floor(job: Job) -> Run:
    """Decode each needed block once, threads waiting for nothing but the next block."""
    tile = Tile(folder=Path(job.folder), size=job.size)
    scl_blocks, blocks = needed_blocks(tile, random_farms(job.farms, size=job.size))
    server = Counter(job.port)
    paths = {name: gdal_path(f"{server.url}/{name}") for name, _, _ in scl_blocks}
    paths |= {name: gdal_path(f"{server.url}/{name}") for name, _, _ in blocks}
    server.reset(delay_ms=job.delay_ms)
    rss = peak_rss_mb()
    start, cpu = time.perf_counter(), time.process_time()
    decode_blocks(scl_blocks + blocks, paths, threads=job.threads)
    ms, cpu_ms = (time.perf_counter() - start) * 1000, (time.process_time() - cpu) * 1000
    counts = server.counts()
    return Run(
        ms=ms,
        cpu_ms=cpu_ms,
        requests=counts.requests,
        bytes=counts.bytes,
        peak_rss_mb=peak_rss_mb(),
        start_rss_mb=rss,
        blocks=len(scl_blocks) + len(blocks),
    )


def decode_blocks(blocks: Sequence[Block], paths: dict[str, str], *, threads: int) -> None:
    """Read the blocks and drop them. Datasets are not safe for threads: each file has a pool of open ones."""
    idle: dict[str, SimpleQueue[Any]] = {name: SimpleQueue() for name in paths}

    def decode(block: Block) -> None:
        name, row, col = block
        use_gdal_options(LIMITS)
        dataset = rasterio.open(paths[name], sharing=False) if idle[name].empty() else idle[name].get()
        height, width = dataset.shape
        top, left = row * BLOCK, col * BLOCK
        dataset.read(1, window=Window(left, top, min(BLOCK, width - left), min(BLOCK, height - top)))
        idle[name].put(dataset)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(decode, blocks))


def peak_rss_mb() -> float:
    """The most memory this process ever held; `ru_maxrss` would count what the parent held at the fork as well."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def main() -> None:
    """Measure what the first argument says and print it as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("job")
    job = Job(**json.loads(parser.parse_args().job))
    print(json.dumps(asdict({"swath": measure_swath, "floor": measure_floor}[job.what](job))))


if __name__ == "__main__":
    main()
