"""Whoever is planned in groups and by boxes is observed on the tiles that one finds by looking at every outline."""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain import Farm, Grid, Scene
from tasks.indices.footprints import Lattice, project
from tasks.indices.reach import Plots
from tasks.plan import PassTile, Planner, plan
from tests.support.scenes import NOON, farm_at, made_scene, tile_grid

Assigned = dict[tuple[str, tuple[str, ...]], set[int]]

LEFTS = (399_960.0, 499_980.0, 600_000.0, 699_960.0)
"""Tiles of zone 33, and of 32 and 34 beside it."""
TOPS = (5_000_040.0, 5_100_000.0)
GRIDS = {
    f"{epsg % 100}{across}{down}": tile_grid(epsg=epsg, left=left, top=top)
    for epsg in (32632, 32633, 32634)
    for across, left in enumerate(LEFTS)
    for down, top in enumerate(TOPS)
}
SOUTH = {
    "60A": tile_grid(epsg=32760, left=699_960, top=8_200_000),
    "01A": tile_grid(epsg=32701, left=300_000, top=8_200_000),
}
EDGES = [500_000, 509_760, 600_000, 604_890, 609_780, 700_000, 709_800]


def by_hand(farms: Sequence[Farm], pieces: dict[PassTile, tuple[Scene, ...]]) -> Assigned:
    """Farm by farm and tile by tile, from outlines alone."""
    found: Assigned = defaultdict(set)
    for pass_id in {pass_id for pass_id, _ in pieces}:
        tiles = {tile: pieces[key][0].red.grid for key in pieces for tile in [key[1]] if key[0] == pass_id}
        for farm in farms:
            whole: list[tuple[float, str]] = []
            touched: list[tuple[float, str]] = []
            for tile, grid in tiles.items():
                left, bottom, right, top = shapely.bounds(project([farm.boundary], grid.epsg, is_strict=False)[0])
                west, south, east, north = grid.bounds
                width, height = min(right, east) - max(left, west), min(top, north) - max(bottom, south)
                if math.isfinite(left + right) and width > 0 and height > 0:
                    margin = min(left - west, bottom - south, east - right, north - top)
                    whole += [(-margin, tile)] if margin >= 0 else []
                    touched.append((-width * height, tile))
            if whole:
                found[pass_id, (min(whole)[1],)].add(farm.id)
            elif touched:
                names = [tile for _, tile in sorted(touched)]
                same = Lattice.of(tiles[names[0]])
                found[pass_id, tuple(name for name in names if Lattice.of(tiles[name]) == same)].add(farm.id)
    return dict(found)


def planned(farms: Sequence[Farm], pieces: dict[PassTile, tuple[Scene, ...]], *, groups: int) -> tuple[Assigned, int]:
    """The same by the planner, given the farms in so many groups; and how many outlines it asked for."""
    planner = Planner(pieces)
    asked = 0
    for start in range(groups):
        own = farms[start::groups]

        def outlines(places: Sequence[int], own: Sequence[Farm] = own) -> dict[int, bytes]:
            nonlocal asked
            asked += len(places)
            return {place: own[place].boundary for place in places}

        planner.add(Plots.of([(farm.id, farm.boundary_version, *farm.bbox) for farm in own]), outlines)
    works = planner.works()
    assert all(list(work.farm_ids) == sorted(set(work.farm_ids)) for work in works)
    return {(work.pass_id, work.tiles): set(work.farm_ids) for work in works}, asked


def scenes_of(passes: Sequence[Sequence[str]], grids: dict[str, Grid]) -> dict[PassTile, tuple[Scene, ...]]:
    found: dict[PassTile, tuple[Scene, ...]] = {}
    for number, tiles in enumerate(passes):
        for tile in tiles:
            at = NOON + dt.timedelta(days=number)
            scene = made_scene(tile, grids[tile], pass_id=f"pass {number}", acquired_at=at, day=at.date())
            found[scene.pass_id, tile] = (scene,)
    return found


near_edges = st.one_of(
    st.floats(480_000, 720_000),
    st.builds(
        lambda edge, off: edge + off, st.sampled_from(EDGES), st.sampled_from([-300.0, -100, -50, -1, 0, 1, 200])
    ),
)
sides = st.one_of(st.floats(20, 400), st.sampled_from([100.0, 9_780.0, 30_000.0]))
farm_facts = st.tuples(near_edges, st.floats(4_900_000, 5_090_000), sides, sides)


@given(
    facts=st.lists(farm_facts, max_size=25),
    passes=st.lists(st.sets(st.sampled_from(sorted(GRIDS)), min_size=1), min_size=1, max_size=3),
    groups=st.integers(1, 4),
)
@settings(max_examples=40)
def test_farms_are_observed_where_their_outlines_say(
    facts: list[tuple[float, float, float, float]], passes: list[set[str]], groups: int
) -> None:
    farms = [
        farm_at(number, epsg=32633, left=left, bottom=bottom, width=width, height=height)
        for number, (left, bottom, width, height) in enumerate(facts, start=1)
    ]
    pieces = scenes_of([sorted(tiles) for tiles in passes], GRIDS)
    expected = by_hand(farms, pieces)
    assert planned(farms, pieces, groups=groups)[0] == expected
    assert {(work.pass_id, work.tiles): set(work.farm_ids) for work in plan(farms, pieces)} == expected


@given(numbers=st.lists(st.tuples(st.floats(-40_000, 40_000), st.floats(0, 100_000)), min_size=1, max_size=10))
@settings(max_examples=15)
def test_farms_near_the_antimeridian_are_too(numbers: list[tuple[float, float]]) -> None:
    edge = 820_000.0  # of zone 60, 180 degrees at this latitude
    farms = []
    for number, (across, up) in enumerate(numbers, start=1):
        drawn = farm_at(number, epsg=32760, left=edge + across, bottom=8_095_000 + up)
        west, _, east, _ = drawn.bbox
        if -180 < west < east < 180 and east - west < 1:  # one that crosses it has parts on both sides
            farms.append(drawn)
    pieces = scenes_of([["60A", "01A"], ["01A"]], SOUTH)
    assert planned(farms, pieces, groups=2)[0] == by_hand(farms, pieces)


def test_outlines_are_asked_for_a_few_farms_in_a_thousand_only() -> None:
    rng = np.random.default_rng(3)
    farms = [
        farm_at(number, epsg=32633, left=left, bottom=bottom, width=150, height=120)
        for number, (left, bottom) in enumerate(rng.uniform([510_000, 4_910_000], [700_000, 5_090_000], (600, 2)))
    ]
    pieces = scenes_of([sorted(GRIDS)], GRIDS)
    assigned, asked = planned(farms, pieces, groups=1)
    assert sum(map(len, assigned.values())) == 600
    assert asked <= 3
