"""The servers that other tests lean on do what they say."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pystac_client
import pytest

from tests.support.faults import Kind
from tests.support.file_server import FileServer, file_server
from tests.support.stac_server import Page, scripted_stac, stac_server

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    (tmp_path / "open" / "scene").mkdir(parents=True)
    (tmp_path / "open" / "scene" / "B04.tif").write_bytes(CONTENT)
    (tmp_path / "open" / "scene" / "B08.tif").write_bytes(CONTENT)
    (tmp_path / "secret.txt").write_text("not for you")
    with file_server(tmp_path / "open") as running:
        yield running


@pytest.fixture
def client(server: FileServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=2) as opened:
        yield opened


RED = "/scene/B04.tif"


def test_a_range_is_answered_with_exactly_these_bytes(client: httpx.Client) -> None:
    for asked, expected in {
        "bytes=0-9": CONTENT[:10],
        "bytes=100-": CONTENT[100:],
        "bytes=-7": CONTENT[-7:],
        "bytes=10000-99999": CONTENT[10000:],
    }.items():
        answer = client.get(RED, headers={"Range": asked})
        assert (answer.status_code, answer.content) == (206, expected)
    assert client.get(RED).content == CONTENT
    assert client.head(RED).headers["Content-Length"] == str(len(CONTENT))


def test_a_range_past_the_end_is_416_and_says_the_size(client: httpx.Client) -> None:
    answer = client.get(RED, headers={"Range": "bytes=99999-"})
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, f"bytes */{len(CONTENT)}")


def test_nothing_outside_of_the_folder_is_served(client: httpx.Client) -> None:
    assert client.get("/%2e%2e/secret.txt").status_code == 404
    assert client.get("/scene").status_code == 404


def test_requests_and_bytes_are_counted_by_path(server: FileServer, client: httpx.Client) -> None:
    client.get(RED, headers={"Range": "bytes=0-9"})
    client.get("/scene/B08.tif")
    client.head(RED)
    assert (server.requests, server.requests_for("B04"), server.bytes_for("B04")) == (3, 2, 10)
    assert server.bytes_sent == 10 + len(CONTENT)
    assert [request.status for request in server.log] == [206, 200, 200]
    server.forget()
    assert server.requests == 0


def test_the_first_requests_fail_and_later_ones_succeed(server: FileServer, client: httpx.Client) -> None:
    server.fail("*/B04.tif", status=503, times=2)
    assert [client.get(RED).status_code for _ in range(4)] == [503, 503, 200, 200]
    assert client.get("/scene/B08.tif").status_code == 200


def test_a_fault_may_begin_later_and_last_until_it_is_healed(server: FileServer, client: httpx.Client) -> None:
    server.fail("*/B04.tif", status=404, after=1)
    assert [client.get(RED).status_code for _ in range(4)] == [200, 404, 404, 404]
    server.heal()
    assert client.get(RED).status_code == 200


def test_throttling_says_when_to_come_back(server: FileServer, client: httpx.Client) -> None:
    server.throttle("*", retry_after_s=3)
    refused = client.get(RED)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "3")
    assert client.get(RED).status_code == 200


def test_a_cut_body_breaks_the_connection(server: FileServer, client: httpx.Client) -> None:
    server.cut("*", times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(RED)
    assert client.get(RED).content == CONTENT


def test_a_stalled_body_leaves_the_client_waiting_and_closing_does_not(server: FileServer) -> None:
    server.stall("*")
    with httpx.Client(base_url=server.url, timeout=0.2) as client, pytest.raises(httpx.ReadTimeout):
        client.get(RED)
    assert server.log[0].fault is Kind.STALL


def test_a_short_file_is_short_in_every_header(server: FileServer, client: httpx.Client) -> None:
    server.shorten("*", keep_fraction=0.25)
    assert client.get(RED).content == CONTENT[: len(CONTENT) // 4]
    answer = client.get(RED, headers={"Range": "bytes=5000-5010"})
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, f"bytes */{len(CONTENT) // 4}")


def test_wrong_content_comes_with_status_200(server: FileServer, client: httpx.Client) -> None:
    server.replace("*", times=1)
    answer = client.get(RED)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html")
    assert answer.text.startswith("<html>")


def test_many_connections_are_served_at_once_and_all_end(server: FileServer) -> None:
    before = threading.active_count()
    server.delay_s = 0.1
    started = time.monotonic()
    limits = httpx.Limits(max_connections=32)
    with httpx.Client(base_url=server.url, limits=limits, timeout=10) as client, ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: client.get(RED).content == CONTENT, range(64)))
    assert all(answers)
    assert server.most_at_once > 16
    assert time.monotonic() - started < 64 * 0.1 / 4
    server.close()
    assert threading.active_count() <= before


def test_the_real_stac_server_gives_all_pages() -> None:
    items = [_item(number) for number in range(25)]
    with stac_server(items) as url:
        client = pystac_client.Client.open(url)
        found = client.search(collections=["sentinel-2-l2a"], limit=10).item_collection_as_dict()
    assert sorted(item["id"] for item in found["features"]) == [f"item-{number:03}" for number in range(25)]


def test_the_scripted_api_ends_with_an_empty_page_that_still_has_next() -> None:
    pages = [Page(items=[_item(1), _item(2)], has_next=True), Page(items=[_item(3)], has_next=True)]
    with scripted_stac([*pages, Page(items=[], has_next=True)]) as api:
        client = pystac_client.Client.open(api.url)
        found = client.search(collections=["sentinel-2-l2a"]).item_collection_as_dict()
        beyond = httpx.post(f"{api.url}/search", json={"token": "7"}).json()
    assert [item["id"] for item in found["features"]] == ["item-001", "item-002", "item-003"]
    assert [search.get("token") for search in api.searches] == [None, "1", "2", "7"]
    assert beyond["features"] == []
    assert beyond["links"][0]["body"] == {"token": "8"}


def test_the_scripted_api_pages_by_get_as_well() -> None:
    with scripted_stac([Page(items=[_item(1)], has_next=True), Page(items=[_item(2)], has_next=False)]) as api:
        client = pystac_client.Client.open(api.url)
        found = client.search(method="GET").item_collection_as_dict()
    assert [item["id"] for item in found["features"]] == ["item-001", "item-002"]


def _item(number: int) -> dict[str, object]:
    west, south = 4.0 + number / 100, 51.0
    ring = [[west, south], [west + 1, south], [west + 1, south + 1], [west, south + 1], [west, south]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"item-{number:03}",
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, west + 1, south + 1],
        "properties": {"datetime": f"2023-05-01T10:{number:02}:00Z"},
        "links": [],
        "assets": {"red": {"href": "http://127.0.0.1:9/red.tif"}},
    }
