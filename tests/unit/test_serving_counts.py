"""What workers count is told as one, whatever becomes of a worker and whatever callers ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.counts import CLASSES, NO_ROUTE, OTHER, Counts, Layout
from serving.exposition import Family, lines
from serving.metrics import REQUESTS, Page, may_read
from serving.sheets import Sheets
from tests.support.figures import figures, label_values, value

ROUTES = (("/farms/{id}", "GET"), ("/farms/{id}", "PATCH"), ("/healthz", "GET"))
LAYOUT = Layout(ROUTES)


def ask(counts: Counts, route: str | None = "/healthz", method: str = "GET", status: int = 200) -> None:
    counts.note_request(route, method, status=status, seconds=0.003, cache=None)


def count(sheets: Sheets, route: str, method: str = "GET", status: str = "2xx") -> float:
    page = figures(Page(LAYOUT, sheets).text())
    return value(page, f"{REQUESTS}_count", route=route, method=method, status=status)


def test_requests_of_all_workers_are_told_as_one() -> None:
    sheets = Sheets(3)
    for worker in range(3):
        counts = Counts(LAYOUT, sheets, worker=worker)
        for _ in range(worker + 1):
            ask(counts)
        counts.token_mint_count += 1
    assert count(sheets, "/healthz") == 6
    assert value(figures(Page(LAYOUT, sheets).text()), "token_mint_count") == 3


def test_a_worker_that_is_started_again_goes_on_where_the_last_one_ended() -> None:
    sheets = Sheets(1)
    first = Counts(LAYOUT, sheets)
    ask(first)
    first.redis_opened = 2
    second = Counts(LAYOUT, sheets)
    ask(second)
    assert count(sheets, "/healthz") == 2
    assert second.opened_before["redis"] == 2


def test_sheets_are_the_same_memory_by_their_descriptor() -> None:
    with Sheets.shared(2) as sheets:
        assert sheets.descriptor is not None
        there = Sheets.given(sheets.descriptor)
        assert there.workers == 2
        ask(Counts(LAYOUT, there, worker=1))
        there.post(b"[]")
    assert count(sheets, "/healthz") == 1
    assert sheets.posted() == b"[]"


def test_a_sheet_of_another_version_is_left_out_and_begun_anew_by_its_next_worker() -> None:
    sheets, other = Sheets(1), Layout([("/other", "GET")])
    ask(Counts(other, sheets), "/other")
    assert count(sheets, "/other") == 0
    ask(Counts(LAYOUT, sheets))
    assert count(sheets, "/healthz") == 1


def test_a_bucket_has_all_requests_that_were_not_slower() -> None:
    sheets = Sheets(1)
    counts = Counts(LAYOUT, sheets)
    for seconds in (0.001, 0.0011, 0.4, 99.0):
        counts.note_request("/healthz", "GET", status=200, seconds=seconds, cache=None)
    page = figures(Page(LAYOUT, sheets).text())
    labels = {"route": "/healthz", "method": "GET", "status": "2xx"}
    ends = {"0.001": 1, "0.0025": 2, "0.25": 2, "0.5": 3, "10": 3, "+Inf": 4}
    assert {end: value(page, f"{REQUESTS}_bucket", **labels, le=end) for end in ends} == ends
    assert value(page, f"{REQUESTS}_sum", **labels) == pytest.approx(99.4021)


def test_reads_are_told_by_route_and_by_what_the_cache_had() -> None:
    sheets = Sheets(1)
    counts = Counts(LAYOUT, sheets)
    for cache in ("hit", "hit", "miss", "away", None):
        counts.note_request("/farms/{id}", "GET", status=200, seconds=0.1, cache=cache)
    page = figures(Page(LAYOUT, sheets).text())
    told = {
        how: value(page, "swath_cached_reads_total", route="/farms/{id}", method="GET", cache=how)
        for how in ("hit", "miss", "away")
    }
    assert told == {"hit": 2, "miss": 1, "away": 1}


def test_refusals_are_told_by_whose_limit_it_was() -> None:
    sheets = Sheets(1)
    counts = Counts(LAYOUT, sheets)
    counts.note_throttled("jwt")
    counts.note_throttled("anonymous")
    counts.note_throttled("anonymous")
    page = figures(Page(LAYOUT, sheets).text())
    assert counts.throttled == 3
    assert value(page, "swath_throttled_total", scope="jwt") == 1
    assert value(page, "swath_throttled_total", scope="anonymous") == 2
    assert value(page, "swath_throttled_total", scope="api_key") == 0


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.text(max_size=20), st.sampled_from([route for route, _ in ROUTES])),
            st.one_of(st.text(max_size=8), st.sampled_from(["GET", "HEAD", "PATCH", "BREW"])),
            st.integers(0, 999),
            st.floats(0, 1e6),
            st.one_of(st.none(), st.text(max_size=5), st.just("hit")),
        ),
        max_size=30,
    )
)
def test_whatever_is_asked_for_makes_no_label_that_was_not_known_before(
    asked: list[tuple[str | None, str, int, float, str | None]],
) -> None:
    sheets = Sheets(1)
    counts = Counts(LAYOUT, sheets)
    for route, method, status, seconds, cache in asked:
        counts.note_request(route, method, status=status, seconds=seconds, cache=cache)
    page = figures(Page(LAYOUT, sheets).text())
    assert label_values(page, "route") <= {"/farms/{id}", "/healthz", NO_ROUTE}
    assert label_values(page, "method") <= {"GET", "PATCH", OTHER}
    assert label_values(page, "status") <= set(CLASSES)
    assert sum(told for (name, _), told in page.items() if name == f"{REQUESTS}_count") == len(asked)


def test_the_board_has_the_last_text_whole() -> None:
    sheets = Sheets(1)
    assert sheets.posted() == b""
    for text in (b"[1, 2, 3]", b"[]", b"[" + b" " * 100_000 + b"]"):
        sheets.post(text)
        assert sheets.posted() == text
    with pytest.raises(ValueError, match="do not fit"):
        sheets.post(bytes(200_000))
    assert len(sheets.posted()) == 100_002


def test_an_age_is_told_as_of_now_and_labels_may_hold_anything() -> None:
    family = Family(name="age", kind="gauge", told="Age.", samples=[({"whose": 'a "b"\\\n'}, 40.0)], is_since=True)
    page = figures("\n".join([*lines([family], now=100.5), ""]))
    assert value(page, "age", whose='a "b"\\\n') == 60.5


def test_only_who_has_the_token_may_read_where_there_is_one() -> None:
    assert may_read(None, None)
    assert may_read("Bearer a token of some length", "a token of some length")
    assert not may_read("a token of some length", "a token of some length")
    assert not may_read("Bearer other", "a token of some length")
    assert not may_read(None, "a token of some length")
