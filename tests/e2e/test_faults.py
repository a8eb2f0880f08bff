"""Upstreams that fail in every way we know: the right farms are observed, the right ones marked for another try."""

from __future__ import annotations

import copy
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from infra.local.postgres import PostgresServer
from infra.local.prefect import PrefectServer
from tests.support.archives import ARCHIVES, SHARED_DATA, archive_items
from tests.support.command import Call, Done, Swath, export_to, rows_of
from tests.support.databases import TEMPLATE, fresh_database
from tests.support.file_server import FileServer, file_server
from tests.support.stac_server import Page, scripted_stac, stac_server

pytestmark = [pytest.mark.shared_data, pytest.mark.slow, pytest.mark.timeout(400)]

ARCHIVE = "be-antwerp-2023q4"
RUN = ("ndvi", "run", "--start", "2023-10-01", "--end", "2023-12-31")
FARMS = SHARED_DATA / "farms/antwerp.geojson"

Rows = dict[tuple[str, str], dict[str, str]]


def environment(database_url: str, redis_url: str, prefect: PrefectServer) -> dict[str, str]:
    """Settings of a user whose patience is short."""
    return prefect.environment | {
        "SWATH_DATABASE_URL": database_url,
        "SWATH_REDIS_URL": redis_url,
        "SWATH_LOG_LEVEL": "ERROR",
        "SWATH_HTTP_TIMEOUT_S": "2",
        "SWATH_HTTP_RETRIES": "2",
        "SWATH_HTTP_RETRY_DELAY_S": "0.1",
        "SWATH_SCENE_RETRIES": "1",
        "SWATH_SCENE_RETRY_DELAY_S": "0.1",
        "SWATH_SCENES_AT_ONCE": "4",
    }


def told(file: Path) -> Rows:
    """Exported rows by farm and day, without what differs from run to run."""
    rows: Rows = {}
    for row in rows_of(file):
        del row["revision"]
        assert (row["external_farm_id"], row["day"]) not in rows, "observed twice"
        rows[row["external_farm_id"], row["day"]] = row
    return rows


@pytest.fixture
def truth(postgres_server: PostgresServer, redis_url: str, prefect_api: PrefectServer, tmp_path: Path) -> Rows:
    """What a run finds when nothing fails."""
    with fresh_database(postgres_server, template=TEMPLATE) as url, file_server(ARCHIVES / ARCHIVE) as files:
        swath = Swath(environment(url, redis_url, prefect_api))
        with stac_server(archive_items(ARCHIVE, files.url)) as stac_url:
            calm = Swath(swath.environment | {"SWATH_STAC_URL": stac_url, "SWATH_HTTP_TIMEOUT_S": "30"})
            calm.all_ok(["farms", "import", FARMS], RUN, export_to(tmp_path / "truth.csv"))
            return told(tmp_path / "truth.csv")


NUMBERS_BROKEN = ("missing", "down", "truncated")
"""Faults in red or near infrared, which are read where a farm has a clear pixel."""
CLASSES_BROKEN = ("stalled", "not an image", "refused")
"""Faults in the scene classification, without which nothing is known of any farm."""


def broken(files: FileServer, by_item: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    """Break scenes, each in its own way: clear ones in their bands, cloudy ones in their classes; item id to fault."""
    clear = sorted(key for key, rows in by_item.items() if any(row["status"] == "observed" for row in rows))
    cloudy = sorted(set(by_item) - set(clear))
    faults = dict(zip(clear, NUMBERS_BROKEN, strict=True)) | dict(
        zip(cloudy, (*CLASSES_BROKEN, "throttled once"), strict=False)
    )
    for item_id, kind in faults.items():
        match kind:
            case "missing":
                files.fail(f"*{item_id}/B04.tif", status=404)
            case "down":
                files.fail(f"*{item_id}/B08.tif", status=503)
            case "truncated":
                files.shorten(f"*{item_id}/B04.tif", keep_fraction=0.4)
            case "stalled":
                files.stall(f"*{item_id}/SCL.tif", limit_s=20)
            case "not an image":
                files.replace(f"*{item_id}/SCL.tif")
            case "refused":
                files.fail(f"*{item_id}/SCL.tif", status=403)
            case "throttled once":
                files.throttle(f"*{item_id}/SCL.tif", retry_after_s=1, times=1)
    return faults


def test_faults_over_http_lose_nothing_and_invent_nothing(
    truth: Rows, database_url: str, redis_url: str, prefect_api: PrefectServer, tmp_path: Path
) -> None:
    by_item: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in truth.values():
        by_item[row["item_ids"]].append(row)
    with file_server(ARCHIVES / ARCHIVE) as files:
        faults = broken(files, by_item)
        items = archive_items(ARCHIVE, files.url)
        crippled = next(item["id"] for item in items if item["id"] not in faults)
        with scripted_stac(
            [Page(items=without_nir(items, crippled), has_next=True), Page(items=[], has_next=True)]
        ) as stac:
            swath = Swath(environment(database_url, redis_url, prefect_api) | {"SWATH_STAC_URL": stac.url})
            calls: list[Call] = [
                ({}, ["farms", "import", FARMS]),
                ({}, [*RUN, "--json"]),
                ({}, export_to(tmp_path / "first.csv")),
                ({}, ["status", "--json"]),
            ]
            imported, run, exported, status = swath.each(calls)
            assert (imported.code, run.code, exported.code) == (0, 1, 0), run.err
            found = told(tmp_path / "first.csv")
            failed = {item_id for item_id, kind in faults.items() if kind != "throttled once"}
            lost = {key for key, row in truth.items() if key not in found and row["item_ids"] != crippled}
            assert all(found[key] == truth[key] for key in found), "a number differs because another scene failed"
            assert lost == {key for key, row in truth.items() if is_hit(row, faults, failed)}
            assert run.json()["failed"] == len(lost)
            assert pending(database_url) == len(lost)
            assert skipped(database_url) == {crippled}
            explain(status)

            files.heal()
            asked = files.requests
            # Another process: GDAL does not ask again for what it has found missing.
            again, _ = swath.all_ok([*RUN, "--json"], export_to(tmp_path / "second.csv"))
            healed = again.json()
            assert files.requests > asked, "another try really asks again"
            assert healed["failed"] == 0
            assert healed["observed"] + sum(healed["not_observed"].values()) == len(lost)
            expected = {key: row for key, row in truth.items() if row["item_ids"] != crippled}
            assert told(tmp_path / "second.csv") == expected
            assert pending(database_url) == 0


def is_hit(row: dict[str, str], faults: dict[str, str], failed: set[str]) -> bool:
    """Whether a farm's answer needed what was broken: red and near infrared only where it has a clear pixel."""
    if row["item_ids"] not in failed:
        return False
    return faults[row["item_ids"]] in CLASSES_BROKEN or row["status"] == "observed"


def without_nir(items: list[dict[str, Any]], item_id: str) -> list[dict[str, Any]]:
    changed = copy.deepcopy(items)
    for item in changed:
        if item["id"] == item_id:
            del item["assets"]["nir"]
    return changed


def query(database_url: str, words: str) -> list[Any]:
    engine = sa.create_engine(sa.make_url(database_url).set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connection:
            return list(connection.execute(sa.text(words)))
    finally:
        engine.dispose()


def pending(database_url: str) -> int:
    [[number]] = query(database_url, "SELECT coalesce(sum(cardinality(pending_farm_ids)), 0) FROM work")
    return int(number)


def skipped(database_url: str) -> set[str]:
    return {row[0] for row in query(database_url, "SELECT item_id FROM scenes WHERE skipped_reason IS NOT NULL")}


def explain(status: Done) -> None:
    """The screen of an operator names what failed."""
    assert status.code == 1
    problems = " ".join(each["problem"] for each in status.json()["failed"])
    assert all(word in problems for word in ("missing", "unavailable", "unreadable", "rejected"))
