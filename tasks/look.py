"""What the imagery shows at every pixel of some farms, piece by piece.

The scene classification is read first; red and near infrared only in blocks where a farm has a clear pixel. Pieces of
one pass (split datastrips, or the tiles under one very large farm) are completed pixel by pixel, in their order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from models.domain import Farm, Grid, MaskPolicy, Rescale, Scene, SceneWork
from tasks.imagery.evidence import settle_rescale
from tasks.imagery.pixels import Compute, gather, place_on
from tasks.imagery.reader import HttpLimits, Unread, decode, encode
from tasks.imagery.runs import Flags, Places, Runs, spread
from tasks.imagery.stack import CHUNK, stack
from tasks.imagery.wanted import CELL, wanted_strips
from tasks.indices.clear_sky import CLASS_COUNT, is_clear_class, near_cloud
from tasks.indices.footprints import FootprintCache, Footprints, Lattice
from tasks.indices.ndvi import Reflectance, reflectance

RUNS_AT_ONCE = 8192
"""The places of their pixels stay in the processor's cache."""


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
    red: npt.NDArray[np.uint16]
    nir: npt.NDArray[np.uint16]
    """Digital numbers, 0 where not present; a quarter of the memory of reflectances."""
    unread: npt.NDArray[np.int8]
    """`Unread` where an upstream failed, else 0."""
    piece: npt.NDArray[np.int16]
    """Which piece told us of the pixel; -1 for none."""
    is_on_grid: npt.NDArray[np.bool_]
    rescales: Sequence[Rescale]
    """How digital numbers of each piece become reflectance."""

    @classmethod
    def nothing(cls, n: int, rescales: Sequence[Rescale]) -> Seen:
        """The state before the first piece is read."""
        return cls(
            classes=np.zeros(n, np.int8),
            is_hidden=np.zeros(n, np.bool_),
            is_present=np.zeros(n, np.bool_),
            red=np.zeros(n, np.uint16),
            nir=np.zeros(n, np.uint16),
            unread=np.zeros(n, np.int8),
            piece=np.full(n, -1, np.int16),
            is_on_grid=np.zeros(n, np.bool_),
            rescales=rescales,
        )

    def reflectances(self, places: slice | npt.NDArray[np.intp]) -> tuple[Reflectance, Reflectance]:
        """Red and near infrared, unitless, of the pixels at these places; they mean something where present."""
        red, nir, rescales = self.red[places], self.nir[places], self.rescales
        if len(rescales) == 1:
            scale, offset = rescales[0].scale, rescales[0].offset
            return reflectance(red, scale, offset), reflectance(nir, scale, offset)
        piece = self.piece[places]
        scales, offsets = (np.array([getattr(each, name) for each in rescales])[piece] for name in ("scale", "offset"))
        return reflectance(red, scales, offsets), reflectance(nir, scales, offsets)


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
    settled = [_settled(scene, method) for scene in work.scenes]
    seen = Seen.nothing(len(footprints.rows), [scene.rescale for scene in settled])
    runs = Runs.of(footprints.rows, footprints.cols)
    todo = np.ones(len(footprints.rows), np.bool_)
    for number, scene in enumerate(settled):
        if todo.any():
            top, left = lattice.origin(scene.red.grid)
            _look(number, scene, runs.moved(-top, -left), seen, todo, method)
    return settled, footprints, seen


def _settled(scene: Scene, method: Method) -> Scene:
    if scene.rescale.is_certain:
        return scene
    return dataclasses.replace(scene, rescale=settle_rescale(scene, limits=method.http))


def _look(number: int, scene: Scene, runs: Runs, seen: Seen, todo: Flags, method: Method) -> None:
    """Read one piece where pixels are still open, and settle those it can tell about.

    Args:
        number: of the piece.
        runs: all pixels, (n,), counted from the corner of the piece's 10 m grid.
        seen, todo: (n,), brought up to date.
    """
    is_here = todo & runs.inside(scene.red.grid.shape)
    seen.is_on_grid |= is_here
    here = _places(is_here)
    classes, is_hidden = _classes(scene, runs.where(is_here), method)
    known, lost = classes != 0, classes < 0
    if lost.any():
        seen.unread[here] = np.where(lost, classes, seen.unread[here])
    is_hidden &= known & ~lost
    seen.classes[here] = np.where(known, np.maximum(classes, 0), seen.classes[here])
    seen.piece[here] = np.where(known, number, seen.piece[here])
    seen.is_hidden[here] = np.where(known, is_hidden, seen.is_hidden[here])
    todo[here] &= ~(lost | is_hidden)
    is_clear = np.zeros(len(todo), np.bool_)
    is_clear[here] = known & ~lost & ~is_hidden
    _look_at_colours(scene, runs, is_clear, seen, todo, method)


def _look_at_colours(scene: Scene, runs: Runs, is_clear: Flags, seen: Seen, todo: Flags, method: Method) -> None:
    """Read red and near infrared of the clear pixels, and settle those that have both."""
    chosen = runs.where(is_clear)
    strips = wanted_strips(chosen, scene.red.grid.shape)
    bands = stack(scene, ("red", "nir"), wanted=strips, limits=method.http, chunk=method.chunk).data[0]
    red, nir = gather(bands, chosen, compute=method.compute)
    lost, present = (red < 0) | (nir < 0), (red > 0) & (nir > 0)
    if lost.any():
        seen.unread[np.flatnonzero(is_clear)[lost]] = np.minimum(red, nir)[lost]
    is_present = is_clear
    if not present.all():
        is_present = is_clear.copy()
        is_present[is_clear] = present
        red, nir = red[present], nir[present]
    seen.red[is_present], seen.nir[is_present] = red.astype(np.uint16), nir.astype(np.uint16)
    seen.is_present |= is_present
    todo &= ~is_present
    if lost.any():
        todo[np.flatnonzero(is_clear)[lost]] = False


def _places(flags: Flags) -> slice | npt.NDArray[np.intp]:
    """Where the flags are True: all, as it mostly is, costs no list of millions of places and no copies by it."""
    return slice(None) if flags.all() else np.flatnonzero(flags)


def _classes(scene: Scene, runs: Runs, method: Method) -> tuple[npt.NDArray[np.int8], Flags]:
    """Scene class (negative: unread) at pixels of the 10 m grid, and whether the mask policy hides them."""
    grid = scene.scl.grid
    across = np.arange(scene.red.grid.width)
    rows, cols = place_on(runs.rows, across, of=_corner(scene.red.grid), to=_corner(grid))
    is_row, is_col = (rows >= 0) & (rows < grid.height), (cols >= 0) & (cols < grid.width)
    if is_row.all() and is_col.all():
        return _classes_inside(scene, rows, cols, runs, method)
    inside = np.repeat(is_row, runs.counts) & is_col[spread(runs.cols, runs.counts)]
    runs = runs.where(inside)
    rows, _ = place_on(runs.rows, across, of=_corner(scene.red.grid), to=_corner(grid))
    found, is_hidden = np.zeros(len(inside), np.int8), np.zeros(len(inside), np.bool_)
    found[inside], is_hidden[inside] = _classes_inside(scene, rows, cols, runs, method)
    return found, is_hidden


def _classes_inside(
    scene: Scene, rows: Places, cols: Places, runs: Runs, method: Method
) -> tuple[npt.NDArray[np.int8], Flags]:
    """As `_classes`, of pixels that all lie on the grid of scene classes.

    Args:
        rows: (k,) row of each run among the scene classes.
        cols: where each column of the 10 m grid comes to lie among them, ascending.
    """
    first = cols[runs.cols]
    coarse = Runs(rows, first, cols[runs.cols + runs.counts - 1].astype(np.intp) - first + 1)
    found, near = _gathered_classes(scene, coarse, method)
    found[found >= CLASS_COUNT] = 0  # not a class that Sentinel-2 has: it tells nothing
    is_hidden = ~is_clear_class(method.policy)[np.maximum(found, 0)] | near
    return _finer(found.astype(np.int8), coarse, cols, runs), _finer(is_hidden, coarse, cols, runs)


def _finer(values: npt.NDArray[Any], coarse: Runs, cols: Places, runs: Runs) -> npt.NDArray[Any]:
    """Bring values of coarse pixels to the finer pixels that lie in them: (n,) as `runs`, of their type."""
    ahead = np.cumsum(coarse.counts) - coarse.counts - coarse.cols
    found = np.empty(runs.size, values.dtype)
    end = 0
    for some in range(0, len(runs.rows), RUNS_AT_ONCE):
        part = slice(some, some + RUNS_AT_ONCE)
        places = cols[spread(runs.cols[part], runs.counts[part])] + np.repeat(ahead[part], runs.counts[part])
        start, end = end, end + len(places)
        values.take(places, out=found[start:end], mode="clip")  # none is outside; so told, no copy is made to find out
    return found


def _gathered_classes(scene: Scene, runs: Runs, method: Method) -> tuple[npt.NDArray[np.int32], Flags]:
    """Scene class (negative: unread) at pixels of the classes' own grid, and whether cloud is near enough to hide."""
    grid = scene.scl.grid
    wanted = wanted_strips(runs, grid.shape)
    is_dilated = method.policy.dilation_m >= grid.resolution_m
    if is_dilated:
        wanted = _with_neighbours(wanted, method.policy.dilation_m, grid)
    array = stack(scene, ("scl",), wanted=wanted, limits=method.http, chunk=method.chunk).data[0]
    if is_dilated:
        array = _with_surroundings(array, method.policy.dilation_m, grid.resolution_m)
    found = gather(array, runs, compute=method.compute)
    return found[0], found[1] > 0 if is_dilated else np.zeros(runs.size, np.bool_)


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


def _corner(grid: Grid) -> tuple[float, float, float]:
    return (grid.left, grid.top, grid.resolution_m)
