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
import math
import os
import random
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, Python looks for modules beside it only
    sys.path.insert(0, str(ROOT))

from shapely.geometry import box  # noqa: E402
from sqlalchemy import Engine, text  # noqa: E402

from benchmarks.weather_runs import FlowRun, Heard, Services, finished, services, start_flow  # noqa: E402
from infra.cli.running import prefect_server  # noqa: E402
from infra.local.home import temporary_home  # noqa: E402
from infra.settings import load_settings  # noqa: E402
from infra.stores import open_stores  # noqa: E402
from infra.telemetry import set_up_logs  # noqa: E402
from models.domain import FarmDraft  # noqa: E402
from models.farms import upsert_farms  # noqa: E402
from models.quota import QuotaLimits  # noqa: E402

WEST, SOUTH, WIDTH_DEGREES, HEIGHT_DEGREES = 6.0, 51.0, 1.44, 0.9
"""100 km each way."""
MOST_OPEN_METEO, MOST_NASA_POWER = 10, 12
"""Requests for a day's weather of a thousand farms."""
KILLED_AT = 0.45
"""Share of the rows at which the backfill is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """The daily run: the first, and one right after it."""

    run: FlowRun
    heard: Heard
    again: FlowRun
    heard_again: Heard
    open_meteo_cells: int
    nasa_power_cells: int

    @property
    def repeated(self) -> int:
        """Requests of the second run, when everything that can be known is stored."""
        return self.heard_again.open_meteo_requests + self.heard_again.nasa_power_requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """Years of weather, loaded by a run that was killed and one that went on."""

    first: dt.date
    last: dt.date
    seconds: float
    """Of both together, process starts included."""
    rows_when_killed: int
    rows: int
    lost: int
    """Days of cells that are not there, of those that the services tell."""
    doubled: int
    heard: Heard
    after: FlowRun


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


def problems_of(day: Day, backfill: Backfill | None) -> list[str]:
    """What is not as it should be."""
    found = []
    if day.heard.open_meteo_requests > MOST_OPEN_METEO or day.heard.nasa_power_requests > MOST_NASA_POWER:
        found.append(f"more than {MOST_OPEN_METEO} requests to Open-Meteo or {MOST_NASA_POWER} to NASA POWER")
    if day.repeated:
        found.append(f"{day.repeated} requests repeated for what is stored")
    runs = [day.run, day.again, *([backfill.after] if backfill else [])]
    found += [f"a run ended {run.state}: {run.message}" for run in runs if run.state != "COMPLETED"]
    if backfill and (backfill.lost or backfill.doubled):
        found.append(f"{backfill.lost} rows lost and {backfill.doubled} doubled by the kill")
    return found


def report(day: Day, backfill: Backfill | None, farms: int) -> Iterator[str]:
    """What was measured, for people."""
    heard, run = day.heard, day.run
    yield f"\n{farms:,} farms in 100 x 100 km: {day.open_meteo_cells} Open-Meteo and {day.nasa_power_cells} POWER cells"
    yield f"  {'':26}{'Open-Meteo':>12}{'weighted':>10}{'NASA POWER':>12}{'rows':>9}{'s':>7}{'rows/s':>8}"
    yield (
        f"  {'daily run':26}{heard.open_meteo_requests:12,}{heard.weighted_calls:10,.1f}{heard.nasa_power_requests:12,}"
        f"{run.rows:9,}{run.seconds:7.1f}{run.rows / run.seconds:8,.0f}"
    )
    again = day.heard_again
    yield (
        f"  {'again, all stored':26}{again.open_meteo_requests:12,}{again.weighted_calls:10,.1f}"
        f"{again.nasa_power_requests:12,}{day.again.rows:9,}{day.again.seconds:7.1f}{'':8}"
    )
    a_cell = heard.weighted_calls / day.open_meteo_cells
    yield f"  {'one request a farm':26}{farms:12,}{farms * a_cell:10,.1f}{farms:12,}   (told from the weights)"
    if backfill:
        yield from _report_of(backfill)
    yield from _report_of_quota(day)


def _report_of(backfill: Backfill) -> Iterator[str]:
    from benchmarks.weather_quota import backfill_weight_a_cell

    heard = backfill.heard
    yield (
        f"  {f'{backfill.first.year} to {backfill.last.year}, killed once':26}{heard.open_meteo_requests:12,}"
        f"{heard.weighted_calls:10,.1f}{heard.nasa_power_requests:12,}{backfill.rows:9,}{backfill.seconds:7.1f}"
        f"{backfill.rows / backfill.seconds:8,.0f}"
    )
    a_cell = backfill_weight_a_cell(backfill.first, backfill.last)
    yield (
        f"  killed at {backfill.rows_when_killed:,} rows; {heard.told_before} requests asked again for it,"
        f" {backfill.lost} rows lost, {backfill.doubled} doubled"
    )
    free_days = math.ceil(heard.weighted_calls / (QuotaLimits().per_day * QuotaLimits().backfill_share))
    yield (
        f"  {a_cell:,.0f} weighted calls a cell: {free_days} free days beside live work for Open-Meteo's,"
        " while NASA POWER's are there at once"
    )


def _report_of_quota(day: Day) -> Iterator[str]:
    from benchmarks.weather_quota import PREWARM_EVERY_MIN, quota

    worth = quota()
    carried = worth.cells / day.open_meteo_cells
    yield "\nWhat Open-Meteo's free day of 10,000 weighted calls carries, days and hours of every farm kept up to date:"
    yield (
        f"  one request a farm, every {PREWARM_EVERY_MIN} minutes: {worth.calls_a_farm_alone:.1f} calls a farm,"
        f" used up at {worth.farms_alone:,} farms"
    )
    yield f"  by cell, when there is a new model run: {worth.calls_a_cell:.1f} calls a cell, {worth.cells:,} cells"
    yield f"  in a district of 100 x 100 km: any number of farms, and {carried:.1f} such districts"
    for step in (0.1, 0.25):
        farms = worth.farms_over_country(step_degrees=step)
        count = "any number of" if math.isinf(farms) else f"{farms:,.0f}"
        yield f"  anywhere in a country like Germany, cells of {step} degrees: {count} farms"


def summary(day: Day, backfill: Backfill | None, farms: int) -> dict[str, Any]:
    """The numbers for programs; null where not measured."""
    from benchmarks.weather_quota import quota

    worth = quota()
    over_country = worth.farms_over_country(step_degrees=0.1)
    return {
        "farms": farms,
        "open_meteo_cells": day.open_meteo_cells,
        "nasa_power_cells": day.nasa_power_cells,
        "open_meteo_requests": day.heard.open_meteo_requests,
        "nasa_power_requests": day.heard.nasa_power_requests,
        "repeated": day.repeated,
        "weighted_calls": round(day.heard.weighted_calls, 1),
        "refused": day.heard.refused + day.heard_again.refused,
        "rows": day.run.rows,
        "seconds": round(day.run.seconds, 2),
        "rows_per_second": round(day.run.rows / day.run.seconds),
        "free_farms_one_request_each": worth.farms_alone,
        "free_cells": worth.cells,
        "free_farms_district": None,  # no limit: all its cells are carried, whatever they hold
        "free_districts": round(worth.cells / day.open_meteo_cells, 1),
        "free_farms_country": None if math.isinf(over_country) else round(over_country),
        "backfill_rows": backfill.rows if backfill else None,
        "backfill_seconds": round(backfill.seconds, 1) if backfill else None,
        "backfill_rows_per_second": round(backfill.rows / backfill.seconds) if backfill else None,
        "backfill_asked_again": backfill.heard.told_before if backfill else None,
        "backfill_lost": backfill.lost if backfill else None,
        "backfill_doubled": backfill.doubled if backfill else None,
    }


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
