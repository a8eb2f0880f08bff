"""STAC APIs for tests: the real one, and a scripted one that pages in odd ways."""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from infra.sandbox.stac import serve_items

_CONFORMS_TO = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/item-search",
    "https://api.stacspec.org/v1.0.0/ogcapi-features",
    "https://api.stacspec.org/v1.0.0/collections",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
]
_TOO_MANY_SEARCHES = 100


@contextlib.contextmanager
def stac_server(items: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Serve the items by `rustac serve` and yield the address of the API."""
    with tempfile.TemporaryDirectory(prefix="swath-stac-") as folder:
        file = Path(folder) / "items.json"
        file.write_text(json.dumps({"type": "FeatureCollection", "features": list(items)}))
        with serve_items(file) as url:
            yield url


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of answers to a search, whatever was asked for."""

    items: Sequence[dict[str, Any]]
    has_next: bool


@dataclass(slots=True)
class ScriptedStac:
    """A running scripted API: its address, and the searches that it was asked."""

    url: str
    searches: list[dict[str, Any]] = field(default_factory=list)


@contextlib.contextmanager
def scripted_stac(pages: Sequence[Page]) -> Iterator[ScriptedStac]:
    """Serve these pages in this order, each naming the next one if it says so.

    After the last page come empty pages like it: one that still has `next` goes on for ever, as some catalogs do. A
    client that follows it endlessly is stopped with status 508 after a hundred searches.
    """
    server = _ScriptedServer(pages)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="scripted-stac")
    thread.start()
    try:
        yield server.script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _ScriptedServer(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, pages: Sequence[Page]) -> None:
        super().__init__(("127.0.0.1", 0), _ScriptedHandler)
        self.pages = list(pages)
        self.script = ScriptedStac(f"http://127.0.0.1:{self.server_port}")

    def root(self) -> dict[str, Any]:
        url = self.script.url
        links = [{"rel": rel, "href": url, "type": "application/json"} for rel in ("root", "self")]
        links += [
            {"rel": "search", "href": f"{url}/search", "type": "application/geo+json", "method": method}
            for method in ("GET", "POST")
        ]
        links.append({"rel": "data", "href": f"{url}/collections", "type": "application/json"})
        return {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "scripted",
            "description": "Answers every search with the same pages.",
            "conformsTo": _CONFORMS_TO,
            "links": links,
        }

    def page(self, asked: dict[str, Any], method: str) -> dict[str, Any]:
        number = int(asked.get("token", 0))
        last = len(self.pages) - 1
        page = self.pages[number] if number <= last else Page(items=[], has_next=self.pages[last].has_next)
        answer: dict[str, Any] = {"type": "FeatureCollection", "features": list(page.items), "links": []}
        if page.has_next:
            link: dict[str, Any] = {"rel": "next", "type": "application/geo+json", "method": method}
            token = str(number + 1)
            if method == "POST":
                link |= {"href": f"{self.script.url}/search", "body": {**asked, "token": token}}
            else:
                link["href"] = f"{self.script.url}/search?token={token}"
            answer["links"] = [link]
        return answer


class _ScriptedHandler(BaseHTTPRequestHandler):
    server: _ScriptedServer

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        match address.path.rstrip("/"):
            case "":
                self._answer(200, self.server.root())
            case "/conformance":
                self._answer(200, {"conformsTo": _CONFORMS_TO})
            case "/collections":
                self._answer(200, {"collections": [], "links": []})
            case "/search":
                self._search({name: values[-1] for name, values in parse_qs(address.query).items()})
            case _:
                self._answer(404, {"code": "NotFound", "description": self.path})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if urlsplit(self.path).path.rstrip("/") == "/search":
            self._search(json.loads(body or b"{}"))
        else:
            self._answer(404, {"code": "NotFound", "description": self.path})

    def _search(self, asked: dict[str, Any]) -> None:
        self.server.script.searches.append(asked)
        if len(self.server.script.searches) > _TOO_MANY_SEARCHES:
            self._answer(508, {"code": "LoopDetected", "description": "the client follows `next` for ever"})
        else:
            self._answer(200, self.server.page(asked, self.command))

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: the searches are counted instead."""
