"""Files that are not what they seem, served over HTTP: none is opened that could name another."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.windows import Window

from models.domain import Grid
from tasks.imagery.files import Unread, formats, gdal_path, open_raster, use_gdal_options, why_unread
from tasks.imagery.reader import BlockReader, decode
from tests.support.file_server import file_server
from tests.support.sky import GRID, QUICK, noisy, transform_of, write

WHOLE = Window(0, 0, GRID.width, GRID.height)


def reader_of(address: str, grid: Grid = GRID) -> BlockReader:
    spec = SimpleNamespace(epsg=grid.epsg, shape=grid.shape, bounds=grid.bounds)
    return BlockReader(
        url=address, spec=spec, dtype=np.dtype("uint16"), wanted=np.ones((100, 1), bool), limits=QUICK, signer=None
    )


def found_at(address: str) -> np.ndarray:
    """What a new reader finds; negative for unread pixels."""
    reader = reader_of(address)
    try:
        return decode(reader.read(WHOLE))
    finally:
        reader.close()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[str]:
    """A document that GDAL takes for a raster whose pixels lie in a file of this machine."""
    secret = write(noisy(1), tmp_path, name="secret").red.href
    (tmp_path / "served").mkdir()
    geo = ", ".join(str(number) for number in transform_of(GRID).to_gdal())
    (tmp_path / "served" / "B04.tif").write_text(
        f"<VRTDataset rasterXSize='{GRID.width}' rasterYSize='{GRID.height}'><SRS>EPSG:{GRID.epsg}</SRS>"
        f"<GeoTransform>{geo}</GeoTransform><VRTRasterBand dataType='UInt16' band='1'><SimpleSource>"
        f"<SourceFilename>{secret}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with file_server(tmp_path / "served") as server:
        yield f"{server.url}/B04.tif"


def test_a_document_that_names_a_file_of_this_machine_is_no_raster(page: str) -> None:
    use_gdal_options(QUICK)
    with rasterio.open(gdal_path(page)) as leak:  # what would happen
        assert np.array_equal(leak.read(1), noisy(1).red)
    with pytest.raises(RasterioIOError) as caught:
        open_raster(gdal_path(page))
    assert why_unread(caught.value) is Unread.UNREADABLE
    assert (found_at(page) == Unread.UNREADABLE).all()


def test_both_formats_of_sentinel_2_are_there() -> None:
    assert formats() == ("GTiff", "JP2OpenJPEG")


def test_a_jpeg_2000_file_is_read(tmp_path: Path) -> None:
    numbers = noisy(2).red
    shape = {"width": GRID.width, "height": GRID.height, "count": 1, "dtype": "uint16", "crs": f"EPSG:{GRID.epsg}"}
    path = tmp_path / "B04.jp2"
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", transform=transform_of(GRID), QUALITY="100", REVERSIBLE="YES", **shape
    ) as file:
        file.write(numbers, 1)
    with file_server(tmp_path) as server:
        assert np.array_equal(found_at(f"{server.url}/B04.jp2"), numbers)


@pytest.mark.timeout(120)
def test_a_file_cut_short_anywhere_in_its_header_is_worth_another_try(tmp_path: Path) -> None:
    picture = noisy(3)
    scene = write(picture, tmp_path)
    whole = Path(scene.red.href).read_bytes()
    with rasterio.open(scene.red.href) as file:
        header = int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    cut = tmp_path / "cut.tif"
    told = set()
    for size in range(8, header):
        cut.write_bytes(whole[:size])
        told.update(np.unique(found_at(str(cut))).tolist())
    assert told == {Unread.UNAVAILABLE}


def test_a_header_cut_short_is_not_wondered_about_on_the_screen(tmp_path: Path) -> None:
    bare = {"driver": "GTiff", "width": GRID.width, "height": GRID.height, "count": 1, "dtype": "uint16"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(tmp_path / "bare.tif", "w", **bare) as file:
            file.write(noisy(4).red, 1)
    with warnings.catch_warnings(record=True) as wondered:
        warnings.simplefilter("always")
        assert (found_at(str(tmp_path / "bare.tif")) == Unread.UNAVAILABLE).all()
    assert wondered == []


class Bucket(BaseHTTPRequestHandler):
    """An object store whose one object is published late."""

    body: bytes
    failures: int
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        is_there = len(self.asked) > self.failures and self.path == "/bucket/B04.tif"
        first, last = 0, len(self.body) - 1
        if (wanted := self.headers.get("Range")) and is_there:
            first, last = (int(end) for end in wanted.removeprefix("bytes=").split("-"))
        part = self.body[first : last + 1] if is_there else b""
        self.send_response((206 if wanted else 200) if is_there else 404)
        self.send_header("Content-Length", str(len(part)))
        if wanted and is_there:
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(self.body)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@contextlib.contextmanager
def bucket(body: bytes, failures: int) -> Iterator[str]:
    handler = type("Told", (Bucket,), {"body": body, "failures": failures, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_file_in_s3_that_failed_is_really_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = noisy(5)
    body = Path(write(picture, tmp_path).red.href).read_bytes()
    for name, value in {"NO_SIGN_REQUEST": "YES", "HTTPS": "NO", "VIRTUAL_HOSTING": "FALSE"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with bucket(body, failures=4) as place:
        monkeypatch.setenv("AWS_S3_ENDPOINT", place)
        found = [found_at("s3://bucket/B04.tif") for _ in range(5)]
    assert (found[0] == Unread.MISSING).all()
    assert np.array_equal(found[-1], picture.red)
