"""Ask a catalog what it has over an area and a span of days."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

from pystac_client import ItemSearch

from models.errors import BadInput, UpstreamRejected, UpstreamUnavailable, UpstreamUnreadable
from tasks.imagery.boxes import Box, search_boxes
from tasks.imagery.catalog_io import CatalogIO, SearchOptions
from tasks.imagery.catalogs import ASSET_NAMES, Catalog

__all__ = ["SearchOptions", "search_boxes", "search_items"]

# Where the sun says one day, the clock in UTC may be up to twelve hours before or behind.
_SOLAR_MARGIN = dt.timedelta(hours=12)


def search_items(
    catalog: Catalog,
    boxes: Iterable[Box],
    start: dt.date,
    end: dt.date,
    *,
    options: SearchOptions | None = None,
) -> list[dict[str, Any]]:
    """All items over these boxes whose solar day may lie from `start` to `end`, each once, as plain dicts.

    The window is half a day wider at both ends, since the solar day depends on where the scene lies: what comes from
    `scene_from` is to be filtered by its `day`. Items keep all fields, and of their assets those that some profile
    knows.

    Raises:
        BadInput: `start` is after `end`, or a search gives more than `options.max_items`.
        UpstreamUnavailable: the catalog is down, overloaded or not understandable, also after further tries.
        UpstreamRejected: the catalog refuses the search, or has no such collection.
        UpstreamUnreadable: what answers there is not a STAC API.
    """
    if start > end:
        raise BadInput("start", f"{start} is after the end, {end}")
    options = options or SearchOptions()
    found: dict[str, dict[str, Any]] = {}
    wanted = list(boxes)
    io = CatalogIO(catalog.name, options)
    with contextlib.closing(io.session):
        url, method = _search_address(io, catalog)
        for box in wanted:
            search = ItemSearch(
                url,
                method=method,
                stac_io=io,
                collections=[catalog.collection],
                bbox=box,
                datetime=_window(start, end),
                limit=options.page_size,
            )
            for item in _items(search, catalog, url, options):
                found.setdefault(str(item.get("id")), _trimmed(item))
        if wanted and not found:
            _check_collection(io, catalog)
    return list(found.values())


def _window(start: dt.date, end: dt.date) -> str:
    first = dt.datetime.combine(start, dt.time()) - _SOLAR_MARGIN
    last = dt.datetime.combine(end, dt.time()) + dt.timedelta(days=1) + _SOLAR_MARGIN
    return f"{first.isoformat()}Z/{last.isoformat()}Z"


def _search_address(io: CatalogIO, catalog: Catalog) -> tuple[str, str]:
    """Where the catalog says that searches go; by POST where it can, so that long searches fit."""
    landing = io.read_json(catalog.url)
    links = landing.get("links")
    if not isinstance(links, list) or not all(isinstance(link, dict) for link in links):
        raise UpstreamUnreadable(catalog.name, "not a STAC API: no links", url=catalog.url)
    searches = [link for link in links if link.get("rel") == "search" and isinstance(link.get("href"), str)]
    if not searches:
        raise UpstreamUnreadable(catalog.name, "not a STAC API with search", url=catalog.url)
    by_post = [link for link in searches if str(link.get("method", "")).upper() == "POST"]
    link = (by_post or searches)[0]
    url = urljoin(f"{catalog.url}/", link["href"])
    if urlsplit(url).scheme not in ("http", "https"):
        raise UpstreamUnreadable(catalog.name, "its search is not a web address", url=catalog.url)
    return url, "POST" if by_post else "GET"


def _items(search: ItemSearch, catalog: Catalog, url: str, options: SearchOptions) -> Iterator[dict[str, Any]]:
    """The items of all pages of one search."""
    count = 0
    for page in _pages(search, catalog, url):
        features = page.get("features")
        if not isinstance(features, list) or not all(isinstance(feature, dict) for feature in features):
            raise UpstreamUnreadable(catalog.name, "a page of items holds something else", url=url)
        count += len(features)
        if count > options.max_items:
            raise BadInput(
                "start, end",
                f"{catalog.name} has more than {options.max_items:,} items for one search box",
                allowed="fewer days at once",
            )
        yield from features


def _pages(search: ItemSearch, catalog: Catalog, url: str) -> Iterator[dict[str, Any]]:
    """Pages up to the last that holds items.

    Some catalogs name a next page after the last one: pystac-client stops at an empty page, and we at a next page that
    was named before, which would go on for ever. If the catalog itself counts more items than came, it broke off.
    """
    named: set[str] = set()
    received = 0
    matched: object = None
    pages = search.pages_as_dicts()
    while True:
        try:
            page = next(pages, None)
        except (KeyError, TypeError, AttributeError) as error:
            raise UpstreamUnreadable(catalog.name, "a page of items is not understandable", url=url) from error
        if page is None:
            break
        yield page
        received += len(page["features"])
        matched = page.get("numberMatched")
        following = _next_link(page)
        if following is None:
            return
        if following in named:
            break
        named.add(following)
    if isinstance(matched, int) and received < matched:
        raise UpstreamUnavailable(catalog.name, f"its pages end after {received} of {matched} items", url=url)


def _next_link(page: dict[str, Any]) -> str | None:
    links = [link for link in page.get("links") or [] if isinstance(link, dict) and link.get("rel") == "next"]
    return json.dumps(links[0], sort_keys=True) if links else None


def _trimmed(item: dict[str, Any]) -> dict[str, Any]:
    """The item with only those assets that a profile may ask for: a fifth of the memory."""
    assets = item.get("assets")
    if not isinstance(assets, dict):
        return item
    return {**item, "assets": {name: asset for name, asset in assets.items() if name in ASSET_NAMES}}


def _check_collection(io: CatalogIO, catalog: Catalog) -> None:
    """Tell an empty area from a collection that does not exist: many catalogs answer both with no items."""
    url = f"{catalog.url}/collections/{catalog.collection}"
    try:
        io.read_json(url)
    except UpstreamRejected as error:
        problem = f"has no collection {catalog.collection!r}, or does not show it"
        raise UpstreamRejected(catalog.name, problem, url=url) from error
