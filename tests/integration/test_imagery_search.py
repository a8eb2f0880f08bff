"""Searching real and misbehaving catalogs over HTTP."""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from models.domain import Scene
from models.errors import BadInput, UpstreamRejected, UpstreamUnavailable, UpstreamUnreadable
from tasks.imagery.catalog_io import retry_after_s
from tasks.imagery.catalogs import Catalog, catalogs_from
from tasks.imagery.scenes import scene_from
from tasks.imagery.search import SearchOptions, search_boxes, search_items
from tests.support.archives import archive_items
from tests.support.items import made_item
from tests.support.stac_server import Page, scripted_stac, stac_server

QUICK = SearchOptions(connect_timeout_s=2, read_timeout_s=0.5, retries=2, retry_delay_s=0.01)
BOX = (15.0, 46.0, 16.0, 47.0)
START, END = dt.date(2023, 8, 1), dt.date(2023, 8, 31)


def catalog_at(url: str, collection: str = "sentinel-2-l2a") -> Catalog:
    [catalog] = catalogs_from((), stac_url=url, stac_collection=collection)
    return catalog


def numbered(number: int) -> dict[str, Any]:
    return {**made_item(), "id": f"S2B_33TWM_20230813_{number}_L2A"}


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [item["id"] for item in items]


def search(url: str, options: SearchOptions = QUICK, boxes: tuple[Any, ...] = (BOX,)) -> list[dict[str, Any]]:
    return search_items(catalog_at(url), boxes, START, END, options=options)


class TestRealServer:
    @pytest.mark.shared_data
    def test_paging_to_the_end_finds_every_item_once(self) -> None:
        items = archive_items("be-antwerp-2023q4", "http://127.0.0.1:9")
        farms = [(4.262, 51.309, 4.263, 51.310), (4.265, 51.311, 4.266, 51.312), (8.0, 47.0, 8.1, 47.1)]
        with stac_server(items) as url:
            catalog = catalog_at(url)
            options = SearchOptions(page_size=4)
            found = search_items(
                catalog, search_boxes(farms), dt.date(2023, 10, 1), dt.date(2023, 12, 31), options=options
            )
        assert sorted(ids(found)) == sorted(ids(items))
        scenes = [scene_from(item, catalog) for item in found]
        assert all(isinstance(scene, Scene) for scene in scenes)
        assert {"red", "nir", "scl"} == set(found[0]["assets"])

    def test_the_window_is_half_a_day_wider_on_both_sides(self) -> None:
        moments = ["2023-07-31T11:00:00Z", "2023-07-31T13:00:00Z", "2023-09-01T11:00:00Z", "2023-09-01T13:00:00Z"]
        items = [
            {**numbered(n), "properties": {**made_item()["properties"], "datetime": moment}}
            for n, moment in enumerate(moments)
        ]
        with stac_server(items) as url:
            assert sorted(ids(search(url))) == ids(items)[1:3]

    def test_an_empty_area_is_an_empty_answer(self) -> None:
        with stac_server([numbered(0)]) as url:
            assert search(url, boxes=((-60.0, -30.0, -59.0, -29.0),)) == []

    def test_a_collection_that_does_not_exist_is_said(self) -> None:
        with stac_server([numbered(0)]) as url, pytest.raises(UpstreamRejected, match="no collection 'sentinel-3'"):
            search_items(catalog_at(url, "sentinel-3"), [BOX], START, END, options=QUICK)


class TestOddPaging:
    def test_an_empty_last_page_that_still_names_a_next_one_ends_the_search(self) -> None:
        pages = [Page(items=[numbered(0), numbered(1)], has_next=True), Page(items=[], has_next=True)]
        with scripted_stac(pages) as server:
            assert ids(search(server.url)) == ids([numbered(0), numbered(1)])
            assert len(server.searches) == 2

    def test_items_that_come_twice_across_pages_and_boxes_are_one(self) -> None:
        pages = [
            Page(items=[numbered(0), numbered(1)], has_next=True),
            Page(items=[numbered(1), numbered(2)], has_next=False),
        ]
        with scripted_stac(pages) as server:
            found = search(server.url, boxes=(BOX, (20.0, 46.0, 21.0, 47.0)))
            assert ids(found) == ids([numbered(0), numbered(1), numbered(2)])
            assert len(server.searches) == 4

    def test_more_items_than_allowed_are_an_error_that_names_a_way_out(self) -> None:
        pages = [Page(items=[numbered(n)], has_next=True) for n in range(10)]
        options = SearchOptions(max_items=3)
        with scripted_stac(pages) as server, pytest.raises(BadInput, match=r"more than 3 items.*fewer days"):
            search(server.url, options)


Answer = Callable[["Handler", int], None]


@dataclass
class Odd:
    """A catalog whose search answers as a test says, told which request of the search it is."""

    answer: Answer
    searches: list[dict[str, Any]] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    odd: Odd

    def do_GET(self) -> None:
        if self.path.rstrip("/") == "":
            link = {"rel": "search", "href": f"{self.odd.url}/search", "method": "POST"}
            self.send(200, {"type": "Catalog", "id": "odd", "links": [link]})
        else:
            self.send(404, {"code": "NotFound"})

    def do_POST(self) -> None:
        self.odd.searches.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.odd.at.append(time.monotonic())
        self.odd.answer(self, len(self.odd.searches))

    def send(self, status: int, body: Any, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def items(self, *items: Any, **fields: Any) -> None:
        self.send(200, {"type": "FeatureCollection", "features": list(items), "links": [], **fields})

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@contextlib.contextmanager
def odd_catalog(answer: Answer) -> Iterator[Odd]:
    odd = Odd(answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Handler,), {"odd": odd}))
    odd.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield odd
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def after_failing(times: int, fail: Answer) -> Answer:
    return lambda handler, number: fail(handler, number) if number <= times else handler.items(numbered(0))


def cut_off(handler: Handler, _: int) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"type": "Feat')
    handler.close_connection = True


def hang(handler: Handler, _: int) -> None:
    time.sleep(1)
    handler.close_connection = True


def trickle(handler: Handler, _: int) -> None:
    """A byte every twentieth of a second, each within the timeout, for longer than anybody should wait."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(200):
            handler.wfile.write(b" ")
            time.sleep(0.05)
    handler.close_connection = True


def zipped(handler: Handler, _: int) -> None:
    page = json.dumps({"type": "FeatureCollection", "features": [numbered(0)], "links": [], "pad": " " * 200_000})
    handler.send(200, gzip.compress(page.encode()), Content_Encoding="gzip")


def in_chunks(handler: Handler, _: int) -> None:
    page = json.dumps({"type": "FeatureCollection", "features": [numbered(0)], "links": [], "pad": "x" * 200_000})
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for start in range(0, len(page), 30_000):
        part = page[start : start + 30_000].encode()
        handler.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")
    handler.close_connection = True


def next_link(odd_url: str, token: str = "again") -> dict[str, Any]:
    body = {"collections": ["sentinel-2-l2a"], "token": token}
    return {"rel": "next", "href": f"{odd_url}/search", "method": "POST", "body": body}


PASSING: dict[str, Answer] = {
    "503": lambda handler, _: handler.send(503, b"busy"),
    "502": lambda handler, _: handler.send(502, b"bad gateway"),
    "500": lambda handler, _: handler.send(500, b"oops"),
    "429": lambda handler, _: handler.send(429, b"slow down"),
    "invalid JSON": lambda handler, _: handler.send(200, b"<html>Sign in</html>"),
    "half of a JSON": lambda handler, _: handler.send(200, b'{"type": "FeatureColl'),
    "not text": lambda handler, _: handler.send(200, b"\xff\xfe\x00"),
    "a list": lambda handler, _: handler.send(200, []),
    "cut off": cut_off,
    "no answer": hang,
}


class TestFaults:
    @pytest.mark.parametrize("name", PASSING)
    def test_what_passes_is_tried_again(self, name: str) -> None:
        with odd_catalog(after_failing(2, PASSING[name])) as odd:
            assert ids(search(odd.url)) == ids([numbered(0)])
            assert len(odd.searches) == 3
            assert odd.searches[0] == odd.searches[2]

    @pytest.mark.parametrize("name", PASSING)
    def test_what_does_not_pass_is_a_retryable_error_and_not_an_empty_answer(self, name: str) -> None:
        options = SearchOptions(read_timeout_s=0.5, retries=1, retry_delay_s=0.01)
        with odd_catalog(PASSING[name]) as odd:
            with pytest.raises(UpstreamUnavailable) as caught:
                search(odd.url, options)
            assert caught.value.is_retryable
            assert len(odd.searches) == 2

    def test_a_page_that_fails_in_the_middle_loses_nothing(self) -> None:
        def answer(handler: Handler, number: int) -> None:
            if number == 1:
                handler.items(numbered(0), links=[next_link(handler.odd.url)])
            elif number == 2:
                handler.send(503, b"")
            else:
                handler.items(numbered(1))

        with odd_catalog(answer) as odd:
            assert ids(search(odd.url)) == ids([numbered(0), numbered(1)])

    @pytest.mark.parametrize("header", ["1", "date"])
    def test_the_wait_that_a_catalog_asks_for_is_kept(self, header: str) -> None:
        def throttle(handler: Handler, _: int) -> None:
            soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2)
            handler.send(429, b"", Retry_After="1" if header == "1" else f"{soon:%a, %d %b %Y %H:%M:%S GMT}")

        with odd_catalog(after_failing(1, throttle)) as odd:
            assert len(search(odd.url)) == 1
            # A date has whole seconds, so up to one of the two may be gone.
            assert odd.at[1] - odd.at[0] >= 0.95

    def test_a_wait_without_end_is_cut_short(self) -> None:
        options = SearchOptions(retries=1, retry_delay_s=0.01, longest_wait_s=0.1)
        with odd_catalog(after_failing(1, lambda handler, _: handler.send(503, b"", Retry_After="86400"))) as odd:
            assert len(search(odd.url, options)) == 1

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
    def test_a_refusal_is_not_tried_again_and_says_what_the_catalog_said(self, status: int) -> None:
        refusal = {"description": "limit is\nwrong"}
        with odd_catalog(lambda handler, _: handler.send(status, refusal)) as odd:
            with pytest.raises(UpstreamRejected, match=rf"status {status}: .*limit is\\nwrong") as caught:
                search(odd.url)
            assert not caught.value.is_retryable
            assert len(odd.searches) == 1

    def test_nothing_listening_is_a_retryable_error(self) -> None:
        with odd_catalog(lambda handler, _: handler.items()) as odd:
            url = odd.url
        with pytest.raises(UpstreamUnavailable, match="no connection"):
            search(url)

    def test_an_answer_above_the_limit_is_not_taken(self) -> None:
        options = SearchOptions(max_answer_bytes=10_000)
        with (
            odd_catalog(lambda handler, _: handler.send(200, b" " * 200_000)) as odd,
            pytest.raises(UpstreamUnreadable, match="above 10,000 bytes"),
        ):
            search(odd.url, options)

    def test_a_next_page_that_names_itself_ends_the_search(self) -> None:
        same: Answer = lambda handler, _: handler.items(numbered(0), links=[next_link(handler.odd.url)])  # noqa: E731
        with odd_catalog(same) as odd:
            assert ids(search(odd.url)) == ids([numbered(0)])
            assert len(odd.searches) == 2

    def test_paging_that_breaks_off_before_the_count_is_an_error(self) -> None:
        def answer(handler: Handler, number: int) -> None:
            if number == 1:
                handler.items(numbered(0), links=[next_link(handler.odd.url)], numberMatched=2)
            else:
                handler.items(numberMatched=2)

        with odd_catalog(answer) as odd, pytest.raises(UpstreamUnavailable, match="end after 1 of 2 items"):
            search(odd.url)

    def test_an_answer_that_trickles_in_is_given_up_in_time_and_may_pass(self) -> None:
        options = SearchOptions(read_timeout_s=0.3, retries=0, retry_delay_s=0.01)
        with odd_catalog(trickle) as odd:
            started = time.monotonic()
            with pytest.raises(UpstreamUnavailable, match="trickles") as caught:
                search(odd.url, options)
            assert time.monotonic() - started < 4 * 0.3 + 1
        assert caught.value.is_retryable

    @pytest.mark.parametrize("way", [zipped, in_chunks])
    def test_answers_come_whole_however_they_are_sent(self, way: Answer) -> None:
        with odd_catalog(way) as odd:
            assert ids(search(odd.url)) == ids([numbered(0)])

    def test_a_packed_answer_is_measured_unpacked(self) -> None:
        with odd_catalog(zipped) as odd, pytest.raises(UpstreamUnreadable, match="above 100,000 bytes"):
            search(odd.url, SearchOptions(max_answer_bytes=100_000))

    @pytest.mark.parametrize(
        "page",
        [
            {"features": "many"},
            {"features": [1]},
            {"features": [{}], "links": [{}, {"rel": "next"}]},
            {"features": {"a": 1}},
        ],
    )
    def test_a_page_of_something_else_is_an_error(self, page: dict[str, Any]) -> None:
        with odd_catalog(lambda handler, _: handler.send(200, page)) as odd, pytest.raises(UpstreamUnreadable):
            search(odd.url)

    def test_what_is_no_stac_api_is_said(self) -> None:
        with odd_catalog(lambda handler, _: handler.items()) as odd, pytest.raises(UpstreamRejected, match="404"):
            search(f"{odd.url}/elsewhere")

    def test_an_item_without_an_id_does_not_stop_the_others(self) -> None:
        nameless = {**made_item(), "id": None}
        with odd_catalog(lambda handler, _: handler.items(nameless, numbered(0))) as odd:
            assert len(search(odd.url)) == 2

    def test_secrets_in_the_address_stay_out_of_messages(self) -> None:
        with odd_catalog(lambda handler, _: handler.send(403, b"no")) as odd:
            with pytest.raises(UpstreamRejected) as caught:
                search(odd.url.replace("http://", "http://me:secret@"))
            assert "secret" not in str(caught.value)


def test_a_window_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(BadInput, match="after the end"):
        search_items(catalog_at("http://127.0.0.1:9"), [BOX], END, START)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7),
        ("Sun, 13 Aug 2023 10:00:30 GMT", 30),
        ("Sun, 13 Aug 2023 09:00:00 GMT", 0),
        ("later", None),
        ("-3", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, now=dt.datetime(2023, 8, 13, 10, tzinfo=dt.UTC)) == seconds
