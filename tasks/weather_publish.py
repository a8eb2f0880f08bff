"""Bring the weather that readers are given up to date in Redis, after it was saved and before it expires there."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection

import psycopg
import structlog

from infra.stores import Stores
from models.weather_bodies import Part
from models.weather_readmodel import (
    places_of_active_farms,
    publish_places,
    publish_weather_bodies,
    weather_of_places,
)

log = structlog.get_logger(__name__)


def publish_weather(
    stores: Stores,
    *,
    now: dt.datetime,
    cell_keys: Collection[str] | None = None,
    parts: Collection[Part] = tuple(Part),
) -> int:
    """Make the weather of active farms' places from Postgres and put it into Redis; return how many bodies.

    Call it after the commit of what is to be told. What Redis has is written over, never taken away first.

    Args:
        stores: where to read and write.
        now: the time, from which the days and hours told are reckoned.
        cell_keys: only places with any of these cells, such as those that changed; by default all.
        parts: what to publish.

    Raises:
        redis.RedisError: Redis could not be reached or did not take them. Readers have Postgres; doing it again is
            safe.
        sqlalchemy.exc.SQLAlchemyError, psycopg.Error: the database does not answer.
    """
    with stores.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        farms = places_of_active_farms(driver, cell_keys=cell_keys)
        places = set(farms.values())
        publish_places(stores.redis, farms)
        written = publish_weather_bodies(stores.redis, weather_of_places(driver, places, parts, now=now))
    log.info("weather published", farms=len(farms), places=len(places), written=written)
    return written
