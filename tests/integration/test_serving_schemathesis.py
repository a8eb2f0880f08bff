"""The app keeps the contract, whatever schemathesis makes of it: bounded, and the same requests each time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.config import (
    ChecksConfig,
    CoveragePhaseConfig,
    FuzzingPhaseConfig,
    GenerationConfig,
    PhasesConfig,
    PositiveDataAcceptanceConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
    StatefulPhaseConfig,
)
from schemathesis.engine import events, from_schema

from infra.local.postgres import PostgresServer
from infra.local.valkey import ValkeyServer
from serving.app import ENDPOINTS
from serving.pages import COMMITTED
from tests.support.api import Api, counting_prefect, key_of, serving
from tests.support.databases import TEMPLATE, fresh_database
from tests.support.facts import engine_for
from tests.support.story import FARM, tell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

UNBOUND = {f"SWATH_LIMIT_{kind}_PER_MINUTE": "1000000" for kind in ("API_KEY", "JWT", "NEXTCLOUD_HMAC", "ANONYMOUS")}


@dataclass(frozen=True)
class Ready:
    """A worker on stores in which the story was told, and the key of a client that may do everything."""

    api: Api
    key: str


@pytest.fixture(scope="module")
def ready(postgres_server: PostgresServer, valkey_server: ValkeyServer) -> Iterator[Ready]:
    with fresh_database(postgres_server, template=TEMPLATE) as url, counting_prefect() as prefect:
        tell(url, valkey_server.url)
        engine = engine_for(url)
        key = key_of(engine, "tester", "admin", "read", "farms:write")
        engine.dispose()
        settings = UNBOUND | {"PREFECT_API_URL": prefect.url}
        with serving(url, valkey_server.url, settings=settings) as api:
            yield Ready(api, key)


def _generation(modes: list[GenerationMode], examples: int) -> GenerationConfig:
    return GenerationConfig(
        modes=modes,
        max_examples=max(1, examples),
        deterministic=True,
        database="none",
        no_shrink=True,
        with_security_parameters=False,
    )


@dataclass
class Run:
    """What came of trying."""

    statuses: Counter[int] = field(default_factory=Counter)
    tried: set[str] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)


def tried(api: Api, headers: dict[str, str], *, examples: int) -> Run:
    """Try every operation: by its examples, and if any more are wished for, by the edges of all parameters too.

    The edges keep to the schema; the others do not, half of the time.
    """
    generation = _generation(list(GenerationMode), examples)
    edges = CoveragePhaseConfig(enabled=examples > 0, generation=_generation([GenerationMode.POSITIVE], 1))
    project = ProjectConfig(
        base_url=api.url,
        headers=headers,
        parameters={"external_farm_id": str(FARM)},
        generation=generation,
        # A box whose south lies above its north has the shape promised, and is refused all the same.
        checks=ChecksConfig(positive_data_acceptance=PositiveDataAcceptanceConfig(enabled=False)),
        phases=PhasesConfig(
            coverage=edges,
            fuzzing=FuzzingPhaseConfig(enabled=examples > 0),
            stateful=StatefulPhaseConfig(enabled=False),
        ),
    )
    config = SchemathesisConfig(seed=7, projects=ProjectsConfig(default=project))
    schema = schemathesis.openapi.from_dict(json.loads(COMMITTED.read_bytes()), config=config)
    run = Run()
    for event in from_schema(schema).execute():
        assert not isinstance(event, events.FatalError | events.NonFatalError), event
        if isinstance(event, events.ScenarioFinished):
            _note(event, run)
    return run


def _note(event: events.ScenarioFinished, run: Run) -> None:
    recorder = event.recorder
    run.tried.add(recorder.label)
    run.statuses.update(each.response.status_code for each in recorder.interactions.values() if each.response)
    for checks in recorder.checks.values():
        for check in checks:
            if (found := check.failure_info) is not None:
                run.broken.append(
                    f"{recorder.label}: {found.failure.title}: {found.failure.message}\n{found.code_sample}"
                )


ALL = {f"{each.method} {each.path}" for each in ENDPOINTS}


def test_whoever_has_a_key_is_answered_as_promised_whatever_they_send(ready: Ready) -> None:
    run = tried(ready.api, {"X-API-Key": ready.key}, examples=5)
    assert run.broken == []
    assert run.tried == ALL
    assert {200, 202, 422} <= set(run.statuses)


def test_without_credentials_only_what_is_for_anybody_is_told(ready: Ready) -> None:
    run = tried(ready.api, {}, examples=0)
    assert run.broken == []
    assert set(run.statuses) <= {200, 401}
    with ready.api.client() as client:
        for each in ENDPOINTS:
            status = client.request(each.method, each.path.format(external_farm_id=FARM)).status_code
            is_open = each.scope is None and not each.has_raw_body
            assert (status == 200) if is_open else (status == 401), each.path


def test_other_methods_are_refused_with_those_that_there_are(ready: Ready) -> None:
    with ready.api.client(ready.key) as client:
        for path, methods in json.loads(COMMITTED.read_bytes())["paths"].items():
            allowed = {method.upper() for method in methods} | ({"HEAD"} if "get" in methods else set())
            for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} - allowed:
                answer = client.request(method, path.format(external_farm_id=FARM))
                assert answer.status_code == 405, (method, path)
                assert set(answer.headers["allow"].split(", ")) == allowed
                assert method == "HEAD" or answer.json()["status"] == "error"
