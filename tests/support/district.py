"""A district of farms, 100 by 100 km, and both weather services on loopback to ask about it."""

from __future__ import annotations

import datetime as dt
import random
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from shapely.geometry import box
from sqlalchemy import Engine, text

from models.farms import upsert_farms
from tests.support.shapes import draft
from tests.support.weather_answers import open_meteo_answer_to, power_answer_to
from tests.support.weather_server import Received, Reply, WeatherServer, json_reply

FORECAST, ARCHIVE, POWER = "/v1/forecast", "/v1/archive", "/api/temporal/daily/point"
WEST, SOUTH, EAST, NORTH = 6.0, 51.0, 7.44, 51.9
"""100 km each way."""

Scripted = Callable[[Received], Reply]


def store_district(engine: Engine, count: int = 1_000) -> None:
    """Store this many farms, spread over the district in the same way each time."""
    places = random.Random(7)
    plots = [(places.uniform(WEST, EAST - 0.002), places.uniform(SOUTH, NORTH - 0.001)) for _ in range(count)]
    with engine.begin() as connection:
        upsert_farms(
            connection,
            [draft(number, box(x, y, x + 0.0013, y + 0.0009)) for number, (x, y) in enumerate(plots, start=1)],
        )


def farm(number: int) -> uuid.UUID:
    """`external_farm_id` of a farm of the district."""
    return uuid.UUID(int=number)


def both_services(request: Received) -> Reply:
    """What either service would answer."""
    answer = power_answer_to(request) if request.path == POWER else open_meteo_answer_to(request)
    return json_reply(answer)


def down(request: Received) -> Reply:
    """What a service that is down answers."""
    del request
    return Reply(status=503, body=b"upstream connect error")


def but(others: Mapping[str, Scripted]) -> Scripted:
    """Both services, with other answers at some paths."""
    return lambda request: others.get(request.path, both_services)(request)


def asked(server: WeatherServer) -> dict[str, int]:
    """Requests so far by path."""
    return dict(Counter(each.path for each in server.received))


def environment(server: WeatherServer, **more: str) -> dict[str, str]:
    """Settings that name this server for both services, without patience and with a large allowance."""
    return {
        "SWATH_OPEN_METEO_URL": server.url,
        "SWATH_OPEN_METEO_ARCHIVE_URL": server.url,
        "SWATH_OPEN_METEO_HISTORICAL_FORECAST_URL": server.url,
        "SWATH_NASA_POWER_URL": server.url,
        "SWATH_HTTP_RETRIES": "1",
        "SWATH_HTTP_RETRY_DELAY_S": "0.01",
        **{f"SWATH_OPEN_METEO_CALLS_PER_{span}": "1000000" for span in ("MINUTE", "HOUR", "DAY")},
        **more,
    }


def stored(engine: Engine) -> list[tuple[Any, ...]]:
    """Every reading of a day, with where and by which transaction it was written, in order."""
    query = "SELECT tableoid::regclass::text, ctid::text, xmin::text, w.* FROM weather_daily AS w ORDER BY 1, 2"
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def days_of(first: dt.date, last: dt.date) -> list[dt.date]:
    """Each day, both included."""
    return [first + dt.timedelta(days=number) for number in range((last - first).days + 1)]
