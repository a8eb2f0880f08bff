"""Farms, scenes and observations made up for tests of the stores, told apart by their numbers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from shapely import Polygon, box
from sqlalchemy import Connection, Engine, create_engine, make_url, text

from models.domain import Asset, Grid, Observation, Rescale, Rule, Scene, SceneWork, Statistics, Status
from models.farms import upsert_farms
from tests.support.shapes import draft

POLICY = "scl-4.5.6.7.11-d0-v1"
NOON = dt.datetime(2024, 6, 10, 10, 30, 31, 24000, dt.UTC)
"""When passes of these tests were acquired, unless they say otherwise."""


def engine_for(url: str) -> Engine:
    """An engine over psycopg 3."""
    return create_engine(make_url(url).set(drivername="postgresql+psycopg"))


def store_farms(engine: Engine, count: int) -> list[int]:
    """Store this many farms and return their ids; their `external_farm_id` is the UUID of 1, 2, 3 and so on."""
    with engine.begin() as connection:
        upsert_farms(connection, [draft(number, _plot(number)) for number in range(1, count + 1)])
        return list(connection.execute(text("SELECT id FROM farms ORDER BY external_farm_id")).scalars())


def _plot(number: int) -> Polygon:
    """A field of about a hectare, drawn in degrees: thousands take no time."""
    west = 15 + number / 1_000
    return box(west, 46.0, west + 0.0013, 46.0009)


def statistics(mean: float = 0.6) -> Statistics:
    """Statistics around a mean, in order."""
    return Statistics(
        mean=mean,
        std=0.05,
        min=mean - 0.1,
        max=mean + 0.1,
        median=mean + 0.001,
        p10=mean - 0.08,
        p25=mean - 0.03,
        p75=mean + 0.03,
        p90=mean + 0.08,
        histogram=tuple(float(number % 3) for number in range(40)),
        inner_mean=mean + 0.02,
        inner_median=mean + 0.021,
        inner_pixel_count=81,
        pixel_count=121,
        clear_area_ha=1.0,
        clipped_count=0,
    )


def observed(farm_id: int, *, acquired_at: dt.datetime = NOON, ndvi: float = 0.62, **changes: Any) -> Observation:
    """An observation with a value; `changes` are other fields of it."""
    facts: dict[str, Any] = {
        "farm_id": farm_id,
        "boundary_version": 1,
        "pass_id": f"S2B-{acquired_at:%Y%m%d}",
        "acquired_at": acquired_at,
        "day": acquired_at.date(),
        "index": "ndvi",
        "mask_policy": POLICY,
        "status": Status.OBSERVED,
        "clear_fraction": 0.9812,
        "class_counts": (0, 0, 0, 0, 121, 0, 0, 0, 3, 0, 0, 0),
        "item_ids": ("S2B_33TWM_20240610_0_L2A",),
        "processing_baseline": "05.10",
        "catalog": "earth-search-c1",
        "rescale_rule": "c1",
        "inputs": "0123456789abcdef",
        "software_version": "0.1.0",
        "ndvi": ndvi,
        "rule": Rule.INNER,
        "statistics": statistics(ndvi - 0.02),
    }
    return Observation(**facts | changes)


def unseen(farm_id: int, status: Status = Status.CLOUD, **changes: Any) -> Observation:
    """An observation without a value."""
    nothing: dict[str, Any] = {"ndvi": None, "rule": None, "statistics": None, "clear_fraction": 0.0, "status": status}
    return replace(observed(farm_id, **changes), **{name: nothing[name] for name in nothing if name not in changes})


def scene(number: int = 1, *, acquired_at: dt.datetime = NOON, **changes: Any) -> Scene:
    """A usable scene."""
    grid = Grid(epsg=32633, left=499980.0, top=5200020.0, resolution_m=10.0, width=10980, height=10980)
    facts: dict[str, Any] = {
        "catalog": "earth-search-c1",
        "collection": "sentinel-2-c1-l2a",
        "item_id": f"S2B_T33TWM_{number}",
        "tile": "33TWM",
        "platform": "sentinel-2b",
        "pass_id": f"S2B-{acquired_at:%Y%m%d}",
        "datastrip": "20240610T103024",
        "acquired_at": acquired_at,
        "day": acquired_at.date(),
        "processing_baseline": "05.10",
        "updated": "2024-06-11T00:00:00Z",
        "red": Asset(href="https://files.example.org/B04.tif", grid=grid),
        "nir": Asset(href="https://files.example.org/B08.tif", grid=grid),
        "scl": Asset(href="https://files.example.org/SCL.tif", grid=grid),
        "rescale": Rescale(scale=0.0001, offset=-0.1, rule="c1"),
        "footprint": (((15.0, 46.0), (16.4, 46.0), (16.4, 47.0), (15.0, 46.0)),),
    }
    return Scene(**facts | changes)


def work(farm_ids: Sequence[int], *, tiles: tuple[str, ...] = ("33TWM",), **changes: Any) -> SceneWork:
    """A unit of work over one scene."""
    made = scene(**changes)
    return SceneWork(pass_id=made.pass_id, tiles=tiles, scenes=(made,), farm_ids=tuple(farm_ids))


def table(connection: Connection, name: str) -> list[tuple[Any, ...]]:
    """Every row with where and by which transaction it was written: equal only if nothing was written since."""
    query = f"SELECT tableoid::regclass::text, ctid::text, xmin::text, t.* FROM {name} AS t ORDER BY 1, 2"
    return [tuple(row) for row in connection.execute(text(query))]
