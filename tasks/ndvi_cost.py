"""What NDVI of past days will cost, before anything is read but the catalogs; writes nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from pyproj import Transformer

from models.domain import INDEX, Grid, Scene, SceneWork
from models.errors import SwathError
from models.ledger import known_scenes
from models.pace import seconds_a_scene
from models.selection import Selection, plots_among
from models.weather_missing import DaySpan
from tasks.bench import Bench, search_scenes
from tasks.due import boxes_to_search, due_in_scenes
from tasks.imagery.catalogs import Catalog
from tasks.indices.reach import Plots

BLOCK = 1024
"""Pixels along a side of a block, as all known archives store them."""
BAND_MB = BLOCK * BLOCK * 1.4 / 1e6
"""A block of red or near infrared: deflated it has some 1.4 bytes a pixel."""
CLASSES_MB = BLOCK * BLOCK * 0.15 / 1e6
"""A block of scene classes."""
CLEAR_FRACTION = 0.7
"""Of the blocks with farms, those in which some farm is clear, and whose bands are read."""
REQUESTS_A_BLOCK = 0.4
"""Neighbouring blocks come in one request; measured over a whole tile."""
FILES = 3
"""Of a scene, each with a request for its header."""
SECONDS_A_SCENE, MB_A_SECOND = 1.0, 20.0
"""Without any history: for what is not reading, and for reading."""

Days = tuple[dt.date, dt.date]


@dataclass(frozen=True, slots=True, kw_only=True)
class NdviCost:
    """What is due of some days, and what it will take."""

    days: DaySpan
    scenes: int = 0
    looks: int = 0
    """Farms in scenes: observations to make."""
    requests: int = 0
    megabytes: float = 0
    seconds: float = 0
    is_from_history: bool = False
    """The time is told by scenes of late, not by the defaults."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Catalogs that could not be searched: what only they have is not counted."""


def ndvi_cost(bench: Bench, catalogs: Sequence[Catalog], selection: Selection, days: DaySpan) -> NdviCost:
    """Search the catalogs and plan these days as a run would, but read no imagery and note nothing.

    Args:
        bench: of no run.
        catalogs: to be searched, best first.
        selection: farms whose observations are wanted.
        days: local solar days.
    """
    span = (days.first, days.last)
    found, problems = _found(bench, catalogs, selection, span)
    with bench.stores.engine.connect() as connection:
        scenes = {_key(scene): scene for scene in known_scenes(connection, *span)} | found
        order = [catalog.name for catalog in catalogs]
        works, _ = due_in_scenes(bench, connection, order, selection, list(scenes.values()))
        looks = sum(len(work.farm_ids) for work in works)
        each = {"index": INDEX, "mask_policy": bench.settings.mask_policy.name}
        pace = seconds_a_scene(connection, farms=looks / len(works), **each) if works else None
        due = {farm_id for work in works for farm_id in work.farm_ids}
        plots = Plots.of(plots_among(connection, selection, due))
    requests, megabytes = _reading(works, plots)
    by_default = len(works) * SECONDS_A_SCENE + megabytes / MB_A_SECOND
    return NdviCost(
        days=days,
        scenes=len(works),
        looks=looks,
        requests=requests,
        megabytes=megabytes,
        seconds=by_default if pace is None else pace * len(works),
        is_from_history=pace is not None,
        problems=problems,
    )


def _key(scene: Scene) -> tuple[str, str]:
    return scene.catalog, scene.item_id


def _found(
    bench: Bench, catalogs: Sequence[Catalog], selection: Selection, days: Days
) -> tuple[dict[tuple[str, str], Scene], dict[str, str]]:
    boxes = boxes_to_search(bench, selection)
    found: dict[tuple[str, str], Scene] = {}
    problems: dict[str, str] = {}
    for catalog in catalogs:
        try:
            scenes, _ = search_scenes(bench.settings, catalog, boxes, days)
        except SwathError as error:
            problems[catalog.name] = str(error)
        else:
            found |= {_key(scene): scene for scene in scenes}
    return found, problems


def _reading(works: Iterable[SceneWork], plots: Plots) -> tuple[int, float]:
    """Requests and megabytes, from the blocks in which the farms lie."""
    blocks_of = _blocks(plots)
    requests = megabytes = 0.0
    for work in works:
        grids = {scene.tile: scene.red.grid for scene in work.scenes}
        for grid in grids.values():
            bands, classes = blocks_of(work, grid)
            read = bands * CLEAR_FRACTION * 2
            requests += FILES + max(1.0, (read + classes) * REQUESTS_A_BLOCK)
            megabytes += read * BAND_MB + classes * CLASSES_MB
    return round(requests), megabytes


def _blocks(plots: Plots) -> Callable[[SceneWork, Grid], tuple[int, int]]:
    """A function that counts the blocks of a band and of the classes in which a scene's farms lie."""
    order = np.argsort(plots.ids)
    ids, boxes = plots.ids[order], plots.boxes[order]

    def count(work: SceneWork, grid: Grid) -> tuple[int, int]:
        west, south, east, north = boxes[np.searchsorted(ids, work.farm_ids)].T
        corners = np.concatenate((west, west, east, east)), np.concatenate((south, north, south, north))
        x, y = _to_grid(grid.epsg).transform(*corners)
        side = BLOCK * grid.resolution_m
        # A corner beyond the edge of the tile is in its outermost block.
        column = np.clip((x - grid.left) // side, 0, (grid.width - 1) // BLOCK).astype(np.int64)
        row = np.clip((grid.top - y) // side, 0, (grid.height - 1) // BLOCK).astype(np.int64)
        # Classes have pixels of twice the side, so one of their blocks covers four of a band.
        return len(np.unique(row * BLOCK + column)), len(np.unique(row // 2 * BLOCK + column // 2))

    return count


@lru_cache(maxsize=130)
def _to_grid(epsg: int) -> Transformer:
    return Transformer.from_crs(4326, epsg, always_xy=True)
