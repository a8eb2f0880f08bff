"""`swath backfill` over a simulated spring: what it tells beforehand, and that nothing disturbs what it does."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.flow_engine import run_flow
from prefect.states import Cancelled
from redis import Redis

from flows.ndvi import daily_ndvi, ndvi_days
from infra.cli.backfill_cost import Costs, Wanted, estimate
from infra.cli.backfill_detached import Handed, hand_over
from infra.cli.backfill_here import Outcome, run_here
from infra.local.postgres import PostgresServer
from infra.local.prefect import PrefectServer
from infra.local.valkey import ValkeyServer
from infra.settings import load_settings
from infra.up.deployments import plan_file, read_plan, register
from models.errors import BadInput
from tests.support.archives import ROOT
from tests.support.command import Call, Swath
from tests.support.databases import TEMPLATE, fresh_database
from tests.support.flow_runs import run_days, use
from tests.support.simulated import Season, Served, draw_season, execute, import_farms, query, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

START, END = dt.date(2024, 5, 26), dt.date(2024, 6, 5)
MAY, JUNE = (START, dt.date(2024, 5, 31)), (dt.date(2024, 6, 1), END)
DAYS = ("--start", str(START), "--end", str(END), "--what", "ndvi")
STALL_S = 120
MOMENT_S = 0.3
"""Every request for imagery takes so long where two runs are to be at one scene at the same time."""
NOBODY_LISTENS = "postgresql://me:x@127.0.0.1:9/swath"
FACTS = ("observations", "scenes", "work", "gaps")
PASSING = (
    *("revision", "updated_at", "first_seen_at", "changed_at", "noted_at", "asked_at", "planned_at", "finished_at"),
    *("run_id", "attempts"),
)
"""Columns that tell when and by whom something was done, and not what."""

Tables = dict[str, list[str]]


def tables(url: str) -> Tables:
    """All rows of all tables of NDVI, as text, without what differs from run to run."""
    passing = ", ".join(f"'{name}'" for name in PASSING)
    words = "SELECT (to_jsonb(t) - ARRAY[{passing}])::text FROM {table} AS t ORDER BY 1"
    return {table: [row for (row,) in query(url, words.format(passing=passing, table=table))] for table in FACTS}


def rows(url: str) -> dict[str, int]:
    """Rows of every table there is."""
    names = query(
        url, "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
    )
    return {name: query(url, f'SELECT count(*) FROM "{name}"')[0][0] for (name,) in names}


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@dataclass(frozen=True)
class Spring:
    """A database with farms and nothing observed, and the archive that the settings name."""

    url: str
    redis: Redis
    archive: Served
    season: Season
    environment: dict[str, str]

    def wanted(self, first: dt.date = START, last: dt.date = END) -> Wanted:
        return Wanted.of(first, last, what=("ndvi",))

    def backfill(self, first: dt.date = START, last: dt.date = END) -> tuple[Costs, Outcome]:
        """Do it in this process."""
        costs = estimate(load_settings(), self.wanted(first, last))
        return costs, run_here(load_settings(), self.wanted(first, last), costs)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Begin it in a process of its own."""
        return subprocess.Popen(
            [Path(sys.executable).with_name("swath"), "backfill", *words, "--json"],
            env=os.environ | self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def count(self, words: str = "observations") -> int:
        [(number,)] = query(self.url, f"SELECT count(*) FROM {words}")
        return int(number)


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> Season:
    return draw_season(tmp_path_factory.mktemp("spring"), START, END)


@pytest.fixture(scope="module")
def archive(season: Season) -> Iterator[Served]:
    with served(season.folder, season.items) as running:
        yield running


@pytest.fixture
def spring(
    season: Season,
    archive: Served,
    database_url: str,
    valkey_server: ValkeyServer,
    prefect_api: PrefectServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Spring]:
    import_farms(database_url, season.farms_file)
    archive.files.heal()
    stores = {"SWATH_DATABASE_URL": database_url, "SWATH_REDIS_URL": valkey_server.url, "SWATH_HTTP_TIMEOUT_S": "60"}
    use(monkeypatch, archive.environment | stores)
    archive.files.forget()
    with Redis.from_url(valkey_server.url) as client:
        client.flushall()
        yield Spring(
            database_url, client, archive, season, archive.environment | stores | dict(prefect_api.environment)
        )
    archive.files.heal()
    archive.files.delay_s = 0


@dataclass(frozen=True)
class Undisturbed:
    """What one backfill makes of an empty database."""

    costs: Costs
    outcome: Outcome
    tables: Tables
    order: list[dt.date]
    """Days of scenes in the order in which they were finished."""
    after: Costs
    """What another one would cost."""


@pytest.fixture(scope="module")
def undisturbed(
    season: Season,
    archive: Served,
    postgres_server: PostgresServer,
    valkey_server: ValkeyServer,
    prefect_api: PrefectServer,
) -> Iterator[Undisturbed]:
    with (
        fresh_database(postgres_server, template=TEMPLATE) as url,
        pytest.MonkeyPatch.context() as patch,
        Redis.from_url(valkey_server.url) as client,
    ):
        use(patch, archive.environment | {"SWATH_DATABASE_URL": url, "SWATH_REDIS_URL": valkey_server.url})
        import_farms(url, season.farms_file)
        spring = Spring(url, client, archive, season, {})
        costs, outcome = spring.backfill()
        order = [day for (day,) in query(url, "SELECT day FROM work WHERE state = 'done' ORDER BY finished_at")]
        yield Undisturbed(costs, outcome, tables(url), order, estimate(load_settings(), spring.wanted()))


def test_a_dry_run_tells_what_is_due_reads_no_imagery_and_writes_nothing(
    spring: Spring, undisturbed: Undisturbed
) -> None:
    before = rows(spring.url)
    done = Swath(spring.environment).ok("backfill", *DAYS, "--dry-run", "--json")
    cost = done.json()["cost"]["ndvi"]
    assert spring.archive.files.requests == 0
    assert rows(spring.url) == before
    assert not list(spring.redis.scan_iter("swath:*:state"))
    assert (done.json()["dry_run"], cost["months"]) == (True, 2)
    assert cost["scenes"] == undisturbed.outcome.scenes > 0
    assert cost["observations"] == undisturbed.outcome.observed + undisturbed.outcome.not_observed.total()
    assert min(cost["requests"], cost["megabytes"], cost["seconds"]) > 0


def test_the_newest_month_comes_first_and_afterwards_nothing_is_due(undisturbed: Undisturbed) -> None:
    assert [cost.days.first for cost in undisturbed.costs.ndvi] == [JUNE[0], MAY[0]]
    months = [day.month for day in undisturbed.order]
    assert set(months) == {5, 6}
    assert months == sorted(months, reverse=True)
    assert not undisturbed.outcome.is_loss
    assert not undisturbed.after.is_anything_due


def test_time_is_told_by_scenes_of_late_where_there_are_enough(spring: Spring) -> None:
    [before] = estimate(load_settings(), spring.wanted(*JUNE)).ndvi
    assert not before.is_from_history
    each = before.looks // before.scenes
    execute(
        spring.url,
        "INSERT INTO work (pass_id, tile_set, index, mask_policy, day, acquired_at, state, observed, finished_at) "
        f"SELECT 'old/' || n, '31UFS', 'ndvi', '{load_settings().mask_policy.name}', '2023-05-01', '2023-05-01', "
        f"'done', {each}, timestamptz '2023-06-01' + n * interval '7 s' + n / 10 * interval '1 day' "
        "FROM generate_series(0, 19) AS n",
    )
    [after] = estimate(load_settings(), spring.wanted(*JUNE)).ndvi
    assert after.is_from_history, "18 of 19 gaps are within a run"
    assert after.seconds == pytest.approx(7 * after.scenes)


def test_an_older_scene_does_not_take_the_place_of_a_newer_one_for_readers(spring: Spring) -> None:
    def told() -> dict[str, dict[str, Any]]:
        bodies = {
            key: json.loads(spring.redis.hget(key, "body") or b"") for key in spring.redis.scan_iter("swath:*:state")
        }
        parts = ("status", "coverage_pct", "latest", "last_pass")
        return {body["external_farm_id"]: {part: body[part] for part in parts} for body in bodies.values()}

    spring.backfill(*JUNE)
    newer = {farm: state for farm, state in told().items() if state["latest"]}
    assert newer
    _, outcome = spring.backfill(*MAY)
    assert outcome.observed > 0
    after = told()
    assert {farm: after[farm] for farm in newer} == newer
    assert any(state["latest"] for farm, state in after.items() if farm not in newer), "older ones fill what was empty"


def test_killed_in_the_middle_and_started_again_beside_a_daily_run_it_comes_to_the_same(
    spring: Spring, undisturbed: Undisturbed
) -> None:
    for day in sorted({day for day in undisturbed.order if day.month == 5}):
        spring.archive.files.stall(f"*{day:%Y%m%d}*", limit_s=STALL_S)
    with spring.start(*DAYS) as killed:
        june = [day for day in undisturbed.order if day.month == 6]
        wait_for(lambda: spring.count("work WHERE state = 'planned' AND attempts > 0 AND day < '2024-06-01'") > 0)
        killed.kill()
    assert spring.count("work WHERE state = 'done'") == len(june)
    assert spring.count("work WHERE state <> 'done'") > 0
    before = dict(query(spring.url, "SELECT pass_id || tile_set, attempts FROM work"))
    spring.archive.files.heal()

    spring.archive.files.delay_s = MOMENT_S
    with spring.start(*DAYS) as again:
        wait_for(lambda: spring.count(f"runs WHERE pid = {again.pid}") > 0)
        # Of what the dead one had planned, whatever its days, the daily run takes up what nobody has in hand.
        assert daily_ndvi(lookback_days=0, return_state=True).is_completed()
        assert run_days(*MAY)[0].is_completed()
        out, err = again.communicate(timeout=150)
    assert again.returncode == 0, err
    assert json.loads(out)["cost"]["ndvi"]["scenes"] == len(undisturbed.order) - len(june)
    assert tables(spring.url) == undisturbed.tables
    after = dict(query(spring.url, "SELECT pass_id || tile_set, attempts FROM work"))
    assert {after[key] - number for key, number in before.items()} == {0, 1}, "no scene was read twice"


def test_two_backfills_of_overlapping_days_at_once_lose_and_double_nothing(
    spring: Spring, undisturbed: Undisturbed
) -> None:
    spring.archive.files.delay_s = MOMENT_S
    middle = ("--start", str(START), "--end", str(END - dt.timedelta(days=1)), "--what", "ndvi")
    with spring.start(*DAYS) as one, spring.start(*middle) as other:
        for each in (one, other):
            _, err = each.communicate(timeout=200)
            assert each.returncode == 0, err
    assert tables(spring.url) == undisturbed.tables
    assert query(spring.url, "SELECT DISTINCT attempts FROM work") == [(1,)], "no scene was read twice"


def test_only_farms_in_the_box_are_observed_and_a_box_without_any_is_refused(spring: Spring) -> None:
    [(west, south, east, north)] = query(spring.url, "SELECT west, south, east, north FROM farms ORDER BY id LIMIT 1")
    box = Wanted.of(*JUNE, what=("ndvi",), bbox=(west, south, east, north))
    touching = f"west <= {east} AND east >= {west} AND south <= {north} AND north >= {south}"
    costs = estimate(load_settings(), box)
    assert costs.farms == spring.count(f"farms WHERE {touching}") < spring.count("farms")
    run_here(load_settings(), box, costs)
    assert spring.count("observations") == sum(cost.looks for cost in costs.ndvi) > 0
    assert spring.count(f"farms WHERE {touching}") >= spring.count("(SELECT DISTINCT farm_id FROM observations) AS o")
    with pytest.raises(BadInput, match="none of the farms"):
        estimate(load_settings(), Wanted.of(*JUNE, what=("ndvi",), bbox=(-150.0, -10.0, -149.0, -9.0)))


class TestDetached:
    """Runs of the deployments, done in this process as a worker would."""

    @pytest.fixture
    def client(self, prefect_api: PrefectServer) -> Iterator[SyncPrefectClient]:
        del prefect_api
        with get_client(sync_client=True) as found:
            register(found, read_plan(plan_file()), time_zone="UTC")
            yield found

    def handed(self, spring: Spring) -> Handed:
        costs = estimate(load_settings(), spring.wanted())
        [run] = hand_over(load_settings(), spring.wanted(), costs)
        return run

    def do(self, client: SyncPrefectClient, run_id: object) -> State[object]:
        run = client.read_flow_run(run_id)  # type: ignore[arg-type]
        return run_flow(ndvi_days, flow_run=run, parameters=typed(run), return_type="state")  # type: ignore[return-value]

    def test_each_run_asks_for_the_next_and_together_they_come_to_the_same(
        self, spring: Spring, client: SyncPrefectClient, undisturbed: Undisturbed
    ) -> None:
        first = self.handed(spring)
        assert spring.archive.files.requests == 0
        assert self.do(client, first.flow_run_id).is_completed()
        assert spring.count("work WHERE day < '2024-06-01'") == 0
        [second] = following(client, first.flow_run_id)
        assert (second.parameters["start"], second.parameters["end"]) == tuple(map(str, MAY))
        assert second.state is not None
        assert second.state.is_scheduled()
        assert second.state.state_details.scheduled_time <= dt.datetime.now(dt.UTC)  # type: ignore[operator]
        assert self.do(client, second.id).is_completed()
        assert following(client, second.id) == []
        assert tables(spring.url) == undisturbed.tables

    def test_should_a_run_die_the_next_one_does_its_days_again_some_hours_later(
        self, spring: Spring, client: SyncPrefectClient
    ) -> None:
        first = self.handed(spring)
        for _ in range(2):  # interrupted and started again, it asks for no second one
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SWATH_DATABASE_URL", NOBODY_LISTENS)
                assert not self.do(client, first.flow_run_id).is_completed()
            client.set_flow_run_state(first.flow_run_id, client.read_flow_run(first.flow_run_id).state, force=True)  # type: ignore[arg-type]
        [spare] = following(client, first.flow_run_id)
        assert (spare.parameters["start"], spare.parameters["then"]["tries"]) == (str(JUNE[0]), 1)
        assert spare.state is not None
        assert spare.state.state_details.scheduled_time > dt.datetime.now(dt.UTC) + dt.timedelta(hours=5)  # type: ignore[operator]

    def test_a_backfill_ends_when_its_last_run_was_cancelled(self, spring: Spring, client: SyncPrefectClient) -> None:
        first = self.handed(spring)
        assert self.do(client, first.flow_run_id).is_completed()
        [second] = following(client, first.flow_run_id)
        client.set_flow_run_state(first.flow_run_id, Cancelled(), force=True)  # type: ignore[arg-type]
        assert self.do(client, second.id).is_cancelled()
        assert following(client, second.id) == []

    def test_without_a_deployment_there_is_nothing_to_go_on_with(self, spring: Spring) -> None:
        del spring
        with pytest.raises(BadInput, match="deployment"):
            ndvi_days(*JUNE, then={"back_to": START})  # type: ignore[arg-type]

    def test_without_a_server_that_has_workers_nothing_can_be_left_to_them(
        self, spring: Spring, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        costs = estimate(load_settings(), spring.wanted())
        monkeypatch.delenv("PREFECT_API_URL")
        monkeypatch.setenv("SWATH_HOME", str(tmp_path))
        with pytest.raises(BadInput, match="--detach"):
            hand_over(load_settings(), spring.wanted(), costs)


def typed(run: FlowRun) -> dict[str, object]:
    """The parameters of a run as its flow gets them."""
    return ndvi_days.validate_parameters(run.parameters)


def following(client: SyncPrefectClient, run_id: object) -> list[FlowRun]:
    """Runs that this one asked for."""
    runs = client.read_flow_runs(limit=200)
    return [run for run in runs if ((run.parameters or {}).get("then") or {}).get("after") == str(run_id)]


REFUSED = {
    "--start: '2024-13-01' is not a day": ["--start", "2024-13-01"],
    "--start: 2024-05-02 is after the end": ["--start", "2024-05-02", "--end", "2024-05-01"],
    "--end: 2999-01-01 is ahead": ["--start", "2024-05-01", "--end", "2999-01-01"],
    "allowed: from 1940-01-01 on": ["--start", "1939-12-31"],
    "allowed: from 2015-06-27 on": ["--start", "2010-01-01", "--end", "2011-01-01", "--what", "ndvi"],
    "--what: 'rain' is not known; allowed: ndvi, weather": ["--start", "2024-05-01", "--what", "rain"],
    "--farm: 'x' is not a UUID": ["--start", "2024-05-01", "--farm", "x"],
    "--bbox: '1,2,3' is not a box": ["--start", "2024-05-01", "--bbox", "1,2,3"],
    "--bbox: '1,9,2,3' is out of range": ["--start", "2024-05-01", "--bbox", "1,9,2,3"],
    "--bbox: '1,2,3,nan' is out of range": ["--start", "2024-05-01", "--bbox", "1,2,3,nan"],
}


def test_what_cannot_be_asked_for_is_refused_by_its_option() -> None:
    calls: list[Call] = [({}, ["backfill", *words]) for words in REFUSED.values()]
    ends = Swath({"SWATH_DATABASE_URL": NOBODY_LISTENS}).each(calls)
    for problem, done in zip(REFUSED, ends, strict=True):
        assert (done.code, done.out) == (2, ""), done.err
        assert problem in done.err
