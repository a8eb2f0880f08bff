"""`swath serve` as its users run it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.archives import ROOT
from tests.support.command import heed_interrupts
from tests.support.memory_home import memory_home

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Two workers on stores of their own, and where they listen."""
    with memory_home() as home:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("swath")), "serve", "--port", "0", "--workers", "2"],
            env=os.environ | {"SWATH_HOME": str(home)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=heed_interrupts,
        )
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found is not None
        yield process, found[0]
        process.kill()
        process.communicate()


def test_it_serves_replaces_a_worker_that_dies_and_stops_when_told(server: tuple[subprocess.Popen[str], str]) -> None:
    process, url = server
    # New connections each time; the socket is open from the start and waits for the first worker.
    assert httpx.get(f"{url}/readyz", trust_env=False, timeout=60).json()["data"]["stores"]["postgres"]["is_up"]
    first = _workers(process)
    assert len(first) == 2
    first[0].kill()
    psutil.wait_procs(first[:1], timeout=10)
    for _ in range(10):
        assert httpx.get(f"{url}/healthz", trust_env=False, timeout=60).status_code == 200
    while len({each.pid for each in _workers(process)}) < 2:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert not [each for each in first if each.is_running()]


def _workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children():
        try:
            if "serving" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.Error:
            continue
    return found
