"""How the work stands, as the metrics page tells it: found out in the background, kept when a store is away."""

from __future__ import annotations

import datetime as dt
import uuid
from contextlib import closing
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from infra.settings import Settings
from infra.work_figures import counted_run, counted_task
from models.domain import INDEX
from models.ledger import begin_work, finish_work, plan_work
from models.quota import QuotaLimits, charge
from models.runs import begin_run, end_run
from models.work_figures import KEY, note_run, note_task, read_work_figures
from serving.counts import Layout
from serving.metrics import Page
from serving.sheets import Sheets
from serving.standing import Watch
from tests.support.facts import engine_for, store_farms, work
from tests.support.figures import Figures, figures, value

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def client(redis_url: str) -> Any:
    with Redis.from_url(redis_url) as client:
        yield client


def told(watch: Watch, sheets: Sheets, *, now: dt.datetime | None = None) -> Figures:
    watch.look()
    clock = (lambda: now.timestamp()) if now else None
    return figures((Page(Layout(), sheets, clock=clock) if clock else Page(Layout(), sheets)).text())


def test_flows_and_tasks_add_up_over_processes(client: Redis) -> None:
    for seconds, is_failure in ((2.0, False), (4.0, True)):
        with counted_run(client, "daily-ndvi") as outcome:
            outcome.is_failure = is_failure
        note_task(client, "observe-scene", outcome="completed", seconds=seconds)
    with pytest.raises(LookupError), counted_task(client, "observe-scene"):
        raise LookupError
    found = read_work_figures(client)
    assert found.runs == {("daily-ndvi", "completed"): 1, ("daily-ndvi", "failed"): 1}
    assert set(found.last_success) == {"daily-ndvi"}
    scenes = found.tasks["observe-scene", "completed"]
    assert scenes.seconds == 6
    assert dict(scenes.up_to)["2.5"] == 1
    assert dict(scenes.up_to)["5"] == dict(scenes.up_to)["+Inf"] == 2
    assert dict(found.tasks["observe-scene", "failed"].up_to)["+Inf"] == 1


def test_a_run_ends_as_it_does_also_when_redis_is_away() -> None:
    with Redis.from_url(NOWHERE) as away:
        with counted_run(away, "daily-ndvi"):
            pass
        with pytest.raises(LookupError), counted_run(away, "daily-ndvi"):
            raise LookupError
        with pytest.raises(RedisError):
            read_work_figures(away)


def test_a_page_tells_queue_freshness_quota_and_runs(database_url: str, redis_url: str, client: Redis) -> None:
    now = dt.datetime.now(dt.UTC)
    seen_at = now - dt.timedelta(hours=30)
    engine = engine_for(database_url)
    with engine.begin() as connection:
        run_id = uuid.uuid4()
        begin_run(connection, run_id, kind="daily-ndvi", flow_run_id=None, host="here", pid=1, process="1")
        end_run(connection, run_id, outcome="broken")
    [farm] = store_farms(engine, 1)
    method: dict[str, Any] = {"index": INDEX, "mask_policy": "p"}
    done = work([farm], acquired_at=seen_at)
    with engine.begin() as connection:
        plan_work(connection, [done], **method)
        begin_work(connection, done, **method)
        finish_work(
            connection, done, **method, observed=1, not_observed={}, failed_farm_ids=[], problem=None, is_retryable=None
        )
        left = work([farm], tiles=("33TWN",), acquired_at=now)
        plan_work(connection, [left], **method)
        charge(connection, "open-meteo", weight=12.5, now=now, limits=QuotaLimits(), is_live=True)
    note_run(client, "daily-weather", outcome="completed", seconds=3.5, ended_at=now - dt.timedelta(minutes=1))
    sheets = Sheets(1)
    with closing(Watch(Settings(), sheets, database_url=database_url, redis_url=redis_url)) as watch:
        page = told(watch, sheets, now=now)
    assert value(page, "swath_newest_observation_age_seconds") == pytest.approx(30 * 3600, abs=1)
    assert value(page, "swath_queue_scenes", state="left_behind") == 1
    assert value(page, "swath_quota_used_calls", service="open-meteo", span="day") == 12.5
    assert value(page, "swath_quota_left_calls", service="open-meteo", span="day") == 10_000 - 12.5
    assert value(page, "swath_flow_runs_of_last_day", flow="daily-ndvi", outcome="broken") == 1
    assert value(page, "swath_flow_runs_total", flow="daily-weather", outcome="completed") == 1
    assert value(page, "swath_flow_last_run_seconds", flow="daily-weather") == 3.5
    assert value(page, "swath_flow_last_success_age_seconds", flow="daily-weather") == pytest.approx(60, abs=1)
    assert {value(page, "swath_store_up", store=store) for store in ("postgres", "redis")} == {1}
    engine.dispose()


def test_what_a_store_told_last_stays_while_it_is_away(database_url: str, redis_url: str, client: Redis) -> None:
    note_run(client, "daily-weather", outcome="completed", seconds=1, ended_at=dt.datetime.now(dt.UTC))
    sheets = Sheets(1)
    with closing(Watch(Settings(), sheets, database_url=database_url, redis_url=redis_url)) as watch:
        told(watch, sheets)
        client.set(KEY, "nothing that can be read as a hash")
        page = told(watch, sheets)
    assert value(page, "swath_store_up", store="redis") == 0
    assert value(page, "swath_store_up", store="postgres") == 1
    assert value(page, "swath_flow_runs_total", flow="daily-weather", outcome="completed") == 1


def test_with_no_store_at_all_there_is_a_page() -> None:
    sheets = Sheets(1)
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    with closing(Watch(Settings(), sheets, database_url=nowhere, redis_url=NOWHERE)) as watch:
        page = told(watch, sheets)
    assert {value(page, "swath_store_up", store=store) for store in ("postgres", "redis")} == {0}
