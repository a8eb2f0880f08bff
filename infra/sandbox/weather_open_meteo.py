"""A stand-in for Open-Meteo that answers in its shapes: forecast, reanalysis, past forecasts and the times of runs.

Tells what Swath asks for and refuses the rest with a reason, as the service does. Where the service has defaults,
so has this: kilometres an hour, a forecast of a week. Times are UTC only.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.sandbox.weather_climate import Climate
from infra.sandbox.weather_limits import Allowance, Clock, Meter
from infra.sandbox.weather_open_meteo_values import FORECAST, HISTORICAL_FORECAST, REANALYSIS, Teller, newest_run
from infra.sandbox.weather_questions import Question, Refused, question_from

_LARGEST_FORM = 1 << 20
_KINDS = {
    "/v1/forecast": FORECAST,
    "/v1/archive": REANALYSIS,
    "/historical-forecast/v1/forecast": HISTORICAL_FORECAST,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One request as the service heard it."""

    path: str
    status: int
    weight: float
    """Weighted calls that it was counted as; 0 where nothing was told."""
    question: Question | None
    """None where nothing was told."""


class OpenMeteoStandIn:
    """The service: an application to serve, what it heard, and a switch."""

    def __init__(self, climate: Climate, *, clock: Clock, allowance: Allowance) -> None:
        self.heard: list[Heard] = []
        self.is_down = False
        """True: every request is answered by 503."""
        self._climate = climate
        self._clock = clock
        self._meter = Meter(allowance, clock)
        self._places = threading.BoundedSemaphore(allowance.at_once)
        routes = [Route(path, self._answer, methods=["GET", "POST"]) for path in _KINDS]
        self.app = Starlette(routes=[*routes, Route("/data/{model}/static/meta.json", self._run)])

    @property
    def weighted_calls(self) -> float:
        """All that was counted, also of days gone by."""
        return sum(each.weight for each in self.heard)

    async def _answer(self, request: Request) -> Response:
        form = await request.body() if request.method == "POST" else b""
        given = dict(request.query_params)
        if len(form) <= _LARGEST_FORM:
            given |= dict(parse_qsl(form.decode("utf-8", "replace"), keep_blank_values=True))
        return await run_in_threadpool(self._considered, request.url.path, given, is_too_long=len(form) > _LARGEST_FORM)

    def _considered(self, path: str, given: Mapping[str, str], *, is_too_long: bool) -> Response:
        if self.is_down:
            return self._refused(path, 503, "The service is overloaded")
        if is_too_long:
            return self._refused(path, 413, "Payload Too Large")
        if not self._places.acquire(blocking=False):
            return self._refused(path, 429, "Too many concurrent requests")
        try:
            question = question_from(given, kind=_KINDS[path], today=self._clock().date())
            if "apikey" not in given and (reason := self._meter.refusal(question.weight)):
                return self._refused(path, 429, reason)
            told = Teller(self._climate, _KINDS[path], now=self._clock()).answer(question)
            self._note(path, 200, question)
            return _json(told)
        except Refused as error:
            return self._refused(path, 400, str(error))
        finally:
            self._places.release()

    def _refused(self, path: str, status: int, reason: str) -> Response:
        self._note(path, status, None)
        return _json({"error": True, "reason": reason}, status=status)

    def _note(self, path: str, status: int, question: Question | None) -> None:
        weight = question.weight if question else 0
        self.heard.append(Heard(path=path, status=status, weight=weight, question=question))

    async def _run(self, request: Request) -> Response:
        """When the newest run of a model began and came; not counted, as at the service."""
        if self.is_down:
            return self._refused(request.url.path, 503, "The service is overloaded")
        if request.path_params["model"] not in FORECAST.models:
            return _json({"error": True, "reason": "Not Found"}, status=404)
        run = newest_run(self._clock())
        return _json(
            {
                "chunk_time_length": 504,
                "crs_wkt": "",
                "data_end_time": int(run.ends_at.timestamp()),
                "last_run_availability_time": int(run.came_at.timestamp()),
                "last_run_initialisation_time": int(run.began_at.timestamp()),
                "last_run_modification_time": int((run.came_at - dt.timedelta(minutes=9)).timestamp()),
                "temporal_resolution_seconds": 3600,
                "update_interval_seconds": 6 * 3600,
            }
        )


def _json(document: Any, *, status: int = 200) -> Response:
    return Response(orjson.dumps(document), status, media_type="application/json; charset=utf-8")
