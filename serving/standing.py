"""How the work stands, found out in the background: the page that tells it asks no store.

Only one process does this, and the workers do not load it. Postgres tells what lies there anyway (queue, freshness,
quotas, runs of the last day), Redis what flows and tasks have counted. One that does not answer is said to be down,
and what it told last stays.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import orjson
import redis
import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from infra.settings import Settings
from infra.stores import postgres_engine, redis_client
from models.health import newest_observation_at, queue, quota_used, weather_freshness
from models.quota import QuotaLimits, Span
from models.searches import catalog_searches
from models.work_figures import WorkFigures, read_work_figures
from serving.exposition import Family, Kind
from serving.sheets import Sheets

log = structlog.get_logger(__name__)

EVERY_S = 15.0
SHARE = 20
"""Of the time that asking took, the wait is as many times longer: never more than a twentieth of one connection."""

STATEMENT_TIMEOUT_MS = 10_000
DAY = dt.timedelta(days=1)

Samples = list[tuple[Mapping[str, str], float]]


@dataclass
class Known:
    """What was found out last."""

    of_postgres: list[Family] = field(default_factory=list)
    of_redis: list[Family] = field(default_factory=list)
    up: dict[str, float] = field(default_factory=dict)
    """1 for a store that answered the last time, 0 for one that did not."""
    told_at: dict[str, float] = field(default_factory=dict)


class Watch:
    """Asks the stores now and then, and puts what they tell on the board."""

    def __init__(self, settings: Settings, sheets: Sheets, *, database_url: str, redis_url: str) -> None:
        self._settings = settings
        self._sheets = sheets
        self._engine = _engine(database_url)
        self._redis = redis_client(redis_url)
        self._known = Known()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch_on, name="metrics-watch", daemon=True)

    def __enter__(self) -> Watch:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_problem: object) -> None:
        """End; a store that hangs is not waited for."""
        self._stop.set()
        self._thread.join(1)
        if not self._thread.is_alive():  # else it ends with the process
            self.close()

    def close(self) -> None:
        """Let go of connections."""
        self._redis.close()
        self._engine.dispose()

    def look(self) -> None:
        """Ask both stores once, and post what is known then."""
        now = dt.datetime.now(dt.UTC)
        try:
            with self._engine.connect() as connection:
                self._known.of_postgres = list(_of_postgres(connection, self._settings, now=now))
        except SQLAlchemyError as error:
            self._note("postgres", error)
        else:
            self._note("postgres", None)
        try:
            self._known.of_redis = list(_of_flows(read_work_figures(self._redis)))
        except redis.RedisError as error:
            self._note("redis", error)
        else:
            self._note("redis", None)
        families = [*self._known.of_postgres, *self._known.of_redis, *self._about_stores()]
        self._sheets.post(orjson.dumps([family.as_json() for family in families]))

    def _note(self, store: str, error: Exception | None) -> None:
        if error is not None and self._known.up.get(store) != 0:
            log.warning("metrics tell what was known last", store=store, error=str(error).partition("\n")[0])
        self._known.up[store] = 0 if error else 1
        if error is None:
            self._known.told_at[store] = time.time()

    def _about_stores(self) -> Iterable[Family]:
        up: Samples = [({"store": store}, value) for store, value in self._known.up.items()]
        yield _family("swath_store_up", "Whether a store answered when it was last asked how the work stands.", up)
        told: Samples = [({"store": store}, value) for store, value in self._known.told_at.items()]
        yield _since("swath_standing_age_seconds", "Since a store last told how the work stands.", told)

    def _watch_on(self) -> None:
        wait_s = 0.0
        while not self._stop.wait(wait_s):
            begun = time.monotonic()
            try:
                self.look()
            except Exception as error:  # the page goes on with what is known, and tells its age
                log.error("standing not found out", exc_info=error)
            wait_s = max(EVERY_S, SHARE * (time.monotonic() - begun))


def _engine(url: str) -> Engine:
    return postgres_engine(url, pool_size=1).execution_options(isolation_level="AUTOCOMMIT")


def _of_postgres(connection: Connection, settings: Settings, *, now: dt.datetime) -> Iterable[Family]:
    connection.execute(text(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}"))
    newest = newest_observation_at(connection)
    yield _since(
        "swath_newest_observation_age_seconds",
        "Since the newest pass that gave some farm a value.",
        [({}, newest.timestamp())] if newest else [],
    )
    weather: Samples = [
        ({"model": each.model, "kind": each.kind}, each.told_at.timestamp())
        for each in weather_freshness(connection, today=now.date())
    ]
    yield _since(
        "swath_weather_age_seconds", "Since a weather model last told something new of the days around now.", weather
    )
    answered: Samples = [
        ({"catalog": each.catalog}, each.answered_at.timestamp())
        for each in catalog_searches(connection)
        if each.answered_at is not None
    ]
    yield _since("swath_catalog_answer_age_seconds", "Since a catalog was last searched with success.", answered)
    scenes = queue(connection, now=now)
    depth: Samples = [({"state": name}, float(getattr(scenes, name))) for name in scenes.__dataclass_fields__]
    yield _family("swath_queue_scenes", "Scenes of the work ledger that are not done.", depth)
    yield from _quotas(connection, settings, now=now)
    recent: Samples = [
        ({"flow": kind, "outcome": outcome}, number)
        for kind, outcome, number in connection.execute(text(_RECENT), {"since": now - DAY})
    ]
    yield _family(
        "swath_flow_runs_of_last_day", "Runs that began in the last 24 hours, as the ledger has them.", recent
    )


_RECENT = """
SELECT kind, coalesce(outcome, 'unended') AS outcome, count(*) AS count FROM runs
WHERE started_at >= :since GROUP BY 1, 2 ORDER BY 1, 2
"""


def _quotas(connection: Connection, settings: Settings, *, now: dt.datetime) -> Iterable[Family]:
    limits = QuotaLimits(
        per_minute=settings.open_meteo_calls_per_minute,
        per_hour=settings.open_meteo_calls_per_hour,
        per_day=settings.open_meteo_calls_per_day,
    )
    used = {(each.service, each.span): each.used for each in quota_used(connection, now=now)}
    # What nobody has asked in this minute is left as a whole.
    limited = {("open-meteo", span) for span in Span} | {key for key in used if key[0].startswith("open-meteo")}
    samples: Samples = [({"service": service, "span": span.value}, value) for (service, span), value in used.items()]
    yield _family("swath_quota_used_calls", "Weighted calls of a weather service in the present span.", samples)
    left: Samples = [
        ({"service": service, "span": span.value}, max(0.0, limits.of(span) - used.get((service, span), 0.0)))
        for service, span in sorted(limited)
    ]
    yield _family("swath_quota_left_calls", "Weighted calls left in the present span, where there is a limit.", left)


def _of_flows(found: WorkFigures) -> Iterable[Family]:
    runs: Samples = [({"flow": flow, "outcome": outcome}, count) for (flow, outcome), count in found.runs.items()]
    yield _family("swath_flow_runs_total", "Flow runs that ended.", runs, kind="counter")
    seconds: Samples = [
        ({"flow": flow, "outcome": outcome}, value) for (flow, outcome), value in found.run_seconds.items()
    ]
    yield _family("swath_flow_run_seconds_total", "Time that these flow runs took together.", seconds, kind="counter")
    last: Samples = [({"flow": flow}, value) for flow, value in found.last_seconds.items()]
    yield _family("swath_flow_last_run_seconds", "Time that the last run of a flow took.", last)
    success: Samples = [({"flow": flow}, at.timestamp()) for flow, at in found.last_success.items()]
    yield _family("swath_flow_last_success_timestamp_seconds", "When a run of a flow last completed.", success)
    yield _since("swath_flow_last_success_age_seconds", "Since a run of a flow last completed.", success)
    yield Family(
        name="swath_task_seconds",
        kind="histogram",
        told="Tries of tasks by outcome, and the seconds they took.",
        samples=(),
        buckets=[
            ({"task": task, "outcome": outcome}, durations.up_to, durations.seconds)
            for (task, outcome), durations in sorted(found.tasks.items())
        ],
    )


def _family(name: str, told: str, samples: Samples, *, kind: Kind = "gauge") -> Family:
    return Family(name=name, kind=kind, told=told, samples=samples)


def _since(name: str, told: str, samples: Samples) -> Family:
    return Family(name=name, kind="gauge", told=told, samples=samples, is_since=True)
