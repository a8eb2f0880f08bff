"""The load generator of the serving benchmark, and what it says: wrk (C) or oha (Rust), never a client in Python."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

NONE_FOUND = (
    "neither wrk nor oha is on PATH or beside this Python: install one of them (Debian: apt install wrk; "
    "cargo: cargo install oha), because a client in Python would measure itself"
)


class NoLoader(Exception):
    """There is no load generator on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one run of the load generator found."""

    requests: int
    seconds: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    failed: int
    """Answers other than 2xx and 3xx, and broken connections."""
    cpu_us: float = 0.0
    """Processor time of the server for each request."""

    @property
    def per_s(self) -> float:
        """Requests answered in a second."""
        return self.requests / self.seconds


def find_loader() -> str:
    """Path of wrk or oha.

    Raises:
        NoLoader: there is neither.
    """
    beside = str(Path(sys.executable).parent)
    for name in ("wrk", "oha"):
        found = shutil.which(name) or shutil.which(name, path=beside)
        if found is not None:
            return found
    raise NoLoader(NONE_FOUND)


def load(
    loader: str, base: str, paths: Sequence[str], *, key: str, connections: int, seconds: float, pids: Sequence[int]
) -> Load:
    """Ask for these paths in turn on so many connections, and tell how it went.

    Args:
        loader: path of wrk or oha.
        base: address of the server.
        paths: what is asked for, with a slash before it.
        key: API key to present.
        connections: each asks anew when it has its answer.
        seconds: how long.
        pids: processes whose time is counted.
    """
    before = _cpu_s(pids)
    with tempfile.TemporaryDirectory(prefix="swath-load-") as folder:
        run = _wrk if Path(loader).name.startswith("wrk") else _oha
        command = run(loader, Path(folder), base, paths, key=key, connections=connections, seconds=seconds)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    if done.returncode:
        raise RuntimeError(f"{Path(loader).name} ended with {done.returncode}: {done.stderr or done.stdout}")
    told = from_wrk(done.stdout) if run is _wrk else from_oha(done.stdout)
    spent = _cpu_s(pids) - before
    return Load(**{**told, "cpu_us": spent / max(1, told["requests"]) * 1e6})  # type: ignore[arg-type]


def _cpu_s(pids: Sequence[int]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def _wrk(
    loader: str, folder: Path, base: str, paths: Sequence[str], *, key: str, connections: int, seconds: float
) -> list[str]:
    script = folder / "paths.lua"
    listed = ",\n".join(json.dumps(path) for path in paths)
    script.write_text(_LUA.replace("SOME_PATHS", listed).replace("A_KEY", json.dumps(key)), encoding="utf-8")
    whole = max(1, round(seconds))
    return [loader, "-t1", f"-c{connections}", f"-d{whole}s", "--timeout", "20s", "-s", str(script), base]


_LUA = """
local paths = {SOME_PATHS}
local headers = {["X-API-Key"] = A_KEY}
local asked, next_one = {}, 0
init = function() for i, path in ipairs(paths) do asked[i] = wrk.format("GET", path, headers) end end
request = function()
  next_one = next_one % #asked + 1
  return asked[next_one]
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("\\nFOUND %d %d %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(95), latency:percentile(99), e.connect + e.read + e.write + e.timeout + e.status))
end
"""


def from_wrk(said: str) -> dict[str, float | int]:
    """Read what our script had wrk say."""
    found = re.search(r"^FOUND (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)$", said, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"wrk said nothing that can be read: {said[:400]}")
    requests, duration, *times, failed = map(int, found.groups())
    p50, p95, p99 = (each / 1000 for each in times)
    return {
        "requests": requests,
        "seconds": duration / 1e6,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "failed": failed,
    }


def _oha(
    loader: str, folder: Path, base: str, paths: Sequence[str], *, key: str, connections: int, seconds: float
) -> list[str]:
    urls = folder / "urls.txt"
    urls.write_text("".join(f"{base}{path}\n" for path in paths), encoding="utf-8")
    how = ["--no-tui", "--output-format", "json", "-c", str(connections), "-z", f"{seconds:g}s"]
    return [loader, *how, "-H", f"X-API-Key: {key}", "--urls-from-file", str(urls)]


def from_oha(said: str) -> dict[str, float | int]:
    """Read oha's JSON."""
    told = json.loads(said)
    by_status = {int(status): count for status, count in told["statusCodeDistribution"].items()}
    # What was under way when the time was over is no failure.
    broken = sum(count for why, count in told["errorDistribution"].items() if "deadline" not in why)
    times = told["latencyPercentiles"]
    return {
        "requests": sum(by_status.values()),
        "seconds": told["summary"]["total"],
        **{f"{name}_ms": times[name] * 1000 for name in ("p50", "p95", "p99")},
        "failed": broken + sum(count for status, count in by_status.items() if status >= 400),
    }
