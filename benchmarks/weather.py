"""Weather of many farms by cell: how often the services are asked, and how fast what they tell is stored.

    python benchmarks/weather.py [--quick] [--json]

A thousand farms in a district of 100 x 100 km, the real flows, an embedded Postgres, and stand-ins for Open-Meteo and
NASA POWER over HTTP in a process of their own, with the limits of the free services. The weather is simulated. The
full run also loads ten years, is killed in the middle and started again; for that the stand-ins have no limits.
A number that is not right ends with exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import random
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, Python looks for modules beside it only
    sys.path.insert(0, str(ROOT))

from shapely.geometry import box  # noqa: E402
from sqlalchemy import Engine, text  # noqa: E402

from benchmarks.weather_report import Backfill, Day, problems_of, report, summary  # noqa: E402
from benchmarks.weather_runs import Services, finished, services, start_flow  # noqa: E402
from infra.cli.running import prefect_server  # noqa: E402
from infra.local.home import temporary_home  # noqa: E402
from infra.settings import load_settings  # noqa: E402
from infra.stores import open_stores  # noqa: E402
from infra.telemetry import set_up_logs  # noqa: E402
from models.domain import FarmDraft  # noqa: E402
from models.farms import upsert_farms  # noqa: E402

WEST, SOUTH, WIDTH_DEGREES, HEIGHT_DEGREES = 6.0, 51.0, 1.44, 0.9
"""100 km each way."""
KILLED_AT = 0.45
"""Share of the rows at which the backfill is killed."""


def draft(number: int, rng: random.Random) -> FarmDraft:
    """A field of about a hectare anywhere in the district."""
    west = WEST + rng.uniform(0, WIDTH_DEGREES - 0.002)
    south = SOUTH + rng.uniform(0, HEIGHT_DEGREES - 0.001)
    bounds = (west, south, west + 0.0014, south + 0.0009)
    return FarmDraft(
        external_farm_id=uuid.UUID(int=number + 1),
        name=f"field {number}",
        external_user_id=None,
        boundary=box(*bounds).wkb,
        bbox=bounds,
        area_ha=1.0,
        feature=f"field {number}",
    )


@contextlib.contextmanager
def installation(running: Services, *, farms: int, is_unlimited: bool) -> Iterator[Engine]:
    """Stores of their own with farms in them, a Prefect server, and settings that lead to the services."""
    before = dict(os.environ)
    unlimited = {f"SWATH_OPEN_METEO_CALLS_PER_{span}": "1e12" for span in ("MINUTE", "HOUR", "DAY")}
    with temporary_home() as home:
        for name in [name for name in os.environ if name.startswith(("SWATH_", "PREFECT_"))]:
            del os.environ[name]
        os.environ |= {**running.settings, "SWATH_HOME": str(home), **(unlimited if is_unlimited else {})}
        try:
            settings = load_settings()
            with open_stores(settings) as stores, prefect_server(settings):
                rng = random.Random(7)
                with stores.engine.begin() as connection:
                    upsert_farms(connection, [draft(number, rng) for number in range(farms)])
                yield stores.engine
        finally:
            os.environ.clear()
            os.environ.update(before)


def measure_day(farms: int) -> Day:
    """Run the daily flow twice, against services with the limits of the free ones."""
    with services(is_unlimited=False) as running, installation(running, farms=farms, is_unlimited=False) as engine:
        run = finished(start_flow("daily"))
        heard = running.look()
        again = finished(start_flow("daily"))
        cells = _cells(engine)
        return Day(
            run=run,
            heard=heard,
            again=again,
            heard_again=running.look(),
            open_meteo_cells=cells["open-meteo"],
            nasa_power_cells=cells["nasa-power"],
        )


def measure_backfill(farms: int, years: int) -> Backfill:
    """Load years up to the last whole one, killed once, against services without limits."""
    last = dt.date(dt.datetime.now(dt.UTC).year - 1, 12, 31)
    first = dt.date(last.year - years + 1, 1, 1)
    with services(is_unlimited=True) as running, installation(running, farms=farms, is_unlimited=True) as engine:
        words = ("backfill", first.isoformat(), last.isoformat())
        start = time.perf_counter()
        killed = start_flow(*words)
        rows_when_killed = _kill_when_loaded(killed, engine, days=(last - first).days + 1)
        after = finished(start_flow(*words))
        seconds = time.perf_counter() - start
        rows, doubled = _stored(engine)
        expected = sum(_cells(engine).values()) * ((last - first).days + 1)
        return Backfill(
            first=first,
            last=last,
            seconds=seconds,
            rows_when_killed=rows_when_killed,
            rows=rows,
            lost=expected - rows + doubled,
            doubled=doubled,
            heard=running.look(),
            after=after,
        )


def _kill_when_loaded(process: Any, engine: Engine, *, days: int) -> int:
    """Wait until nearly half of all is stored, kill the process, and give the rows then."""
    while process.poll() is None:
        expected = sum(_cells(engine).values()) * days
        if expected and _rows(engine) > KILLED_AT * expected:
            break
        time.sleep(0.2)
    process.kill()
    process.communicate()
    return _rows(engine)


def _cells(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        query = "SELECT source, count(DISTINCT cell_id) AS cells FROM farm_cells GROUP BY source"
        found = connection.execute(text(query))
        return {row.source: row.cells for row in found}


def _rows(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM weather_daily")).scalar_one())


def _stored(engine: Engine) -> tuple[int, int]:
    """Rows, and how many of them tell a day of a cell that another tells."""
    query = "SELECT count(*), count(*) - count(DISTINCT (cell_id, day)) FROM weather_daily"
    with engine.connect() as connection:
        rows, doubled = connection.execute(text(query)).one()
    return int(rows), int(doubled)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the daily run alone, within 50 s")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--farms", type=int, default=1_000, help="farms in the district (default: %(default)s)")
    parser.add_argument("--years", type=int, default=10, help="years of the backfill (default: %(default)s)")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, and give the exit code: 1 when a number is not right."""
    asked = arguments(words)
    set_up_logs("WARNING", as_json=False)
    print(f"{os.cpu_count()} processors; simulated weather", flush=True)
    day = measure_day(asked.farms)
    backfill = None if asked.quick else measure_backfill(asked.farms, asked.years)
    print(*report(day, backfill, asked.farms), sep="\n")
    problems = problems_of(day, backfill)
    for problem in problems:
        print(f"not right: {problem}")
    if asked.json:
        print(json.dumps(summary(day, backfill, asked.farms)), flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
