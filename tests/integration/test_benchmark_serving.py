"""The serving benchmark on a few farms: it ends well and counts what it should."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import serving
from benchmarks.serving_load import Load, NoLoader, find_loader, from_oha, from_wrk
from benchmarks.serving_runs import percentile

NAMES = ["throughput_ratio", "p99_ms", "series_p95_ms", "metrics_p95_ms", "sync_1000_s", "worker_rss_mb"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("wrk") is None and shutil.which("oha") is None, reason="needs wrk or oha on PATH")
def test_it_ends_with_one_line_for_programs_and_a_crowd_costs_one_read(capfd: pytest.CaptureFixture[str]) -> None:
    words = "--json --farms 20 --passes 5 --ready 10 --rounds 1 --seconds 1 --stall 1 --workers 2 --turns 1"
    code = serving.main(words.split())
    *readable, last = capfd.readouterr().out.splitlines()
    assert code == 0, readable
    numbers = json.loads(last)
    assert list(numbers) == NAMES
    assert all(number > 0 for number in numbers.values())
    assert any("1 read of Postgres; a farm nobody has looked at: 1 run asked for" in line for line in readable)


def test_without_a_load_generator_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoLoader, match="apt install wrk"):
        find_loader()
    assert serving.main(["--quick"]) == 2
    assert "cargo install oha" in capsys.readouterr().err


def test_what_wrk_and_oha_say_is_read_alike() -> None:
    expected = {"requests": 900, "seconds": 2.0, "p50_ms": 1.5, "p95_ms": 2.5, "p99_ms": 7.25, "failed": 3}
    assert from_wrk("Running 2s test\n\nFOUND 900 2000000 1500 2500 7250 3\n") == expected
    oha = {
        "summary": {"total": 2.0, "requestsPerSec": 450.0},
        "latencyPercentiles": {"p50": 0.0015, "p95": 0.0025, "p99": 0.00725},
        "statusCodeDistribution": {"200": 897, "202": 1, "500": 2},
        "errorDistribution": {"aborted due to deadline": 16, "connection reset": 1},
    }
    assert from_oha(json.dumps(oha)) == pytest.approx(expected)


def test_requests_a_second_and_percentiles() -> None:
    assert Load(requests=900, seconds=2, p50_ms=1, p95_ms=2, p99_ms=3, failed=0).per_s == 450
    assert percentile(range(1, 101), 0.95) == 95
    assert percentile([3.0], 0.95) == 3
