"""The benchmark on a tile of four blocks: it ends well, agrees with exactextract and counts what it should."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from benchmarks import ndvi_scene
from benchmarks.by_scene import Job, measure, needed_blocks
from benchmarks.fields import random_farms
from benchmarks.server import Counts, counting_server
from benchmarks.tile import DAYS, Tile, make_tile

SIZE = 2048
FARMS = 20


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tile is made once."""
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="module")
def tile(cache: Path) -> Tile:
    """Four blocks of red and near infrared, one of scene classes, on three dates."""
    made, _ = make_tile(cache, size=SIZE)
    return made


def test_it_ends_with_one_line_for_programs_and_every_mean_agrees_with_exactextract(
    cache: Path, tile: Tile, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"--json --size {tile.size} --farms {FARMS} --rounds 1 --sample 3 --threads 4 --delay 0 --cache {cache}"
    code = ndvi_scene.main(words.split())

    *readable, last = capsys.readouterr().out.splitlines()
    assert code == 0
    numbers = json.loads(last)
    assert list(numbers) == [
        "speedup_1000",
        "speedup_10000",
        "floor_ratio",
        "requests_per_farm_date_1000",
        "peak_rss_mb",
    ]
    assert numbers["speedup_1000"] is None
    assert numbers["speedup_10000"] is None
    assert numbers["requests_per_farm_date_1000"] is None
    assert numbers["floor_ratio"] > 0
    assert 50 < numbers["peak_rss_mb"] < 1_500
    compared = (3 * 2 * 3 + FARMS) * len(DAYS)  # three ways, twice three farms each; and all farms by raster
    assert f"{compared} means compared with exactextract's: 0 differ by more than 1e-06" in readable


def test_the_tile_is_made_once(cache: Path, tile: Tile) -> None:
    again, is_new = make_tile(cache, size=SIZE)

    assert again == tile
    assert not is_new
    assert [file.name for file in cache.iterdir()] == [tile.folder.name]


def test_swath_reads_each_needed_byte_about_once(tile: Tile) -> None:
    with counting_server(tile.folder) as server:
        swath, floor = (
            measure(Job(what=what, folder=str(tile.folder), size=SIZE, port=server.port, farms=FARMS, threads=4))
            for what in ("swath", "floor")
        )

    scl_blocks, blocks = needed_blocks(tile, random_farms(FARMS, size=SIZE))
    assert floor.blocks == len(scl_blocks) + len(blocks)
    assert 0 < swath.requests <= len(scl_blocks) + len(blocks) + 3 * len(DAYS)  # a block each at most, and headers
    assert swath.bytes == pytest.approx(floor.bytes, rel=0.15)
    assert 0 < swath.observed <= FARMS * len(DAYS)


def test_the_server_counts_ranges_and_answers_what_it_does_not_have(tile: Tile) -> None:
    file = tile.file(DAYS[0], "scl")
    with counting_server(tile.folder) as server:
        request = urllib.request.Request(f"{server.url}/{file.name}", headers={"Range": "bytes=10-109"})
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 206
            assert answer.read() == file.read_bytes()[10:110]
        assert server.counts() == Counts(requests=1, bytes=100)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{server.url}/../{file.name}")
        server.reset()
        assert server.counts() == Counts(requests=0, bytes=0)
