"""What is asked of the file server: blocks that hold farms, once, and no red or near infrared under cloud."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import rasterio

from infra.dask import Compute, threaded_compute
from models.domain import Farm, MaskPolicy, Scene, Status
from tasks.imagery.reader import HttpLimits
from tasks.indices.footprints import FootprintCache
from tests.support.file_server import FileServer, file_server
from tests.support.sky import GRID, Picture, circle, farm_of, look, noisy, rectangle, write

BLOCK = 256
SIDE = 2560
WIDE = replace(GRID, width=SIDE, height=SIDE)
"""Ten by ten blocks that do not compress: 13 MB a band, more than GDAL keeps of all files together (16 MB)."""


@dataclass(frozen=True)
class Archive:
    """A scene on a server, and what its files hold."""

    server: FileServer
    folder: Path
    scene: Scene
    picture: Picture

    def fetched(self, band: str) -> set[tuple[int, int]]:
        """Blocks (row, column) of a file whose bytes were all asked for since the server forgot."""
        log = [request for request in self.server.log if request.path.endswith(f"{band}.tif") and request.range]
        ranges = [tuple(map(int, (request.range or "").removeprefix("bytes=").split("-"))) for request in log]
        merged: list[list[int]] = []
        for first, last in sorted(ranges):
            if merged and first <= merged[-1][1] + 1:
                merged[-1][1] = max(last, merged[-1][1])
            else:
                merged.append([first, last])
        return {
            block
            for block, (start, size) in self.places(band).items()
            if any(first <= start and start + size - 1 <= last for first, last in merged)
        }

    def places(self, band: str) -> dict[tuple[int, int], tuple[int, int]]:
        """First byte and size of each block of a file."""
        with rasterio.open(self.folder / "scene" / f"{band}.tif") as file:
            down, across = (-(-side // BLOCK) for side in file.shape)
            return {
                (row, col): tuple(
                    int(file.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")
                )
                for row in range(down)
                for col in range(across)
            }


@pytest.fixture(scope="module")
def compute() -> Iterator[Compute]:
    with threaded_compute(8) as threads:
        yield threads


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    folder = tmp_path_factory.mktemp("archive")
    picture = noisy(1, WIDE, cloud=0)
    picture.scl[128 * 3 : 128 * 5, 128 * 6 : 128 * 8] = 9  # cloud over blocks 3 and 4 down, 6 and 7 across
    with file_server(folder) as server:
        scene = write(picture, folder, url=server.url, block=BLOCK)
        yield Archive(server, folder, scene, picture)


@pytest.fixture
def archive(served: Archive) -> Archive:
    served.server.forget()
    return served


def field(row: float, col: float, number: int = 1) -> Farm:
    """A farm of 30 pixels across in the middle of a place counted in blocks."""
    return farm_of(circle((col + 0.5) * BLOCK, (row + 0.5) * BLOCK, 15, grid=WIDE), number)


def test_only_blocks_that_hold_a_farm_are_fetched(archive: Archive, compute: Compute) -> None:
    answer = look(archive.scene, [field(1, 1, 1), field(1, 2, 2), field(8, 5, 3)], compute=compute)
    assert {each.status for each in answer.observations} == {Status.OBSERVED}
    for band in ("B04", "B08"):
        assert archive.fetched(band) == {(1, 1), (1, 2), (8, 5)}
    # GDAL reads in pages of 32 kB, and ahead of the header: whole small blocks of classes may come along.
    assert archive.fetched("SCL") >= {(0, 0), (0, 1), (4, 2)}
    for band, blocks in (
        ("B04", [(1, 1), (1, 2), (8, 5)]),
        ("B08", [(1, 1), (1, 2), (8, 5)]),
        ("SCL", [(0, 0), (4, 2)]),
    ):
        sizes = sum(archive.places(band)[block][1] for block in blocks)
        assert archive.server.bytes_for(band) < sizes + 150_000


def test_neighbouring_blocks_come_with_one_request(archive: Archive, compute: Compute) -> None:
    look(archive.scene, [field(2, col, col) for col in range(1, 9)], compute=compute)
    assert archive.fetched("B04") == {(2, col) for col in range(1, 9)}
    assert archive.server.requests_for("B04") <= 5  # HEAD, header, and a run of blocks


def test_blocks_under_cloud_are_not_fetched_in_red_and_near_infrared(archive: Archive, compute: Compute) -> None:
    farms = [field(3, 6, 1), field(4, 7, 2), field(3, 2, 3)]
    answer = look(archive.scene, farms, compute=compute)
    assert [each.status for each in answer.observations] == [Status.CLOUD, Status.CLOUD, Status.OBSERVED]
    for band in ("B04", "B08"):
        assert archive.fetched(band) == {(3, 2)}


def test_a_dilation_spares_the_blocks_next_to_cloud_too(archive: Archive, compute: Compute) -> None:
    beside = farm_of(rectangle(8 * BLOCK + 2, 3.3 * BLOCK, 10, 20, grid=WIDE))
    policy = MaskPolicy(dilation_m=200)
    [observed] = look(archive.scene, [beside], compute=compute, policy=policy).observations
    assert observed.status is Status.CLOUD
    assert archive.server.requests_for("B0") == 0


def test_all_cloud_asks_for_scene_classes_alone(archive: Archive, compute: Compute) -> None:
    look(archive.scene, [field(3, 6), field(3.4, 6.5, 2)], compute=compute)
    assert archive.server.requests_for("B0") == 0
    assert archive.server.requests_for("SCL") > 0


def test_a_farm_off_the_grid_asks_for_nothing(archive: Archive, compute: Compute) -> None:
    [observed] = look(archive.scene, [field(30, 30)], compute=compute).observations
    assert observed.status is Status.OUTSIDE
    assert archive.server.requests == 0


def test_every_block_is_fetched_once_however_many_farms_it_holds(archive: Archive, compute: Compute) -> None:
    farms = [field(row / 3, col / 3, 1 + row * 30 + col) for row in range(29) for col in range(29)]
    answer = look(archive.scene, farms, compute=compute)
    assert not answer.failures
    files = sum((archive.folder / "scene" / f"{band}.tif").stat().st_size for band in ("B04", "B08", "SCL"))
    assert archive.server.bytes_sent < 1.1 * files
    assert archive.server.requests < 0.1 * len(farms)


@pytest.mark.parametrize("overviews", [[], [2, 4, 8]], ids=["plain", "overviews at the far end"])
@pytest.mark.timeout(100)
def test_a_server_in_the_same_process_is_never_waited_for_with_the_interpreter_locked(
    overviews: list[int], tmp_path: Path, compute: Compute
) -> None:
    """rasterio looks through all directories of a file at the first read, the lock in hand, and waits for itself."""
    with file_server(tmp_path) as server:
        scene = write(noisy(1, replace(WIDE, height=512)), tmp_path, url=server.url, block=BLOCK)
        for band in ("B04", "B08", "SCL") if overviews else ():
            with rasterio.open(tmp_path / "scene" / f"{band}.tif", "r+") as file:
                file.build_overviews(overviews)
        farms = [field(row, col, 1 + row * 10 + col) for row in range(2) for col in range(10)]
        started = time.monotonic()
        answer = look(scene, farms, compute=compute, chunk=(256, 512), http=HttpLimits(timeout_s=5, retries=0))
        assert not answer.failures
        assert time.monotonic() - started < 5


def test_scenes_observed_at_the_same_time_share_threads_and_footprints(tmp_path: Path, compute: Compute) -> None:
    farms = [farm_of(circle(20 + 9 * number, 40 + number, 3 + number), number) for number in range(1, 9)]
    with file_server(tmp_path, delay_s=0.005) as server:
        scenes = [write(noisy(seed), tmp_path, name=f"scene{seed}", url=server.url) for seed in range(4)]
        expected = [look(scene, farms, compute=compute) for scene in scenes]
        cache, gate = FootprintCache(max_pixels=500), threading.Barrier(4)

        def at_once(scene: Scene) -> object:
            gate.wait()
            return look(scene, farms, compute=compute, cache=cache, chunk=(32, 32))

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(at_once, scenes)) == expected
