"""A stand-in for NASA POWER that answers in its shapes: days and hours of one point, late, with fill values.

Two limits are told as the service tells them: 422 in either of its shapes, and 429. Where the service has defaults, so
has this: local solar time unless UTC is said.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.sandbox.weather_climate import Climate
from infra.sandbox.weather_limits import Clock
from infra.sandbox.weather_power_values import PARAMETERS, PowerQuestion, PowerTeller

MOST_PARAMETERS = {"daily": 20, "hourly": 15}
FIRST_DAY = {"daily": dt.date(1981, 1, 1), "hourly": dt.date(2001, 1, 1)}
_WINDOW = dt.timedelta(seconds=60)
_FIELDS = ("parameters", "community", "longitude", "latitude", "start", "end")


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerHeard:
    """One request as the service heard it."""

    path: str
    status: int
    question: PowerQuestion | None
    """None where nothing was told."""


class PowerStandIn:
    """The service: an application to serve, what it heard, and a switch.

    Args:
        climate: The truth.
        clock: The present instant.
        per_minute: Requests answered within any 60 seconds; 30 is what users reported.
    """

    def __init__(self, climate: Climate, *, clock: Clock, per_minute: int = 30) -> None:
        self.heard: list[PowerHeard] = []
        self.is_down = False
        """True: every request is answered by 503, as a page of HTML from the gateway in front."""
        self._climate = climate
        self._clock = clock
        self._per_minute = per_minute
        self._recent: deque[dt.datetime] = deque()
        self._lock = threading.Lock()
        self.app = Starlette(routes=[Route("/api/temporal/{grain:str}/point", self._answer)])

    async def _answer(self, request: Request) -> Response:
        grain = request.path_params["grain"]
        return await run_in_threadpool(self._considered, grain, request.url.path, dict(request.query_params))

    def _considered(self, grain: str, path: str, given: Mapping[str, str]) -> Response:
        response, question = self._decided(grain, given)
        self.heard.append(PowerHeard(path=path, status=response.status_code, question=question))
        return response

    def _decided(self, grain: str, given: Mapping[str, str]) -> tuple[Response, PowerQuestion | None]:
        if self.is_down:
            page = "<html><head><title>503 Service Temporarily Unavailable</title></head></html>"
            return Response(page, 503, media_type="text/html"), None
        if grain not in MOST_PARAMETERS:
            return _json({"detail": "Not Found"}, status=404), None
        if (wait_s := self._wait_s()) > 0:
            said = {"message": "Too Many Requests"}
            return _json(said, status=429, headers={"Retry-After": str(wait_s)}), None
        if absent := [name for name in _FIELDS if name not in given]:
            detail = [
                {"loc": ["query", name], "msg": "field required", "type": "value_error.missing"} for name in absent
            ]
            return _json({"detail": detail}, status=422), None
        found = _question(grain, given, today=self._clock().date())
        if isinstance(found, list):
            return _json({"header": _SORRY.format(grain=grain.title()), "messages": found}, status=422), None
        return _json(PowerTeller(self._climate, now=self._clock()).answer(found)), found

    def _wait_s(self) -> int:
        """Seconds until another request may be answered; 0: this one is, and is counted."""
        now = self._clock()
        with self._lock:
            while self._recent and self._recent[0] <= now - _WINDOW:
                self._recent.popleft()
            if len(self._recent) >= self._per_minute:
                return int((self._recent[0] + _WINDOW - now).total_seconds()) + 1
            self._recent.append(now)
        return 0


_SORRY = (
    "The POWER {grain} API failed to complete your request; please review the errors below and the POWER Docs "
    "(https://power.larc.nasa.gov/docs/)."
)


def _question(grain: str, given: Mapping[str, str], *, today: dt.date) -> PowerQuestion | list[str]:
    """The question in the parameters of a request, or what is wrong with them."""
    names = tuple(given["parameters"].upper().split(","))
    first, last = _date(given["start"]), _date(given["end"])
    latitude, longitude = _number(given["latitude"]), _number(given["longitude"])
    standard, community = given.get("time-standard", "LST").upper(), given["community"].upper()
    problems = [f"The parameter {name} is not available." for name in names if name not in PARAMETERS]
    if len(names) > MOST_PARAMETERS[grain]:
        problems.append(
            f"A maximum of {MOST_PARAMETERS[grain]} parameters can currently be requested in one submission."
        )
    if first is None or first < FIRST_DAY[grain]:
        problems.append("Please provide a correct start date formatting.")
    if last is None or last > today or (first is not None and last < first):
        problems.append("Please provide a correct end date formatting.")
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        problems.append("Please provide a latitude of -90 to 90 and a longitude of -180 to 180.")
    if standard not in ("UTC", "LST") or community not in ("AG", "RE", "SB"):
        problems.append("Please provide a correct time standard and community.")
    if problems or first is None or last is None or latitude is None or longitude is None:
        return problems
    return PowerQuestion(
        is_hourly=grain == "hourly",
        names=names,
        latitude=latitude,
        longitude=longitude,
        first_day=first,
        last_day=last,
        standard=standard,
        community=community,
    )


def _date(raw: str) -> dt.date | None:
    try:
        return dt.datetime.strptime(raw, "%Y%m%d").replace(tzinfo=dt.UTC).date()
    except ValueError:
        return None


def _number(raw: str) -> float | None:
    try:
        return float(raw)
    except ValueError:
        return None


def _json(document: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(document), status, headers=headers, media_type="application/json")
