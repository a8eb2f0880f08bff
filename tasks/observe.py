"""One scene, all its farms, one answer each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import shapely

from models.domain import Farm, FarmFailure, Observation, Rule, Scene, SceneAnswer, SceneWork, Statistics, Status
from tasks.imagery.reader import Unread
from tasks.indices.clear_sky import CLASS_COUNT
from tasks.indices.footprints import FootprintCache, Footprints
from tasks.indices.ndvi import ndvi
from tasks.indices.statistics import zonal_statistics
from tasks.look import Method, Seen, see

INDEX = "ndvi"
FARMS_AT_ONCE = 256


def observe(work: SceneWork, farms: Sequence[Farm], *, method: Method, cache: FootprintCache) -> SceneAnswer:
    """Observe all farms in one pass: for each one either an observation or a failure, never nothing.

    Args:
        work: the pieces to read, in the order in which they are consulted.
        farms: whom to answer; at least one.
        method: mask policy and ways of reading.
        cache: footprints made before.

    Raises:
        UpstreamError: a doubtful offset could not be settled because the file could not be looked at.
        ValueError: the pieces do not share a pixel lattice.
    """
    settled, footprints, seen = see(work, farms, method=method, cache=cache)
    warnings = tuple(
        f"{scene.item_id}: offset doubtful: {scene.rescale.rule}" for scene in settled if not scene.rescale.is_certain
    )
    observations, failures = _answers(work, settled, farms, footprints, seen, method)
    return SceneAnswer(observations=tuple(observations), failures=tuple(failures), warnings=warnings)


def _answers(
    work: SceneWork,
    scenes: Sequence[Scene],
    farms: Sequence[Farm],
    footprints: Footprints,
    seen: Seen,
    method: Method,
) -> tuple[list[Observation], list[FarmFailure]]:
    """Turn pixels into one answer a farm."""
    pixel_area_ha = work.scenes[0].red.grid.resolution_m ** 2 / 10_000
    areas_ha = (_areas_px(footprints) * pixel_area_ha).tolist()
    lost = set((np.searchsorted(footprints.offsets, np.flatnonzero(seen.unread), side="right") - 1).tolist())
    bounds = itertools.pairwise(footprints.offsets.tolist())
    numbers = _numbers_of_farms(footprints, seen, pixel_area_ha)
    facts = _Facts(work, scenes, method)
    observations, failures = [], []
    each_farm = zip(farms, numbers, areas_ha, bounds, strict=True)
    for number, (farm, (found, classes), area_ha, (start, end)) in enumerate(each_farm):
        own = slice(start, end)
        if number in lost:
            failures.append(_failure(farm, scenes, seen, own))
            continue
        status = Status.OBSERVED if found else _why_not(farm, scenes, seen, own)
        pieces = tuple(np.unique(seen.piece[own]).tolist()) if len(scenes) > 1 else (0,)
        observations.append(
            facts.observation(farm, pieces, status=status, found=found, area_ha=area_ha, classes=classes)
        )
    return observations, failures


def _numbers_of_farms(
    footprints: Footprints, seen: Seen, pixel_area_ha: float
) -> Iterator[tuple[Statistics | None, tuple[int, ...]]]:
    """Statistics and pixels by scene class of each farm, worked out for some farms at a time.

    The arrays of a few hundred farms stay in the processor's cache; those of ten thousand take half a gigabyte.
    """
    for first in range(0, len(footprints.offsets) - 1, FARMS_AT_ONCE):
        offsets = footprints.offsets[first : first + FARMS_AT_ONCE + 1]
        part = slice(offsets[0], offsets[-1])
        offsets = offsets - offsets[0]
        counts = np.flatnonzero(seen.is_present[part])
        index, is_clipped = ndvi(*seen.reflectances(counts + part.start))
        is_index = ~np.isnan(index)
        if not is_index.all():
            counts, index, is_clipped = counts[is_index], index[is_index], is_clipped[is_index]
        statistics = zonal_statistics(
            index,
            footprints.coverage[part][counts],
            is_inner=footprints.is_inner[part][counts],
            is_clipped=is_clipped,
            offsets=np.searchsorted(counts, offsets),
            pixel_area_ha=pixel_area_ha,
        )
        yield from zip(statistics, _class_counts(seen.classes[part], offsets), strict=True)


def _areas_px(footprints: Footprints) -> npt.NDArray[np.float64]:
    """Area of each farm in pixels, summed as the clear area is, so that a farm seen whole comes to exactly 1."""
    starts, ends = footprints.offsets[:-1], footprints.offsets[1:]
    full = starts < ends  # a boundary that collapses on the lattice covers nothing
    areas = np.zeros(len(starts))
    areas[full] = np.add.reduceat(footprints.coverage, starts[full])
    return areas


class _Facts:
    """What the observations of one piece of work have in common, worked out once."""

    def __init__(self, work: SceneWork, scenes: Sequence[Scene], method: Method) -> None:
        self._pass = work.pass_id, work.acquired_at, work.day
        self._scenes = scenes
        self._method = method
        self._policy = method.policy.name
        self._inputs = work.inputs
        self._sources: dict[tuple[int, ...], tuple[tuple[str, ...], str | None, str, str]] = {}

    def observation(
        self,
        farm: Farm,
        pieces: tuple[int, ...],
        *,
        status: Status,
        found: Statistics | None,
        area_ha: float,
        classes: tuple[int, ...],
    ) -> Observation:
        """The answer for one farm; `pieces` that told of its pixels, -1 for none."""
        rule = None
        headline = None
        if found is not None:
            is_inner = found.inner_mean is not None and found.inner_pixel_count >= self._method.min_inner_pixels
            rule, headline = (Rule.INNER, found.inner_mean) if is_inner else (Rule.WEIGHTED, found.mean)
        if pieces not in self._sources:
            self._sources[pieces] = self._source(pieces)
        item_ids, processing_baseline, catalog, rescale_rule = self._sources[pieces]
        pass_id, acquired_at, day = self._pass
        return Observation(
            farm_id=farm.id,
            boundary_version=farm.boundary_version,
            pass_id=pass_id,
            acquired_at=acquired_at,
            day=day,
            index=INDEX,
            mask_policy=self._policy,
            status=status,
            ndvi=headline,
            rule=rule,
            clear_fraction=min(1.0, found.clear_area_ha / area_ha) if found else 0.0,
            statistics=found,
            class_counts=classes,
            item_ids=item_ids,
            processing_baseline=processing_baseline,
            catalog=catalog,
            rescale_rule=rescale_rule,
            inputs=self._inputs,
            software_version=self._method.software_version,
        )

    def _source(self, pieces: tuple[int, ...]) -> tuple[tuple[str, ...], str | None, str, str]:
        """Item ids, processing baseline, catalog and rescale rule of the pieces; of all pieces when none told."""
        used = [self._scenes[piece] for piece in pieces if piece >= 0] or list(self._scenes)
        return (
            tuple(scene.item_id for scene in used),
            "+".join(_once(scene.processing_baseline for scene in used)) or None,
            used[0].catalog,
            " | ".join(_once(scene.rescale.rule for scene in used)),
        )


def _once(values: Iterable[str | None]) -> list[str]:
    """Values in order, each once, without None."""
    return list(dict.fromkeys(value for value in values if value is not None))


def _class_counts(classes: npt.NDArray[np.int8], offsets: npt.NDArray[np.intp]) -> list[tuple[int, ...]]:
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    flat = np.bincount(owner * CLASS_COUNT + classes, minlength=(len(offsets) - 1) * CLASS_COUNT)
    return [tuple(row) for row in flat.reshape(-1, CLASS_COUNT).tolist()]


def _failure(farm: Farm, scenes: Sequence[Scene], seen: Seen, own: slice) -> FarmFailure:
    is_unread = seen.unread[own] < 0
    reasons = [Unread(int(code)) for code in np.unique(seen.unread[own][is_unread])]
    pieces = np.unique(seen.piece[own][is_unread]).tolist()
    return FarmFailure(
        farm_id=farm.id,
        problem="imagery not read: " + ", ".join(reason.name.lower() for reason in reasons),
        is_retryable=all(reason.is_retryable for reason in reasons),
        unread=tuple((scenes[piece].catalog, scenes[piece].item_id) for piece in pieces if piece >= 0),
    )


def _why_not(farm: Farm, scenes: Sequence[Scene], seen: Seen, own: slice) -> Status:
    """Why a farm without a clear pixel has none."""
    if seen.is_hidden[own].any():
        return Status.CLOUD
    if not seen.is_on_grid[own].any():
        return Status.OUTSIDE
    # a ring of two places, as some catalogs draw it, says nothing
    outlines = [shapely.Polygon(ring) for scene in scenes for ring in scene.footprint if len(ring) > 3]
    boundary = shapely.from_wkb(farm.boundary)
    if (seen.classes[own] == 0).all() and outlines and not any(outline.intersects(boundary) for outline in outlines):
        return Status.OUTSIDE
    return Status.NODATA
