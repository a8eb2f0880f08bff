"""`swath backfill` of weather: its cost told beforehand is what it asks, and two at once ask for nothing twice."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from sqlalchemy import Engine, text

from flows.weather import backfill_weather
from infra.cli.backfill_cost import Costs, Wanted, estimate
from infra.cli.backfill_detached import hand_over
from infra.cli.backfill_here import run_here
from infra.local.prefect import PrefectServer
from infra.local.valkey import ValkeyServer
from infra.settings import load_settings
from infra.up.deployments import plan_file, read_plan, register
from tests.support.district import POWER, asked, both_services, environment, farm, store_district
from tests.support.facts import engine_for
from tests.support.flow_runs import use
from tests.support.other_process import Program
from tests.support.weather_server import Received, Reply, WeatherServer, weather_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

SOME = 12
FIRST, LAST = dt.date(2022, 11, 1), dt.date(2024, 2, 10)
WANTED = Wanted.of(FIRST, LAST, what=("weather",))
READINGS = "SELECT (to_jsonb(w) - ARRAY['revision', 'updated_at', 'told_at'])::text FROM weather_daily AS w ORDER BY 1"


@dataclass(frozen=True)
class District:
    """Some farms in a database, with the services that the settings name."""

    engine: Engine
    server: WeatherServer

    def readings(self) -> list[str]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(READINGS)).scalars())

    def forget(self) -> dict[str, int]:
        """Forget all weather, and tell how often each address was asked since the last time."""
        found = asked(self.server)
        self.server.received.clear()
        with self.engine.begin() as connection:
            connection.execute(text("TRUNCATE weather_daily"))
        return found


@pytest.fixture
def district(
    database_url: str, valkey_server: ValkeyServer, prefect_api: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[District]:
    del prefect_api
    engine = engine_for(database_url)
    store_district(engine, SOME)
    with weather_server() as server:
        server.script(both_services)
        stores = {"SWATH_DATABASE_URL": database_url, "SWATH_REDIS_URL": valkey_server.url}
        use(monkeypatch, environment(server, **stores))
        yield District(engine, server)
    engine.dispose()


def costs_of(wanted: Wanted = WANTED) -> Costs:
    return estimate(load_settings(), wanted)


def test_the_cost_told_beforehand_is_what_is_asked_and_telling_it_costs_nothing(district: District) -> None:
    costs = costs_of()
    assert asked(district.server) == {}
    with district.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM weather_cells")).scalar_one() == 0
    assert [cost.days.first for cost in costs.weather] == [dt.date(2024, 1, 1), dt.date(2023, 1, 1), FIRST]

    outcome = run_here(load_settings(), WANTED, costs)
    assert not outcome.is_loss
    requests = asked(district.server)
    assert sum(cost.requests for cost in costs.weather) == sum(requests.values())
    with district.engine.connect() as connection:
        query = "SELECT sum(backfill) FROM weather_quota WHERE span = 'day'"
        charged = connection.execute(text(query)).scalar_one()
    assert charged == pytest.approx(sum(cost.weighted_calls for cost in costs.weather))
    assert outcome.inserted == len(district.readings())
    assert not costs_of().is_anything_due


def test_of_named_farms_only_their_cells_are_asked_for(district: District) -> None:
    one = Wanted.of(FIRST, LAST, what=("weather",), farms=[farm(3)])
    costs = costs_of(one)
    run_here(load_settings(), one, costs)
    assert asked(district.server)[POWER] == len(costs.weather) == 3
    with district.engine.connect() as connection:
        cells = connection.execute(text("SELECT count(DISTINCT cell_id) FROM weather_daily")).scalar_one()
    assert cells == 2, "one of each source"


OTHER = f"""
import datetime as dt
from flows.weather import backfill_weather
print("ready", flush=True)
input()
first, last = dt.date(2023, 1, 1), dt.date.fromisoformat('{LAST}')
assert backfill_weather(first, last, return_state=True).is_completed()
print("done", flush=True)
"""


def test_two_at_once_come_to_the_same_and_ask_for_nothing_twice(district: District) -> None:
    run_here(load_settings(), WANTED, costs_of())
    alone = district.readings()
    requests = district.forget()

    with Program(OTHER) as other:
        assert other.says("ready")
        costs = costs_of()

        def answer(request: Received) -> Reply:
            if not begun:
                begun.append(request)
                other.go_on()
            return both_services(request)

        begun: list[Received] = []
        district.server.script(answer)
        run_here(load_settings(), WANTED, costs)
        assert other.says("done")
        assert other.finish() == 0
    assert district.readings() == alone
    assert asked(district.server) == requests


def test_left_to_workers_it_waits_for_the_next_allowance_with_the_days_that_are_not_done(
    district: District, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, {f"SWATH_OPEN_METEO_CALLS_PER_{span}": "30" for span in ("MINUTE", "HOUR", "DAY")})
    with get_client(sync_client=True) as client:
        register(client, read_plan(plan_file()), time_zone="UTC")
        [handed] = hand_over(load_settings(), WANTED, costs_of())
        run = client.read_flow_run(handed.flow_run_id)  # type: ignore[arg-type]
        before = dt.datetime.now(dt.UTC)
        given = backfill_weather.validate_parameters(run.parameters)
        state = run_flow(backfill_weather, flow_run=run, parameters=given, return_type="state")
        assert state.is_failed()  # type: ignore[union-attr]
        runs = client.read_flow_runs(limit=200)
        [after] = [each for each in runs if ((each.parameters or {}).get("then") or {}).get("after") == str(run.id)]
    assert (after.parameters["start"], after.parameters["end"]) == ("2024-01-01", str(LAST))
    assert after.parameters["then"]["tries"] == 0
    assert after.state is not None
    at = after.state.state_details.scheduled_time
    assert at is not None
    tomorrow = dt.datetime.combine(before.date() + dt.timedelta(days=1), dt.time(), dt.UTC)
    assert tomorrow < at < tomorrow + dt.timedelta(minutes=5)
    assert asked(district.server)[POWER] > 0, "the other source was asked all the same"
