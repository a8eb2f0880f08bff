"""What callers send of farms and are given of them."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    StrictBool,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from models.boundaries import centroid, geojson
from models.errors import BadInput
from models.places import Bbox, bbox_from
from models.registry import StoredFarm
from models.texts import MAX_TEXT, clean_text
from serving.endpoints import Strict, Told
from serving.fields import FarmId

MOST_FARMS = 1_000
"""Farms of one sync."""


def _refused(problem: str, allowed: str | None) -> PydanticCustomError:
    context = {} if allowed is None else {"allowed": allowed}
    return PydanticCustomError("refused", "{problem}", {"problem": problem, **context})


def _cleaned(text: str) -> str:
    try:
        cleaned = clean_text(text)
    except BadInput as error:
        raise _refused(error.problem, error.allowed) from None
    if cleaned is None:
        raise _refused("is empty", f"1 to {MAX_TEXT} printable characters")
    return cleaned


Text = Annotated[
    str,
    AfterValidator(_cleaned),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_TEXT}),
]
"""Text as an import stores it: each run of white space is one space."""

_POSITION = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3}
_RING = {"type": "array", "items": _POSITION, "minItems": 4}
_POLYGON = {"type": "array", "items": _RING, "minItems": 1}


def _geometry_schema(kind: str, coordinates: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "title": f"GeoJSON {kind}",
        "required": ["type", "coordinates"],
        "properties": {"type": {"const": kind}, "coordinates": coordinates},
    }


_GEOMETRY = {
    "oneOf": [
        _geometry_schema("Polygon", _POLYGON),
        _geometry_schema("MultiPolygon", {"type": "array", "items": _POLYGON, "minItems": 1}),
    ],
    "description": "Longitude and latitude in degrees on WGS84 (RFC 7946).",
}
_NUMBER = {"type": "number"}
_BBOX = {
    "type": "array",
    "items": _NUMBER,
    "minItems": 4,
    "maxItems": 4,
    "description": "West, south, east, north in degrees; west > east across the antimeridian.",
}
_PLACE = {
    "anyOf": [
        _geometry_schema("Point", _POSITION),
        _POSITION,
        {
            "type": "object",
            "required": ["lon", "lat"],
            "additionalProperties": False,
            "properties": {"lon": _NUMBER, "lat": _NUMBER},
        },
    ],
    "description": "Where the farm is, to check that geometry or box lie there; the answer has the centre of area.",
}

# What they hold is checked by `geometry.BoundaryChecker`, which names the coordinate that is wrong.
Drawn = Annotated[Any, WithJsonSchema(_GEOMETRY)]
Box = Annotated[Any, WithJsonSchema(_BBOX)]
Place = Annotated[Any, WithJsonSchema(_PLACE)]


class _Shaped(Strict):
    geometry: Drawn = None
    bbox: Box = Field(
        default=None, description="Alone it makes a rectangle; with a geometry it must lie where that does."
    )
    centroid: Place = None
    is_active: StrictBool | None = Field(
        default=None,
        description="Whether imagery is read for it. Left out, a new farm is active and another stays as it is.",
    )

    def drawn(self) -> dict[str, Any]:
        """What was drawn, for `BoundaryChecker`."""
        given = {"geometry": self.geometry, "bbox": self.bbox, "centroid": self.centroid}
        return {name: value for name, value in given.items() if value is not None}


class FarmIn(_Shaped):
    """A farm as a caller has it; `geometry` or `bbox` is needed."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["geometry"]}, {"required": ["bbox"]}]},
    )

    external_farm_id: FarmId
    external_user_id: Text
    name: Text


class FarmList(Strict):
    """Farms to sync."""

    farms: list[FarmIn] = Field(min_length=1, max_length=MOST_FARMS)


def _as_given(value: Any, _checked: object) -> Any:
    """Each farm is checked by itself, so that one that is wrong does not stop the others."""
    if isinstance(value, dict | list):
        return value
    raise _refused("is no farm and no list of farms", f"a farm, or a list of 1 to {MOST_FARMS:,}")


SyncBody = Annotated[
    FarmIn | FarmList | Annotated[list[FarmIn], Field(min_length=1, max_length=MOST_FARMS)], WrapValidator(_as_given)
]
"""One farm or a list of them, bare or under `farms`."""


class FarmPatch(_Shaped):
    """What is to be another than before; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    external_user_id: Text = Field(default_factory=str)
    name: Text = Field(default_factory=str)

    @model_validator(mode="after")
    def _has_something(self) -> FarmPatch:
        told = self.model_dump(exclude_unset=True)
        if not any(value is not None for name, value in told.items() if name != "centroid"):
            raise _refused("has nothing to change", "name, external_user_id, geometry, bbox, is_active")
        return self


def _bbox_of(text: object) -> object:
    allowed = "west,south,east,north in degrees"
    if not isinstance(text, str):
        raise _refused("is not a box", allowed)
    try:
        return bbox_from([float(part) for part in text.split(",")])
    except ValueError:
        raise _refused("is not four numbers", allowed) from None
    except BadInput as error:
        raise _refused(error.problem, error.allowed) from None


class FarmQuery(Strict):
    """Which farms, and how many."""

    external_user_id: Text | None = None
    bbox: Annotated[
        Bbox | None,
        WrapValidator(lambda value, _checked: _bbox_of(value)),
        WithJsonSchema({"type": "string", "description": "West,south,east,north: farms whose box touches it."}),
    ] = None
    active: Literal["true", "false", "all"] = "true"
    limit: Annotated[int, Field(ge=1, le=MOST_FARMS)] = 100
    cursor: Annotated[str, Field(max_length=500)] | None = None


class FarmOut(Told):
    """A farm as it is stored."""

    external_farm_id: uuid.UUID
    external_user_id: str | None
    name: str
    is_active: bool
    boundary_version: int = Field(description="Grows with each change of the boundary.")
    area_ha: float
    bbox: Annotated[list[float], WithJsonSchema(_BBOX)]
    centroid: Annotated[dict[str, Any], WithJsonSchema(_geometry_schema("Point", _POSITION))]
    geometry: Annotated[dict[str, Any], WithJsonSchema(_GEOMETRY)]
    revision: int
    created_at: dt.datetime
    updated_at: dt.datetime


class FarmProperties(Told):
    """Facts of a farm as a GeoJSON feature has them."""

    external_farm_id: uuid.UUID
    external_user_id: str | None
    name: str
    is_active: bool
    boundary_version: int
    area_ha: float
    revision: int
    created_at: dt.datetime
    updated_at: dt.datetime


class FarmFeature(Told):
    """A farm as GeoJSON (RFC 7946)."""

    type: Literal["Feature"]
    id: uuid.UUID
    bbox: Annotated[list[float], WithJsonSchema(_BBOX)]
    properties: FarmProperties
    geometry: Annotated[dict[str, Any], WithJsonSchema(_GEOMETRY)]


class FarmCollection(Told):
    """One page of farms as GeoJSON (RFC 7946)."""

    type: Literal["FeatureCollection"]
    features: list[FarmFeature]
    next_cursor: str | None = Field(description="Gives the next page; null: this was the last.")


class FarmWritten(FarmOut):
    """A farm after it was written."""

    repairs: list[str] = Field(description="What was done to make the geometry valid.")


class FarmsOut(Told):
    """One page of farms."""

    farms: list[FarmOut]
    next_cursor: str | None = Field(description="Gives the next page; null: this was the last.")


class Fault(Told):
    """What is wrong with one field of one farm."""

    code: Literal["invalid", "conflict"]
    field: str
    problem: str
    allowed: str | None


class FarmOutcome(Told):
    """What became of one farm of a sync."""

    external_farm_id: uuid.UUID | None = Field(description="Null where what was given is not a farm.")
    outcome: Literal["created", "updated", "unchanged", "rejected", "conflict"]
    is_active: bool | None
    boundary_version: int | None
    repairs: list[str]
    errors: list[Fault]


class SyncOut(Told):
    """What became of the farms of a sync, in the order given."""

    created: int
    updated: int
    unchanged: int
    rejected: int
    conflict: int
    farms: list[FarmOutcome]


def facts(stored: StoredFarm) -> dict[str, Any]:
    """A farm for callers, as `FarmOut` has it."""
    farm = stored.farm
    place = centroid(farm.boundary, crosses_antimeridian=farm.bbox[0] > farm.bbox[2])
    return {
        "external_farm_id": farm.external_farm_id,
        "external_user_id": farm.external_user_id,
        "name": farm.name,
        "is_active": farm.is_active,
        "boundary_version": farm.boundary_version,
        "area_ha": farm.area_ha,
        "bbox": farm.bbox,
        "centroid": {"type": "Point", "coordinates": place},
        "geometry": geojson(farm.boundary),
        "revision": stored.revision,
        "created_at": stored.created_at,
        "updated_at": stored.updated_at,
    }


def feature(stored: StoredFarm) -> dict[str, Any]:
    """A farm as a GeoJSON feature."""
    properties = facts(stored)
    geometry, bbox = properties.pop("geometry"), properties.pop("bbox")
    del properties["centroid"]
    identity = properties["external_farm_id"]
    return {"type": "Feature", "id": identity, "bbox": bbox, "properties": properties, "geometry": geometry}
