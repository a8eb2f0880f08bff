"""What fails upstream fails here, for the farms concerned and by its reason; it never becomes a number or nodata."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from infra.dask import Compute, threaded_compute
from models.domain import Farm, FarmFailure, MaskPolicy, Observation, Scene, SceneAnswer, Status
from models.errors import UpstreamError, UpstreamMissing, UpstreamRejected, UpstreamUnavailable, UpstreamUnreadable
from tasks.imagery.reader import HttpLimits
from tests.support.file_server import FileServer, file_server
from tests.support.sky import (
    GRID,
    QUICK,
    RAW,
    REMOVED,
    Picture,
    blank,
    by_farm,
    circle,
    farm_of,
    look,
    noisy,
    only,
    rectangle,
    write,
)

SIDE, BLOCK = 1024, 128
WIDE = replace(GRID, width=SIDE, height=SIDE)
CHUNK = (256, 512)
FARMS = [
    farm_of(circle((col + 0.5) * BLOCK, (row + 0.5) * BLOCK, 9, grid=WIDE), 1 + 10 * row + col)
    for row in range(8)
    for col in range(8)
]
"""One farm in the middle of each block; an SCL block of 128 pixels lies under four of them."""


@dataclass(frozen=True)
class Archive:
    """A scene on a server, and what every farm is told when nothing fails."""

    server: FileServer
    folder: Path
    scene: Scene
    picture: Picture
    truth: dict[int, Observation | FarmFailure]


@pytest.fixture(scope="module")
def compute() -> Iterator[Compute]:
    with threaded_compute(4) as threads:
        yield threads


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, compute: Compute) -> Iterator[Archive]:
    folder = tmp_path_factory.mktemp("archive")
    picture = noisy(1, WIDE)
    scene = write(picture, folder, block=BLOCK, is_cog=True)
    truth = by_farm(look(scene, FARMS, compute=compute))
    assert {each.status for each in truth.values() if isinstance(each, Observation)} == {Status.OBSERVED}
    with file_server(folder) as server:
        yield Archive(server, folder, write(picture, folder, url=server.url, block=BLOCK, is_cog=True), picture, truth)


@pytest.fixture
def archive(served: Archive) -> Archive:
    served.server.heal()
    served.server.forget()
    return served


def failures(answer: SceneAnswer, archive: Archive) -> dict[int, FarmFailure]:
    """The farms that failed; every other farm was told what it is told when nothing fails."""
    told = by_farm(answer)
    assert set(told) == {farm.id for farm in FARMS}
    failed = {number: each for number, each in told.items() if isinstance(each, FarmFailure)}
    assert {number: told[number] for number in told if number not in failed} == {
        number: archive.truth[number] for number in told if number not in failed
    }
    return failed


Fault = Callable[[FileServer, str], None]
PERMANENT: dict[str, tuple[Fault, str, bool, type[UpstreamError]]] = {
    "404": (lambda s, path: s.fail(path, status=404), "missing", False, UpstreamMissing),
    "410": (lambda s, path: s.fail(path, status=410), "missing", False, UpstreamMissing),
    "401": (lambda s, path: s.fail(path, status=401), "rejected", False, UpstreamRejected),
    "403": (lambda s, path: s.fail(path, status=403), "rejected", False, UpstreamRejected),
    "429": (lambda s, path: s.fail(path, status=429), "unavailable", True, UpstreamUnavailable),
    "500": (lambda s, path: s.fail(path, status=500), "unavailable", True, UpstreamUnavailable),
    "503": (lambda s, path: s.fail(path, status=503), "unavailable", True, UpstreamUnavailable),
    "a page": (lambda s, path: s.replace(path), "unreadable", False, UpstreamUnreadable),
    "an empty file": (lambda s, path: s.shorten(path, keep_fraction=0), "unreadable", False, UpstreamUnreadable),
}


@pytest.mark.parametrize("band", ["B04", "B08", "SCL"])
@pytest.mark.parametrize("fault", PERMANENT)
def test_a_file_that_cannot_be_read_fails_its_farms_by_the_reason_and_heals(
    fault: str, band: str, archive: Archive, compute: Compute
) -> None:
    break_it, reason, is_retryable, _ = PERMANENT[fault]
    break_it(archive.server, f"*/{band}.tif")
    failed = failures(look(archive.scene, FARMS, compute=compute, chunk=CHUNK), archive)
    assert len(failed) == len(FARMS)
    for each in failed.values():
        assert each.problem == f"imagery not read: {reason}"
        assert each.is_retryable == is_retryable
    archive.server.heal()
    archive.server.forget()
    assert not failures(look(archive.scene, FARMS, compute=compute, chunk=CHUNK), archive)
    assert archive.server.requests_for(band) >= 2  # another try really asks


@pytest.mark.parametrize("band", ["B04", "SCL"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda server, path: server.fail(path, status=503, after=1), "unavailable"),
        (lambda server, path: server.fail(path, status=404, after=1), "missing"),
        (lambda server, path: server.fail(path, status=403, after=1), "rejected"),
        (lambda server, path: server.cut(path, keep_fraction=0, after=1), "unavailable"),
        (lambda server, path: server.replace(path, body=b"x" * 100_000), "unreadable"),
        (lambda server, path: server.replace(path, body=b"II"), "unreadable"),
    ],
    ids=["503", "404", "403", "cut", "junk", "two bytes"],
)
def test_a_header_that_does_not_come_is_told_from_a_file_that_is_no_raster(
    fault: Fault, reason: str, band: str, archive: Archive, compute: Compute
) -> None:
    """GDAL says of both that the format is not recognized."""
    fault(archive.server, f"*/{band}.tif")
    failed = failures(look(archive.scene, FARMS, compute=compute), archive)
    assert len(failed) == len(FARMS)
    assert {each.problem for each in failed.values()} == {f"imagery not read: {reason}"}


@pytest.mark.parametrize("band", ["B04", "SCL"])
def test_a_corrupt_block_from_a_server_fails_the_farms_on_it_alone(
    band: str, tmp_path: Path, compute: Compute, archive: Archive
) -> None:
    with file_server(tmp_path) as server:
        scene = write(archive.picture, tmp_path, url=server.url, block=BLOCK, is_cog=True)
        path = tmp_path / "scene" / f"{band}.tif"
        with rasterio.open(path) as file:
            start, size = (int(file.get_tag_item(f"BLOCK_{what}_2_1", "TIFF", bidx=1)) for what in NAMES)
        content = bytearray(path.read_bytes())
        content[start + size // 2] ^= 1  # one bit: GDAL takes such a block for a good one, its checksum does not
        path.write_bytes(content)
        told = by_farm(look(scene, FARMS, compute=compute))
    failed = {number for number, each in told.items() if isinstance(each, FarmFailure)}
    assert failed == ({13} if band == "B04" else {25, 26, 35, 36})
    assert {told[number].problem for number in failed} == {"imagery not read: unreadable"}


def test_a_failure_that_lasts_is_asked_for_again_by_each_try(archive: Archive, compute: Compute) -> None:
    archive.server.fail("*/B04.tif", status=503)
    counts = []
    for _ in range(3):
        archive.server.forget()
        look(archive.scene, FARMS[:1], compute=compute)
        counts.append(archive.server.requests_for("B04"))
    assert min(counts) >= 1


def test_what_heals_within_the_retries_of_one_request_is_no_failure(archive: Archive, compute: Compute) -> None:
    archive.server.fail("*/B04.tif", status=503, times=2)
    archive.server.throttle("*/SCL.tif", retry_after_s=1, times=1)
    http = replace(QUICK, retries=3)
    assert not failures(look(archive.scene, FARMS, compute=compute, chunk=CHUNK, http=http), archive)


@pytest.mark.parametrize("band", ["B04", "SCL"])
@pytest.mark.parametrize("kind", ["503", "cut", "cut at once", "a page"])
def test_a_fault_at_any_request_never_becomes_a_number(
    kind: str, band: str, archive: Archive, compute: Compute
) -> None:
    strike: dict[str, Callable[[int, int | None], None]] = {
        "503": lambda after, times: archive.server.fail(f"*/{band}.tif", status=503, after=after, times=times),
        "cut": lambda after, times: archive.server.cut(f"*/{band}.tif", after=after, times=times),
        "cut at once": lambda after, times: archive.server.cut(
            f"*/{band}.tif", after=after, times=times, keep_fraction=0
        ),
        "a page": lambda after, times: archive.server.replace(f"*/{band}.tif", after=after, times=times),
    }
    for after in range(6):
        for times in (1, None):
            archive.server.heal()
            strike[kind](after, times)
            failures(look(archive.scene, FARMS, compute=compute, chunk=(1024, 1024)), archive)  # all others are right


def test_one_broken_request_fails_no_more_than_its_own_chunk(archive: Archive, compute: Compute) -> None:
    archive.server.fail("*/B04.tif", status=503, times=1)
    failed = failures(look(archive.scene, FARMS, compute=compute, chunk=(BLOCK, 512)), archive)
    assert len(failed) <= 4


@pytest.mark.parametrize("keep_fraction", [0.3, 0.6])
@pytest.mark.parametrize("band", ["B04", "SCL"])
def test_of_a_truncated_file_the_blocks_that_are_there_are_read(
    band: str, keep_fraction: float, archive: Archive, compute: Compute
) -> None:
    archive.server.shorten(f"*/{band}.tif", keep_fraction=keep_fraction)
    failed = failures(look(archive.scene, FARMS, compute=compute, chunk=CHUNK), archive)
    whole, lost = farms_by_bytes(archive, band, keep_fraction)
    assert whole
    assert lost
    assert set(failed) == lost
    assert all(each.problem.startswith("imagery not read: un") for each in failed.values())


def farms_by_bytes(archive: Archive, band: str, keep_fraction: float) -> tuple[set[int], set[int]]:
    """Farms whose block of a file lies before the cut, and the others."""
    path = archive.folder / "scene" / f"{band}.tif"
    end = int(path.stat().st_size * keep_fraction)
    with rasterio.open(path) as file:
        span = SIDE // file.width * BLOCK  # pixels of 10 m along a block

        def stops(farm: Farm) -> int:
            row, col = (farm.id - 1) // 10 * BLOCK // span, (farm.id - 1) % 10 * BLOCK // span
            start, size = (int(file.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1)) for what in NAMES)
            return start + size

        whole = {farm.id for farm in FARMS if stops(farm) <= end}
    return whole, {farm.id for farm in FARMS} - whole


NAMES = ("OFFSET", "SIZE")


@pytest.mark.parametrize("band", ["B04", "SCL"])
def test_a_corrupt_block_fails_the_farms_on_it_alone(
    band: str, archive: Archive, tmp_path: Path, compute: Compute
) -> None:
    scene = write(archive.picture, tmp_path, block=BLOCK, is_cog=True)
    path = tmp_path / "scene" / f"{band}.tif"
    with rasterio.open(path) as file:
        start, size = (int(file.get_tag_item(f"BLOCK_{what}_2_1", "TIFF", bidx=1)) for what in NAMES)
    content = bytearray(path.read_bytes())
    content[start : start + size] = b"\xff" * size
    path.write_bytes(content)
    told = by_farm(look(scene, FARMS, compute=compute))
    failed = {number for number, each in told.items() if isinstance(each, FarmFailure)}
    assert failed == ({13} if band == "B04" else {25, 26, 35, 36})
    for number in failed:
        assert told[number].problem == "imagery not read: unreadable"
        assert not told[number].is_retryable
    for number in set(told) - failed:
        assert replace(told[number], inputs="") == replace(archive.truth[number], inputs="")


def test_next_to_classes_that_were_not_read_nobody_knows_whether_cloud_is_near(
    tmp_path: Path, compute: Compute
) -> None:
    scene = write(blank(WIDE), tmp_path, block=BLOCK)
    path = tmp_path / "scene" / "SCL.tif"
    with rasterio.open(path) as file:
        start, size = (int(file.get_tag_item(f"BLOCK_{what}_1_1", "TIFF", bidx=1)) for what in NAMES)
    content = bytearray(path.read_bytes())
    content[start : start + size] = b"\xff" * size
    path.write_bytes(content)
    # the block lies from pixel 256 to 512 both ways; 100 m are ten pixels
    farms = [
        farm_of(rectangle(246, 300, 4, 4, grid=WIDE), 1),
        farm_of(rectangle(226, 300, 10, 4, grid=WIDE), 2),
        farm_of(rectangle(300, 300, 4, 4, grid=WIDE), 3),
        farm_of(rectangle(524, 300, 10, 4, grid=WIDE), 4),
    ]
    for chunk in ((1024, 4096), (128, 128)):
        told = by_farm(look(scene, farms, compute=compute, policy=MaskPolicy(dilation_m=100), chunk=chunk))
        assert [isinstance(told[number], FarmFailure) for number in (1, 2, 3, 4)] == [True, False, True, False]
    told = by_farm(look(scene, farms, compute=compute))
    assert [isinstance(told[number], FarmFailure) for number in (1, 2, 3, 4)] == [False, False, True, False]


def test_one_stalled_answer_costs_a_wait_and_no_number(archive: Archive, compute: Compute) -> None:
    archive.server.stall("*/B04.tif", keep_fraction=0, after=2, times=1, limit_s=20)
    started = time.monotonic()
    http = replace(QUICK, timeout_s=2)
    failed = failures(look(archive.scene, FARMS, compute=compute, chunk=CHUNK, http=http), archive)
    assert all(each.is_retryable for each in failed.values())
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("after", [0, 2])
def test_a_file_that_stalls_for_good_is_given_up_before_long(after: int, archive: Archive, compute: Compute) -> None:
    archive.server.stall("*/B08.tif", keep_fraction=0, after=after, limit_s=60)
    started = time.monotonic()
    http = replace(QUICK, timeout_s=1)
    chunk = (BLOCK, BLOCK)  # 64 of them, each of which would wait
    failed = failures(look(archive.scene, FARMS, compute=compute, chunk=chunk, http=http), archive)
    assert time.monotonic() - started < 15
    assert failed
    assert {(each.problem, each.is_retryable) for each in failed.values()} == {("imagery not read: unavailable", True)}


class TestPieces:
    """A fault in one of two pieces."""

    def test_a_piece_that_nobody_needs_may_fail(self, archive: Archive, tmp_path: Path, compute: Compute) -> None:
        whole = write(blank(WIDE), tmp_path, name="whole")
        needed = look([whole], FARMS[:3], compute=compute)
        archive.server.fail("*", status=503)
        answer = look([whole, archive.scene], FARMS[:3], compute=compute)
        assert not answer.failures
        assert [each.statistics for each in answer.observations] == [each.statistics for each in needed.observations]
        assert archive.server.requests == 0

    def test_a_farm_whose_first_piece_failed_is_not_answered_by_the_second(
        self, archive: Archive, tmp_path: Path, compute: Compute
    ) -> None:
        second = write(blank(WIDE), tmp_path, name="second")
        archive.server.fail("*/SCL.tif", status=503)
        answer = look([archive.scene, second], FARMS[:3], compute=compute)
        assert len(answer.failures) == 3

    def test_a_gap_that_the_second_piece_should_fill_is_a_failure_not_nodata(
        self, archive: Archive, tmp_path: Path, compute: Compute
    ) -> None:
        half = blank(WIDE)
        half.scl[:, 32:] = 0  # from pixel 64 on, through the middle of the farms of the first column
        first = write(half, tmp_path, name="first")
        archive.server.fail("*/B08.tif", status=503)
        left = farm_of(rectangle(10, 10, 20, 20, grid=WIDE), 99)
        told = by_farm(look([first, archive.scene], [FARMS[0], left], compute=compute))
        assert isinstance(told[FARMS[0].id], FarmFailure)
        assert isinstance(told[99], Observation)


class TestDoubtfulOffset:
    """A catalog's word about the offset, checked on the pixels."""

    doubtful = replace(RAW, rule="by the flag", is_certain=False)

    def test_dark_pixels_show_that_the_offset_was_removed(self, tmp_path: Path, compute: Compute) -> None:
        picture = noisy(2, cloud=0)
        picture.red[...] = np.random.default_rng(0).integers(200, 1500, GRID.shape)
        farm = farm_of(circle(50, 50, 20))
        answer = look(write(picture, tmp_path, rescale=self.doubtful), [farm], compute=compute)
        certain = look(write(picture, tmp_path, rescale=REMOVED), [farm], compute=compute)
        assert only(answer).statistics == only(certain).statistics
        assert "pixels show it removed" in only(answer).rescale_rule
        assert [warning.startswith("scene: offset doubtful: by the flag; pixels show") for warning in answer.warnings]
        assert certain.warnings == ()

    def test_bright_pixels_do_not_contradict_the_flag(self, tmp_path: Path, compute: Compute) -> None:
        picture = noisy(3, cloud=0)
        picture.red[...] = np.random.default_rng(0).integers(1050, 3000, GRID.shape)
        picture.red[:1] = 900  # one pixel in a hundred is below zero reflectance by noise
        farm = farm_of(circle(50, 50, 20))
        answer = look(write(picture, tmp_path, rescale=self.doubtful), [farm], compute=compute)
        certain = look(write(picture, tmp_path, rescale=RAW), [farm], compute=compute)
        assert only(answer).statistics == only(certain).statistics
        assert "do not contradict" in only(answer).rescale_rule
        assert len(answer.warnings) == 1

    def test_missing_pixels_are_no_evidence(self, tmp_path: Path, compute: Compute) -> None:
        picture = blank(red=1800)
        picture.red[:90] = 0
        farm = farm_of(rectangle(10, 92, 20, 5))
        answer = look(write(picture, tmp_path, rescale=self.doubtful), [farm], compute=compute)
        assert "do not contradict" in only(answer).rescale_rule

    def test_the_decision_does_not_depend_on_the_farms(self, tmp_path: Path, compute: Compute) -> None:
        picture = blank(red=2000)
        picture.red[:10] = 300  # a tenth of the scene is dark, no farm lies there
        scene = write(picture, tmp_path, rescale=self.doubtful)
        rules = {
            only(look(scene, [farm_of(rectangle(10, top, 20, 8))], compute=compute)).rescale_rule for top in (1, 50)
        }
        assert len(rules) == 1
        assert "removed" in rules.pop()

    def test_an_overview_is_looked_at_not_the_whole_file(self, archive: Archive, compute: Compute) -> None:
        scene = replace(archive.scene, rescale=self.doubtful)
        off = farm_of(rectangle(5000, 5000, 5, 5))
        look(scene, [off], compute=compute)
        assert 0 < archive.server.bytes_sent < (archive.folder / "scene/B04.tif").stat().st_size / 2

    @pytest.mark.parametrize("fault", PERMANENT)
    def test_without_a_look_there_is_no_decision(self, fault: str, archive: Archive, compute: Compute) -> None:
        break_it, _, _, kind = PERMANENT[fault]
        scene = replace(archive.scene, rescale=self.doubtful)
        break_it(archive.server, "*/B04.tif")
        with pytest.raises(kind) as caught:
            look(scene, FARMS[:1], compute=compute)
        assert caught.value.url == scene.red.href
        archive.server.heal()
        assert not look(scene, FARMS[:1], compute=compute, http=HttpLimits(retries=0)).failures
