"""Which weather is due: cells of farms, days that are not stored or not final yet, and the requests they make.

Nothing here depends on the last run: what is stored decides, so a day that was missed heals at the next run.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import structlog

from models.domain import Farm
from models.farms import farms_by_id
from models.weather import Cell, Grain, Source
from models.weather_cells import CellOfFarm, assign_cells, cells_of_active_farms, farms_without_cell
from models.weather_missing import LATENESS, DaySpan, cells_without_forecast, missing_days
from tasks.weather.cells import nasa_power_cell, open_meteo_cell
from tasks.weather.nasa_power_requests import FIRST_DAY, PowerRequest
from tasks.weather.open_meteo_requests import FORECAST_DAYS, MAX_WEIGHT, Endpoint, Request, requests_for
from tasks.weather.places import middle_of
from tasks.weather_bench import WeatherBench, key_prefix

log = structlog.get_logger(__name__)

FARMS_AT_ONCE = 5_000
POWER_CELLS_AT_ONCE = 8
"""Cells of one task run; each is a request of its own."""
READ_AGAIN_WITHIN_DAYS = 400
"""How far back days are looked for that the source has replaced since they were read."""
READ_AGAIN_TOGETHER_DAYS = 7
"""A cell is read again when the oldest of its replaced days has waited for this long: Open-Meteo counts two weeks of a
cell as one call, so that one request a week costs a seventh of one a day."""
ONE_DAY = dt.timedelta(days=1)

CellSpans = Mapping[str, Sequence[DaySpan]]
"""Days in a row by a cell's key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeatherWork:
    """One batch of cells: one request to Open-Meteo, or some to NASA POWER."""

    source: Source
    service: str
    """The source, or its endpoint: what may be down by itself."""
    requests: tuple[Request | PowerRequest, ...]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Those asked for."""
        return tuple({cell.key: cell for each in self.requests for cell in cells_of(each)}.values())

    @property
    def days(self) -> DaySpan:
        """From the first day asked for to the last, over all cells."""
        return DaySpan(
            min(each.first_day for each in self.requests),
            max(each.last_day for each in self.requests),
        )

    @property
    def label(self) -> str:
        """What a person reads of it."""
        count = len(self.cells)
        cells = f"{count} cell{'s' if count != 1 else ''}"
        return f"{self.service.replace(':', ' ')} {cells} {self.days.first}..{self.days.last}"


def cells_of(request: Request | PowerRequest) -> tuple[Cell, ...]:
    """The cells that a request asks for."""
    return request.cells if isinstance(request, Request) else (request.cell,)


def assign_missing_cells(bench: WeatherBench) -> None:
    """Give every active farm that has none its cell of each source, by the middle of its box."""
    step = bench.settings.open_meteo_cell_degrees
    for source in Source:
        prefix = key_prefix(bench.settings, source)
        with bench.stores.engine.connect() as connection:
            ids = farms_without_cell(connection, source, key_prefix=prefix)
        for start in range(0, len(ids), FARMS_AT_ONCE):
            with bench.stores.engine.begin() as connection:
                farms = farms_by_id(connection, ids[start : start + FARMS_AT_ONCE])
                found = [_cell_of(farm, source, step_degrees=step) for farm in farms]
                assign_cells(connection, found)
        if ids:
            log.info("cells assigned", source=source.value, farms=len(ids))


def _cell_of(farm: Farm, source: Source, *, step_degrees: float) -> CellOfFarm:
    longitude, latitude = middle_of(farm.bbox)
    if source is Source.OPEN_METEO:
        cell = open_meteo_cell(longitude, latitude, step_degrees=step_degrees)
    else:
        cell = nasa_power_cell(longitude, latitude)
    return CellOfFarm(farm_id=farm.id, boundary_version=farm.boundary_version, cell=cell)


def due_today(bench: WeatherBench, *, lookback_days: int) -> list[WeatherWork]:
    """What is due of the last days and of those ahead, and of what the sources have replaced since; newest first."""
    today = bench.now().astimezone(dt.UTC).date()
    works = list(_forecasts(bench, today, back=lookback_days))
    recent = DaySpan(today - dt.timedelta(days=lookback_days), today)
    older = DaySpan(today - dt.timedelta(days=READ_AGAIN_WITHIN_DAYS), recent.first - ONE_DAY)
    for source in Source:
        cells = _cells(bench, source, farm_ids=None)
        due = _joined(_missing(bench, cells, recent), _to_read_again(bench, cells, older, today))
        works += _requests(bench, cells, due, today)
    return works


def due_of_days(
    bench: WeatherBench,
    days: DaySpan,
    *,
    farm_ids: Collection[int] | None = None,
    cells: Mapping[Source, Mapping[str, Cell]] | None = None,
) -> list[WeatherWork]:
    """What is due of some days of the past: analyses, and where there is none yet what was forecast of them.

    Of the cells of all active farms, of those of some, or of `cells`.
    """
    today = bench.now().astimezone(dt.UTC).date()
    wanted = cells or {source: _cells(bench, source, farm_ids=farm_ids) for source in Source}
    works = list(_past_forecasts(bench, days, today, cells=wanted[Source.OPEN_METEO]))
    for source in Source:
        works += _requests(bench, wanted[source], _missing(bench, wanted[source], days), today)
    return works


def cells_wanted(bench: WeatherBench, *, farm_ids: Collection[int] | None) -> dict[Source, dict[str, Cell]]:
    """Cells of active farms by source and key, of all or of some, also of those without one yet; writes nothing."""
    step = bench.settings.open_meteo_cell_degrees
    found: dict[Source, dict[str, Cell]] = {}
    for source in Source:
        found[source] = dict(_cells(bench, source, farm_ids=farm_ids))
        with bench.stores.engine.connect() as connection:
            ids = farms_without_cell(connection, source, key_prefix=key_prefix(bench.settings, source))
            ids = ids if farm_ids is None else sorted(set(ids) & set(farm_ids))
            for start in range(0, len(ids), FARMS_AT_ONCE):
                farms = farms_by_id(connection, ids[start : start + FARMS_AT_ONCE])
                new = (_cell_of(farm, source, step_degrees=step).cell for farm in farms)
                found[source] |= {cell.key: cell for cell in new}
    return found


def _cells(bench: WeatherBench, source: Source, *, farm_ids: Collection[int] | None) -> dict[str, Cell]:
    """Cells of active farms by key, those of all or of some."""
    with bench.stores.engine.connect() as connection:
        found = cells_of_active_farms(connection, source)
    wanted = None if farm_ids is None else set(farm_ids)
    return {cell.key: cell for cell, farms in found.items() if wanted is None or not wanted.isdisjoint(farms)}


def _missing(
    bench: WeatherBench, cells: Mapping[str, Cell], days: DaySpan, *, only_again: bool = False
) -> dict[str, tuple[DaySpan, ...]]:
    if not cells:
        return {}
    source = next(iter(cells.values())).source
    first = max(days.first, FIRST_DAY[Grain.DAILY]) if source is Source.NASA_POWER else days.first
    with bench.stores.engine.connect() as connection:
        return missing_days(
            connection,
            cells.values(),
            source=source,
            start=first,
            end=days.last,
            now=bench.now(),
            model=bench.settings.open_meteo_archive_model if source is Source.OPEN_METEO else None,
            only_again=only_again,
        )


def _to_read_again(bench: WeatherBench, cells: Mapping[str, Cell], days: DaySpan, today: dt.date) -> CellSpans:
    """Days that were told provisionally and are replaced by now, of cells of which some have waited for a week."""
    found = _missing(bench, cells, days, only_again=True)
    if not found:
        return {}
    marks = LATENESS[next(iter(cells.values())).source].again_after
    enough = today - marks[-1] - dt.timedelta(days=READ_AGAIN_TOGETHER_DAYS - 1)
    return {key: spans for key, spans in found.items() if spans[0].first <= enough}


def _joined(some: CellSpans, others: CellSpans) -> dict[str, list[DaySpan]]:
    return {key: sorted([*some.get(key, ()), *others.get(key, ())]) for key in sorted({*some, *others})}


def _forecasts(bench: WeatherBench, today: dt.date, *, back: int) -> Iterator[WeatherWork]:
    """The newest forecast, with the last days of which there is no reanalysis yet, where the stored one is too old."""
    cells = _cells(bench, Source.OPEN_METEO, farm_ids=None)
    settings = bench.settings
    with bench.stores.engine.connect() as connection:
        wanted = cells_without_forecast(
            connection,
            cells.values(),
            model=settings.open_meteo_forecast_model,
            first=today,
            last=today,
            told_since=bench.now() - dt.timedelta(hours=settings.forecast_max_age_h),
        )
    before = min(back, LATENESS[Source.OPEN_METEO].first_after.days)
    span = DaySpan(today - dt.timedelta(days=before), today + dt.timedelta(days=FORECAST_DAYS - 1))
    chosen = [cell for key, cell in cells.items() if key in wanted]
    yield from _open_meteo(bench, Endpoint.FORECAST, chosen, span, model=settings.open_meteo_forecast_model)


def _past_forecasts(
    bench: WeatherBench, days: DaySpan, today: dt.date, *, cells: Mapping[str, Cell]
) -> Iterator[WeatherWork]:
    """What was forecast for those last days of a span of which there is no reanalysis yet."""
    span = DaySpan(
        max(days.first, today - LATENESS[Source.OPEN_METEO].first_after + ONE_DAY),
        min(days.last, today - ONE_DAY),
    )
    if span.last < span.first:
        return
    model = bench.settings.open_meteo_forecast_model
    with bench.stores.engine.connect() as connection:
        wanted = cells_without_forecast(
            connection,
            cells.values(),
            model=model,
            first=span.first,
            last=span.last,
            told_since=dt.datetime.combine(span.first, dt.time(), dt.UTC),
        )
    chosen = [cell for key, cell in cells.items() if key in wanted]
    yield from _open_meteo(bench, Endpoint.HISTORICAL_FORECAST, chosen, span, model=model)


def _requests(bench: WeatherBench, cells: Mapping[str, Cell], due: CellSpans, today: dt.date) -> list[WeatherWork]:
    """The fewest requests for these days of cells of one source, newest days first."""
    if not due:
        return []
    if next(iter(cells.values())).source is Source.NASA_POWER:
        return _nasa_power(cells, due, today)
    by_span = defaultdict(list)
    for key, spans in due.items():
        for span in spans:
            by_span[span].append(cells[key])
    model = bench.settings.open_meteo_archive_model
    works: list[WeatherWork] = []
    for span in sorted(by_span, key=lambda span: (span.last, span.first), reverse=True):
        works += _open_meteo(bench, Endpoint.ARCHIVE, by_span[span], span, model=model)
    return works


def _open_meteo(
    bench: WeatherBench, endpoint: Endpoint, cells: Sequence[Cell], span: DaySpan, *, model: str
) -> list[WeatherWork]:
    asked = requests_for(
        cells,
        endpoint=endpoint,
        grains=[Grain.DAILY],
        first_day=span.first,
        last_day=span.last,
        model=model,
        max_weight=min(MAX_WEIGHT, bench.limits.heaviest(is_live=bench.is_live)),
    )
    service = f"{Source.OPEN_METEO}:{endpoint}"
    return [WeatherWork(source=Source.OPEN_METEO, service=service, requests=(each,)) for each in asked]


def _nasa_power(cells: Mapping[str, Cell], due: CellSpans, today: dt.date) -> list[WeatherWork]:
    asked = [
        PowerRequest(cell=cells[key], grain=Grain.DAILY, first_day=span.first, last_day=span.last)
        for key, spans in due.items()
        for span in _bridged(spans, today)
    ]
    asked.sort(key=lambda each: (-each.last_day.toordinal(), each.cell.key))
    return [
        WeatherWork(
            source=Source.NASA_POWER,
            service=Source.NASA_POWER.value,
            requests=tuple(asked[start : start + POWER_CELLS_AT_ONCE]),
        )
        for start in range(0, len(asked), POWER_CELLS_AT_ONCE)
    ]


def _bridged(spans: Sequence[DaySpan], today: dt.date) -> list[DaySpan]:
    """Spans joined over days that cannot be final yet: for NASA POWER a request costs the same however many days."""
    young = today - LATENESS[Source.NASA_POWER].again_after[-1]
    joined = [spans[0]]
    for span in spans[1:]:
        if joined[-1].last >= young:
            joined[-1] = DaySpan(joined[-1].first, span.last)
        else:
            joined.append(span)
    return joined
