"""Where the simulated world lies: two districts and the tiles that picture them.

The tiles keep the grid of the real tiles of the same name (origins on multiples of 60 m, 10 m pixels, 20 m scene
classes from the same corner) but are cut to a tenth of their width. What stands on them is invented.
"""

from __future__ import annotations

from dataclasses import dataclass

from shapely import Polygon, box

from models.domain import Grid

MARGIN_PX = 60
"""How far the simulated ground goes on around the tiles, in 10 m pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One cut MGRS tile."""

    name: str
    grid: Grid

    @property
    def outline(self) -> Polygon:
        """Bounds of the tile as a polygon, in grid units."""
        return box(*self.grid.bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class District:
    """A piece of ground in one UTM zone, on one 10 m grid that its tiles share."""

    name: str
    epsg: int
    tiles: tuple[Tile, ...]
    is_southern: bool
    sun_time_utc: str
    """When the satellite passes, as HHMMSS in UTC."""

    @property
    def grid(self) -> Grid:
        """The 10 m grid of the ground: all tiles and a margin around them."""
        left = min(tile.grid.bounds[0] for tile in self.tiles) - 10 * MARGIN_PX
        bottom = min(tile.grid.bounds[1] for tile in self.tiles) - 10 * MARGIN_PX
        right = max(tile.grid.bounds[2] for tile in self.tiles) + 10 * MARGIN_PX
        top = max(tile.grid.bounds[3] for tile in self.tiles) + 10 * MARGIN_PX
        width, height = round((right - left) / 10), round((top - bottom) / 10)
        return Grid(epsg=self.epsg, left=left, top=top, resolution_m=10, width=width, height=height)

    def window(self, tile: Tile, resolution_m: int) -> tuple[slice, slice]:
        """Rows and columns of the tile in an array over the ground at 10 or 20 m."""
        row = round((self.grid.top - tile.grid.top) / resolution_m)
        column = round((tile.grid.left - self.grid.left) / resolution_m)
        size = round(tile.grid.width * 10 / resolution_m)
        return slice(row, row + size), slice(column, column + size)


def _tile(name: str, epsg: int, left: float, top: float, size: int) -> Tile:
    return Tile(name=name, grid=Grid(epsg=epsg, left=left, top=top, resolution_m=10, width=size, height=size))


NORTH = District(
    name="Lower Meadows",
    epsg=32634,
    # The real overlap begins at 499980: the cut tiles share a strip of 2,580 m.
    tiles=(
        _tile("34TDR", 32634, 491580, 5049360, 1098),
        _tile("34TER", 32634, 499980, 5049960, 1098),
    ),
    is_southern=False,
    sun_time_utc="093549",
)
SOUTH = District(
    name="Southern Plain",
    epsg=32720,
    tiles=(_tile("20HNH", 32720, 520020, 6294000, 548),),
    is_southern=True,
    sun_time_utc="141101",
)
DISTRICTS = (NORTH, SOUTH)


def swath_outline() -> Polygon:
    """What the second orbit sees of the northern district: all west of a slanting line across tile 34TDR."""
    left, bottom, _, top = NORTH.grid.bounds
    return Polygon([(left, top), (498600, top), (496300, bottom), (left, bottom)])
