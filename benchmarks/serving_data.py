"""A filled house for the serving benchmark: farms, a year of observations and weather, made inside Postgres."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from itertools import islice

import psycopg
from redis import Redis
from sqlalchemy import Connection, Engine, text

from models.clients import create_client
from models.domain import INDEX
from models.keys import master_keys
from models.observation_rows import STORED
from models.readmodel import publish, read_models
from models.schema import ensure_partitions
from models.weather_bodies import Part
from models.weather_cells import CellOfFarm, assign_cells
from models.weather_readmodel import places_of_active_farms as places_of
from models.weather_readmodel import publish_places, publish_weather_bodies, weather_of_places
from models.weather_rows import SHEETS
from tasks.weather.cells import nasa_power_cell, open_meteo_cell

SECRET = "a master secret of the benchmark alone"
CLIENT = "benchmark"
WEST, SOUTH, COLUMNS = 6.03, 50.03, 20
"""Farms lie in cells of Open-Meteo, of 0.1 degree, so many of them from west to east."""
FARMS_A_PLACE, MOST_PLACES = 50, 200
SPAN = dt.timedelta(days=365)
FARMS_ASSIGNED_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What there is to be asked for."""

    farms: int
    """Farms 1 to this have observations and weather."""
    observations: int
    ready: int
    """Farms 1 to this are in Redis."""
    key: str
    """Of the client whose farms they are."""
    new_farm: uuid.UUID
    """One that nobody has looked at yet."""
    cold_farm: uuid.UUID
    """One that is not in Redis."""
    first_day: dt.date
    last_day: dt.date


def farm_id(number: int) -> uuid.UUID:
    """The id of a farm by its number, as the SQL below makes it."""
    return uuid.UUID(f"00000000-0000-4000-8000-{number:012x}")


def fill(engine: Engine, client: Redis, *, farms: int, passes: int, ready: int, mask_policy: str) -> House:
    """Fill empty stores.

    Args:
        engine: of an empty database with our tables.
        client: of an empty Redis.
        farms: how many have observations.
        passes: observations of each, over a year.
        ready: farms whose state and weather are put into Redis.
        mask_policy: the one in use.
    """
    today = dt.datetime.now(dt.UTC).replace(hour=10, minute=36, second=12, microsecond=0)
    last = today - dt.timedelta(days=1)
    first = last - SPAN + SPAN / passes
    with engine.begin() as connection:
        [key] = create_client(connection, CLIENT, scopes=("read", "farms:write"), masters=master_keys(SECRET))
        connection.execute(text(_FARMS), {"farms": farms + 1, "west": WEST, "south": SOUTH, "places": _places(farms)})
        connection.execute(text(_BOUNDARIES))
        connection.execute(text("SELECT setval(pg_get_serial_sequence('farms', 'id'), max(id)) FROM farms"))
    values = {"farms": farms, "passes": passes, "first": first, "step": SPAN / passes, "mask_policy": mask_policy}
    _fill_observations(engine, values, first=first, last=last)
    _fill_weather(engine, farms, today)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE, FREEZE)"))
    publish_ready(engine, client, ready, mask_policy=mask_policy)
    return House(
        farms=farms,
        observations=farms * passes,
        ready=ready,
        key=key.secret,
        new_farm=farm_id(farms + 1),
        cold_farm=farm_id(farms),
        first_day=first.date(),
        last_day=last.date(),
    )


def publish_ready(engine: Engine, client: Redis, ready: int, *, mask_policy: str) -> None:
    """Put the states of farms 1 to `ready` into Redis, and the weather of their places, as flows do."""
    with engine.connect() as connection:
        publish(client, read_models(connection, range(1, ready + 1), mask_policy=mask_policy))
    with _plain(engine) as plain:
        places = dict(islice(sorted(places_of(plain).items()), ready))
        publish_places(client, places)
        bodies = weather_of_places(plain, places.values(), tuple(Part), now=dt.datetime.now(dt.UTC))
        publish_weather_bodies(client, bodies)


def _plain(engine: Engine) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(engine.url.set(drivername="postgresql").render_as_string(hide_password=False))


def _fill_observations(engine: Engine, values: dict[str, object], *, first: dt.datetime, last: dt.datetime) -> None:
    """Pass after pass, as they come: the rows of one farm lie far apart, and each read of a series visits many pages.

    Years are filled before they are attached, so that their indexes are built at once.
    """
    for year in range(first.year, last.year + 1):
        table = f"observations_{year}"
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL maintenance_work_mem = '256MB'"))
            connection.execute(
                text(f"CREATE TABLE {table} (LIKE observations INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
            )
            connection.execute(text(_OBSERVATIONS.replace("a_year", table)), {**values, "year": year})
            connection.execute(
                text(
                    f"ALTER TABLE observations ATTACH PARTITION {table}"
                    f" FOR VALUES FROM ('{year}-01-01 00:00:00+00') TO ('{year + 1}-01-01 00:00:00+00')"
                )
            )


def _fill_weather(engine: Engine, farms: int, today: dt.datetime) -> None:
    first, last = today.date() - dt.timedelta(days=32), today.date() + dt.timedelta(days=17)
    with engine.begin() as connection:
        _assign(connection, farms)
        for sheet in SHEETS.values():
            ensure_partitions(connection, first, last, table=sheet.table)
            names = ", ".join(sheet.variables)
            # A few digits each, as sources tell them, and no two alike.
            numbers = ", ".join(
                f"round((10 + {place} + 5 * sin(c.id + {place} + s.n / 7.0))::numeric, 1)"
                for place in range(len(sheet.variables))
            )
            query = _WEATHER.replace("a_table", sheet.table).replace("a_time", sheet.time)
            query = query.replace("some_names", names).replace("some_numbers", numbers)
            query = query.replace("a_step", "1 day" if sheet.time == "day" else "1 hour")
            connection.execute(text(query), {"first": first, "last": last, "today": today.date()})


def _places(farms: int) -> int:
    """In how many cells of Open-Meteo they lie."""
    return max(1, min(MOST_PLACES, farms // FARMS_A_PLACE))


def _assign(connection: Connection, farms: int) -> None:
    cells = []
    for place in range(_places(farms)):
        longitude, latitude = WEST + 0.1 * (place % COLUMNS), SOUTH + 0.1 * (place // COLUMNS)
        cells.append((open_meteo_cell(longitude, latitude), nasa_power_cell(longitude, latitude)))
    for start in range(1, farms + 1, FARMS_ASSIGNED_AT_ONCE):
        some = range(start, min(start + FARMS_ASSIGNED_AT_ONCE, farms + 1))
        assign_cells(
            connection,
            [
                CellOfFarm(farm_id=number, boundary_version=1, cell=cell)
                for number in some
                for cell in cells[(number - 1) % len(cells)]
            ],
        )


_FARMS = f"""
INSERT INTO farms (id, external_farm_id, external_user_id, name, boundary_version, west, south, east, north, area_ha,
                   client_id)
SELECT n, CAST('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0') AS uuid), 'user-' || n % 500, 'field ' || n, 1,
       place.west, place.south, place.west + 0.0014, place.south + 0.0009, 1, (SELECT id FROM clients)
FROM generate_series(1, :farms) AS n,
LATERAL (
    SELECT :west + 0.1 * ((n - 1) % :places % {COLUMNS}) + 0.00001 * (n / :places % 300) AS west,
           :south + 0.1 * ((n - 1) % :places / {COLUMNS}) + 0.00001 * (n / :places / 300) AS south
) AS place
"""

# A rectangle as WKB, the big end first, as Postgres sends numbers.
_BOUNDARIES = r"""
INSERT INTO farm_boundaries (farm_id, version, wkb)
SELECT id, 1, decode('00000000030000000100000005', 'hex')
    || float8send(west) || float8send(south) || float8send(east) || float8send(south)
    || float8send(east) || float8send(north) || float8send(west) || float8send(north)
    || float8send(west) || float8send(south)
FROM farms
"""

_OBSERVATIONS = f"""
INSERT INTO a_year ({", ".join(f'"{name}"' for name in STORED)})
SELECT f, 1, p.at + f % 40 * interval '1 second', '{INDEX}', :mask_policy,
       'sentinel-2' || CASE p.n % 2 WHEN 0 THEN 'a' ELSE 'b' END || '/GS2A_' || to_char(p.at, 'YYYYMMDD"T"HH24MISS'),
       CAST(p.at AS date), 'observed', v.ndvi, 'inner', 1 - f % 7 * 0.031,
       v.ndvi - 0.0123, 0.0456 + v.ndvi / 9, v.ndvi - 0.21, v.ndvi + 0.11, v.ndvi + 0.002, v.ndvi - 0.13,
       v.ndvi - 0.07, v.ndvi + 0.05, v.ndvi + 0.08,
       array_fill(CAST(2.5 AS real), ARRAY[40]), v.ndvi, v.ndvi + 0.003, 71, 118, 0.981, 0,
       array_fill(0, ARRAY[12]), ARRAY['S2A_32ULB_' || to_char(p.at, 'YYYYMMDD') || '_0_L2A'],
       '05.11', 'earth-search', 'metadata', repeat('0123456789abcdef', 2), '0.1.0', repeat('fedcba9876543210', 2)
FROM generate_series(0, :passes - 1) AS n
CROSS JOIN LATERAL (SELECT n, CAST(:first AS timestamptz) + n * CAST(:step AS interval) AS at) AS p
CROSS JOIN generate_series(1, :farms) AS f
CROSS JOIN LATERAL (SELECT 0.5 + 0.3 * sin(p.n / 8.0 + f) AS ndvi) AS v
WHERE extract(year FROM p.at) = :year
"""

_WEATHER = """
INSERT INTO a_table (cell_id, a_time, model, kind, is_final, told_at, some_names)
SELECT c.id, s.at, CASE c.source WHEN 'open-meteo' THEN 'ecmwf_ifs025' ELSE 'merra2' END,
       CASE WHEN s.at >= :today THEN 'forecast' ELSE 'reanalysis' END, false, CAST(:today AS timestamptz), some_numbers
FROM weather_cells AS c
CROSS JOIN LATERAL (
    SELECT n, at FROM generate_series(CAST(:first AS timestamptz), CAST(:last AS timestamptz), interval 'a_step')
    WITH ORDINALITY AS g(at, n)
) AS s
"""
