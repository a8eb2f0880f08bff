"""Where the file of an asset may be read from: items are foreign data, and an address is something we open."""

from __future__ import annotations

from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from models.errors import ItemUnusable
from tasks.imagery.catalogs import Catalog, Profile
from tasks.imagery.hosts import Reach, reach_of
from tasks.imagery.items import Item

_LONGEST_ADDRESS = 4096


def asset_address(href: object, *, item: Item, catalog: Catalog, profile: Profile) -> str:
    """The address of an asset's file, absolute, unsigned and allowed.

    Web addresses are allowed; `s3://` only for the buckets of the profile; files of this machine, and web addresses of
    this machine, only if the catalog itself is on this machine; web addresses of private networks only if the catalog
    is on this machine or on a private network too. GDAL's own prefixes (`/vsi...`) never are.

    Raises:
        ItemUnusable: the address is missing or not allowed.
    """
    if not isinstance(href, str) or not href.strip():
        raise ItemUnusable("address missing")
    href = href.strip()
    if len(href) > _LONGEST_ADDRESS or not href.isprintable():
        raise ItemUnusable("address is not readable")
    parts = _split(_absolute(href, item, catalog))
    match parts.scheme:
        case "http" | "https":
            _check_host(parts, catalog)
        case "s3":
            if parts.netloc not in profile.s3_buckets:
                raise ItemUnusable(f"addresses in bucket s3://{parts.netloc} are not read here")
        case "" | "file":
            return _file(parts, catalog)
        case _:
            raise ItemUnusable(f"addresses with {parts.scheme}: are not read here")
    return parts.geturl()


def _absolute(href: str, item: Item, catalog: Catalog) -> str:
    """The address, a relative one taken from where the item says it lies itself."""
    # A path from the root names a file for a catalog on this machine, and a place on the host for any other.
    if _split(href).scheme or (href.startswith("/") and catalog.is_loopback):
        return href
    base = next((link["href"] for link in _links(item) if link.get("rel") == "self"), None)
    if not isinstance(base, str) or not _split(base).scheme:
        raise ItemUnusable("address is relative and the item has no link to itself")
    if _split(base).scheme not in ("http", "https", "file"):
        raise ItemUnusable(f"address is relative to {_split(base).scheme}:, which is not read here")
    return urljoin(base, href)


def _links(item: Item) -> list[dict[str, object]]:
    links = item.get("links")
    return [link for link in links if isinstance(link, dict) and "href" in link] if isinstance(links, list) else []


def _check_host(parts: SplitResult, catalog: Catalog) -> None:
    """Refuse addresses that lead a catalog on the net to services of this machine, its link or its own network.

    Names are judged as they stand. One that its owner lets point inwards is not seen through here; what is opened there
    is read as a raster or not at all.
    """
    if parts.username is not None or parts.password is not None:
        raise ItemUnusable("address carries a password")
    reach = reach_of(parts.hostname)
    if reach is None or not _has_port(parts):
        raise ItemUnusable("address has no host, or none that can be read in one way only")
    if catalog.is_loopback:
        return
    if reach is Reach.MACHINE:
        raise ItemUnusable("address leads to this machine, the catalog is elsewhere")
    if reach is Reach.PRIVATE and catalog.reach is Reach.PUBLIC:
        raise ItemUnusable("address leads to a private network, the catalog is elsewhere")


def _has_port(parts: SplitResult) -> bool:
    """False when the port is no number of one; without any, the one of the scheme holds."""
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _file(parts: SplitResult, catalog: Catalog) -> str:
    """The path of a file on this machine."""
    if not catalog.is_loopback:
        raise ItemUnusable("address is a file, the catalog is elsewhere")
    path = unquote(parts.path) if parts.scheme == "file" else parts.geturl()
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or path.lower().startswith("/vsi"):
        raise ItemUnusable("address is not a file of this machine")
    return path


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as error:
        raise ItemUnusable("address is not readable") from error
