"""A token service that refuses, is busy, hangs or is not there: signing ends in time and says why."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rasterio.windows import Window

from models.errors import UpstreamRejected, UpstreamUnavailable
from tasks.imagery.evidence import settle_rescale
from tasks.imagery.files import HttpLimits, NotRead, Unread
from tasks.imagery.reader import BlockReader, decode
from tasks.imagery.signing import PLANETARY_COMPUTER, sign
from tests.support.sky import GRID, RAW, blank, write

LIMITS = HttpLimits(timeout_s=1, connect_timeout_s=1, retries=2, retry_delay_s=0.02)
_accounts = itertools.count(1)


def new_address() -> str:
    """A file in an account that no test asked about before: tokens are remembered."""
    return f"https://account{next(_accounts)}.blob.core.windows.net/sentinel2-l2/a/B04.tif"


def token(valid_s: float = 3600) -> bytes:
    expiry = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=valid_s)
    return json.dumps({"msft:expiry": expiry.strftime("%Y-%m-%dT%H:%M:%SZ"), "token": "se=1&sig=a%2F"}).encode()


@dataclass
class Service:
    """A token service and the paths it was asked for."""

    answer: Callable[[Handler, int], None]
    asked: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    service: Service

    def do_GET(self) -> None:
        self.service.asked.append(self.path)
        self.service.answer(self, len(self.service.asked))

    def send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


Start = Callable[[Callable[[Handler, int], None]], Service]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a token service and names it in the environment, as the package of Planetary Computer has it."""
    with contextlib.ExitStack() as stack:

        def started(answer: Callable[[Handler, int], None]) -> Service:
            service = Service(answer)
            server = ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Handler,), {"service": service}))
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            for end in (thread.join, server.server_close, server.shutdown):
                stack.callback(end)
            monkeypatch.setenv("PC_SDK_SAS_URL", f"http://127.0.0.1:{server.server_port}/token")
            return service

        yield started


def hang(handler: Handler, _: int) -> None:
    time.sleep(3)


def trickle(handler: Handler, _: int) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(50):
            handler.wfile.write(b" ")
            time.sleep(0.1)


FAULTS: dict[str, tuple[Callable[[Handler, int], None], Unread]] = {
    "401": (lambda handler, _: handler.send(401, b""), Unread.REJECTED),
    "403": (lambda handler, _: handler.send(403, b"no"), Unread.REJECTED),
    "404": (lambda handler, _: handler.send(404, b""), Unread.REJECTED),
    "429": (lambda handler, _: handler.send(429, b""), Unread.UNAVAILABLE),
    "503": (lambda handler, _: handler.send(503, b""), Unread.UNAVAILABLE),
    "a page": (lambda handler, _: handler.send(200, b"<html>Sign in</html>"), Unread.UNAVAILABLE),
    "no token": (lambda handler, _: handler.send(200, b'{"token": 1}'), Unread.UNAVAILABLE),
    "too much": (lambda handler, _: handler.send(200, b" " * 1_000_000), Unread.UNAVAILABLE),
    "hangs": (hang, Unread.UNAVAILABLE),
    "trickles": (trickle, Unread.UNAVAILABLE),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_signing_failure_is_classed_and_ends_in_time(name: str, start: Start) -> None:
    answer, why = FAULTS[name]
    service = start(answer)
    started = time.monotonic()
    with pytest.raises(NotRead) as caught:
        sign(new_address(), PLANETARY_COMPUTER, limits=LIMITS)
    assert caught.value.why is why
    assert time.monotonic() - started < 4
    assert len(service.asked) == 1 or why is Unread.UNAVAILABLE


def test_pixels_without_a_signature_are_unread_by_its_reason(start: Start) -> None:
    for name in ("403", "503"):
        answer, why = FAULTS[name]
        start(answer)
        spec = SimpleNamespace(epsg=GRID.epsg, shape=GRID.shape, bounds=GRID.bounds)
        reader = BlockReader(
            url=new_address(),
            spec=spec,
            dtype=np.dtype("uint16"),
            wanted=np.ones((GRID.height, 1), bool),
            limits=LIMITS,
            signer=PLANETARY_COMPUTER,
        )
        assert (decode(reader.read(Window(0, 0, 8, 8))) == why).all()


@pytest.mark.parametrize(("name", "kind"), [("403", UpstreamRejected), ("503", UpstreamUnavailable)])
def test_an_offset_is_not_settled_without_a_signature(
    name: str, kind: type[Exception], start: Start, tmp_path: Path
) -> None:
    start(FAULTS[name][0])
    scene = write(blank(), tmp_path, rescale=replace(RAW, is_certain=False))
    scene = replace(scene, red=replace(scene.red, href=new_address()), signer=PLANETARY_COMPUTER)
    with pytest.raises(kind):
        settle_rescale(scene, limits=LIMITS)


def test_a_token_service_that_is_not_there_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        monkeypatch.setenv("PC_SDK_SAS_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(NotRead) as caught:
            sign(new_address(), PLANETARY_COMPUTER, limits=LIMITS)
    assert caught.value.why is Unread.UNAVAILABLE
    assert time.monotonic() - started < 2


def test_one_token_serves_all_files_of_a_container(start: Start) -> None:
    service = start(lambda handler, _: handler.send(200, token()))
    address = new_address()
    with ThreadPoolExecutor(8) as pool:
        signed = list(pool.map(lambda _: sign(address, PLANETARY_COMPUTER, limits=LIMITS), range(16)))
    assert set(signed) == {f"{address}?se=1&sig=a%2F"}
    other = address.replace("B04", "B08")
    assert sign(other, PLANETARY_COMPUTER, limits=LIMITS) == f"{other}?se=1&sig=a%2F"
    assert service.asked == [f"/token/{address.split('/')[2].partition('.')[0]}/sentinel2-l2"]


def test_a_busy_token_service_is_asked_again_and_a_token_about_to_end_is_renewed(start: Start) -> None:
    service = start(lambda handler, number: handler.send(503 if number == 1 else 200, token(valid_s=30)))
    address = new_address()
    assert sign(address, PLANETARY_COMPUTER, limits=LIMITS).startswith(f"{address}?")
    assert len(service.asked) == 2
    sign(address, PLANETARY_COMPUTER, limits=LIMITS)
    assert len(service.asked) == 3


def test_addresses_that_need_no_signature_are_left_as_they_are(start: Start) -> None:
    service = start(FAULTS["403"][0])
    signed = f"{new_address()}?st=1&se=2&sp=r&sig=x"
    for address, signer in [
        ("https://files.example.org/B04.tif", PLANETARY_COMPUTER),
        (signed, PLANETARY_COMPUTER),
        (new_address(), None),
    ]:
        assert sign(address, signer, limits=LIMITS) == address
    assert service.asked == []


def test_an_address_without_a_container_asks_nobody(start: Start) -> None:
    service = start(FAULTS["403"][0])
    for path in ("", "/..", "/../../B04.tif"):
        with pytest.raises(NotRead, match="no container"):
            sign(f"https://account.blob.core.windows.net{path or '/'}", PLANETARY_COMPUTER, limits=LIMITS)
    assert service.asked == []
