"""What is to be done: passes that exist, less what was observed of them, grouped into scenes with their farms.

Nothing here depends on "today": a day that was missed, a scene that came late or was reprocessed shows up as a
difference and heals at the next run.

Who is observed on which tile does not depend on other farms, so farms are planned some at a time, and a million of them
are never in memory at once. Most are assigned by their boxes alone. Outlines are asked for only where the boxes leave
it open: some farms in a hundred, at the edges of tiles and midway between two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.domain import Farm, Scene, SceneWork, inputs_digest
from tasks.indices.footprints import Lattice
from tasks.indices.reach import Flags, Outlines, Places, Plots, Reach, Tiles

PassTile = tuple[str, str]
Unit = tuple[int, tuple[str, ...]]
"""A pass, by its position, and the tiles on which some of its farms are observed."""
Observed = Callable[[str, Sequence[int]], Mapping[tuple[int, int], str]]
"""For a pass and some farms, the inputs from which each (farm, boundary version) was observed."""


class Planner:
    """Finds the work in passes for farms that are given some at a time."""

    def __init__(self, pieces: Mapping[PassTile, tuple[Scene, ...]], *, method: str = "") -> None:
        """Get ready.

        Args:
            pieces: for each pass and tile, the scenes to consult, in order.
            method: what else the numbers depend on besides scenes and mask policy.
        """
        self._method = method
        self._pieces = pieces
        # Looks: a tile in a pass. Sorted by tile, so that of two with the same margin the first name is taken.
        self._looks = sorted(pieces, key=lambda key: (key[1], key[0]))
        self._passes = sorted({pass_id for pass_id, _ in pieces})
        grids = {pieces[look][0].red.grid: None for look in self._looks}
        numbers = {grid: number for number, grid in enumerate(grids)}
        self._tiles = Tiles(list(grids))
        places = {pass_id: place for place, pass_id in enumerate(self._passes)}
        self._pass_of_look = np.array([places[pass_id] for pass_id, _ in self._looks], dtype=np.intp)
        tile_of_look = np.array([numbers[pieces[look][0].red.grid] for look in self._looks], dtype=np.intp)
        self._looks_by_tile = np.argsort(tile_of_look, kind="stable")
        self._looks_at = np.searchsorted(tile_of_look[self._looks_by_tile], np.arange(len(grids) + 1))
        self._inputs: dict[Unit, str] = {}
        self._due: dict[Unit, list[int]] = defaultdict(list)

    def add(self, plots: Plots, outlines: Outlines, observed: Observed | None = None) -> None:
        """Find what is due of some farms.

        Args:
            plots: the farms; each is given once.
            outlines: gives boundaries of those whose boxes are not enough.
            observed: what was observed already and from which inputs; None plans everything anew.
        """
        by_pass: dict[int, list[tuple[Unit, Places]]] = defaultdict(list)
        for unit, members in self._units(plots, outlines):
            by_pass[unit[0]].append((unit, members))
        for place, found in by_pass.items():
            asked = plots.ids[np.concatenate([members for _, members in found])].tolist()
            done = observed(self._passes[place], asked) if observed is not None else {}
            for unit, members in found:
                due = self._missing(unit, plots, members, done)
                if due:
                    self._due[unit] += due

    def works(self) -> list[SceneWork]:
        """The work that is due, tile by tile, the newest passes of each first: footprints are made once for a tile."""
        works = [
            SceneWork(
                pass_id=self._passes[place],
                tiles=tiles,
                scenes=self._scenes((place, tiles)),
                farm_ids=tuple(sorted(farm_ids)),
                method=self._method,
            )
            for (place, tiles), farm_ids in self._due.items()
        ]
        return sorted(works, key=lambda work: (work.tile_set, -work.acquired_at.timestamp(), work.pass_id))

    def _missing(self, unit: Unit, plots: Plots, members: Places, done: Mapping[tuple[int, int], str]) -> list[int]:
        farm_ids: list[int] = plots.ids[members].tolist()
        if not done:
            return farm_ids
        if unit not in self._inputs:
            self._inputs[unit] = inputs_digest(self._scenes(unit), self._method)
        inputs = self._inputs[unit]
        versions = plots.versions[members].tolist()
        return [key[0] for key in zip(farm_ids, versions, strict=True) if done.get(key) != inputs]

    def _scenes(self, unit: Unit) -> tuple[Scene, ...]:
        pass_id = self._passes[unit[0]]
        return tuple(scene for tile in unit[1] for scene in self._pieces[pass_id, tile])

    def _units(self, plots: Plots, outlines: Outlines) -> Iterator[tuple[Unit, Places]]:
        """Units of work and the positions of the farms that are observed in each."""
        reach = self._tiles.look(plots)
        open_farms = np.zeros(len(plots), np.bool_)
        open_farms[self._choices(reach).undecided()] = True
        if open_farms.any():
            exact = self._tiles.look_closely(reach.of_farms(open_farms), outlines)
            reach = reach.of_farms(~open_farms).joined(exact)
        choices = self._choices(reach)
        is_on_one = choices.are_on_one()
        looks, farms = choices.looks[choices.first[is_on_one]], choices.farms[choices.first[is_on_one]]
        order = np.lexsort((farms, looks))
        found, starts = np.unique(looks[order], return_index=True)
        ends = [*starts[1:].tolist(), len(order)]
        for look, start, end in zip(found.tolist(), starts.tolist(), ends, strict=False):
            yield (int(self._pass_of_look[look]), (self._looks[look][1],)), farms[order[start:end]]
        yield from self._mosaics(choices, ~is_on_one)

    def _choices(self, reach: Reach) -> _Choices:
        counts = self._looks_at[reach.tiles + 1] - self._looks_at[reach.tiles]
        rows = np.repeat(np.arange(len(counts)), counts)
        nth = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        looks = self._looks_by_tile[self._looks_at[reach.tiles][rows] + nth]
        farms = reach.farms[rows]
        key = self._pass_of_look[looks] * (int(farms.max(initial=0)) + 1) + farms
        # Looks are in the order of their tiles' names.
        order = np.lexsort((looks, -reach.least_m[rows], key))
        first = np.flatnonzero(np.diff(key[order], prepend=-1))
        return _Choices(looks[order], farms[order], rows[order], reach, first, np.diff(first, append=len(order)))

    def _mosaics(self, choices: _Choices, wanted: Flags) -> Iterator[tuple[Unit, Places]]:
        """Units of the farms that no tile of a pass holds whole."""
        groups: dict[Unit, list[int]] = defaultdict(list)
        for start, count in zip(choices.first[wanted].tolist(), choices.counts[wanted].tolist(), strict=True):
            own = slice(start, start + count)
            looks = [self._looks[look] for look in choices.looks[own].tolist()]
            areas = choices.reach.overlap_m2[choices.rows[own]].tolist()
            place = int(self._pass_of_look[choices.looks[start]])
            groups[place, self._mosaic(dict(zip(looks, areas, strict=True)))].append(int(choices.farms[start]))
        for unit, members in groups.items():
            yield unit, np.array(members, dtype=np.intp)

    def _mosaic(self, touched: Mapping[PassTile, float]) -> tuple[str, ...]:
        """Tiles to consult for one farm, the one with most of it first; only tiles whose pixels line up with its."""
        ranked = sorted(touched, key=lambda look: (-touched[look], look[1]))
        lattices = [Lattice.of(self._pieces[look][0].red.grid) for look in ranked]
        return tuple(look[1] for look, lattice in zip(ranked, lattices, strict=True) if lattice == lattices[0])


@dataclass(frozen=True, slots=True)
class _Choices:
    """On which tiles each farm can be observed in each pass: by pass and farm, the deepest inside first.

    Arrays (k,), a row for each look at a farm, but for the last two: (c,), one for each pass and farm.
    """

    looks: Places
    farms: Places
    rows: Places
    """Of `reach`."""
    reach: Reach
    first: Places
    """The row that a pass and farm begins with."""
    counts: Places

    def undecided(self) -> Places:
        """Farms of which it is not certain on which tiles they are observed."""
        rival = self.reach.most_m[self.rows]
        rival[self.first] = -np.inf
        rivals = np.maximum.reduceat(rival, self.first) if len(rival) else rival
        best = self.rows[self.first]
        least = self.reach.least_m[best]
        # On the only tile that a farm touches it is observed however it lies there.
        is_certain = np.where(self.counts == 1, self.reach.touches[best], (least >= 0) & (least > rivals))
        return self.farms[self.first[~is_certain]]

    def are_on_one(self) -> Flags:
        """(c,): whether one tile holds the farm whole, or is all there is."""
        found: Flags = (self.counts == 1) | (self.reach.least_m[self.rows[self.first]] >= 0)
        return found


def plan(
    farms: Sequence[Farm],
    pieces: Mapping[PassTile, tuple[Scene, ...]],
    *,
    observed: Observed | None = None,
    method: str = "",
) -> list[SceneWork]:
    """The work that is due for farms that are in memory, tile by tile, the newest passes of each first.

    A farm inside several overlapping tiles is observed once in a pass: on the tile that holds it whole, with the
    widest margin. A farm that no tile of the pass holds whole is observed on all tiles of one zone that it touches,
    completed pixel by pixel, the tile with most of it first.

    Args:
        farms: whose observations are wanted.
        pieces: for each pass and tile, the scenes to consult, in order.
        observed: what was observed already and from which inputs; None plans everything anew.
        method: what else the numbers depend on besides scenes and mask policy.

    Returns:
        Units of work whose farms have no observation from exactly these inputs.
    """
    planner = Planner(pieces, method=method)
    plots = Plots.of([(farm.id, farm.boundary_version, *farm.bbox) for farm in farms])
    planner.add(plots, lambda places: {place: farms[place].boundary for place in places}, observed)
    return planner.works()
