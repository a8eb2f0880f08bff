"""The demo as somebody meets it who tries Swath for the first time: without a terminal, and at one."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infra.local.home import temporary_home
from tests.support.archives import ROOT
from tests.support.command import heed_interrupts, processes_of
from tests.support.simulated import query

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEMO = [str(Path(sys.executable).with_name("swath")), "demo", "--start", "2024-06-01", "--end", "2024-06-15"]
NOBODY_LISTENS = "http://127.0.0.1:9"
ENDED_WITHIN_S = 60


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with temporary_home() as folder:
        yield folder
        assert processes_of(folder) == []


@pytest.fixture
def environment(home: Path, database_url: str, redis_url: str) -> dict[str, str]:
    """Of a user who has stores, services, a webhook and a Prefect server, none of which is for the demo."""
    theirs = {"SWATH_DATABASE_URL": database_url, "SWATH_REDIS_URL": redis_url, "SWATH_OPEN_METEO_KEY": "theirs"}
    theirs |= dict.fromkeys(("SWATH_STAC_URL", "SWATH_NASA_POWER_URL", "SWATH_ALERT_URL"), NOBODY_LISTENS)
    theirs |= {"PREFECT_API_URL": f"{NOBODY_LISTENS}/api"}
    return os.environ | theirs | {"SWATH_HOME": str(home), "COLUMNS": "80"}


def test_it_shows_a_simulated_season_and_touches_nothing_of_the_user(
    home: Path, environment: dict[str, str], database_url: str
) -> None:
    done = subprocess.run(DEMO, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert "simulated" in lines[0]
    last = max(number for number, line in enumerate(lines) if "simulated" in line)
    assert "swath farms import" in lines[last + 1]
    assert "swath ndvi run" in lines[last + 1]
    assert any(str(home / "demo") in line for line in lines), "where the data lie"
    assert [line[:10] for line in lines if line.startswith(("✓", "✗"))] == ["✓ NDVI of ", "✓ weather "]
    assert sum(line.startswith(" ") and "%" in line for line in lines) >= 35, "a line for each farm"
    weeks = [line.split() for line in lines if re.fullmatch(r".* [PAF]{7} *", line)]
    assert len(weeks) == 40, "a week of weather for each farm"
    *_, state, looked_at, series, table_of = lines
    assert all(line.startswith("  curl -sS -H 'X-API-Key: swk_") for line in (state, series))
    assert looked_at.split()[0] == table_of.split()[0] == "200", "what the two commands were answered"
    assert query(database_url, "SELECT (SELECT count(*) FROM farms), (SELECT count(*) FROM observations)") == [(0, 0)]
    assert processes_of(home) == [], "all of it has ended"


def test_on_a_terminal_it_stays_with_its_ui_and_its_schedules_until_ctrl_c(
    home: Path, environment: dict[str, str]
) -> None:
    ours, theirs = pty.openpty()
    demo = subprocess.Popen(
        DEMO,
        env=environment,
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=heed_interrupts,
    )
    os.close(theirs)
    try:
        shown = read_until(ours, "/ndvi?")
        second = subprocess.run(DEMO, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert second.returncode == 1
        assert second.stderr.startswith("swath: swath up is already running on ")
        look_at_prefect(home, re.findall(r"Prefect +(http://127\.0\.0\.1:\d+)", shown)[-1])
        assert demo.poll() is None, "it stays"
        demo.send_signal(signal.SIGINT)
        assert "Stopping all parts" in read_until(ours, None)
        assert demo.wait(ENDED_WITHIN_S) == 0
    finally:
        demo.kill()
        os.close(ours)
    assert processes_of(home) == []


def look_at_prefect(home: Path, url: str) -> None:
    """See that the UI is there, that schedules are on, and that workers did what the demos asked for."""
    user, _, password = (home / "demo" / "prefect" / "auth").read_text().strip().partition(":")
    with httpx.Client(base_url=url, auth=(user, password), trust_env=False, timeout=30) as prefect:
        assert "<title>" in prefect.get("/").text
        deployments = {each["id"]: each for each in prefect.post("/api/deployments/filter", json={}).json()}
        runs = prefect.post("/api/flow_runs/filter", json={"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}})
    scheduled = {each["name"] for each in deployments.values() if any(one["active"] for one in each["schedules"])}
    assert scheduled >= {"daily-ndvi", "daily-weather", "prewarm-weather", "maintenance"}
    done = [deployments[run["deployment_id"]]["name"] for run in runs.json()]
    assert (done.count("backfill-ndvi"), done.count("daily-weather")) == (2, 2), "of the first demo, and of this one"


def read_until(terminal: int, words: str | None) -> str:
    """What is shown up to these words, or to the end where there are none."""
    shown = b""
    while words is None or words.encode() not in shown:
        try:
            chunk = os.read(terminal, 65_536)
        except OSError:  # as Linux tells that the other end is closed
            chunk = b""
        if not chunk:
            assert words is None, shown.decode(errors="replace")
            break
        shown += chunk
    return shown.decode(errors="replace")
