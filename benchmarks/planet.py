"""A made-up planet for measuring the planner: tiles as Sentinel-2 has them, a day of passes, and farms on the land.

Tiles lie on the real lattice of 100 km squares in their UTM zones, 109.8 km wide, so they overlap as the real ones do.
Passes follow the orbits of three satellites. Land is a handful of boxes, and farms lie in districts.
"""

from __future__ import annotations

import datetime as dt
import math
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyproj import Transformer

from models.domain import Asset, Grid, Rescale, Scene

CONTINENTS = (
    (-130.0, 30.0, -65.0, 68.0),
    (-110.0, 15.0, -85.0, 30.0),
    (-78.0, -40.0, -40.0, 8.0),
    (-10.0, 36.0, 45.0, 71.0),
    (-16.0, 5.0, 40.0, 32.0),
    (12.0, -34.0, 42.0, 5.0),
    (45.0, 30.0, 135.0, 73.0),
    (68.0, 8.0, 108.0, 30.0),
    (115.0, -38.0, 152.0, -15.0),
    (98.0, -8.0, 125.0, 8.0),
    (135.0, 45.0, 179.5, 70.0),
    (165.0, -46.0, 179.5, -35.0),
)
"""west, south, east, north in degrees."""
DISTRICTS = 20_000
DISTRICT_DEG = 0.35
"""Standard deviation of where the farms of a district lie."""
SATELLITES = ("sentinel-2a", "sentinel-2b", "sentinel-2c")
ORBITS_A_DAY = 14.3
INCLINATION = math.radians(98.62)
SEEN_M = 145_000 + 65_000
"""From the ground track to the centre of a tile of which the swath has some part."""
EARTH_M = 6_371_000
SQUARE_M, TILE_PX = 100_000, 10_980


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile and the middle of it in degrees."""

    name: str
    grid: Grid
    longitude: float
    latitude: float


def land_tiles() -> Iterator[Tile]:
    """All tiles whose middle lies on land."""
    lefts = np.round(np.arange(1, 9) * SQUARE_M / 60 - 1 / 3) * 60.0
    tops = np.round(np.arange(-60, 85) * SQUARE_M / 60 + 1 / 3) * 60.0
    x, y = (each.ravel() for each in np.meshgrid(lefts, tops))
    for zone in range(1, 61):
        to_degrees = Transformer.from_crs(32600 + zone, 4326, always_xy=True)
        half = TILE_PX * 5
        longitudes, latitudes = to_degrees.transform(x + half, y - half)
        west = zone * 6 - 186
        is_ours = (longitudes > west - 0.3) & (longitudes < west + 6.3) & is_land(longitudes, latitudes)
        for place in np.flatnonzero(is_ours):
            south = float(latitudes[place]) < 0
            top = float(y[place]) + (10_000_000 if south else 0)
            epsg = (32700 if south else 32600) + zone
            grid = Grid(epsg=epsg, left=float(x[place]), top=top, resolution_m=10.0, width=TILE_PX, height=TILE_PX)
            name = _name(zone, float(latitudes[place]), float(x[place]), top)
            yield Tile(name, grid, float(longitudes[place]), float(latitudes[place]))


def _name(zone: int, latitude: float, left: float, top: float) -> str:
    """As the military grid names the square, letters I and O left out."""
    band = "CDEFGHJKLMNPQRSTUVWX"[min(int((latitude + 80) // 8), 19)]
    column = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")[(zone - 1) % 3][round(left / SQUARE_M) - 1]
    row = "ABCDEFGHJKLMNPQRSTUV"[(round(top / SQUARE_M) - 1 + (0 if zone % 2 else 5)) % 20]
    return f"{zone:02}{band}{column}{row}"


def is_land(longitudes: npt.NDArray[np.float64], latitudes: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which places (n,), in degrees, lie on land."""
    found = np.zeros(longitudes.shape, np.bool_)
    for west, south, east, north in CONTINENTS:
        found |= (longitudes >= west) & (longitudes <= east) & (latitudes >= south) & (latitudes <= north)
    return found


def scenes_of(day: dt.date, count: int, *, seed: int = 7) -> list[Scene]:
    """At most so many scenes of the passes of one day: a sample of those over land, as a catalog has them."""
    tiles = list(land_tiles())
    longitudes = np.array([tile.longitude for tile in tiles])
    latitudes = np.radians([tile.latitude for tile in tiles])
    along = np.pi - np.arcsin(np.sin(latitudes) / math.sin(INCLINATION))  # by day the satellites fly southwards
    turned = np.degrees(np.arctan2(math.cos(INCLINATION) * np.sin(along), np.cos(along)))
    across = np.sqrt(1 - np.minimum(1, (math.cos(INCLINATION) / np.cos(latitudes)) ** 2))
    found: list[tuple[str, str, dt.datetime, Tile]] = []
    for number, satellite in enumerate(SATELLITES):
        for orbit in range(int(ORBITS_A_DAY)):
            share = (orbit + number / 3 + day.toordinal() * 0.3) / ORBITS_A_DAY
            track = turned - 360 * (share + along / (2 * np.pi * ORBITS_A_DAY))
            east_deg = (longitudes - track + 180) % 360 - 180
            seen = np.abs(np.radians(east_deg)) * np.cos(latitudes) * across * EARTH_M < SEEN_M
            start = dt.datetime.combine(day, dt.time(), dt.UTC) + dt.timedelta(days=share % 1)
            pass_id = f"{satellite}/{start:%Y%m%dT%H%M%S}"
            found += [(satellite, pass_id, start, tiles[place]) for place in np.flatnonzero(seen)]
    chosen = np.random.default_rng(seed).permutation(len(found))[:count]
    return [_scene(*found[place], day) for place in sorted(chosen.tolist())]


def _scene(satellite: str, pass_id: str, start: dt.datetime, tile: Tile, day: dt.date) -> Scene:
    short = f"S2{satellite[-1].upper()}"
    item = f"{short}_T{tile.name}_{start:%Y%m%dT%H%M%S}_L2A"
    address = f"https://files.example.org/sentinel-2-c1-l2a/{tile.name[:2]}/{tile.name[2]}/{tile.name[3:]}/{day}/{item}"
    coarse = Grid(
        epsg=tile.grid.epsg, left=tile.grid.left, top=tile.grid.top, resolution_m=20.0, width=5490, height=5490
    )
    x, y = tile.longitude, tile.latitude
    outline = ((x - 0.6, y + 0.5), (x + 0.6, y + 0.5), (x + 0.6, y - 0.5), (x - 0.3, y - 0.5), (x - 0.6, y + 0.5))
    return Scene(
        catalog="earth-search-c1",
        collection="sentinel-2-c1-l2a",
        item_id=item,
        tile=tile.name,
        platform=satellite,
        pass_id=pass_id,
        datastrip=f"S{start:%Y%m%dT%H%M%S}",
        acquired_at=start,
        day=day,
        processing_baseline="05.11",
        updated=f"{day}T20:00:00Z",
        red=Asset(href=f"{address}/B04.tif", grid=tile.grid),
        nir=Asset(href=f"{address}/B08.tif", grid=tile.grid),
        scl=Asset(href=f"{address}/SCL.tif", grid=coarse),
        rescale=Rescale(scale=0.0001, offset=-0.1, rule="c1"),
        footprint=(outline,),
        relative_orbit=1 + start.toordinal() % 143,
    )


@dataclass(frozen=True, slots=True)
class Fields:
    """Made-up fields. Arrays (n, 2) in degrees."""

    corners: npt.NDArray[np.float64]
    """Longitude and latitude of the south-west corner."""
    sides: npt.NDArray[np.float64]
    """Width and height."""


def fields(count: int, *, seed: int = 7) -> Fields:
    """So many fields, most of one hectare or two, in districts on land: dense in some and sparse in others."""
    rng = np.random.default_rng(seed)
    boxes = np.array(CONTINENTS)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    lands = boxes[rng.choice(len(boxes), DISTRICTS, p=areas / areas.sum())]
    centres = lands[:, :2] + rng.random((DISTRICTS, 2)) * (lands[:, 2:] - lands[:, :2])
    weights = rng.pareto(1.5, DISTRICTS) + 0.1
    own = rng.choice(DISTRICTS, count, p=weights / weights.sum())
    corners = centres[own] + rng.normal(0, DISTRICT_DEG, (count, 2))
    corners = np.clip(corners, [-179.9, -55.0], [179.8, 75.0])
    sides_m = np.exp(rng.normal(math.log(120), 0.6, (count, 2)))
    height = sides_m[:, 1] / 111_000
    width = sides_m[:, 0] / (111_000 * np.cos(np.radians(corners[:, 1])))
    return Fields(corners, np.column_stack((width, height)))


def external_id(number: int) -> uuid.UUID:
    """Of a field by its number."""
    return uuid.UUID(int=number + 1)
