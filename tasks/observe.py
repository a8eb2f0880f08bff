"""One scene, all its farms, one answer each.

The scene classification is read first; red and near infrared only in blocks where a farm has a clear pixel. Pieces of
one pass (split datastrips, or the tiles under one very large farm) are completed pixel by pixel, in their order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import dask.array as da
import numpy as np
import numpy.typing as npt
import shapely

from models.domain import (
    Farm,
    FarmFailure,
    Grid,
    MaskPolicy,
    Observation,
    Rule,
    Scene,
    SceneAnswer,
    SceneWork,
    Statistics,
    Status,
)
from tasks.imagery.evidence import settle_rescale
from tasks.imagery.pixels import Compute, Places, gather, place_on
from tasks.imagery.reader import HttpLimits, Unread, decode, encode
from tasks.imagery.stack import CHUNK, stack
from tasks.imagery.wanted import CELL, wanted_strips
from tasks.indices.clear_sky import CLASS_COUNT, is_clear_class, near_cloud
from tasks.indices.footprints import FootprintCache, Footprints, Lattice
from tasks.indices.ndvi import ndvi, reflectance
from tasks.indices.statistics import zonal_statistics

INDEX = "ndvi"
FARMS_AT_ONCE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Everything besides the scene and the farms that an observation depends on, and how to read."""

    policy: MaskPolicy
    software_version: str
    compute: Compute
    inner_margin_m: float = 0.0
    min_inner_pixels: int = 9
    http: HttpLimits = field(default_factory=HttpLimits)
    chunk: tuple[int, int] = CHUNK

    @property
    def name(self) -> str:
        """What the numbers depend on besides scenes and mask policy: an observation made otherwise is made again."""
        return f"margin {self.inner_margin_m:g} m, inner from {self.min_inner_pixels} pixels"


@dataclass(slots=True)
class Seen:
    """What is known of every footprint pixel of all farms. All arrays (n,), in footprint order."""

    classes: npt.NDArray[np.int8]
    """Scene class; 0 where no piece has data."""
    is_hidden: npt.NDArray[np.bool_]
    """Seen, but not clear by the mask policy."""
    is_present: npt.NDArray[np.bool_]
    """Clear, and red and near infrared are there."""
    red: npt.NDArray[np.float64]
    nir: npt.NDArray[np.float64]
    unread: npt.NDArray[np.int8]
    """`Unread` where an upstream failed, else 0."""
    piece: npt.NDArray[np.int16]
    """Which piece told us of the pixel; -1 for none."""
    is_on_grid: npt.NDArray[np.bool_]

    @classmethod
    def nothing(cls, n: int) -> Seen:
        """The state before the first piece is read."""
        return cls(
            classes=np.zeros(n, np.int8),
            is_hidden=np.zeros(n, np.bool_),
            is_present=np.zeros(n, np.bool_),
            red=np.zeros(n),
            nir=np.zeros(n),
            unread=np.zeros(n, np.int8),
            piece=np.full(n, -1, np.int16),
            is_on_grid=np.zeros(n, np.bool_),
        )


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


def see(
    work: SceneWork, farms: Sequence[Farm], *, method: Method, cache: FootprintCache
) -> tuple[list[Scene], Footprints, Seen]:
    """Look at every footprint pixel of the farms: the pieces with their offsets settled, the pixels, what was seen.

    Raises:
        UpstreamError, ValueError: as `observe`.
    """
    lattice = Lattice.of(work.scenes[0].red.grid)
    if any(Lattice.of(scene.red.grid) != lattice for scene in work.scenes):
        raise ValueError(f"{work.label}: tiles do not share a pixel lattice")
    footprints = cache.footprints(farms, lattice, inner_margin_m=method.inner_margin_m)
    seen = Seen.nothing(len(footprints.rows))
    settled = [_settled(scene, method) for scene in work.scenes]
    todo = np.ones(len(footprints.rows), np.bool_)
    for number, scene in enumerate(settled):
        if todo.any():
            _look(number, scene, lattice, footprints, seen, todo, method)
    return settled, footprints, seen


def _settled(scene: Scene, method: Method) -> Scene:
    if scene.rescale.is_certain:
        return scene
    return dataclasses.replace(scene, rescale=settle_rescale(scene, limits=method.http))


def _look(
    number: int,
    scene: Scene,
    lattice: Lattice,
    footprints: Footprints,
    seen: Seen,
    todo: npt.NDArray[np.bool_],
    method: Method,
) -> None:
    """Read one piece where pixels are still open, and settle those it can tell about."""
    top, left = lattice.origin(scene.red.grid)
    rows, cols = footprints.rows - top, footprints.cols - left
    height, width = scene.red.grid.shape
    is_here = todo & (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    seen.is_on_grid |= is_here
    here = _places(is_here)
    classes, is_hidden = _classes(scene, rows[here], cols[here], method)
    known, lost = classes != 0, classes < 0
    seen.unread[here] = np.where(lost, classes, seen.unread[here])
    seen.classes[here] = np.where(known, np.maximum(classes, 0), seen.classes[here])
    seen.piece[here] = np.where(known, number, seen.piece[here])
    seen.is_hidden[here] = np.where(known, is_hidden & ~lost, seen.is_hidden[here])
    todo[here] &= ~lost & ~(known & is_hidden)

    is_clear = np.zeros(len(todo), np.bool_)
    is_clear[here] = known & ~lost & ~is_hidden
    clear = np.flatnonzero(is_clear)
    red, nir = _numbers(scene, rows[clear], cols[clear], method)
    lost = (red < 0) | (nir < 0)
    seen.unread[clear[lost]] = np.minimum(red, nir)[lost]
    present = (red > 0) & (nir > 0)
    settled = clear[present]
    seen.red[settled] = reflectance(red[present], scene.rescale.scale, scene.rescale.offset)
    seen.nir[settled] = reflectance(nir[present], scene.rescale.scale, scene.rescale.offset)
    seen.is_present[settled] = True
    todo[clear[lost | present]] = False


def _places(flags: npt.NDArray[np.bool_]) -> slice | npt.NDArray[np.intp]:
    """Where the flags are True: all, as it mostly is, costs no list of millions of places and no copies by it."""
    return slice(None) if flags.all() else np.flatnonzero(flags)


def _classes(
    scene: Scene, rows: Places, cols: Places, method: Method
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Scene class (negative: unread) at pixels of the 10 m grid, and whether the mask policy hides them."""
    grid = scene.scl.grid
    scl_rows, scl_cols = place_on(rows, cols, of=_corner(scene.red.grid), to=_corner(grid))
    found = np.zeros(len(rows), np.int32)
    inside = _places((scl_rows >= 0) & (scl_rows < grid.height) & (scl_cols >= 0) & (scl_cols < grid.width))
    places = scl_rows[inside], scl_cols[inside]
    near = np.zeros(len(rows), np.bool_)
    wanted = wanted_strips(*places, grid.shape)
    if method.policy.dilation_m < grid.resolution_m:
        array = stack(scene, ("scl",), wanted=wanted, limits=method.http, chunk=method.chunk).data[0]
        [found[inside]] = gather(array, *places, compute=method.compute)
    else:
        wanted = _with_neighbours(wanted, method.policy.dilation_m, grid)
        array = stack(scene, ("scl",), wanted=wanted, limits=method.http, chunk=method.chunk).data[0]
        both = _with_surroundings(array, method.policy.dilation_m, grid.resolution_m)
        found[inside], near[inside] = gather(both, *places, compute=method.compute)
    found[found >= CLASS_COUNT] = 0  # not a class that Sentinel-2 has: it tells nothing
    return found, ~is_clear_class(method.policy)[np.maximum(found, 0)] | near


def _with_surroundings(array: da.Array, distance_m: float, resolution_m: float) -> da.Array:
    """Lazy (2, y, x) of uint8: scene classes, and 1 where a cloudy pixel lies within the distance.

    Next to a block that could not be read nobody knows whether there is cloud: such pixels count as unread too.
    """

    def look_around(classes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        numbers = decode(classes[0])
        seen = classes[0].copy()
        if (numbers < 0).any():
            doubtful = near_cloud(np.where(numbers < 0, 9, 0), distance_m=distance_m, resolution_m=resolution_m)
            seen[doubtful] = encode(Unread(int(numbers.min())), classes.dtype)
        near = near_cloud(numbers, distance_m=distance_m, resolution_m=resolution_m)
        return np.stack([seen, near.astype(np.uint8)])

    reach = int(distance_m // resolution_m)
    depth = {axis: min(reach, array.shape[axis]) for axis in (1, 2)}  # Dask refuses to look farther than the array
    grown = da.overlap.overlap(array, depth=depth, boundary=0)
    looked = grown.map_blocks(look_around, dtype=np.uint8, chunks=((2,), *grown.chunks[1:]))
    return da.overlap.trim_internal(looked, depth, boundary=0)


def _with_neighbours(strips: npt.NDArray[np.bool_], distance_m: float, grid: Grid) -> npt.NDArray[np.bool_]:
    """Wanted strips and all strips within the distance of them."""
    down, across = int(distance_m // grid.resolution_m), int(np.ceil(distance_m / (CELL * grid.resolution_m)))
    [rows] = np.nonzero(strips.any(axis=1))
    grown = strips.copy()
    for row in rows.tolist():
        grown[max(row - down, 0) : row + down + 1] |= strips[row]
    wide = grown.copy()
    for step in range(1, across + 1):
        wide[:, step:] |= grown[:, :-step]
        wide[:, :-step] |= grown[:, step:]
    return wide


def _numbers(
    scene: Scene, rows: Places, cols: Places, method: Method
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Digital numbers of red and near infrared at pixels of their grid; 0 nodata, negative unread."""
    wanted = wanted_strips(rows, cols, scene.red.grid.shape)
    bands = stack(scene, ("red", "nir"), wanted=wanted, limits=method.http, chunk=method.chunk).data[0]
    red, nir = gather(bands, rows, cols, compute=method.compute)
    return red, nir


def _corner(grid: Grid) -> tuple[float, float, float]:
    return (grid.left, grid.top, grid.resolution_m)


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
    area_px = _areas_px(footprints)
    lost = set((np.searchsorted(footprints.offsets, np.flatnonzero(seen.unread), side="right") - 1).tolist())
    numbers = _numbers_of_farms(footprints, seen, pixel_area_ha)
    facts = _Facts(work, scenes, method)
    observations, failures = [], []
    for number, (farm, (found, classes)) in enumerate(zip(farms, numbers, strict=True)):
        own = slice(footprints.offsets[number], footprints.offsets[number + 1])
        if number in lost:
            failures.append(_failure(farm, scenes, seen, own))
            continue
        status = Status.OBSERVED if found else _why_not(farm, scenes, seen, own)
        pieces = tuple(np.unique(seen.piece[own]).tolist()) if len(scenes) > 1 else (0,)
        area_ha = float(area_px[number] * pixel_area_ha)
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
        index, is_clipped = ndvi(seen.red[part], seen.nir[part])
        counts = np.flatnonzero(seen.is_present[part] & ~np.isnan(index))
        statistics = zonal_statistics(
            index[counts],
            footprints.coverage[part][counts],
            is_inner=footprints.is_inner[part][counts],
            is_clipped=is_clipped[counts],
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
        self._work = work
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
        return Observation(
            farm_id=farm.id,
            boundary_version=farm.boundary_version,
            pass_id=self._work.pass_id,
            acquired_at=self._work.acquired_at,
            day=self._work.day,
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


def _class_counts(classes: npt.NDArray[np.int8], offsets: Places) -> list[tuple[int, ...]]:
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
