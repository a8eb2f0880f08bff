"""A `swath up` of its own for drills: its parts, its flow runs as Prefect knows them, and what it tells of itself."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from redis import Redis
from redis.exceptions import RedisError

from infra.local.postgres import local_postgres
from infra.local.valkey import local_valkey
from tests.support.archives import ROOT
from tests.support.command import Swath
from tests.support.memory_home import memory_home
from tests.support.simulated import Served

DONE_WITHIN_S = 240
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def until(is_so: Callable[[], Any], *, within_s: float = DONE_WITHIN_S) -> bool:
    """Wait until it is so; False when it is not in time."""
    deadline = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@dataclass
class House:
    """A running `swath up`, and the archive that its runs read."""

    home: Path
    process: subprocess.Popen[str]
    archive: Served
    database_url: str
    redis_url: str
    prefect: httpx.Client

    def log(self) -> str:
        """What all parts said."""
        return (self.home / "log").read_text()

    def start_run(self, *, lookback_days: int) -> str:
        """Ask for a daily run, as the schedule does, and give its id."""
        found = self.prefect.get("deployments/name/daily-ndvi/daily-ndvi").raise_for_status().json()
        body = {"parameters": {"lookback_days": lookback_days}}
        run = self.prefect.post(f"deployments/{found['id']}/create_flow_run", json=body).raise_for_status().json()
        return str(run["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        """A flow run as Prefect knows it; nothing while Prefect does not answer."""
        with contextlib.suppress(httpx.HTTPError):
            found: dict[str, Any] = self.prefect.get(f"flow_runs/{run_id}").raise_for_status().json()
            return found
        return {}

    def end_of(self, run_id: str) -> str:
        """The type of state in which a flow run ends."""
        assert until(lambda: self.run(run_id).get("state_type") in ENDED), self.log()
        return str(self.run(run_id)["state_type"])

    def part(self, *words: str) -> psutil.Process:
        """The process of the part that has these words in its command line."""
        parts = psutil.Process(self.process.pid).children()
        [found] = [part for part in parts if set(words) <= {Path(word).name for word in part.cmdline()}]
        return found

    def status(self) -> dict[str, Any]:
        """What `swath status --json` tells."""
        names = {
            "SWATH_HOME": str(self.home),
            "PREFECT_API_URL": str(self.prefect.base_url).rstrip("/"),
            "PREFECT_API_AUTH_STRING": (self.home / "prefect" / "auth").read_text().strip(),
        }
        found: dict[str, Any] = Swath(names | self.archive.environment)("status", "--json").json()
        return found

    def redis_answers(self) -> bool:
        """Whether its Redis does."""
        with contextlib.suppress(RedisError), Redis.from_url(self.redis_url) as client:
            return bool(client.ping())
        return False


@contextlib.contextmanager
def house_of(archive: Served) -> Iterator[House]:
    """Run `swath up` on this archive, in a home of its own, until the end of the block."""
    with memory_home() as home:
        settings = {
            "SWATH_HOME": str(home),
            "SWATH_SCENE_RETRY_DELAY_S": "2",
            "SWATH_HTTP_TIMEOUT_S": "120",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }
        # A Prefect server of other tests would be taken for the one to use.
        others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API_")}
        with (home / "log").open("w") as log:
            process = subprocess.Popen(
                [Path(sys.executable).with_name("swath"), "up", "--port", "0", "--ui-port", "0", "--json"],
                env=others | archive.environment | settings,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (home / "log").read_text()
            ready = json.loads(line)
            user, _, password = Path(ready["auth_file"]).read_text().strip().partition(":")
            url = f"{ready['ui_url']}/api/"
            with (
                httpx.Client(base_url=url, auth=(user, password), trust_env=False, timeout=30) as prefect,
                local_postgres(home) as postgres,
                local_valkey(home) as valkey,
            ):
                # What the clock would start comes in between else, about once in an hour.
                for each in prefect.post("deployments/filter", json={}).raise_for_status().json():
                    prefect.post(f"deployments/{each['id']}/pause_deployment").raise_for_status()
                yield House(home, process, archive, postgres.url, valkey.url, prefect)
        finally:
            process.terminate()
            process.communicate(timeout=120)
