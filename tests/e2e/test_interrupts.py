"""A run that is told to end does so soon, also when a file server keeps it waiting."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.local.prefect import PrefectServer
from tests.support.archives import ROOT
from tests.support.command import heed_interrupts
from tests.support.simulated import draw_season, import_farms, query, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

DAYS = dt.date(2024, 6, 9), dt.date(2024, 6, 10)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stalled_file_server_does_not_keep_a_run_from_ending(
    number: signal.Signals, code: int, database_url: str, redis_url: str, prefect_api: PrefectServer, tmp_path: Path
) -> None:
    season = draw_season(tmp_path, *DAYS)
    import_farms(database_url, season.farms_file)
    stores = {"SWATH_DATABASE_URL": database_url, "SWATH_REDIS_URL": redis_url}
    with served(season.folder, season.items) as archive:
        archive.files.stall("*.tif", limit_s=120)
        run = subprocess.Popen(
            [Path(sys.executable).with_name("swath"), "ndvi", "run", "--start", str(DAYS[0]), "--end", str(DAYS[1])],
            env=os.environ | archive.environment | stores | {"SWATH_HTTP_TIMEOUT_S": "100"},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_interrupts,
        )
        try:
            while archive.files.most_at_once == 0 and run.poll() is None:
                time.sleep(0.1)
            began = time.monotonic()
            run.send_signal(number)
            _, said = run.communicate(timeout=60)
        finally:
            run.kill()
    assert time.monotonic() - began < 20, said
    assert run.returncode == code, said
    assert "Traceback" not in said
    assert "swath: interrupted" in said or "swath: did not wait any longer" in said
    assert {state for (state,) in query(database_url, "SELECT state FROM work")} == {"planned"}
