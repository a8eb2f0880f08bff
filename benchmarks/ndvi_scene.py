"""NDVI of many farms, by scene and by farm, side by side on one full-size tile over HTTP.

    python benchmarks/ndvi_scene.py [--quick] [--json]

Swath and the floor run in turns, each in a new process, and their ratio is the median over the pairs: a machine that
is busy with something else slows both. The other ways are sampled where they go farm by farm. Every mean that Swath
gives is compared with exactextract's over the masked NDVI of the same farm; a difference ends with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, Python looks for modules beside it only
    sys.path.insert(0, str(ROOT))

from benchmarks.by_farm import PEERS, WHOLE_SCENE, PeerJob, PeerRun, Timing, measure_peer  # noqa: E402
from benchmarks.by_scene import Job, Run, measure  # noqa: E402
from benchmarks.server import Counter, counting_server  # noqa: E402
from benchmarks.tile import CLOUDY_FRACTION, DAYS, FULL_SIZE, Tile, make_tile  # noqa: E402

FARMS = (50, 1_000, 10_000)
QUICK_FARMS = (1_000,)
QUICK_PAIRS_S = 18
TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure, and how often."""

    farms: tuple[int, ...]
    rounds: int
    """Pairs of runs of the floor and of Swath."""
    enough_s: float
    """No further pair is begun when so much time has gone by for one number of farms."""
    sample: int
    """Farms of a per-farm way in each of its two timings."""
    peers: tuple[str, ...]
    threads: int
    delay_ms: float
    """0: the delayed run is left out."""


@dataclass(slots=True, kw_only=True)
class Findings:
    """Everything measured for one number of farms."""

    farms: int
    floors: list[Run] = field(default_factory=list)
    swaths: list[Run] = field(default_factory=list)
    peers: list[PeerRun] = field(default_factory=list)

    @property
    def answers(self) -> int:
        """Farms times dates."""
        return self.farms * len(DAYS)

    @property
    def swath_ms(self) -> float:
        """Median, for each farm and date."""
        return statistics.median(run.ms for run in self.swaths) / self.answers

    @property
    def floor_ratio(self) -> float:
        """Swath's time over the floor's, median over the pairs."""
        return statistics.median(mine.ms / least.ms for mine, least in zip(self.swaths, self.floors, strict=True))

    @property
    def requests(self) -> float:
        """Swath's HTTP requests for each farm and date; the most of all runs."""
        return max(run.requests for run in self.swaths) / self.answers

    @property
    def peak_rss_mb(self) -> float:
        """The most memory that Swath's process held in any run."""
        return max(run.peak_rss_mb for run in self.swaths)

    def speedup(self, threads: int | None = None) -> float | None:
        """How many times fewer milliseconds than the best per-farm way, with so many farms at once (None: any)."""
        ms = [
            timing.ms
            for peer in self.peers
            if peer.name != WHOLE_SCENE
            for timing in peer.timings
            if threads in (None, timing.threads)
        ]
        return min(ms) / self.swath_ms if ms else None


def findings_of(count: int, tile: Tile, server: Counter, plan: Plan) -> Findings:
    """Measure everything for one number of farms."""
    found = Findings(farms=count)
    start = time.perf_counter()
    while len(found.swaths) < plan.rounds and (not found.swaths or time.perf_counter() - start < plan.enough_s):
        for what, runs in (("floor", found.floors), ("swath", found.swaths)):
            runs.append(measure(_job(what, count, tile, server, plan)))
    for name in plan.peers:
        job = PeerJob(
            name=name, size=tile.size, port=server.port, farms=count, sample=plan.sample, threads=plan.threads
        )
        found.peers.append(measure_peer(job))
    return found


def delayed_run(count: int, tile: Tile, server: Counter, plan: Plan) -> Run:
    """Swath with the delay added to every answer of the server."""
    return measure(_job("swath", count, tile, server, plan, delay_ms=plan.delay_ms))


def _job(what: str, count: int, tile: Tile, server: Counter, plan: Plan, *, delay_ms: float = 0) -> Job:
    return Job(
        what=what,
        folder=str(tile.folder),
        size=tile.size,
        port=server.port,
        farms=count,
        threads=plan.threads,
        delay_ms=delay_ms,
    )


def differences(found: Findings) -> list[str]:
    """Farms and dates on which Swath and exactextract do not agree, in words."""
    wrong = []
    for peer in found.peers:
        for farm, means in peer.means.items():
            for day, mine, theirs in zip(DAYS, (column[farm] for column in found.swaths[0].means), means, strict=True):
                is_same = mine is theirs if mine is None or theirs is None else abs(mine - theirs) <= TOLERANCE
                if not is_same:
                    wrong.append(f"{found.farms} farms, field {farm} on {day}: Swath {mine}, {peer.name} {theirs}")
    return wrong


def table(found: Findings) -> list[str]:
    """One number of farms as lines of text."""
    lines = [
        "",
        f"{found.farms:,} farms x {len(DAYS)} dates; for each farm and date:",
        f"  {'':34}{'ms':>9}{'requests':>10}{'kB':>9}{'peak MB':>9}{'to Swath':>10}",
    ]
    lines += [
        _line(_title(peer, timing, found), timing, peer.peak_rss_mb, found.swath_ms)
        for peer in found.peers
        for timing in peer.timings
    ]
    for title, runs in (("Swath, footprints included", found.swaths), ("floor", found.floors)):
        ms = statistics.median(run.ms for run in runs) / found.answers
        requests, sent = (max(getattr(run, name) for run in runs) / found.answers for name in ("requests", "bytes"))
        timing = Timing(threads=0, farms=found.farms, ms=ms, requests=requests, bytes=sent)
        lines.append(_line(title, timing, max(run.peak_rss_mb for run in runs), found.swath_ms))
    return lines + _notes(found)


def _title(peer: PeerRun, timing: Timing, found: Findings) -> str:
    if peer.name == WHOLE_SCENE:
        return peer.name
    how = "one by one" if timing.threads == 1 else f"{timing.threads} at once"
    return f"{peer.name}, {how}" + (" *" if timing.farms < found.farms else "")


def _line(title: str, timing: Timing, rss_mb: float, swath_ms: float) -> str:
    return (
        f"  {title:34}{timing.ms:9.3f}{timing.requests:10.3f}{timing.bytes / 1000:9.1f}{rss_mb:9.0f}"
        f"{timing.ms / swath_ms:9.1f}x"
    )


def _notes(found: Findings) -> list[str]:
    swath = min(found.swaths, key=lambda run: run.ms)
    ratios = [mine.ms / least.ms for mine, least in zip(found.swaths, found.floors, strict=True)]
    cpu = statistics.median(m.cpu_ms / f.cpu_ms for m, f in zip(found.swaths, found.floors, strict=True))
    sampled = sorted({timing.farms for peer in found.peers for timing in peer.timings if timing.farms < found.farms})
    lines = [
        f"  Swath to the floor: {found.floor_ratio:.2f} (pairs: {', '.join(f'{ratio:.2f}' for ratio in ratios)};"
        f" processor time: {cpu:.2f}); {swath.blocks or found.floors[0].blocks} blocks needed",
        f"  best Swath run: {swath.ms:.0f} ms = footprints {swath.footprints_ms:.0f}, scenes {swath.scenes_ms:.0f};"
        f" {swath.observed:,} of {found.answers:,} observed; {swath.start_rss_mb:.0f} MB before it began",
    ]
    if sampled:
        lines.append(
            f"  * sampled: {', '.join(map(str, sampled))} farms, as the cost of a farm does not depend on the others"
        )
    return lines


def summary(all_found: Sequence[Findings]) -> dict[str, float | None]:
    """The line for programs; None where something was not measured."""
    by_count = {found.farms: found for found in all_found}
    thousand, ten_thousand = by_count.get(1_000), by_count.get(10_000)
    return {
        "speedup_1000": _rounded(thousand.speedup() if thousand else None),
        "speedup_10000": _rounded(ten_thousand.speedup() if ten_thousand else None),
        "floor_ratio": _rounded((thousand or all_found[-1]).floor_ratio),
        "requests_per_farm_date_1000": _rounded(thousand.requests if thousand else None),
        "peak_rss_mb": _rounded(max(all_found, key=lambda found: found.farms).peak_rss_mb),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def default_cache() -> Path:
    """Where the tile is kept between runs."""
    folder = os.environ.get("XDG_CACHE_HOME")
    return Path(folder) / "swath-bench" if folder else ROOT / ".cache" / "swath-bench"


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="1,000 farms and fewer samples, within 50 s once the tile is made"
    )
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder of the tile (default: %(default)s)")
    parser.add_argument("--size", type=int, default=FULL_SIZE, help="pixels a side of the tile (default: %(default)s)")
    parser.add_argument("--farms", help="numbers of farms, separated by commas")
    parser.add_argument("--rounds", type=int, help="pairs of runs of the floor and of Swath")
    parser.add_argument("--sample", type=int, help="farms in each timing of a per-farm way")
    parser.add_argument("--threads", type=int, default=16, help="reads in flight (default: %(default)s)")
    parser.add_argument(
        "--delay", type=float, default=50, help="ms added to each answer in one more run; 0: no such run"
    )
    return parser.parse_args(words)


def plan_of(asked: argparse.Namespace) -> Plan:
    """What to measure by what was asked."""
    counts = tuple(int(part) for part in asked.farms.split(",")) if asked.farms else None
    return Plan(
        farms=counts or (QUICK_FARMS if asked.quick else FARMS),
        rounds=asked.rounds or (3 if asked.quick else 5),
        enough_s=QUICK_PAIRS_S if asked.quick else math.inf,
        sample=asked.sample or (12 if asked.quick else 60),
        peers=tuple(name for name in PEERS if not (asked.quick and name == WHOLE_SCENE)),
        threads=asked.threads,
        delay_ms=0 if asked.quick else asked.delay,
    )


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, and give the exit code: 1 when a number is not right."""
    asked = arguments(words)
    plan = plan_of(asked)
    start = time.perf_counter()
    tile, is_new = make_tile(asked.cache, size=asked.size)
    print(
        f"tile of {tile.size:,} x {tile.size:,} pixels, {len(DAYS)} dates, {tile.bytes / 1e6:,.0f} MB,"
        f" {CLOUDY_FRACTION:.0%} cloud, "
        + (f"made in {time.perf_counter() - start:.0f} s" if is_new else "from the cache"),
        flush=True,
    )
    print(f"{os.cpu_count()} processors, {plan.threads} threads, up to {plan.rounds} pairs of runs; simulated imagery")
    all_found: list[Findings] = []
    with counting_server(tile.folder) as server:
        for count in plan.farms:
            all_found.append(findings_of(count, tile, server, plan))
            print(*table(all_found[-1]), sep="\n", flush=True)
        if plan.delay_ms:
            _print_delayed(all_found, tile, server, plan)
    wrong = [problem for found in all_found for problem in differences(found)]
    _print_verdict(all_found, wrong, plan)
    if asked.json:
        print(json.dumps(summary(all_found)), flush=True)
    return 1 if wrong else 0


def _print_delayed(all_found: Sequence[Findings], tile: Tile, server: Counter, plan: Plan) -> None:
    found = next((each for each in all_found if each.farms == 1_000), all_found[-1])
    slow = delayed_run(found.farms, tile, server, plan)
    usual = statistics.median(run.ms for run in found.swaths)
    print(
        f"\n{found.farms:,} farms with {plan.delay_ms:g} ms added to each answer: {slow.ms:.0f} ms,"
        f" {slow.ms / usual:.2f} times the {usual:.0f} ms without"
    )


def _print_verdict(all_found: Sequence[Findings], wrong: Sequence[str], plan: Plan) -> None:
    print()
    for found in all_found:
        each, together = found.speedup(1), found.speedup(plan.threads)
        if each is not None and together is not None:
            print(
                f"{found.farms:,} farms: {each:.0f} times fewer milliseconds than the best per-farm way one by one,"
                f" {together:.0f} times fewer than the best with {plan.threads} farms at once"
            )
    compared = sum(len(peer.means) * len(DAYS) for found in all_found for peer in found.peers)
    print(f"{compared:,} means compared with exactextract's: {len(wrong)} differ by more than {TOLERANCE:g}")
    for problem in wrong[:20]:
        print("  " + problem)


if __name__ == "__main__":
    sys.exit(main())
