"""From what a catalog returned to what we read: an item becomes a scene, or is skipped with a reason."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pyproj import Transformer

from models.domain import Asset, Grid, Rescale, Scene, SkippedItem
from models.errors import ItemUnusable
from tasks.imagery import items
from tasks.imagery.addresses import asset_address
from tasks.imagery.catalogs import GENERIC, Catalog, Profile, profile_of
from tasks.imagery.grids import asset_grid
from tasks.imagery.orbits import relative_orbit
from tasks.imagery.outlines import footprint_rings
from tasks.imagery.reflectance import reflectance_rule

LONGEST_NAME = 256
"""Letters in the name of an item or a collection; real ones stay below 80."""

_LONGEST_REASON = 300
_BANDS = ("red", "nir", "scl")
# The only files of Planetary Computer that need, and get, a signature.
_SIGNED_HOSTS = ".blob.core.windows.net"


def scene_from(item: Mapping[str, Any], catalog: Catalog) -> Scene | SkippedItem:
    """The scene that this item describes, or why it cannot be used, in plain words."""
    try:
        _check_form(item)
        return _scene(item, catalog, profile_of(item, catalog))
    except ItemUnusable as problem:
        return SkippedItem(
            catalog=catalog.name,
            collection=_cleaned(item.get("collection") or catalog.collection, longest=LONGEST_NAME),
            item_id=_cleaned(item.get("id") or "(no id)", longest=LONGEST_NAME),
            reason=_cleaned(problem, longest=_LONGEST_REASON),
        )


def _cleaned(text: object, *, longest: int) -> str:
    """The text as the ledger can keep it: what is not printable replaced, and cut where it is too long."""
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in str(text)[: longest + 1])
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def _check_form(item: Mapping[str, Any]) -> None:
    if not isinstance(item.get("id"), str) or not item["id"]:
        raise ItemUnusable("no id")
    if not items.is_plain(item["id"], longest=LONGEST_NAME):
        raise ItemUnusable("id is too long or not printable")
    collection = item.get("collection")
    if collection and not (isinstance(collection, str) and items.is_plain(collection, longest=LONGEST_NAME)):
        raise ItemUnusable("collection is no name, too long or not printable")
    for part in ("properties", "assets"):
        if not isinstance(item.get(part), dict) or not item[part]:
            raise ItemUnusable(f"no {part}")


def _scene(item: Mapping[str, Any], catalog: Catalog, profile: Profile) -> Scene:
    satellite = items.platform(item)
    if satellite is None or not items.is_surface_reflectance(item):
        raise ItemUnusable("not Sentinel-2 L2A")
    acquired = items.acquired_at(item)
    if acquired is None:
        raise ItemUnusable("no time of acquisition")
    tile = items.tile(item)
    if tile is None:
        raise ItemUnusable("no MGRS tile")
    assets, rescale = _readable(item, catalog, profile)
    day = solar_day(acquired, longitude=_longitude(assets["red"].grid))
    return Scene(
        catalog=catalog.name,
        collection=str(item.get("collection") or catalog.collection),
        item_id=item["id"],
        tile=tile,
        platform=satellite,
        pass_id=items.pass_id(item, satellite=satellite, day=day),
        datastrip=items.datastrip(item, acquired=acquired),
        acquired_at=acquired,
        day=day,
        processing_baseline=items.processing_baseline(item),
        updated=items.updated(item),
        **assets,
        rescale=rescale,
        footprint=footprint_rings(item.get("geometry")),
        signer=profile.signer if _needs_signature(assets["red"].href) else None,
        relative_orbit=relative_orbit(item),
    )


def _readable(item: Mapping[str, Any], catalog: Catalog, profile: Profile) -> tuple[dict[str, Asset], Rescale]:
    """The three assets on grids that belong together, and the rescaling that red and nir share."""
    found: dict[str, Asset] = {}
    rules: list[Rescale] = []
    for band in _BANDS:
        asset, href = _asset(item, band, catalog, profile)
        try:
            found[band] = Asset(href=href, grid=asset_grid(item, asset))
        except ItemUnusable as problem:
            raise ItemUnusable(f"no grid for {band}: {problem}") from problem
        if band != "scl":
            rules.append(reflectance_rule(item, asset, profile))
    if len({asset.grid.epsg for asset in found.values()}) > 1:
        raise ItemUnusable("assets of different CRS")
    if found["red"].grid != found["nir"].grid:
        raise ItemUnusable("red and nir lie on different grids")
    if rules[0] != rules[1]:
        raise ItemUnusable("red and nir differ in scale or offset")
    return found, rules[0]


def _asset(item: Mapping[str, Any], band: str, catalog: Catalog, profile: Profile) -> tuple[Mapping[str, Any], str]:
    """The best asset of a band whose address is allowed: COGs first, then in the order of the profile.

    A profile that was only told from the item says how to read the pixels; the files may bear any known name.
    """
    names = (catalog.profile or GENERIC).names_of(band)
    known = [item["assets"].get(name) for name in names]
    assets = sorted((asset for asset in known if isinstance(asset, dict)), key=_is_jpeg2000)
    problems: list[str] = []
    for asset in assets:
        try:
            return asset, asset_address(asset.get("href"), item=item, catalog=catalog, profile=profile)
        except ItemUnusable as problem:
            problems.append(str(problem))
    raise ItemUnusable(f"{band}: {problems[0]}" if problems else f"no asset for {band}")


def _is_jpeg2000(asset: Mapping[str, Any]) -> bool:
    kind, href = str(asset.get("type", "")), str(asset.get("href", ""))
    return "jp2" in kind or href.lower().endswith(".jp2")


def _needs_signature(href: str) -> bool:
    return (urlsplit(href).hostname or "").endswith(_SIGNED_HOSTS)


def solar_day(moment: dt.datetime, *, longitude: float) -> dt.date:
    """The local date under the sun: the day of the instant plus one hour for each 15 degrees east."""
    return (moment + dt.timedelta(hours=longitude / 15)).date()


def _longitude(grid: Grid) -> float:
    """Longitude of the middle of the grid, degrees; every catalog draws a tile there, whatever part was seen."""
    left, bottom, right, top = grid.bounds
    longitude, _ = _to_degrees(grid.epsg).transform((left + right) / 2, (bottom + top) / 2)
    return float(longitude)


@functools.lru_cache(maxsize=120)
def _to_degrees(epsg: int) -> Transformer:
    return Transformer.from_crs(epsg, 4326, always_xy=True)
