"""A reader cannot tell whether the cache answered or the database."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.domain import Observation, Rule, Status
from serving.app import ENDPOINTS
from tests.integration.test_serving_ndvi import NOBODY_THERE, Place, farm, get, place
from tests.support.api_workers import worker
from tests.support.facts import NOON, observed, statistics, unseen

__all__ = ["place"]

FRACTIONS = st.floats(0.001, 1.0)
NUMBERS = st.floats(-0.8, 0.8)


@st.composite
def seasons(draw: st.DrawFn) -> list[Observation]:
    """What some passes told of a farm, of any instant to the microsecond."""
    found = []
    for number in range(draw(st.integers(0, 5))):
        at = NOON + timedelta(days=3 * number, microseconds=draw(st.integers(0, 10**10)))
        one = {"acquired_at": at, "day": at.date(), "pass_id": f"sentinel-2b/{number}"}
        if draw(st.booleans()):
            value, rule = draw(NUMBERS), draw(st.sampled_from(Rule))
            baseline = draw(st.sampled_from([None, "05.10"]))
            facts = observed(
                1, ndvi=value, rule=rule, clear_fraction=draw(FRACTIONS), processing_baseline=baseline, **one
            )
            found.append(replace(facts, statistics=statistics(draw(NUMBERS))))
        else:
            found.append(
                unseen(1, draw(st.sampled_from([each for each in Status if each is not Status.OBSERVED])), **one)
            )
    return found


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(season=seasons(), is_active=st.booleans())
def test_cache_and_database_give_the_same_bytes(place: Place, season: list[Observation], *, is_active: bool) -> None:
    with place.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM observations")
        change = "UPDATE farms SET is_active = %(is_active)s, revision = nextval('revision_seq')"
        connection.exec_driver_sql(change, {"is_active": is_active})
    place.save(*(replace(each, farm_id=place.farm_ids[0]) for each in season))
    place.save()

    async def read() -> None:
        async with (
            worker(place.database_url, place.redis_url, endpoints=ENDPOINTS) as cached,
            worker(place.database_url, NOBODY_THERE, endpoints=ENDPOINTS) as stored,
        ):
            for rest in ("state", "ndvi/latest", "ndvi/latest?min_clear_fraction=0.5", "ndvi?with_empty=true"):
                one, other = [await get(each, farm(1, rest), place.ours) for each in (cached, stored)]
                assert 'desc="hit"' in one.headers["server-timing"]
                assert 'desc="away"' in other.headers["server-timing"]
                assert (one.status_code, one.content) == (other.status_code, other.content)
                assert one.headers.get("etag") == other.headers.get("etag")

    asyncio.run(read())
