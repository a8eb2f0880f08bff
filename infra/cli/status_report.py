"""Everything that `swath status` tells, gathered from the stores, Prefect and the settings."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from dataclasses import dataclass

import httpx
import orjson
import redis
from sqlalchemy import Connection, text

from infra.leases import is_dead
from infra.settings import Settings
from infra.stores import Stores
from models.gaps import Gap
from models.health import (
    Concerns,
    Queue,
    Reason,
    Region,
    WeatherFreshness,
    concerns,
    needs_person,
    queue,
    quota_used,
    reasons,
    regions,
    weather_freshness,
)
from models.quota import QuotaLimits, Span
from models.runs import Run, recent_runs
from models.searches import CatalogSearch, catalog_searches
from models.status import WorkStatus, work_status

RUNS_TOLD = 8
REASONS_TOLD = 20
PREFECT_TIMEOUT_S = 2.0
"""Somebody looks at the screen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What is left of a weather service's allowance."""

    service: str
    span: Span
    used: float
    limit: float | None
    """None: the service publishes none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldRun:
    """A run as it noted itself, and the name of its state in Prefect where that answers."""

    kind: str
    flow_run_id: str | None
    started_at: dt.datetime
    ended_at: dt.datetime | None
    outcome: str
    """`running`, `ended`, `broken` (by an error or a signal) or `died`."""
    prefect_state: str | None
    message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """Whether the stores answer, and how large they are."""

    postgres_version: str
    postgres_bytes: int
    redis_version: str | None
    """None: Redis does not answer, and `redis_problem` says why."""
    redis_bytes: int | None
    redis_problem: str | None
    prefect: str | None
    """Version of the Prefect server; None where none is named or it does not answer."""
    late_runs: int | None
    """Scheduled runs that should have begun; None where Prefect does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How things stand."""

    at: dt.datetime
    needs_person: tuple[str, ...]
    """What a person should look at now; empty when nothing."""
    work: WorkStatus
    regions: tuple[Region, ...]
    late: tuple[Gap, ...]
    """Passes that no catalog has yet, for less than the days after which they are told of."""
    gaps: tuple[Gap, ...]
    """Passes that no catalog has, asked for again at every daily run."""
    lost: tuple[Gap, ...]
    """Passes of the last weeks that no catalog has, and that are not asked for any more."""
    reasons: tuple[Reason, ...]
    queue: Queue
    runs: tuple[ToldRun, ...]
    stores: StoreStatus
    catalogs: tuple[CatalogSearch, ...]
    quotas: tuple[Quota, ...]
    weather: tuple[WeatherFreshness, ...]


def gather(stores: Stores, settings: Settings, *, now: dt.datetime) -> Report:
    """Ask everything how it stands; what does not answer is said to be away."""
    from tasks.bench import catalogs_of  # brings the raster stack, which no other command needs to start

    with stores.engine.connect() as connection:
        found = concerns(connection, now=now, gap_days=settings.gap_days)
        searches = catalog_searches(connection)
        prefect = _Prefect()
        runs = recent_runs(connection, limit=RUNS_TOLD)
        told_stores = _stores(connection, stores, prefect)
        work = work_status(connection)
        failed = sum(each.given_up_at is None for each in work.failed)
        rules = {"gap_alert_days": settings.gap_alert_days, "gap_days": settings.gap_days}
        in_use = {catalog.name for catalog in catalogs_of(settings)}
        said = needs_person(
            found, [each for each in searches if each.catalog in in_use], failed=failed, now=now, **rules
        )
        said += [f"Redis does not answer: {told_stores.redis_problem}"] if told_stores.redis_problem else []
        said += (
            [f"{told_stores.late_runs} scheduled runs are late: is a worker running?"] if told_stores.late_runs else []
        )
        late, gaps, lost = _by_age(found, now=now, **rules)
        return Report(
            at=now,
            needs_person=tuple(said),
            work=work,
            regions=tuple(regions(connection, today=now.date())),
            late=late,
            gaps=gaps,
            lost=lost,
            reasons=tuple(reasons(connection, limit=REASONS_TOLD)),
            queue=queue(connection, now=now),
            runs=tuple(_told(run, prefect) for run in runs),
            stores=told_stores,
            catalogs=tuple(searches),
            quotas=tuple(_quotas(connection, settings, now=now)),
            weather=tuple(weather_freshness(connection, today=now.date())),
        )


def as_json(report: Report) -> str:
    """The report for programs: the facts of the work beside the rest, as they always were."""
    facts = {name: getattr(report, name) for name in report.__dataclass_fields__ if name != "work"}
    work = {name: getattr(report.work, name) for name in report.work.__dataclass_fields__}
    return orjson.dumps(work | facts, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode()


def _by_age(
    found: Concerns, *, now: dt.datetime, gap_alert_days: int, gap_days: int
) -> tuple[tuple[Gap, ...], tuple[Gap, ...], tuple[Gap, ...]]:
    ages = [(gap, (now - gap.expected_at).total_seconds() / 86_400) for gap in found.gaps]
    return (
        tuple(gap for gap, age in ages if age < gap_alert_days),
        tuple(gap for gap, age in ages if gap_alert_days <= age <= gap_days),
        tuple(gap for gap, age in ages if age > max(gap_days, gap_alert_days)),
    )


def _stores(connection: Connection, stores: Stores, prefect: _Prefect) -> StoreStatus:
    query = "SELECT current_setting('server_version') AS version, pg_database_size(current_database()) AS bytes"
    row = connection.execute(text(query)).one()
    version, size, problem = None, None, None
    try:
        facts = stores.redis.info()
        version, size = f"{facts.get('valkey_version') or facts.get('redis_version')}", facts.get("used_memory")
    except redis.RedisError as error:
        problem = str(error) or type(error).__name__
    return StoreStatus(
        postgres_version=row.version,
        postgres_bytes=row.bytes,
        redis_version=version,
        redis_bytes=size,
        redis_problem=problem,
        prefect=prefect.version,
        late_runs=prefect.late_runs(),
    )


def _quotas(connection: Connection, settings: Settings, *, now: dt.datetime) -> list[Quota]:
    limits = QuotaLimits(
        per_minute=settings.open_meteo_calls_per_minute,
        per_hour=settings.open_meteo_calls_per_hour,
        per_day=settings.open_meteo_calls_per_day,
    )
    return [
        Quota(
            service=each.service,
            span=each.span,
            used=each.used,
            limit=limits.of(each.span) if each.service.startswith("open-meteo") else None,
        )
        for each in quota_used(connection, now=now)
    ]


def _told(run: Run, prefect: _Prefect) -> ToldRun:
    outcome = run.outcome or ("died" if is_dead(run) else "running")
    state, message = prefect.state_of(str(run.flow_run_id)) if run.flow_run_id else (None, None)
    return ToldRun(
        kind=run.kind,
        flow_run_id=str(run.flow_run_id) if run.flow_run_id else None,
        started_at=run.started_at,
        ended_at=run.ended_at,
        outcome=outcome,
        prefect_state=state,
        message=message,
    )


class _Prefect:
    """Prefect's server, asked over HTTP: importing its client takes longer than all else here together."""

    def __init__(self) -> None:
        self._url = os.environ.get("PREFECT_API_URL")
        user, _, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
        self._auth = (user, password) if user else None
        found = self._ask("GET", "admin/version")
        self.version = str(found) if found else None

    def state_of(self, flow_run_id: str) -> tuple[str | None, str | None]:
        """Name and message of the state of a flow run, as far as the server tells."""
        found = self._ask("GET", f"flow_runs/{flow_run_id}") if self.version else None
        state = found.get("state") if isinstance(found, dict) else None
        return (state.get("name"), state.get("message")) if isinstance(state, dict) else (None, None)

    def late_runs(self) -> int | None:
        """Runs of our deployments that should have begun."""
        late = {"flow_runs": {"state": {"name": {"any_": ["Late"]}}, "tags": {"all_": ["daily"]}}}
        found = self._ask("POST", "flow_runs/count", json=late) if self.version else None
        return found if isinstance(found, int) else None

    def _ask(self, method: str, path: str, *, json: object = None) -> object:
        if not self._url:
            return None
        with contextlib.suppress(httpx.HTTPError, httpx.InvalidURL, ValueError):
            address = f"{self._url.rstrip('/')}/{path}"
            answer = httpx.request(
                method, address, json=json, auth=self._auth, timeout=PREFECT_TIMEOUT_S, trust_env=False
            )
            if answer.is_success:
                return answer.json()
        return None
