"""Parts of files from a server that fails as it is told: what is tried again, how often, and what is given up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tasks.imagery.files import HttpLimits, NotRead, Unread
from tasks.imagery.ranges import NoRanges, RangeBody, with_range
from tests.support.file_server import FileServer, file_server

LIMITS = HttpLimits(timeout_s=2, connect_timeout_s=2, retries=2, retry_delay_s=0.01)
CONTENT = bytes(range(256)) * 400


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    folder = tmp_path_factory.mktemp("files")
    (folder / "file.bin").write_bytes(CONTENT)
    with file_server(folder) as server:
        yield server


@pytest.fixture
def server(running: FileServer) -> FileServer:
    running.heal()
    running.forget()
    return running


def part(server: FileServer, start: int, size: int, *, limits: HttpLimits = LIMITS, may_end: bool = False) -> bytes:
    """A part of the file."""
    return with_range(f"{server.url}/file.bin", start, size, limits=limits, read=RangeBody.rest, may_end=may_end)


def test_a_part_is_what_the_file_has_there(server: FileServer) -> None:
    assert part(server, 1000, 50_000) == CONTENT[1000:51_000]
    assert [each.range for each in server.log] == ["bytes=1000-50999"]


def test_pieces_are_taken_in_order_and_gaps_are_left_out(server: FileServer) -> None:
    def read(body: RangeBody) -> list[bytes]:
        return [bytes(body.take(2000, 10)), bytes(body.take(2010, 5)), bytes(body.take(30_000, 100))]

    found = with_range(f"{server.url}/file.bin", 1990, 40_000, limits=LIMITS, read=read)
    assert found == [CONTENT[2000:2010], CONTENT[2010:2015], CONTENT[30_000:30_100]]
    assert server.requests == 1


def test_the_end_of_a_short_file_is_enough_only_where_said(server: FileServer) -> None:
    assert part(server, len(CONTENT) - 10, 100, may_end=True) == CONTENT[-10:]
    for start in (len(CONTENT) - 10, len(CONTENT) + 10):
        with pytest.raises(NotRead) as caught:
            part(server, start, 100)
        assert caught.value.why is Unread.UNREADABLE


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(status: int, server: FileServer) -> None:
    server.fail("*", status=status, times=2)
    assert part(server, 0, 100) == CONTENT[:100]
    assert server.requests == 3
    server.fail("*", status=status)
    with pytest.raises(NotRead) as caught:
        part(server, 0, 100)
    assert caught.value.why is Unread.UNAVAILABLE
    assert server.requests == 3 + 3


@pytest.mark.parametrize(
    ("status", "why"),
    [(404, Unread.MISSING), (410, Unread.MISSING), (401, Unread.REJECTED), (403, Unread.REJECTED)],
)
def test_a_refusal_is_final(status: int, why: Unread, server: FileServer) -> None:
    server.fail("*", status=status)
    with pytest.raises(NotRead) as caught:
        part(server, 0, 100)
    assert caught.value.why is why
    assert server.requests == 1


def test_a_wait_that_the_server_asks_for_is_kept(server: FileServer) -> None:
    server.throttle("*", retry_after_s=1)
    started = time.monotonic()
    assert part(server, 0, 100) == CONTENT[:100]
    assert time.monotonic() - started >= 1


def test_a_wait_too_long_is_not_waited(server: FileServer) -> None:
    server.throttle("*", retry_after_s=3600)
    with pytest.raises(NotRead) as caught:
        part(server, 0, 100)
    assert caught.value.why is Unread.UNAVAILABLE
    assert server.requests == 1


@pytest.mark.parametrize("keep_fraction", [0, 0.5])
def test_an_answer_that_breaks_off_is_asked_for_again_in_full(keep_fraction: float, server: FileServer) -> None:
    server.cut("*", keep_fraction=keep_fraction, times=1)
    assert part(server, 0, 80_000) == CONTENT[:80_000]
    assert server.requests == 2
    server.cut("*", keep_fraction=keep_fraction)
    with pytest.raises(NotRead) as caught:
        part(server, 0, 80_000)
    assert caught.value.why is Unread.UNAVAILABLE


def test_a_stall_is_not_waited_for_twice(server: FileServer) -> None:
    server.stall("*", keep_fraction=0.5, limit_s=20)
    with pytest.raises(NotRead) as caught:
        part(server, 0, 80_000, limits=replace(LIMITS, timeout_s=0.3))
    assert caught.value.why is Unread.UNAVAILABLE
    assert server.requests <= 1  # counted when its answer ends


def test_a_server_that_sends_whole_files_or_pages_is_told_apart(server: FileServer) -> None:
    server.replace("*")
    with pytest.raises(NoRanges):
        part(server, 0, 100)


def test_nobody_at_the_address_may_pass() -> None:
    with pytest.raises(NotRead) as caught:
        with_range("http://127.0.0.1:9/file.bin", 0, 10, limits=LIMITS, read=RangeBody.rest)
    assert caught.value.why is Unread.UNAVAILABLE
