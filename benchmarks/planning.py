"""What it takes to plan a day for many farms, measured in a process of its own over an embedded Postgres.

The farms and the catalog are made up (`benchmarks.planet`); what is measured is `find_due` as a flow calls it, from the
scenes in the ledger to the work noted in it, and the boxes to search before.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import shapely
from redis import Redis
from sqlalchemy import Engine, event

from benchmarks.by_scene import peak_rss_mb
from benchmarks.planet import Fields, external_id, fields, scenes_of
from infra.settings import Settings, load_settings
from infra.stores import Stores, open_stores, postgres_engine
from infra.telemetry import set_up_logs
from models.ledger import record_scenes
from models.selection import Selection
from tasks.bench import Bench
from tasks.due import boxes_to_search, find_due
from tasks.imagery.catalogs import KNOWN_CATALOGS

ROOT = Path(__file__).resolve().parents[1]
DAY = dt.date(2026, 6, 1)
CATALOG = KNOWN_CATALOGS["earth-search-c1"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One planning of a day."""

    seconds: float
    cpu_s: float
    """Of the planning process; Postgres works beside it."""
    peak_rss_mb: float
    start_rss_mb: float
    """Peak before planning: the interpreter and its libraries."""
    queries: int
    boxes: int
    boxes_s: float
    """To find the boxes for searching catalogs, not in `seconds`."""
    units: int
    looks: int
    """Farms in units of work: observations to make."""


def measure_planning(stores: Stores) -> Planned:
    """Plan a day for the farms of these stores, none of which was observed yet."""
    command = [sys.executable, "-m", "benchmarks.planning", stores.database_url, stores.redis_url]
    found = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return Planned(**json.loads(found.stdout.splitlines()[-1]))


@contextlib.contextmanager
def stored_world(settings: Settings, *, farms: int, scenes: int) -> Iterator[Stores]:
    """Stores of their own with made-up farms and a day's scenes in them."""
    with open_stores(settings) as stores:
        with stores.engine.begin() as connection:
            record_scenes(connection, scenes_of(DAY, scenes), [])
        store_fields(stores.engine, fields(farms))
        yield stores


def store_fields(engine: Engine, drawn: Fields) -> None:
    """Store fields as farms, straight into the tables: what is measured comes later."""
    ends = drawn.corners + drawn.sides
    shapes = shapely.box(drawn.corners[:, 0], drawn.corners[:, 1], ends[:, 0], ends[:, 1])
    wkbs = shapely.to_wkb(shapes, byte_order=1)
    boxes = zip(drawn.corners.tolist(), ends.tolist(), strict=True)
    with engine.begin() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        columns = "id, external_farm_id, name, boundary_version, west, south, east, north, area_ha"
        with driver.cursor() as cursor, cursor.copy(f"COPY farms ({columns}) FROM STDIN") as copy:
            for number, (low, high) in enumerate(boxes):
                copy.write_row((number + 1, external_id(number), f"field {number}", 1, *low, *high, 1.0))
        with driver.cursor() as cursor, cursor.copy("COPY farm_boundaries (farm_id, version, wkb) FROM STDIN") as copy:
            for number, wkb in enumerate(wkbs):
                copy.write_row((number + 1, 1, wkb))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE farms, farm_boundaries, scenes")


def _plan(database_url: str, redis_url: str) -> Planned:
    engine = postgres_engine(database_url, pool_size=2)
    queries = 0

    @event.listens_for(engine, "before_cursor_execute")
    def count(*_: object) -> None:
        nonlocal queries
        queries += 1

    stores = Stores(engine, Redis.from_url(redis_url), database_url, redis_url)
    bench = Bench(load_settings(), stores, lambda tasks: tasks, is_again=False, is_for_some=False)
    rss = peak_rss_mb()
    start = time.perf_counter()
    boxes = boxes_to_search(bench, Selection())
    boxes_s, queries = time.perf_counter() - start, 0
    start, cpu = time.perf_counter(), time.process_time()
    works = find_due(bench, [CATALOG], Selection(), (DAY, DAY))
    return Planned(
        seconds=time.perf_counter() - start,
        cpu_s=time.process_time() - cpu,
        peak_rss_mb=peak_rss_mb(),
        start_rss_mb=rss,
        queries=queries,
        boxes=len(boxes),
        boxes_s=boxes_s,
        units=len(works),
        looks=sum(len(work.farm_ids) for work in works),
    )


if __name__ == "__main__":
    for name in [name for name in os.environ if name.startswith("SWATH_")]:
        del os.environ[name]
    set_up_logs("ERROR", as_json=False)
    print(json.dumps(asdict(_plan(*sys.argv[1:]))))
