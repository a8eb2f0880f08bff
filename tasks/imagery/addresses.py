"""Where the file of an asset may be read from: items are foreign data, and an address is something we open."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from models.errors import ItemUnusable
from tasks.imagery.catalogs import Catalog, Profile, is_loopback_host
from tasks.imagery.items import Item

_LONGEST_ADDRESS = 4096
_CONTROL = re.compile(r"[\x00-\x20\x7f]")


def asset_address(href: object, *, item: Item, catalog: Catalog, profile: Profile) -> str:
    """The address of an asset's file, absolute, unsigned and allowed.

    Web addresses are allowed; `s3://` only for the buckets of the profile; files of this machine, and web addresses of
    this machine, only if the catalog itself is on this machine. GDAL's own prefixes (`/vsi...`) never are.

    Raises:
        ItemUnusable: the address is missing or not allowed.
    """
    if not isinstance(href, str) or not href.strip():
        raise ItemUnusable("address missing")
    href = href.strip()
    if len(href) > _LONGEST_ADDRESS or _CONTROL.search(href.replace(" ", "")):
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
    """Refuse addresses that lead a catalog on the net to services of this machine or its network link."""
    if parts.username is not None or parts.password is not None:
        raise ItemUnusable("address carries a password")
    if not parts.hostname:
        raise ItemUnusable("address has no host")
    if not catalog.is_loopback and (is_loopback_host(parts.hostname) or _is_link_local(parts.hostname)):
        raise ItemUnusable("address leads to this machine, the catalog is elsewhere")


def _is_link_local(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_link_local or address.is_unspecified


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
