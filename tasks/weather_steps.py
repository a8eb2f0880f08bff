"""The Prefect task of a weather run: one batch of cells, asked for and saved, never one farm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import redis
import structlog
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from infra.work_figures import counted_task
from models.errors import UpstreamError
from models.weather import Source, WeatherAnswer
from models.weather_missing import DaySpan
from models.weather_store import save_readings
from tasks.weather.nasa_power_requests import PowerRequest
from tasks.weather.open_meteo_requests import Request
from tasks.weather_bench import WeatherBench
from tasks.weather_due import WeatherWork, cells_of
from tasks.weather_publish import publish_weather

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """How one batch of cells came out."""

    label: str
    source: Source
    service: str
    days: DaySpan
    cells: int
    failed: int = 0
    """Cells of which some day that was due was not told; they are asked for again at the next run."""
    inserted: int = 0
    replaced: int = 0
    unchanged: int = 0
    """Readings, of one cell and day each."""
    implausible: int = 0
    """Values kept out."""
    untold: int = 0
    """Cells that came without some variable."""
    problem: str | None = None
    changed_cell_keys: tuple[str, ...] = ()

    @classmethod
    def of_failure(cls, work: WeatherWork, problem: str) -> BatchReport:
        """A batch none of whose cells was told."""
        count = len(work.cells)
        return cls(
            label=work.label,
            source=work.source,
            service=work.service,
            days=work.days,
            cells=count,
            failed=count,
            problem=f"{count} cells: {problem}",
        )


def is_database_trouble(_task: Any, _run: Any, state: Any) -> bool:
    """Prefect asks this before a retry: the services were tried several times already, the database was not."""
    return isinstance(state.data, OperationalError | PoolTimeout)


@task(
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=[1, 5],
    retry_condition_fn=is_database_trouble,
)
def fetch_weather(bench: WeatherBench, work: WeatherWork) -> State[Any]:
    """Ask for a batch of cells and save what came; Failed where some of them were not told."""
    with counted_task(bench.stores.redis, "fetch-weather") as outcome:
        report = fetch_and_save(bench, work)
        outcome.is_failure = report.failed > 0
    return Failed(message=report.problem, data=report) if report.failed else Completed(data=report)


def fetch_and_save(bench: WeatherBench, work: WeatherWork) -> BatchReport:
    """Ask for a batch of cells, save all that came in one transaction, and report; a request that fails stops no other.

    Raises:
        OperationalError: the database is in trouble; nothing is saved then.
    """
    answers: list[WeatherAnswer] = []
    failures: dict[str, str] = {}
    for request in work.requests:
        answer = _ask(bench, work, request)
        if isinstance(answer, UpstreamError):
            failures |= {cell.key: str(answer) for cell in cells_of(request)}
        else:
            answers.append(answer)
    report = _save(bench, work, answers, failures)
    if failures:
        log.warning("weather not told", batch=work.label, failed=len(failures), problem=report.problem)
    log.info("weather saved", batch=work.label, inserted=report.inserted, replaced=report.replaced)
    return report


def _ask(bench: WeatherBench, work: WeatherWork, request: Request | PowerRequest) -> WeatherAnswer | UpstreamError:
    """What the service told, or why it did not."""
    if (reason := bench.closed(work.source, work.service)) is not None:
        return reason
    try:
        answer = _fetch(bench, request)
    except UpstreamError as error:
        bench.note_failure(work.source, work.service, error)
        return error
    bench.note_answer(work.service)
    return answer


def _fetch(bench: WeatherBench, request: Request | PowerRequest) -> WeatherAnswer:
    return bench.open_meteo.fetch(request) if isinstance(request, Request) else bench.nasa_power.fetch(request)


def _save(
    bench: WeatherBench, work: WeatherWork, answers: Sequence[WeatherAnswer], failures: dict[str, str]
) -> BatchReport:
    readings = [each for answer in answers for each in answer.readings]
    implausible = [each for answer in answers for each in answer.implausible]
    untold = {key for answer in answers for key in answer.missing}
    with bench.stores.engine.begin() as connection:
        saved = save_readings(connection, readings)
    for each in implausible[:3]:
        log.warning("implausible", cell=each.cell.key, at=str(each.at), variable=each.variable, value=each.value)
    return BatchReport(
        label=work.label,
        source=work.source,
        service=work.service,
        days=work.days,
        cells=len(work.cells),
        failed=len(failures),
        inserted=saved.inserted,
        replaced=saved.replaced,
        unchanged=saved.unchanged,
        implausible=len(implausible),
        untold=len(untold),
        problem=_problem(failures),
        changed_cell_keys=saved.changed_cell_keys,
    )


def _problem(failures: dict[str, str]) -> str | None:
    reasons = Counter(failures.values())
    return "; ".join(f"{number} cells: {reason}" for reason, number in reasons.most_common(3)) or None


def publish_changed(bench: WeatherBench, reports: Sequence[BatchReport]) -> None:
    """Let readers see what changed; losing Redis costs speed, not an answer."""
    keys = {key for report in reports for key in report.changed_cell_keys}
    if not keys:
        return
    try:
        publish_weather(bench.stores, now=bench.now(), cell_keys=sorted(keys))
    except (redis.RedisError, SQLAlchemyError, psycopg.Error) as error:
        log.warning("weather not published", cells=len(keys), error=str(error))
