"""The farms of the simulated world: where they lie, what grows there and what makes each of them hard to see."""

from __future__ import annotations

import functools
import json
import math
import uuid
from dataclasses import dataclass

import numpy as np
import pyproj
import shapely
from shapely import MultiPolygon, Polygon, affinity, box
from shapely.geometry.base import BaseGeometry

from infra.sandbox.crops import CROPS, Crop
from infra.sandbox.places import NORTH, SOUTH, District

_IDENTITY = uuid.UUID("6d0f3c3e-6f0e-5d0c-9a3e-2f6f1c7b7a11")
# fmt: off
_NAMES = (
    "Lark Field", "Mill Meadow", "Heron Bank", "Long Acre", "Clover Hill", "Stone Gate", "Fox Hollow",
    "Poplar Row", "Barley Rise", "Quail Corner", "Bridge Piece", "Willow Bend", "Thistle Down", "Upper Furrow",
    "Lower Furrow", "Chapel Field", "Hare Run", "Sandy Strip", "Elder Croft", "Marsh End", "Sunny Side",
    "Crow Park", "Drover's Rest", "Plum Garth", "Old Vineyard", "Kite Ridge", "Station Field",
)
# fmt: on
_SOUTHERN_NAMES = ("Estancia Norte", "Estancia Sur", "La Laguna")
_GAP_M = 45

Outline = Polygon | MultiPolygon


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedFarm:
    """One farm: its boundary as a user would give it, and the season that was drawn for it."""

    external_farm_id: uuid.UUID
    name: str
    district: District
    boundary: Outline
    """Longitude and latitude in degrees."""
    outline: Outline
    """The same boundary on the district's grid, metres."""
    crop: Crop
    shift_days: float
    vigour: float
    trait: str
    """What makes it worth testing, e.g. `hole`; `plain` for most."""


def draw_farms(seed: int) -> tuple[SimulatedFarm, ...]:
    """All farms of the world of this seed, in a fixed order. None touches another, or shares a pixel with it."""
    rng = np.random.default_rng([seed, 1])
    special = _special_shapes()
    plain = _scatter(rng, NORTH, len(_NAMES), around=[shape for _, _, shape in special])
    southern = _scatter(rng, SOUTH, len(_SOUTHERN_NAMES), around=[])
    drawn = [(name, NORTH, shape, trait) for name, trait, shape in special]
    drawn += [(name, NORTH, shape, "plain") for name, shape in zip(_NAMES, plain, strict=True)]
    drawn += [(name, SOUTH, shape, "southern") for name, shape in zip(_SOUTHERN_NAMES, southern, strict=True)]
    return tuple(
        _farm(
            name,
            district,
            shape,
            trait,
            crop=CROPS[(number * 5 + int(rng.integers(2))) % len(CROPS)],
            shift_days=float(np.clip(rng.normal(0, 6), -12, 12)),
            vigour=float(rng.uniform(0.85, 1.0)),
        )
        for number, (name, district, shape, trait) in enumerate(drawn)
    )


def farms_geojson(farms: tuple[SimulatedFarm, ...]) -> str:
    """The farms as a GeoJSON feature collection, as a user would bring it."""
    features = [
        {
            "type": "Feature",
            "id": str(farm.external_farm_id),
            "properties": {
                "external_farm_id": str(farm.external_farm_id),
                "external_user_id": "sandbox",
                "name": farm.name,
                "crop": farm.crop.name,
            },
            "geometry": shapely.geometry.mapping(farm.boundary),
        }
        for farm in farms
    ]
    return json.dumps({"type": "FeatureCollection", "name": "simulated-farms", "features": features}, indent=1) + "\n"


def _special_shapes() -> list[tuple[str, str, Outline]]:
    """Name, trait and shape of what is hard to see, on the grid of the northern district."""
    south_part, north_part = _rectangle(494000, 5045600, 520, 150, 12), _rectangle(494060, 5045950, 330, 180, 20)
    return [
        # 437 m around the corner of four blocks of 512 pixels in tile 34TDR: 60 ha
        ("Four Corners", "block corner", _disc(496703, 5044237, 437.1)),
        ("Pond Field", "hole", Polygon(_ring(493401, 5041502, 260), [_ring(493430, 5041540, 85)])),
        ("Two Banks", "two parts", MultiPolygon([south_part, north_part])),
        ("The Speck", "speck", box(495013, 5040007, 495021, 5040015)),
        ("Middle Field", "overlap", _rectangle(501300, 5046500, 420, 310, 25)),
        ("Border Field", "tile edge", _rectangle(502560, 5042300, 560, 240, 8)),
        # longer than the overlap is wide: no tile holds it whole
        ("Long Meadow", "long meadow", _rectangle(501250, 5040500, 3050, 196, 1.5)),
        ("Swath's End", "swath edge", _rectangle(496880, 5041000, 520, 400, 15)),
        ("North Rim", "rim", _rectangle(506400, 5049960, 400, 330, 5)),
        ("Hedge Strip", "sliver", _rectangle(505200, 5044600, 640, 12, 33)),
    ]


def _scatter(rng: np.random.Generator, district: District, count: int, *, around: list[Outline]) -> list[Outline]:
    """So many fields inside the tiles of a district, apart from each other and from what is `around`."""
    inside = shapely.union_all([tile.outline for tile in district.tiles]).buffer(-250)
    left, bottom, right, top = inside.bounds
    found: list[Outline] = []
    while len(found) < count:
        area_m2 = 1e4 * math.exp(rng.uniform(math.log(0.3), math.log(45)))
        shape = _shape(rng, rng.uniform(left, right), rng.uniform(bottom, top), area_m2)
        if inside.contains(shape) and all(shape.distance(other) > _GAP_M for other in [*around, *found]):
            found.append(shape)
    return found


def _shape(rng: np.random.Generator, x: float, y: float, area_m2: float) -> Polygon:
    """A field of this area: a rough rectangle or a many-cornered piece."""
    if rng.random() < 0.55:
        aspect = rng.uniform(1, 3.5)
        width = math.sqrt(area_m2 * aspect)
        corners = np.array(_rectangle(0, 0, width, area_m2 / width, rng.uniform(0, 180)).exterior.coords)[:4]
        corners += rng.uniform(-0.06, 0.06, (4, 2)) * math.sqrt(area_m2)
    else:
        count = int(rng.integers(7, 13))
        angles = (np.arange(count) + rng.uniform(-0.3, 0.3, count)) * 2 * math.pi / count
        radii = rng.uniform(0.7, 1.25, count)
        corners = np.column_stack([radii * np.cos(angles), radii * np.sin(angles)])
    rough = Polygon(corners)
    factor = math.sqrt(area_m2 / rough.area)
    return affinity.translate(affinity.scale(rough, factor, factor, origin=(0, 0)), x, y)


def _rectangle(x: float, y: float, width: float, height: float, degrees: float) -> Polygon:
    return affinity.rotate(box(x - width / 2, y - height / 2, x + width / 2, y + height / 2), degrees)


def _disc(x: float, y: float, radius: float) -> Polygon:
    return Polygon(_ring(x, y, radius))


def _ring(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    angles = [2 * math.pi * number / 64 for number in range(64)]
    return [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]


def _farm(
    name: str,
    district: District,
    shape: Outline,
    trait: str,
    *,
    crop: Crop,
    shift_days: float,
    vigour: float,
) -> SimulatedFarm:
    # Rounded as a file holds it, then brought back to the grid: the truth is drawn from what the user gives.
    boundary = shapely.transform(shape, lambda xy: np.round(_project(district.epsg, xy, to_degrees=True), 8))
    return SimulatedFarm(
        external_farm_id=uuid.uuid5(_IDENTITY, name),
        name=name,
        district=district,
        boundary=boundary,
        outline=shapely.transform(boundary, lambda xy: _project(district.epsg, xy, to_degrees=False)),
        crop=crop,
        shift_days=shift_days,
        vigour=vigour,
        trait=trait,
    )


def to_degrees(shape: BaseGeometry, epsg: int) -> BaseGeometry:
    """The shape in longitude and latitude, rounded to a centimetre."""
    return shapely.transform(shape, lambda xy: np.round(_project(epsg, xy, to_degrees=True), 7))


@functools.cache
def _transformer(epsg: int, to_degrees: bool) -> pyproj.Transformer:
    ends = (epsg, 4326) if to_degrees else (4326, epsg)
    return pyproj.Transformer.from_crs(*ends, always_xy=True)


def _project(epsg: int, xy: np.ndarray, *, to_degrees: bool) -> np.ndarray:
    return np.column_stack(_transformer(epsg, to_degrees).transform(xy[:, 0], xy[:, 1]))
