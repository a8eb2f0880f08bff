"""The words of the product as plain, immutable values. Standard library alone."""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

INDEX = "ndvi"
"""The index that is meant when none is named."""


class Status(enum.StrEnum):
    """What a farm's observation came to; `observed` as soon as one clear pixel counts."""

    OBSERVED = "observed"
    CLOUD = "cloud"
    OUTSIDE = "outside"
    NODATA = "nodata"


class Rule(enum.StrEnum):
    """Which statistics made the headline value `ndvi`."""

    INNER = "inner"
    WEIGHTED = "weighted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Farm:
    """A farm with one version of its boundary."""

    id: int
    external_farm_id: uuid.UUID
    name: str
    external_user_id: str | None
    boundary_version: int
    boundary: bytes
    """Polygon or MultiPolygon as WKB, longitude and latitude in degrees (EPSG:4326), valid, outer rings first."""
    bbox: tuple[float, float, float, float]
    """west, south, east, north in degrees; west > east when the farm crosses the antimeridian."""
    area_ha: float
    """Area on the WGS84 ellipsoid, hectares."""
    is_active: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A north-up raster grid: where the pixels of an array lie."""

    epsg: int
    left: float
    top: float
    resolution_m: float
    width: int
    height: int

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """left, bottom, right, top in grid units (metres)."""
        return (
            self.left,
            self.top - self.height * self.resolution_m,
            self.left + self.width * self.resolution_m,
            self.top,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return (self.height, self.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescale:
    """How the digital numbers of one asset become reflectance: DN x scale + offset, and by which rule."""

    scale: float
    offset: float
    rule: str
    """Name of the row of the offset table that decided, for the provenance."""
    is_certain: bool = True
    """False where the catalog's flag is known to be wrong at times; the pixels are then looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file of a STAC item: unsigned address and the grid it lies on."""

    href: str
    grid: Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The part of one STAC item we need in order to read it."""

    catalog: str
    """Name of the catalog profile the item came from, e.g. `earth-search-c1`."""
    collection: str
    item_id: str
    tile: str
    """MGRS tile without prefix, e.g. `33TWL`."""
    platform: str
    pass_id: str
    """The acquisition key shared by all tiles and processings of one pass: platform and datatake."""
    datastrip: str
    """Start of the datastrip inside the pass: tells complementary pieces from two processings of one piece."""
    acquired_at: dt.datetime
    day: dt.date
    """Local solar day at the centre of the tile."""
    processing_baseline: str | None
    updated: str | None
    """When the catalog last changed the item, as it says (RFC 3339)."""
    red: Asset
    nir: Asset
    scl: Asset
    rescale: Rescale
    footprint: tuple[tuple[tuple[float, float], ...], ...] = ()
    """Outer rings of the item's geometry in longitude and latitude; empty when the item has none."""
    signer: str | None = None
    """Who signs asset addresses at the moment of reading (`planetary-computer`), or None."""
    relative_orbit: int | None = None
    """1 to 143; None where the catalog does not tell."""


def inputs_digest(scenes: Iterable[Scene], method: str) -> str:
    """What an observation was made from and how, in 16 hexadecimal digits."""
    parts = [(s.catalog, s.item_id, s.processing_baseline, s.updated, s.rescale.rule) for s in scenes]
    return hashlib.sha256(repr((parts, method)).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedItem:
    """An item that cannot be used, and why; kept in the ledger so that nothing vanishes silently."""

    catalog: str
    collection: str
    item_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskPolicy:
    """Which scene classes are clear, and how far from the others a pixel must be. Named and versioned."""

    clear_classes: frozenset[int] = frozenset({4, 5, 6, 7, 11})
    dilation_m: float = 0.0

    @property
    def name(self) -> str:
        """Stable name, part of an observation's identity, e.g. `scl-4.5.6.7.11-d0-v1`."""
        classes = ".".join(str(value) for value in sorted(self.clear_classes))
        return f"scl-{classes}-d{self.dilation_m:g}-v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """NDVI of one farm over its clear pixels, each weighted by its coverage fraction."""

    mean: float
    std: float
    min: float
    max: float
    median: float
    p10: float
    p25: float
    p75: float
    p90: float
    histogram: tuple[float, ...]
    """40 equal bins over [-1, 1]; covered area of each in pixels (sum of coverage fractions)."""
    inner_mean: float | None
    inner_median: float | None
    inner_pixel_count: int
    """Clear pixels wholly inside the boundary and its inward margin."""
    pixel_count: int
    """Clear pixels with any coverage."""
    clear_area_ha: float
    clipped_count: int
    """Clear pixels whose NDVI lay outside [-1, 1] and was clipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One index of one farm in one acquisition: numbers, or the reason why there are none."""

    farm_id: int
    boundary_version: int
    pass_id: str
    acquired_at: dt.datetime
    day: dt.date
    index: str
    mask_policy: str
    status: Status
    clear_fraction: float
    class_counts: tuple[int, ...]
    """Touched pixels by scene class 0 to 11; class 0 (no data) includes pixels off the imagery."""
    item_ids: tuple[str, ...]
    processing_baseline: str | None
    catalog: str
    rescale_rule: str
    inputs: str
    """Digest of the scenes consulted: a reprocessed item changes it, an identical one does not."""
    software_version: str
    ndvi: float | None = None
    rule: Rule | None = None
    statistics: Statistics | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FarmFailure:
    """A farm of a scene that could not be answered because an upstream failed: to be tried again."""

    farm_id: int
    problem: str
    is_retryable: bool
    unread: tuple[tuple[str, str], ...] = ()
    """Catalog and id of the items whose files could not be read; empty where something else went wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneAnswer:
    """What one look at a scene gave: an observation or a failure for every farm asked for."""

    observations: tuple[Observation, ...]
    failures: tuple[FarmFailure, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneWork:
    """One unit of work: one pass over one tile (or over the tiles that one large farm needs), with its farms."""

    pass_id: str
    tiles: tuple[str, ...]
    scenes: tuple[Scene, ...]
    """Pieces in the order in which they are consulted, pixel by pixel."""
    farm_ids: tuple[int, ...]
    method: str = ""
    """What else the numbers depend on besides scenes and mask policy, in a word; part of `inputs`."""

    @property
    def tile_set(self) -> str:
        """The tiles as one word, e.g. `33TWL` or `33TWL+33TWM`."""
        return "+".join(self.tiles)

    @property
    def inputs(self) -> str:
        """Digest of pieces and method: changes when one is added, reprocessed or comes from another catalog."""
        return inputs_digest(self.scenes, self.method)

    @property
    def day(self) -> dt.date:
        """Local solar day of the pass over the first tile."""
        return self.scenes[0].day

    @property
    def acquired_at(self) -> dt.datetime:
        """When the sensor looked at the first piece, UTC."""
        return self.scenes[0].acquired_at

    @property
    def label(self) -> str:
        """What a person reads in a list of runs, e.g. `36MZE 2026-11-22: 412 farms`."""
        noun = "farm" if len(self.farm_ids) == 1 else "farms"
        return f"{self.tile_set} {self.day}: {len(self.farm_ids):,} {noun}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedFeature:
    """A feature of an imported file that did not become a farm, and why."""

    file: str
    feature: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FarmDraft:
    """A farm as a file or a caller gave it, checked and in longitude and latitude, not yet stored."""

    external_farm_id: uuid.UUID
    name: str
    external_user_id: str | None
    boundary: bytes
    bbox: tuple[float, float, float, float]
    area_ha: float
    feature: str
    """Which feature of the file this was, for messages."""
    repairs: tuple[str, ...] = field(default=())
    """What was done to make the geometry valid, in words; empty when it already was."""
    is_active: bool | None = None
    """None leaves it to what is stored; a new farm is active."""
