"""Which catalogs there are, and how the items of each are to be read."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from models.errors import BadInput
from tasks.imagery.hosts import Reach, address_of, reach_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How the items of one kind of catalog name their files, where these may lie, and who signs them."""

    name: str
    red: tuple[str, ...]
    """Names of the asset in order of preference; the same for nir and scl."""
    nir: tuple[str, ...]
    scl: tuple[str, ...]
    s3_buckets: frozenset[str] = frozenset()
    """The only buckets that `s3://` addresses may name; none for most catalogs."""
    signer: str | None = None

    def names_of(self, band: str) -> tuple[str, ...]:
        """Asset names of `red`, `nir` or `scl`, best first."""
        return {"red": self.red, "nir": self.nir, "scl": self.scl}[band]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """One STAC API and the collection in it that we search."""

    name: str
    url: str
    collection: str
    profile: Profile | None = None
    """None: told from each item, see `profile_of`."""

    @property
    def is_loopback(self) -> bool:
        """True when the API runs on this machine; only then may items name files of this machine."""
        return is_loopback_host(urlsplit(self.url).hostname)

    @property
    def reach(self) -> Reach:
        """How far away the API is; a name that we cannot place is far away."""
        found = reach_of(urlsplit(self.url).hostname)
        return Reach.PUBLIC if found is None else found


# JPEG 2000 twins come last: they hold the same pixels, but in other blocks and behind a paid bucket.
_ANY_RED = ("red", "B04", "B04_10m", "red-jp2")
_ANY_NIR = ("nir", "B08", "B08_10m", "nir-jp2")
_ANY_SCL = ("scl", "SCL", "SCL_20m", "scl-jp2")
ASSET_NAMES = frozenset(_ANY_RED + _ANY_NIR + _ANY_SCL)
"""Every asset name that some profile knows."""

EARTH_SEARCH_C1 = Profile(name="earth-search-c1", red=("red",), nir=("nir",), scl=("scl",))
EARTH_SEARCH_L2A = Profile(
    name="earth-search-l2a", red=("red", "red-jp2"), nir=("nir", "nir-jp2"), scl=("scl", "scl-jp2")
)
PLANETARY_COMPUTER = Profile(
    name="planetary-computer", red=("B04",), nir=("B08",), scl=("SCL",), signer="planetary-computer"
)
CDSE = Profile(
    name="cdse", red=("B04_10m",), nir=("B08_10m",), scl=("SCL_20m",), s3_buckets=frozenset({"eodata", "EODATA"})
)
GENERIC = Profile(name="generic", red=_ANY_RED, nir=_ANY_NIR, scl=_ANY_SCL)

PROFILES: Mapping[str, Profile] = {
    profile.name: profile for profile in (EARTH_SEARCH_C1, EARTH_SEARCH_L2A, PLANETARY_COMPUTER, CDSE, GENERIC)
}

_C1_COLLECTION = "sentinel-2-c1-l2a"
_EARTH_SEARCH_URL = "https://earth-search.aws.element84.com/v1"
KNOWN_CATALOGS: Mapping[str, Catalog] = {
    profile.name: Catalog(name=profile.name, url=url, collection=collection, profile=profile)
    for profile, url, collection in (
        (EARTH_SEARCH_C1, _EARTH_SEARCH_URL, _C1_COLLECTION),
        (EARTH_SEARCH_L2A, _EARTH_SEARCH_URL, "sentinel-2-l2a"),
        (PLANETARY_COMPUTER, "https://planetarycomputer.microsoft.com/api/stac/v1", "sentinel-2-l2a"),
        (CDSE, "https://stac.dataspace.copernicus.eu/v1", "sentinel-2-l2a"),
    )
}


def catalogs_from(
    names: Sequence[str],
    *,
    stac_url: str | None = None,
    stac_collection: str | None = None,
    stac_profile: str | None = None,
) -> tuple[Catalog, ...]:
    """The catalogs to ask, in order of preference: those named, or the one at `stac_url` instead.

    Several collections of that one, separated by commas, are several catalogs: what the first lacks comes from the
    next.

    Raises:
        BadInput: an unknown catalog or profile, none at all, or an address that is not a web address.
    """
    if stac_url is not None:
        return _own_catalogs(stac_url, stac_collection or "sentinel-2-l2a", stac_profile)
    if not names:
        raise BadInput("catalogs", "none named", allowed=", ".join(KNOWN_CATALOGS))
    for name in names:
        if name not in KNOWN_CATALOGS:
            raise BadInput("catalogs", f"unknown catalog {name!r}", allowed=", ".join(KNOWN_CATALOGS))
    return tuple(KNOWN_CATALOGS[name] for name in dict.fromkeys(names))


def _own_catalogs(url: str, collections: str, profile: str | None) -> tuple[Catalog, ...]:
    """The user's own catalog, named by its host without the port, which may differ from run to run."""
    host = _host_of(url)
    if host is None:
        raise BadInput("stac_url", "not the address of a STAC API", allowed="http:// or https:// addresses")
    if profile is not None and profile not in PROFILES:
        raise BadInput("stac_profile", f"unknown profile {profile!r}", allowed=", ".join(PROFILES))
    named = list(dict.fromkeys(part.strip() for part in collections.split(",") if part.strip()))
    if not named:
        raise BadInput("stac_collection", "names no collection", allowed="collections separated by commas")
    return tuple(
        Catalog(
            name=host if len(named) == 1 else f"{host}/{collection}",
            url=url.rstrip("/"),
            collection=collection,
            profile=PROFILES[profile] if profile is not None else None,
        )
        for collection in named
    )


def _host_of(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        return None
    return parts.hostname if parts.scheme in ("http", "https") and has_port else None


def is_loopback_host(host: str | None) -> bool:
    """True for `localhost` and for addresses of the loopback network, however written; names are not resolved."""
    host = (host or "").lower().removesuffix(".")
    address = address_of(host)
    return host == "localhost" if address is None else address.is_loopback


def profile_of(item: Mapping[str, Any], catalog: Catalog) -> Profile:
    """How to read this item: as the catalog says, or as the item itself shows where the catalog does not say."""
    if catalog.profile is not None:
        return catalog.profile
    properties: Mapping[str, Any] = item.get("properties") or {}
    assets: Mapping[str, Any] = item.get("assets") or {}
    if _C1_COLLECTION in (item.get("collection"), catalog.collection):
        return EARTH_SEARCH_C1
    if any(name.startswith("earthsearch:") for name in properties):
        # Both collections carry such properties, so c1 items under another collection name show by their software.
        software = properties.get("processing:software")
        is_c1 = isinstance(software, Mapping) and "sentinel-2-c1-l2a-to-stac" in software
        return EARTH_SEARCH_C1 if is_c1 else EARTH_SEARCH_L2A
    if "B04_10m" in assets and any(name.startswith("eopf:") for name in properties):
        return CDSE
    if "B04" in assets and "s2:processing_baseline" in properties and not _tells_offset(assets["B04"]):
        return PLANETARY_COMPUTER
    return GENERIC


def _tells_offset(asset: Any) -> bool:
    """True when the asset publishes scale or offset, in either version of STAC."""
    if not isinstance(asset, Mapping):
        return False
    lists = [bands for bands in (asset.get("raster:bands"), asset.get("bands")) if isinstance(bands, list)]
    told = {"scale", "offset", "raster:scale", "raster:offset"}
    return any(told & set(band) for band in [asset, *itertools.chain(*lists)] if isinstance(band, Mapping))
