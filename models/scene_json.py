"""A scene as JSON and back, nothing lost. Standard library alone."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

from models.domain import Asset, Grid, Rescale, Scene


def scene_to_json(scene: Scene) -> dict[str, Any]:
    """A scene as plain values that `json.dumps` takes."""
    document = _facts(scene)
    document["acquired_at"] = scene.acquired_at.isoformat()
    document["day"] = scene.day.isoformat()
    document["footprint"] = [[list(point) for point in ring] for ring in scene.footprint]
    document["rescale"] = _facts(scene.rescale)
    for name in ("red", "nir", "scl"):
        asset: Asset = document[name]
        document[name] = {"href": asset.href, "grid": _facts(asset.grid)}
    return document


def _facts(of: Scene | Rescale | Grid) -> dict[str, Any]:
    """Its fields as they are: `dataclasses.asdict` copies what is in them, and takes six times as long."""
    return {name: getattr(of, name) for name in _NAMES[type(of)]}


_NAMES = {each: tuple(field.name for field in dataclasses.fields(each)) for each in (Scene, Rescale, Grid)}


def scene_from_json(document: dict[str, Any]) -> Scene:
    """The scene of which `scene_to_json` made this document.

    Raises:
        KeyError, TypeError, ValueError: the document is not one of a scene.
    """
    rescale = document["rescale"]
    facts = {
        "acquired_at": dt.datetime.fromisoformat(document["acquired_at"]),
        "day": dt.date.fromisoformat(document["day"]),
        "red": _asset(document["red"]),
        "nir": _asset(document["nir"]),
        "scl": _asset(document["scl"]),
        # A store may have written 10.0 as 10.
        "rescale": Rescale(**rescale | {"scale": float(rescale["scale"]), "offset": float(rescale["offset"])}),
        "footprint": tuple(tuple((float(lon), float(lat)) for lon, lat in ring) for ring in document["footprint"]),
    }
    return Scene(**document | facts)


def _asset(document: dict[str, Any]) -> Asset:
    grid = document["grid"]
    metres = {name: float(grid[name]) for name in ("left", "top", "resolution_m")}
    return Asset(href=document["href"], grid=Grid(**grid | metres))
