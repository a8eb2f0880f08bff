"""Weather at farms and points: what it is, what it was, what is ahead, each value with who told it and when."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any

import orjson

from infra.settings import Settings
from models.agronomy_sums import AGRONOMY_OF_FARM, Agronomy, CropLimits, agronomy_parameters
from models.errors import BadInput
from models.weather_bodies import Part, Span, span_of
from models.weather_readmodel import Hit
from models.weather_rows import SHEETS
from serving.endpoints import CSV, Answer, Call, Endpoint, etag_of
from serving.fields import FarmPath
from serving.gate import Fetch
from serving.tables import csv_table
from serving.weather_models import (
    MOST_DAILY_DAYS,
    MOST_HOURLY_DAYS,
    CropQuery,
    CurrentWeather,
    DailyWeather,
    FarmAgronomy,
    HourlyWeather,
    PointQuery,
    Points,
    PointsWeather,
    PointWeather,
    RangeQuery,
    after_end,
)
from serving.weather_points import Spot, answer_of, fetch_of_spot
from serving.weather_reading import fetch_of_farm, hit_of

FRESH = "private, max-age=60"
"""`Cache-Control`: weather changes by the hour."""

RETRY_S = 300
"""When a reader of a place of which no weather is known may look again."""

_MOST_DAYS = {Part.HOURLY: MOST_HOURLY_DAYS, Part.DAILY: MOST_DAILY_DAYS}
_ONE_DAY = dt.timedelta(days=1)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _fetch(part: Part) -> Callable[[FarmPath, RangeQuery | None, Settings], Fetch]:
    def fetch(path: FarmPath, query: RangeQuery | None, _settings: Settings) -> Fetch:
        is_range = query is not None and query.is_given
        return fetch_of_farm(path.external_farm_id, None if is_range else part, now=_now())

    return fetch


def _fetch_place(path: FarmPath, _query: object, _settings: Settings) -> Fetch:
    return fetch_of_farm(path.external_farm_id, None, now=_now())


def _fetch_point(_path: None, query: PointQuery, settings: Settings) -> Fetch:
    return fetch_of_spot(_spot(query), step_degrees=settings.open_meteo_cell_degrees, now=_now())


async def _place(call: Call[FarmPath, Any, Any]) -> str:
    return await call.resources.weather.place_of_farm(
        call.path.external_farm_id, call.principal, found=call.found, is_cache_away=call.admission.is_cache_away
    )


async def _hit(call: Call[FarmPath, Any, Any], part: Part) -> Hit | None:
    """A part of the weather of the caller's farm, as it is told when nothing else is asked for."""
    weather, is_away = call.resources.weather, call.admission.is_cache_away
    place = await _place(call)
    hit = hit_of(call.found)
    weather.note("hit" if hit else "away" if is_away else "miss")
    return hit or await weather.of_place(place, part, now=_now(), is_cache_away=is_away)


def _not_known(what: str) -> Answer:
    return Answer(
        status=202,
        word="processing",
        message=f"no {what} is known here yet; it is fetched every hour for farms that are active",
        headers={"retry-after": str(RETRY_S)},
    )


async def current(call: Call[FarmPath, None, None]) -> Answer:
    """Give the newest hour of a farm's weather that is not ahead."""
    hit = await _hit(call, Part.CURRENT)
    if hit is None:
        return _not_known("current weather")
    return Answer(body=hit.body, etag=hit.revision, cache_control=FRESH)


def _table(part: Part) -> Callable[[Call[FarmPath, RangeQuery, None]], Awaitable[Answer]]:
    async def table(call: Call[FarmPath, RangeQuery, None]) -> Answer:
        """Give hours or days in a row."""
        if call.query.is_given:
            span = _span(part, call.query)
            hit = await call.resources.weather.of_days(await _place(call), part, span)
        else:
            hit = await _hit(call, part)
        if hit is None and not call.query.is_given:
            return _not_known(f"{part} weather")
        if call.media_type == CSV:
            return _csv(call, part, hit)
        if hit is None:
            answer = Answer(message=f"no {part} weather is known here in these days", cache_control=FRESH)
            return answer.but(etag=etag_of(answer.body))
        return Answer(body=hit.body, etag=hit.revision, cache_control=FRESH)

    return table


def _span(part: Part, query: RangeQuery) -> Span:
    """The days asked for; an end that is not named is that of what is told when nothing else is asked for."""
    usual = span_of(part, _now())
    start, end = query.start or usual.first.date(), query.end or usual.last.date()
    if start > end:
        if query.start is None:
            raise BadInput("end", f"is before the first day told by default ({start})", allowed="name start as well")
        raise after_end(end)
    if (end - start).days >= _MOST_DAYS[part]:
        raise BadInput(
            "start", f"is {(end - start).days + 1:,} days before the end", allowed=f"at most {_MOST_DAYS[part]:,} days"
        )
    first = dt.datetime.combine(start, dt.time(), dt.UTC)
    last = dt.datetime.combine(end, dt.time(), dt.UTC)
    return Span(first, last + dt.timedelta(hours=23) if part is Part.HOURLY else last)


def _csv(call: Call[FarmPath, Any, Any], part: Part, hit: Hit | None) -> Answer:
    """A line for each hour or day; who told its values, and when the newest was told."""
    time = "day" if part is Part.DAILY else "at"
    variables = SHEETS[part.grain].above_ground
    rows = [] if hit is None else _lines(orjson.loads(hit.body), time)
    body = csv_table([time, *variables, "told_by", "as_of"], rows)
    name = f"weather-{part}-{call.path.external_farm_id}.csv"
    return Answer(
        body=body,
        media_type=f"{CSV}; charset=utf-8",
        has_envelope=False,
        etag=etag_of(body),
        cache_control=FRESH,
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )


def _lines(table: dict[str, Any], time: str) -> list[dict[str, Any]]:
    tellings = table["tellings"]
    names = ["/".join((each["source"], each["model"], each["kind"])) for each in tellings]
    instants = [dt.datetime.fromisoformat(each["as_of"]) for each in tellings]
    lines = []
    for number, when in enumerate(table[time]):
        told = dict.fromkeys(by[number] for by in table["told_by"].values() if by[number] is not None)
        line = {name: column[number] for name, column in table["values"].items()}
        line |= {time: when, "told_by": list(dict.fromkeys(names[each] for each in told))}
        lines.append(line | {"as_of": max(instants[each] for each in told)})
    return lines


async def agronomy(call: Call[FarmPath, CropQuery, None]) -> Answer:
    """Give what the weather of some days meant for a crop; computed by Postgres."""
    await _place(call)
    query, farm = call.query, call.path.external_farm_id
    limits = CropLimits(base_c=query.base, upper_c=query.upper)
    values = agronomy_parameters(query.start, query.end, limits=limits)
    row = await call.resources.database.row(AGRONOMY_OF_FARM, {**values, "farm": farm})
    told = {each.name: _rounded(row[each.name]) if row else None for each in fields(Agronomy) if each.name != "farm_id"}
    if row is None:  # the farm has not been given cells yet: nothing is known, and how much that is
        days = values["days"]
        told |= {name: days for name in told if name.endswith("_missing")}
        told |= {"days": days, "forecast_days": 0, "heat_stress_hours_missing": 24 * days}
    about = {"external_farm_id": farm, "start": query.start, "end": query.end, "base_c": query.base}
    answer = Answer.of({**about, "upper_c": query.upper, **told}, cache_control=FRESH)
    return answer.but(etag=etag_of(answer.body))


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value


def _spot(point: Any) -> Spot:
    # One zero: -0.0 is the same place under another name.
    return Spot(point.lat + 0.0, point.lon + 0.0, point.ts)


async def point(call: Call[None, PointQuery, None]) -> Answer:
    """Give the weather nearest to a point and a time."""
    spot, weather, is_away = _spot(call.query), call.resources.weather, call.admission.is_cache_away
    answer = answer_of(spot, call.found)
    weather.note("hit" if answer else "away" if is_away else "miss")
    if answer is None:
        answer = await call.resources.points.of_spot(spot, now=_now(), is_cache_away=is_away)
    return Answer(body=answer, etag=etag_of(answer), cache_control=FRESH)


async def bulk(call: Call[None, None, Points]) -> Answer:
    """Give the weather nearest to each of many points and times."""
    answers = await call.resources.points.of_spots([_spot(each) for each in call.body.points], now=_now())
    body = b'{"points":[' + b",".join(answers) + b"]}"
    return Answer(body=body, etag=etag_of(body), cache_control="no-store")


_FARM = "/api/v1/farms/{external_farm_id}/weather"

ENDPOINTS = (
    Endpoint(
        method="GET",
        path=f"{_FARM}/current",
        handler=current,
        summary="The weather at a farm now",
        tag="weather",
        path_model=FarmPath,
        query_fetch=_fetch(Part.CURRENT),
        answers={200: CurrentWeather, 202: None},
    ),
    Endpoint(
        method="GET",
        path=f"{_FARM}/hourly",
        handler=_table(Part.HOURLY),
        summary="The weather at a farm by the hour, from two days ago to seven ahead, or in any days",
        tag="weather",
        path_model=FarmPath,
        query_model=RangeQuery,
        query_fetch=_fetch(Part.HOURLY),
        answers={200: HourlyWeather | None, 202: None},
        documents={CSV: None},
        media_types=("application/json", CSV),
    ),
    Endpoint(
        method="GET",
        path=f"{_FARM}/daily",
        handler=_table(Part.DAILY),
        summary="The weather at a farm by the day, from thirty days ago to fifteen ahead, or in any days",
        tag="weather",
        path_model=FarmPath,
        query_model=RangeQuery,
        query_fetch=_fetch(Part.DAILY),
        answers={200: DailyWeather | None, 202: None},
        documents={CSV: None},
        media_types=("application/json", CSV),
    ),
    Endpoint(
        method="GET",
        path=f"{_FARM}/agronomy",
        handler=agronomy,
        summary="What the weather of some days meant for a crop",
        tag="weather",
        path_model=FarmPath,
        query_model=CropQuery,
        query_fetch=_fetch_place,
        answers={200: FarmAgronomy},
    ),
    Endpoint(
        method="GET",
        path="/api/v1/weather/point",
        handler=point,
        summary="The weather nearest to a point and a time",
        tag="weather",
        query_model=PointQuery,
        query_fetch=_fetch_point,
        answers={200: PointWeather},
    ),
    Endpoint(
        method="POST",
        path="/api/v1/weather/bulk",
        handler=bulk,
        summary="The weather nearest to each of up to 1,000 points and times",
        tag="weather",
        body_model=Points,
        answers={200: PointsWeather},
        most_bytes=262_144,
    ),
)
