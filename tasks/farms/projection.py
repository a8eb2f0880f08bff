"""From the coordinates of a file to longitude and latitude, without bending straight edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import CRSError, ProjError
from shapely.geometry import Polygon

from models.errors import BadInput

MAX_EDGE_M = 1_000
"""Longer edges get vertices of their own before they are projected.

An edge that is straight on a map is curved in longitude and latitude: east to west its middle moves by
L² tan(latitude) / 8R, 2.4 cm for 1 km at 51 degrees and 2.4 m for 10 km.
"""


@dataclass(frozen=True, slots=True)
class Projection:
    """The way from one coordinate reference system to longitude and latitude on WGS84."""

    transformer: pyproj.Transformer | None
    """None where the coordinates are longitude and latitude on WGS84 already: they are kept to the last bit."""
    max_edge: float | None
    """`MAX_EDGE_M` in units of the source; None where edges are straight in degrees already."""

    @property
    def is_flat(self) -> bool:
        """Whether the source is a map, with coordinates in metres or feet, and not degrees."""
        return self.max_edge is not None

    def to_lon_lat(self, polygon: Polygon, *, max_vertices: int) -> Polygon:
        """Return the polygon in longitude and latitude; not finite where the projection is not defined.

        Raises:
            BadInput: when its edges are so long that keeping them straight takes more than `max_vertices`.
        """
        transformer = self.transformer
        if transformer is None:
            return polygon
        if self.max_edge is not None:
            added = polygon.length / self.max_edge
            if added > max_vertices:
                raise BadInput("geometry", f"has a perimeter of {polygon.length:.4g} units", allowed="a farm")
            polygon = shapely.segmentize(polygon, self.max_edge)

        def project(places: NDArray[np.float64]) -> NDArray[np.float64]:
            lon, lat = transformer.transform(places[:, 0], places[:, 1])
            return np.column_stack([lon, lat])

        return shapely.transform(polygon, project)


WGS84 = Projection(None, None)
"""Longitude and latitude in, the same out."""


def crs_from(text: object, *, field: str) -> pyproj.CRS:
    """Read a coordinate reference system from a code, a URN, WKT or PROJJSON.

    Raises:
        BadInput: naming `field`.
    """
    try:
        return pyproj.CRS.from_user_input(text)
    except CRSError as error:
        problem = f"is not a coordinate reference system: {str(text)[:100]!r}"
        raise BadInput(field, problem, allowed="a code such as EPSG:32633") from error


def projection_from(crs: pyproj.CRS) -> Projection:
    """Find the way from a coordinate reference system to longitude and latitude; heights are left out.

    Raises:
        BadInput: when there is none, as for a local drawing grid.
    """
    flat = horizontal(crs)
    if same_crs(flat, pyproj.CRS.from_epsg(4326)):
        return WGS84
    if not (flat.is_geographic or flat.is_projected):
        raise BadInput("crs", f"{flat.name!r} has no known place on the Earth", allowed="--crs EPSG:...")
    try:
        transformer = pyproj.Transformer.from_crs(flat, 4326, always_xy=True)
    except ProjError as error:
        raise BadInput("crs", f"{flat.name!r} cannot be turned into longitude and latitude") from error
    if flat.is_geographic:
        return Projection(transformer, None)
    return Projection(transformer, MAX_EDGE_M / flat.axis_info[0].unit_conversion_factor)


def horizontal(crs: pyproj.CRS) -> pyproj.CRS:
    """Return the part of a coordinate reference system that says where on the map, without heights."""
    while crs.is_compound:
        crs = crs.sub_crs_list[0]
    return crs.to_2d()


def same_crs(one: pyproj.CRS, other: pyproj.CRS) -> bool:
    """Whether two systems give the same place the same easting (or longitude) and northing (or latitude)."""
    if one.equals(other, ignore_axis_order=True):
        return True
    code = one.to_epsg()
    return code is not None and code == other.to_epsg()
