"""A day of scenes over some farms, observed by the real flow through Prefect: how long it takes, and how long the work.

All scenes show one simulated tile, each under its own name and as a pass of its own, so that no file is read twice from
a cache. The farms' footprints are made once; over as many different tiles they would be more work. Work is the time
that Prefect saw the searches and scenes running, scenes divided by how many run at a time; planning, starting and
ending the run count as overhead.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import shapely
from pyproj import Transformer

from benchmarks.fields import random_farms
from benchmarks.server import counting_server
from benchmarks.tile import DAYS, OFFSET_DN, Tile, grid_of
from infra.cli.running import prefect_server
from infra.local.home import temporary_home
from infra.sandbox.stac import serve_items
from infra.settings import load_settings
from infra.stores import open_stores
from models.domain import Farm, FarmDraft
from models.farms import upsert_farms

ROOT = Path(__file__).resolve().parents[1]
DAY = DAYS[1]
COLLECTION = "sentinel-2-c1-l2a"
BANDS = ("red", "nir", "scl")
FIRST_PASS = dt.datetime.combine(DAY, dt.time(1), dt.UTC)
BETWEEN_PASSES = dt.timedelta(minutes=5)
TOLD_WITHIN_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DayRun:
    """One run of the flow."""

    state: str
    message: str
    flow_s: float
    """From Running to its end, as Prefect saw it."""
    searches_s: float
    scenes_s: float
    """Of all scenes together, as Prefect saw them running."""
    scenes: int
    observed: int
    at_once: int
    """Scenes in hand at the same time."""

    @property
    def work_s(self) -> float:
        """The time that the work alone takes with so many scenes at a time."""
        return self.searches_s + self.scenes_s / self.at_once

    @property
    def overhead_fraction(self) -> float:
        """Share of the flow's time that is not work."""
        return max(0.0, 1 - self.work_s / self.flow_s)


def measure_day(tile: Tile, *, scenes: int, farms: int, is_quiet: Callable[[], object] = lambda: None) -> DayRun:
    """Run the daily work over so many scenes with so many farms each.

    Args:
        tile: the files that all scenes show.
        scenes: how many.
        farms: in each of them.
        is_quiet: returns once the machine has nothing else to do; called when all servers are up, before the work.
    """
    with tempfile.TemporaryDirectory(prefix="swath-day-") as folder:
        for number in range(scenes):
            for band in BANDS:
                (Path(folder) / f"{number}-{band}.tif").symlink_to(tile.file(DAY, band))
        with counting_server(Path(folder)) as files, _catalog(files.url, tile.size, scenes) as stac_url:
            return _run_in_child(stac_url, random_farms(farms, size=tile.size), is_quiet)


def _run_in_child(stac_url: str, farms: list[Farm], is_quiet: Callable[[], object]) -> DayRun:
    before = dict(os.environ)
    with temporary_home() as home:
        for name in [name for name in os.environ if name.startswith(("SWATH_", "PREFECT_"))]:
            del os.environ[name]
        os.environ |= {"SWATH_HOME": str(home), "SWATH_STAC_URL": stac_url, "SWATH_STAC_COLLECTION": COLLECTION}
        try:
            settings = load_settings()
            with open_stores(settings) as stores, prefect_server(settings):
                with stores.engine.begin() as connection:
                    upsert_farms(connection, [_draft(farm) for farm in farms])
                is_quiet()
                quiet = {"PREFECT_LOGGING_LEVEL": "CRITICAL", "SWATH_LOG_LEVEL": "ERROR"}
                command = [sys.executable, "-m", "benchmarks.day_of_scenes"]
                found = subprocess.run(
                    command, cwd=ROOT, env=os.environ | quiet, stdout=subprocess.PIPE, text=True, check=True
                )
                return DayRun(**json.loads(found.stdout.splitlines()[-1]))
        finally:
            os.environ.clear()
            os.environ.update(before)


def _draft(farm: Farm) -> FarmDraft:
    return FarmDraft(
        external_farm_id=farm.external_farm_id,
        name=farm.name,
        external_user_id=None,
        boundary=farm.boundary,
        bbox=farm.bbox,
        area_ha=farm.area_ha,
        feature=farm.name,
    )


@contextlib.contextmanager
def _catalog(files_url: str, size: int, scenes: int) -> Iterator[str]:
    items = [_item(files_url, number, size) for number in range(scenes)]
    with tempfile.TemporaryDirectory(prefix="swath-day-") as scratch:
        file = Path(scratch) / "items.json"
        file.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
        with serve_items(file) as url:
            yield url


def _item(files_url: str, number: int, size: int) -> dict[str, Any]:
    """A pass over the tile as Earth Search tells of it."""
    at = FIRST_PASS + number * BETWEEN_PASSES
    left, bottom, right, top = grid_of("red", size).bounds
    to_degrees = Transformer.from_crs(grid_of("red", size).epsg, 4326, always_xy=True)
    outline = shapely.Polygon(
        [to_degrees.transform(x, y) for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))]
    )
    moment = f"{at:%Y%m%dT%H%M%S}"
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": f"S2A_T33TWM_{moment}_L2A",
        "collection": COLLECTION,
        "geometry": shapely.geometry.mapping(outline),
        "bbox": list(outline.bounds),
        "properties": {
            "datetime": f"{at:%Y-%m-%dT%H:%M:%SZ}",
            "updated": f"{at:%Y-%m-%dT%H:%M:%SZ}",
            "platform": "sentinel-2a",
            "constellation": "sentinel-2",
            "grid:code": "MGRS-33TWM",
            "proj:code": f"EPSG:{grid_of('red', size).epsg}",
            "s2:processing_baseline": "05.11",
            "s2:datatake_id": f"GS2A_{moment}_{number:06}_N05.11",
            "s2:datastrip_id": f"S2A_OPER_MSI_L2A_DS_SIMU_{moment}_S{moment}_N05.11",
            "s2:product_type": "S2MSI2A",
        },
        "links": [],
        "assets": {band: _asset(f"{files_url}/{number}-{band}.tif", band, size) for band in BANDS},
    }


def _asset(href: str, band: str, size: int) -> dict[str, Any]:
    grid = grid_of(band, size)
    numbers = {} if band == "scl" else {"scale": 0.0001, "offset": -OFFSET_DN * 0.0001}
    return {
        "href": href,
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "proj:shape": [grid.height, grid.width],
        "proj:transform": [grid.resolution_m, 0, grid.left, 0, -grid.resolution_m, grid.top],
        "raster:bands": [{"nodata": 0, "data_type": "uint8" if band == "scl" else "uint16", **numbers}],
        "roles": ["data"],
    }


def _run() -> DayRun:
    from flows.ndvi import ndvi_days

    state: Any = ndvi_days(DAY, DAY, return_state=True)
    summary = state.result(raise_on_failure=False)
    flow_s, searches_s, scenes_s = _as_prefect_saw(state.state_details.flow_run_id, scenes=len(summary.scenes))
    return DayRun(
        state=str(state.type.value),
        message=state.message or "",
        flow_s=flow_s,
        searches_s=searches_s,
        scenes_s=scenes_s,
        scenes=len(summary.scenes),
        observed=summary.observed + sum(summary.not_observed.values()),
        at_once=load_settings().scenes_at_once,
    )


def _as_prefect_saw(flow_run_id: Any, *, scenes: int) -> tuple[float, float, float]:
    """Seconds that flow, searches and scenes ran. Prefect's server hears of the last ones a moment after the end."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    deadline = time.monotonic() + TOLD_WITHIN_S
    with get_client(sync_client=True) as client:
        while True:
            mine = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
            runs = [
                run
                for offset in range(0, scenes + 200, 200)
                for run in client.read_task_runs(flow_run_filter=mine, limit=200, offset=offset)
            ]
            ended = [run for run in runs if run.end_time is not None]
            observing = [run.total_run_time.total_seconds() for run in ended if not run.name.startswith("search ")]
            if len(observing) >= scenes:
                whole = sum(run.total_run_time.total_seconds() for run in ended)
                flow_s = client.read_flow_run(flow_run_id).total_run_time.total_seconds()
                return flow_s, whole - sum(observing), sum(observing)
            if time.monotonic() > deadline:
                raise RuntimeError(f"Prefect knows the end of {len(observing)} of {scenes} scenes")
            time.sleep(0.5)


if __name__ == "__main__":
    print(json.dumps(asdict(_run())))
