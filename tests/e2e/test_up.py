"""`swath up` as an operator meets it: one command, all parts, and none of them left when it ends.

The tests of this file share one run of it and go in order: the last ones end it and start it anew.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flows.missing import MISSING_EVENT, RESOURCE, missing_payload
from infra.local.postgres import local_postgres
from infra.up.runs import MARK
from models.gaps import Gap
from tests.support.archives import ROOT
from tests.support.command import Swath, heed_interrupts
from tests.support.memory_home import memory_home
from tests.support.simulated import Season, draw_season, import_farms, query, served
from tests.support.webhooks import Receiver, receiver

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DAYS = dt.date(2024, 6, 9), dt.date(2024, 6, 10)
ENDED_WITHIN_S = 60
DONE_WITHIN_S = 180
TOLD_WITHIN_S = 60


@dataclass
class Up:
    """A running `swath up`."""

    home: Path
    process: subprocess.Popen[str]
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def prefect(self) -> httpx.Client:
        """Prefect's API."""
        user, _, password = Path(self.ready["auth_file"]).read_text().strip().partition(":")
        return httpx.Client(base_url=f"{self.ready['ui_url']}/api/", auth=(user, password), trust_env=False, timeout=30)

    def log(self) -> str:
        """What all parts said."""
        return (self.home / "log").read_text()

    def parts(self) -> dict[str, psutil.Process]:
        """Our own children, by what they are."""
        words = {"infra.cli": "api", "prefect_child.py": "prefect", "swath-backfill": "backfill"}
        found = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                line = " ".join(child.cmdline())
            except psutil.Error:  # it has just ended
                continue
            found[next((name for word, name in words.items() if word in line), "worker")] = child
        return found

    def end(self, number: signal.Signals) -> int:
        """Tell it to stop and wait for its end."""
        self.process.send_signal(number)
        code = self.process.wait(ENDED_WITHIN_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def start(home: Path, environment: dict[str, str]) -> Up:
    # A Prefect server of other tests would be taken for the one to use.
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API_")}
    with (home / "log").open("a") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("swath"), "up", "--port", "0", "--ui-port", "0", "--json"],
            env=others | {"SWATH_HOME": str(home)} | environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            preexec_fn=heed_interrupts,
        )
    up = Up(home, process)
    assert process.stdout is not None
    line = process.stdout.readline()  # ends with the process at the latest
    assert line, up.log()
    up.ready = json.loads(line)
    return up


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with memory_home() as made:
        yield made


@pytest.fixture(scope="module")
def inbox() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> Season:
    return draw_season(tmp_path_factory.mktemp("season"), *DAYS)


@pytest.fixture(scope="module")
def archive(season: Season) -> Iterator[Any]:
    with served(season.folder, season.items) as found:
        yield found


@pytest.fixture(scope="module")
def up(home: Path, inbox: Receiver, archive: Any) -> Iterator[Up]:
    found = start(home, {"SWATH_ALERT_URL": inbox.url, **archive.environment})
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.end(signal.SIGTERM)


def until(is_so: Callable[[], bool], *, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def ask_for(prefect: httpx.Client, deployment: str, parameters: dict[str, Any] | None = None, **more: Any) -> str:
    found = prefect.get(f"deployments/name/{deployment}").raise_for_status().json()
    body = {"parameters": parameters or {}, **more}
    run = prefect.post(f"deployments/{found['id']}/create_flow_run", json=body).raise_for_status().json()
    return str(run["id"])


def state(prefect: httpx.Client, run: str) -> dict[str, Any]:
    found = prefect.get(f"flow_runs/{run}").raise_for_status().json()["state"]
    assert isinstance(found, dict)
    return found


def ends_as(prefect: httpx.Client, run: str) -> str:
    final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    until(lambda: state(prefect, run)["type"] in final, within_s=DONE_WITHIN_S)
    return str(state(prefect, run)["type"])


def test_the_api_answers(up: Up) -> None:
    assert httpx.get(f"{up.ready['api_url']}/healthz", trust_env=False).status_code == 200


def test_prefects_ui_is_there_and_its_api_asks_for_the_password(up: Up) -> None:
    assert "<html" in httpx.get(up.ready["ui_url"], trust_env=False, follow_redirects=True).text.lower()
    assert httpx.post(f"{up.ready['ui_url']}/api/flows/filter", json={}, trust_env=False).status_code == 401
    with up.prefect as prefect:
        assert prefect.post("flows/filter", json={}).status_code == 200
    assert Path(up.ready["auth_file"]).stat().st_mode & 0o077 == 0
    assert Path(up.ready["auth_file"]).read_text().strip() not in up.log()


def test_all_of_it_listens_on_loopback_alone(up: Up) -> None:
    ours = [each for part in up.parts().values() for each in [part, *part.children(recursive=True)]]
    listening = [found for each in ours for found in each.net_connections() if found.status == psutil.CONN_LISTEN]
    assert listening
    assert {found.laddr.ip for found in listening} == {"127.0.0.1"}


def test_workers_keep_nothing_where_another_user_of_the_machine_is_in_the_way(up: Up) -> None:
    kept = up.home / "prefect" / "tmp"
    parts = up.parts()
    assert {parts[name].environ()["TMPDIR"] for name in ("worker", "backfill")} == {str(kept)}
    assert (kept / "runner_storage").is_dir()
    assert kept.stat().st_mode & 0o077 == 0


def test_schedules_have_runs_ahead(up: Up) -> None:
    """With a SQLAlchemy that Prefect does not know, everything seems well and nothing is ever scheduled."""
    ahead = {"flow_runs": {"state": {"name": {"any_": ["Scheduled"]}}, "tags": {"all_": ["daily"]}}, "limit": 200}
    with up.prefect as prefect:
        wanted = {each["id"] for each in prefect.post("deployments/filter", json={}).json() if each["schedules"]}
        assert len(wanted) >= 2

        def all_have() -> bool:
            found = prefect.post("flow_runs/filter", json=ahead).raise_for_status().json()
            return wanted <= {run["deployment_id"] for run in found}

        assert until(all_have, within_s=DONE_WITHIN_S)


def test_of_two_daily_runs_asked_for_by_http_one_is_done_and_the_other_does_not_run_beside_it(up: Up) -> None:
    with up.prefect as prefect:
        runs = [ask_for(prefect, "daily-ndvi/daily-ndvi", {"lookback_days": 1}) for _ in range(2)]
        ends = sorted(ends_as(prefect, run) for run in runs)
    assert ends == ["CANCELLED", "COMPLETED"], up.log()


def test_the_webhook_is_told_of_runs_that_failed_crashed_or_are_late_but_not_of_backfills_that_wait(
    up: Up, inbox: Receiver
) -> None:
    far = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).isoformat()
    wait = {"state": {"type": "SCHEDULED", "state_details": {"scheduled_time": far}}}
    late = {"type": "SCHEDULED", "name": "Late", "state_details": {"scheduled_time": far}}
    crashed = {"type": "CRASHED", "name": "Crashed", "message": 'it said "no"\nand went'}
    with up.prefect as prefect:
        backfill = ask_for(prefect, "ndvi-days/backfill-ndvi", {"start": "2024-06-09", "end": "2024-06-10"}, **wait)
        first, second, third = (ask_for(prefect, "daily-ndvi/daily-ndvi", **wait) for _ in range(3))
        failed = {"type": "FAILED", "name": "Failed", "message": "3 scenes failed"}
        for run, ending in ((backfill, late), (first, late), (second, failed), (third, crashed)):
            body = {"state": ending, "force": True}
            prefect.post(f"flow_runs/{run}/set_state", json=body).raise_for_status()
        told = {
            run: inbox.told(lambda body, run=run: body["run_id"] == run, within_s=TOLD_WITHIN_S)
            for run in (first, second, third)
        }
        for run in (backfill, first):
            prefect.delete(f"flow_runs/{run}").raise_for_status()
    assert None not in told.values(), up.log()
    assert told[first]["alert"] == "swath: a run is late"
    assert told[second]["alert"] == "swath: a run failed"
    assert told[second]["message"] == "3 scenes failed"
    assert told[second]["deployment"] == "daily-ndvi"
    assert "3 scenes failed" in told[second]["text"]
    assert told[third]["message"] == 'it said "no"\nand went'
    assert told[third]["url"].endswith(third)
    assert backfill not in {body["run_id"] for body in inbox.bodies}
    assert len(inbox.bodies) == 3


def test_the_webhook_is_told_of_passes_that_no_catalog_has(up: Up, inbox: Receiver) -> None:
    day, at = dt.date(2024, 6, 9), dt.datetime(2024, 6, 9, 10, tzinfo=dt.UTC)
    gaps = [
        Gap(
            tile=tile,
            platform="sentinel-2b",
            relative_orbit=36,
            day=day,
            expected_at=at,
            farms=1_200,
            asked_at=at,
            alerted_at=None,
        )
        for tile in ("34TDR", "34TER")
    ]
    with up.prefect as prefect:
        run = ask_for(prefect, "maintenance/maintenance")
        related = [{"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.role": "flow-run"}]
        for resource, of_run in ((RESOURCE, related), (RESOURCE, []), ("somebody.else", [])):
            event = {
                "id": str(uuid.uuid4()),
                "occurred": dt.datetime.now(dt.UTC).isoformat(),
                "event": MISSING_EVENT,
                "resource": {"prefect.resource.id": resource},
                "related": of_run,
                "payload": missing_payload(gaps),
            }
            prefect.post("events", json=[event]).raise_for_status()

    def is_of(run_id: str | None) -> Callable[[Any], bool]:
        return lambda body: "passes" in body and body["run_id"] == run_id

    of_run, of_none = (inbox.told(is_of(about), within_s=TOLD_WITHIN_S) for about in (run, None))
    assert of_run["text"] == (
        "swath: passes are missing: 2 passes in no catalog: 34TDR 2024-06-09 by sentinel-2b (1,200 farms), "
        "34TER 2024-06-09 by sentinel-2b (1,200 farms)"
    )
    assert of_run["url"].endswith(run)
    assert of_none["url"] is None
    assert of_none["passes"][1] == {"tile": "34TER", "platform": "sentinel-2b", "day": "2024-06-09", "farms": 1_200}
    assert len([body for body in inbox.bodies if "passes" in body]) == 2


def test_a_second_one_on_the_same_home_says_where_the_first_is(up: Up) -> None:
    done = Swath({"SWATH_HOME": str(up.home)})("up", "--port", "0", "--ui-port", "0")
    assert done.code == 1
    assert f"already running on {up.home}: process {up.process.pid}" in done.err
    assert up.ready["api_url"] in done.err


def test_a_part_that_is_killed_is_started_again_at_the_same_address(up: Up) -> None:
    killed = up.parts()["api"]
    killed.kill()

    def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            is_other = up.parts().get("api", killed).pid != killed.pid
            return is_other and httpx.get(f"{up.ready['api_url']}/healthz", trust_env=False).status_code == 200
        return False

    assert until(answers, within_s=DONE_WITHIN_S), up.log()
    assert "was ended by SIGKILL; it is started again" in up.log()


def test_the_embedded_postgres_is_started_again_when_it_is_killed(up: Up) -> None:
    pid_file = up.home / "postgres" / "data" / "postmaster.pid"
    pid = int(pid_file.read_text().partition("\n")[0])
    psutil.Process(pid).kill()
    assert until(lambda: "answers again" in up.log(), within_s=DONE_WITHIN_S), up.log()
    assert int(pid_file.read_text().partition("\n")[0]) != pid


def test_ctrl_c_leaves_no_process_and_a_run_at_work_goes_on_at_the_next_start(
    up: Up, season: Season, archive: Any, inbox: Receiver
) -> None:
    with local_postgres(up.home) as postgres:
        farms = import_farms(postgres.url, season.farms_file)
    archive.files.stall("*.tif", limit_s=120)
    with up.prefect as prefect:
        run = ask_for(prefect, "ndvi-days/backfill-ndvi", {"start": str(DAYS[0]), "end": str(DAYS[1])})
        assert until(lambda: archive.files.most_at_once > 0, within_s=DONE_WITHIN_S), up.log()
    told = len(inbox.bodies)
    assert up.end(signal.SIGINT) == 0, up.log()
    assert left_running(up.home) == []
    assert "handed back, to be gone on with" in up.log()
    assert not (up.home / "up" / "running.json").exists()

    archive.files.heal()
    again = start(up.home, archive.environment)
    try:
        with again.prefect as prefect:
            assert ends_as(prefect, run) == "COMPLETED", again.log()
            assert prefect.get(f"flow_runs/{run}").json()["run_count"] == 2
        with local_postgres(up.home) as postgres:
            assert query(postgres.url, "SELECT count(DISTINCT farm_id) FROM observations") == [(farms,)]
        assert len(inbox.bodies) == told  # nobody is woken by a stop that was asked for
    finally:
        assert again.end(signal.SIGTERM) == 0, again.log()
    assert left_running(up.home) == []


def left_running(home: Path) -> list[str]:
    """Processes that were started by `swath up` of this home, and its stores."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_store = any(str(home) in word for word in process.cmdline())
            is_part = MARK in process.environ() and process.environ().get("SWATH_HOME") == str(home)
            if (is_store or is_part) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found
