"""A reader of the weather cannot tell whether the cache answered or the database."""

from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.weather import Kind, Reading
from serving.app import ENDPOINTS
from tests.integration.test_serving_weather import (
    DAY,
    HOUR,
    ISSUED,
    NOBODY_THERE,
    OWN,
    POWER,
    THIS_HOUR,
    TODAY,
    Place,
    farm,
    get,
    place,
    point,
)
from tests.support.api_workers import Worker, worker
from tests.support.readings import daily, hourly, midnight

__all__ = ["place"]

VALUES = st.dictionaries(
    st.sampled_from(["precipitation_mm", "et0_mm", "dew_point_c", "wind_speed_10m_m_s"]),
    st.floats(0, 30).map(lambda value: round(value, 3)),
    min_size=1,
)


@st.composite
def weathers(draw: st.DrawFn) -> list[Reading]:
    """What two sources told of some hours and days around now, forecast or analysed."""
    found = []
    for number in draw(st.sets(st.integers(-5, 5), max_size=5)):
        cell, ahead = draw(st.sampled_from([OWN, POWER])), number > 0 or draw(st.booleans())
        more = {"kind": Kind.FORECAST} if ahead else {"is_final": draw(st.booleans())}
        told = {"told_at": ISSUED, "values": draw(VALUES), **more}
        is_hour = draw(st.booleans())
        found.append(
            hourly(cell, THIS_HOUR + number * HOUR, **told) if is_hour else daily(cell, TODAY + number * DAY, **told)
        )
    return found


PATHS = (*(farm(1, part) for part in ("current", "hourly", "daily")), point(), point(ts=midnight(TODAY)))
BULK = {"points": [{"lat": 46.0, "lon": 15.002}, {"lat": 45.9, "lon": 15.1}]}


async def _answers(one: Worker, key: str) -> list[tuple[int, bytes, str | None]]:
    told = [await get(one, path, key) for path in PATHS]
    told.append(await one.http.post("/api/v1/weather/bulk", json=BULK, headers={"x-api-key": key}))
    return [(each.status_code, each.content, each.headers.get("etag")) for each in told]


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(readings=weathers())
def test_cache_and_database_give_the_same_weather(place: Place, readings: list[Reading]) -> None:
    """Put there by the flows, put there by the first reader, and without Redis."""
    place.flush()
    with place.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM weather_hourly")
        connection.exec_driver_sql("DELETE FROM weather_daily")
    place.save(*readings)

    async def read() -> None:
        async with (
            worker(place.database_url, place.redis_url, endpoints=ENDPOINTS) as cached,
            worker(place.database_url, NOBODY_THERE, endpoints=ENDPOINTS) as stored,
        ):
            expected = await _answers(stored, place.ours)
            filled, kept = await _answers(cached, place.ours), await _answers(cached, place.ours)
            assert filled == expected
            assert kept == expected
            place.flush()
            place.publish()
            before = cached.resources.counts.cache_hits
            assert await _answers(cached, place.ours) == expected
            of_farm = [status for status, _, _ in expected[:3]]
            assert cached.resources.counts.cache_hits - before >= of_farm.count(200)

    asyncio.run(read())
