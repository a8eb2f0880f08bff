"""A doubtful offset, settled by red over vegetation and water, whatever else lies on the tile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from models.domain import Rescale, Scene
from models.errors import UpstreamMissing, UpstreamRejected, UpstreamUnavailable, UpstreamUnreadable
from tasks.imagery.evidence import FEWEST_VOTERS, settle_rescale
from tests.support.archives import ARCHIVES, archive_items
from tests.support.file_server import FileServer, file_server
from tests.support.sky import GRID, QUICK, RAW, Picture, blank, scl_grid_of, write

DOUBTFUL = replace(RAW, rule="by the flag", is_certain=False)
BARE, SNOW, CLOUD, LEAVES, WATER = 5, 11, 9, 4, 6
BRIGHT = {BARE: 2600, SNOW: 9000, CLOUD: 6000}
"""Red numbers of what is bright, with the offset taken out: above 1,000 all the same."""


def mostly(bright: int, *, dark: int = LEAVES, rows: int = 4) -> Picture:
    """A tile all bright but for some rows of pixels that are dark in red, with the offset taken out."""
    picture = blank(red=BRIGHT[bright], scl=bright)
    picture.red[:rows] = 400 if dark == LEAVES else 150
    picture.scl[: rows // 2] = dark
    return picture


def with_offset(picture: Picture) -> Picture:
    """The same ground delivered with the offset in."""
    return replace(picture, red=np.where(picture.red > 0, picture.red + 1000, 0).astype(np.uint16))


def settled(picture: Picture, folder: Path) -> Rescale:
    return settle_rescale(write(picture, folder, rescale=DOUBTFUL), limits=QUICK)


@pytest.mark.parametrize("bright", BRIGHT)
@pytest.mark.parametrize("dark", [LEAVES, WATER])
def test_a_few_fields_or_lakes_decide_on_a_bright_tile(bright: int, dark: int, tmp_path: Path) -> None:
    removed = settled(mostly(bright, dark=dark, rows=2), tmp_path / "removed")  # one pixel in fifty
    assert (removed.offset, removed.scale) == (0, DOUBTFUL.scale)
    assert "pixels show it removed (100% of vegetation and water below 800)" in removed.rule
    kept = settled(with_offset(mostly(bright, dark=dark, rows=2)), tmp_path / "kept")
    assert kept.offset == DOUBTFUL.offset
    assert "do not contradict" in kept.rule


@pytest.mark.parametrize("bright", BRIGHT)
def test_without_vegetation_or_water_the_flag_stands_undecided(bright: int, tmp_path: Path) -> None:
    picture = blank(red=300, scl=bright)  # shadows that were classed wrong have no say
    assert settled(picture, tmp_path) == replace(DOUBTFUL, rule=settled(picture, tmp_path).rule)
    assert settled(picture, tmp_path).rule == "by the flag; undecided, only 0 pixels of vegetation and water"


def test_fewer_pixels_than_it_takes_leave_it_undecided(tmp_path: Path) -> None:
    picture = mostly(BARE)
    picture.scl[:2] = BARE
    picture.scl[0, : FEWEST_VOTERS // 4] = LEAVES  # each is four pixels of 10 m
    enough = settled(picture, tmp_path / "enough")
    assert enough.offset == 0
    picture.red[0, 0] = 0  # one of them is missing
    fewer = settled(picture, tmp_path / "fewer")
    assert fewer.offset == DOUBTFUL.offset
    assert f"undecided, only {FEWEST_VOTERS - 1} pixels" in fewer.rule
    assert not fewer.is_certain


def test_a_few_low_pixels_among_many_leave_it_undecided(tmp_path: Path) -> None:
    picture = blank(red=1500)
    picture.red[:3] = 700  # three in a hundred: more than noise, fewer than fields
    found = settled(picture, tmp_path)
    assert found.offset == DOUBTFUL.offset
    assert "undecided, 3% of vegetation and water below 800" in found.rule


@pytest.mark.parametrize(("right_m", "down_m"), [(-10, 10), (10, -10), (400, 300)])
def test_classes_are_placed_by_their_own_grid(right_m: float, down_m: float, tmp_path: Path) -> None:
    """Leaves are dark and all else is bright: read from other pixels, the classes would let bright ones vote."""
    scl_grid = scl_grid_of(GRID, right_m=right_m, down_m=down_m)
    picture = blank(red=2600, scl=BARE, scl_grid=scl_grid)
    picture.scl[20:24, 20:40] = LEAVES
    x, y = scl_grid.left + 20 * 20 - GRID.left, GRID.top - (scl_grid.top - 20 * 20)
    rows, cols = slice(round(y / 10), round(y / 10) + 8), slice(round(x / 10), round(x / 10) + 40)
    picture.red[rows, cols] = 400
    assert "(100% of" in settled(picture, tmp_path).rule


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("archive", "item_id"),
    [
        ("at-si-33TW-2023", "S2A_33TWL_20230815_0_L2A"),
        ("at-si-33TW-2023", "S2B_33TWM_20230813_0_L2A"),
        ("be-antwerp-2023q4", "S2_31UES_20231022_0_L2A"),
        ("be-antwerp-2023q4", "S2_31UES_20231226_0_L2A"),
        ("it-barbellino", "S2A_32TNS_20170703_0_L2A"),
    ],
)
def test_real_scenes_without_the_offset_are_told_from_the_same_with_it(
    archive: str, item_id: str, tmp_path: Path
) -> None:
    item = next(item for item in archive_items(archive, str(ARCHIVES / archive)) if item["id"] == item_id)
    assets = {name.lower(): asset["href"] for name, asset in item["assets"].items()}
    picture = picture_of(assets.get("red") or assets["b04"], assets["scl"])
    assert settled(picture, tmp_path / "as it is").offset == 0
    assert settled(with_offset(picture), tmp_path / "raised").offset == DOUBTFUL.offset
    assert "do not contradict" in settled(with_offset(picture), tmp_path / "raised").rule


def picture_of(red: str, scl: str) -> Picture:
    """A recorded scene; near infrared, which has no part in this, is left out."""
    numbers, grids = [], []
    for path in (red, scl):
        with rasterio.open(path) as file:
            numbers.append(file.read(1))
            grids.append(
                replace(
                    GRID,
                    epsg=file.crs.to_epsg(),
                    left=file.transform.c,
                    top=file.transform.f,
                    resolution_m=file.transform.a,
                    width=file.width,
                    height=file.height,
                )
            )
    return Picture(grid=grids[0], scl_grid=grids[1], red=numbers[0], nir=numbers[0], scl=numbers[1])


BROKEN = {
    UpstreamMissing: (404, False),
    UpstreamRejected: (403, False),
    UpstreamUnavailable: (503, True),
    UpstreamUnreadable: (None, False),
}


@pytest.mark.parametrize("band", ["B04", "SCL"])
@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_looked_at_fails_by_its_reason(kind: type[Exception], band: str, tmp_path: Path) -> None:
    status, is_retryable = BROKEN[kind]
    with file_server(tmp_path) as server:
        scene = write(blank(), tmp_path, url=server.url, rescale=DOUBTFUL)
        break_file(server, f"*/{band}.tif", status)
        with pytest.raises(kind, match="to settle the offset") as caught:
            settle_rescale(scene, limits=QUICK)
        assert address_of(scene, band) in str(caught.value)
        assert caught.value.is_retryable == is_retryable
        server.heal()
        assert settle_rescale(scene, limits=QUICK).offset == DOUBTFUL.offset


def break_file(server: FileServer, pattern: str, status: int | None) -> None:
    if status is None:
        server.replace(pattern)
    else:
        server.fail(pattern, status=status)


def address_of(scene: Scene, band: str) -> str:
    return scene.red.href if band == "B04" else scene.scl.href
