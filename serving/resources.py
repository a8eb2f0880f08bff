"""What a worker keeps open while it runs, and gives to every request."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from infra.secret_key import load_master_keys
from infra.settings import Settings
from models.keys import MasterKeys
from serving.aftermath import Aftermath
from serving.asking import Work
from serving.breaker import Breaker
from serving.cache import Cache, open_redis
from serving.counts import Counts
from serving.credentials import make_doorkeeper
from serving.database import Database, make_pool
from serving.gate import Gate
from serving.geometry import BoundaryChecker
from serving.minting import Mint, make_mint
from serving.prefect_api import PrefectApi
from serving.reading import Reading
from serving.throttle import make_throttle
from serving.vitals import telling
from serving.weather_points import PointReading
from serving.weather_reading import WeatherReading


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the servers are that a worker needs; not shown by `repr`, because they may hold passwords."""

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    prefect_url: str | None = field(default=None, repr=False)
    """Address of Prefect's API; None: work cannot be asked for."""
    prefect_auth: str | None = field(default=None, repr=False)
    """User and password for it, as `user:password`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Open connections and counters of one worker."""

    settings: Settings
    cache: Cache
    database: Database
    gate: Gate
    prefect: PrefectApi
    counts: Counts
    masters: MasterKeys
    mint: Mint
    reading: Reading
    work: Work
    boundaries: BoundaryChecker
    aftermath: Aftermath
    weather: WeatherReading
    points: PointReading


@contextlib.asynccontextmanager
async def open_resources(
    settings: Settings, addresses: Addresses, counts: Counts | None = None
) -> AsyncIterator[Resources]:
    """Open everything, without waiting for servers that are away: they may come back while the worker runs.

    Args:
        settings: of this process.
        addresses: where the servers are.
        counts: where this worker counts; None: somewhere that no page tells of.

    Raises:
        BadInput: an address is not one of Postgres or Redis, or what secrets and keys are taken from cannot be used.
        ServerTrouble: there is no secret key, and none can be kept in the home.
    """
    masters = load_master_keys(settings)
    doorkeeper = make_doorkeeper(settings, masters)
    client = open_redis(addresses.redis_url)
    pool = make_pool(addresses.database_url, size=settings.serve_connections)
    cache = Cache(client, Breaker("redis"))
    database = Database(pool, Breaker("postgres"))
    counts = counts or Counts()
    gate = Gate(cache, database, doorkeeper=doorkeeper, throttle=make_throttle(settings), counts=counts)
    prefect = PrefectApi(addresses.prefect_url, auth=addresses.prefect_auth)
    work = Work(prefect, cache, database)
    reading = Reading(cache, database, mask_policy=settings.mask_policy.name, counts=counts)
    boundaries = BoundaryChecker(min_ha=settings.min_farm_area_ha, max_ha=settings.max_farm_area_ha)
    aftermath = Aftermath(reading, prefect, cache)
    weather = WeatherReading(cache, database, reading, counts=counts, step_degrees=settings.open_meteo_cell_degrees)
    points = PointReading(cache, weather, counts=counts, step_degrees=settings.open_meteo_cell_degrees)
    try:
        await pool.open(wait=False)
        async with telling(counts, pool, [cache.breaker, database.breaker, prefect.breaker]):
            yield Resources(
                settings=settings,
                cache=cache,
                database=database,
                gate=gate,
                prefect=prefect,
                counts=counts,
                masters=masters,
                mint=make_mint(settings, masters, cache, database, counts),
                reading=reading,
                work=work,
                boundaries=boundaries,
                aftermath=aftermath,
                weather=weather,
                points=points,
            )
    finally:
        await boundaries.aclose()
        await aftermath.close()
        await work.close()
        await prefect.close()
        await pool.close(timeout=2)
        await client.aclose()
