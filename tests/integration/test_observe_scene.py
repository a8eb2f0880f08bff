"""One scene, all its farms: every number against exactextract on the masked raster, every reason against the truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely

from infra.dask import Compute, threaded_compute
from models.domain import Farm, FarmFailure, Grid, MaskPolicy, Observation, Rescale, Rule, SceneAnswer, Status
from tests.support.sky import (
    GRID,
    POLICY,
    RAW,
    REMOVED,
    Picture,
    assert_agrees,
    blank,
    by_farm,
    circle,
    farm_of,
    in_degrees,
    look,
    noisy,
    only,
    rectangle,
    scl_grid_of,
    true_ndvi,
    true_statistics,
    write,
)

SHAPES = [
    circle(50, 50, 20.3),
    rectangle(3.3, 4.4, 10, 8),
    shapely.difference(circle(90, 30, 15.2), circle(88, 31, 6.1)),
    shapely.MultiPolygon([rectangle(20, 80, 7.5, 6.5), rectangle(70.2, 75.1, 12, 9)]),
    rectangle(33.25, 12.25, 0.5, 0.5),
    rectangle(110.5, 90.5, 20, 30),  # over the corner of the image
    rectangle(60, 2, 40, 0.05),
]
FARMS = [farm_of(shape, number) for number, shape in enumerate(SHAPES, start=1)]


@pytest.fixture(scope="module")
def compute() -> Iterator[Compute]:
    with threaded_compute(4) as threads:
        yield threads


def area_around(*grids: Grid) -> Grid:
    """The grid that spans all of these and 60 pixels more, so that farms beyond the imagery are whole in the truth."""
    step = grids[0].resolution_m
    left, top = min(each.left for each in grids) - 60 * step, max(each.top for each in grids) + 60 * step
    right, bottom = max(each.bounds[2] for each in grids) + 60 * step, min(each.bounds[1] for each in grids) - 60 * step
    return replace(
        grids[0], left=left, top=top, width=round((right - left) / step), height=round((top - bottom) / step)
    )


def assert_true(
    answer: SceneAnswer,
    farms: list[Farm],
    pictures: list[Picture],
    rescales: list[Rescale],
    folder: Path,
    *,
    policy: MaskPolicy = POLICY,
) -> dict[int, Observation]:
    """Hold every farm's answer to exactextract on the NDVI that the pictures hold."""
    area = area_around(*(picture.grid for picture in pictures))
    index = true_ndvi(pictures, rescales, area, policy=policy)
    told = by_farm(answer)
    observed = {number: each for number, each in told.items() if isinstance(each, Observation)}
    assert set(observed) == {farm.id for farm in farms}
    for farm, true in zip(farms, true_statistics(index, area, farms, folder=folder), strict=True):
        assert_agrees(observed[farm.id], true)
        assert observed[farm.id].clear_fraction == pytest.approx(true["count"] / true["area_px"], rel=1e-6)
        assert sum(observed[farm.id].class_counts) == true["touched"]
    return observed


@pytest.mark.parametrize("rescale", [RAW, REMOVED], ids=["offset in the pixels", "offset removed"])
@pytest.mark.parametrize("seed", [1, 2])
def test_every_number_is_exactextracts(seed: int, rescale: Rescale, tmp_path: Path, compute: Compute) -> None:
    picture = noisy(seed)
    scene = write(picture, tmp_path, rescale=rescale)
    answer = look(scene, FARMS, compute=compute)
    observed = assert_true(answer, FARMS, [picture], [rescale], tmp_path)
    assert sum(each.status is Status.OBSERVED for each in observed.values()) >= 6
    if rescale is RAW:
        assert sum(each.statistics.clipped_count for each in observed.values() if each.statistics) > 0


def test_each_offset_convention_gives_the_same_index_for_the_same_ground(tmp_path: Path, compute: Compute) -> None:
    removed = noisy(3, cloud=0)
    raw = replace(
        removed,
        red=np.where(removed.red > 0, removed.red + 1000, 0).astype(np.uint16),
        nir=np.where(removed.nir > 0, removed.nir + 1000, 0).astype(np.uint16),
    )
    one = look(write(removed, tmp_path, name="removed", rescale=REMOVED), FARMS, compute=compute)
    other = look(write(raw, tmp_path, name="raw", rescale=RAW), FARMS, compute=compute)
    for a, b in zip(one.observations, other.observations, strict=True):
        assert a.ndvi == pytest.approx(b.ndvi, abs=1e-12)
    twice = look(write(removed, tmp_path, name="twice", rescale=RAW), FARMS, compute=compute)
    assert abs(twice.observations[0].ndvi - one.observations[0].ndvi) > 0.1  # the trap of the offset


@pytest.mark.parametrize(
    "classes", [{4}, {4, 5}, {1, 2, 3, 8, 9, 10}, set(range(1, 12))], ids=lambda classes: "+".join(map(str, classes))
)
def test_the_set_of_classes_decides_what_counts(classes: set[int], tmp_path: Path, compute: Compute) -> None:
    picture = noisy(4)
    policy = MaskPolicy(clear_classes=frozenset(classes))
    answer = look(write(picture, tmp_path), FARMS, compute=compute, policy=policy)
    observed = assert_true(answer, FARMS, [picture], [RAW], tmp_path, policy=policy)
    assert {each.mask_policy for each in observed.values()} == {policy.name}


@pytest.mark.parametrize(("right_m", "down_m"), [(-10, -10), (-10, 10), (-20, 0), (-5, -15), (30, 50)])
def test_the_scene_classes_are_placed_by_their_own_grid(
    right_m: float, down_m: float, tmp_path: Path, compute: Compute
) -> None:
    picture = noisy(5, scl_grid=scl_grid_of(GRID, right_m=right_m, down_m=down_m))
    answer = look(write(picture, tmp_path), FARMS, compute=compute)
    assert_true(answer, FARMS, [picture], [RAW], tmp_path)


@pytest.mark.parametrize("chunk", [(1024, 4096), (32, 64), (50, 70)])
@pytest.mark.parametrize("dilation_m", [10, 20, 45, 120, 900])
def test_a_dilation_reaches_over_blocks_and_chunks(
    dilation_m: float, chunk: tuple[int, int], tmp_path: Path, compute: Compute
) -> None:
    picture = blank(scl_grid=scl_grid_of(GRID, right_m=-10, down_m=-10))
    rng = np.random.default_rng(int(dilation_m))
    rows, cols = rng.integers(0, picture.scl_grid.height, 12), rng.integers(0, picture.scl_grid.width, 12)
    picture.scl[rows, cols] = rng.choice([3, 8, 9, 10, 1, 2], 12)
    picture.red[...] = rng.integers(1100, 3000, GRID.shape)
    policy = MaskPolicy(dilation_m=dilation_m)
    answer = look(write(picture, tmp_path, block=16), FARMS, compute=compute, policy=policy, chunk=chunk)
    assert_true(answer, FARMS, [picture], [RAW], tmp_path, policy=policy)


def test_a_dilation_looks_at_blocks_that_hold_no_farm(tmp_path: Path, compute: Compute) -> None:
    grid = replace(GRID, width=1536, height=512)
    picture = blank(grid)
    picture.scl[60:80, 255:257] = 9  # the cloud ends one SCL pixel within the second cell, the farm is in the third
    farm = farm_of(rectangle(520, 120, 30, 30, grid=grid))
    scene = write(picture, tmp_path, block=128)
    for dilation_m, is_reached in ((40, False), (100, True), (600, True)):
        answer = look(scene, [farm], compute=compute, policy=MaskPolicy(dilation_m=dilation_m), chunk=(128, 128))
        policy = MaskPolicy(dilation_m=dilation_m)
        [observed] = assert_true(answer, [farm], [picture], [RAW], tmp_path, policy=policy).values()
        assert (observed.clear_fraction < 1) == is_reached


def test_all_cloud_is_an_answer_without_numbers(tmp_path: Path, compute: Compute) -> None:
    picture = blank(scl=9)
    answer = look(write(picture, tmp_path), FARMS, compute=compute)
    assert {each.status for each in answer.observations} == {Status.CLOUD}
    assert_true(answer, FARMS, [picture], [RAW], tmp_path)
    for each in answer.observations:
        assert (each.ndvi, each.rule, each.statistics, each.clear_fraction) == (None, None, None, 0)
    assert answer.observations[1].class_counts[9] > 80


def test_a_farm_seen_whole_has_a_clear_fraction_of_exactly_one(tmp_path: Path, compute: Compute) -> None:
    rng = np.random.default_rng(0)
    farms = [farm_of(circle(*rng.uniform(20, 80, 2), rng.uniform(0.3, 15)), number) for number in range(1, 60)]
    answer = look(write(blank(), tmp_path), farms, compute=compute)
    assert {each.clear_fraction for each in answer.observations} == {1.0}
    for each in answer.observations:
        assert each.ndvi == pytest.approx(5 / 7)
        assert each.statistics is not None
        assert each.statistics.std == pytest.approx(0, abs=1e-7)


def test_one_clear_pixel_is_enough(tmp_path: Path, compute: Compute) -> None:
    picture = blank(scl=8)
    picture.scl[25, 25] = 5
    observed = only(look(write(picture, tmp_path), [FARMS[0]], compute=compute))
    assert observed.status is Status.OBSERVED
    assert observed.statistics is not None
    assert observed.statistics.pixel_count == 4
    assert observed.clear_fraction == pytest.approx(4 / (np.pi * 20.3**2), rel=0.01)


class TestWhyNot:
    """The reason of a farm without numbers."""

    def test_a_farm_off_the_grid_is_outside(self, tmp_path: Path, compute: Compute) -> None:
        farm = farm_of(rectangle(300, 300, 10, 10))
        observed = only(look(write(blank(), tmp_path), [farm], compute=compute))
        assert observed.status is Status.OUTSIDE
        assert observed.class_counts[0] == sum(observed.class_counts)

    def test_beyond_the_edge_of_the_swath_is_outside_when_the_footprint_says_so(
        self, tmp_path: Path, compute: Compute
    ) -> None:
        picture = swath(blank())
        left_half = in_degrees(rectangle(0, 0, 60, 100))
        scene = write(picture, tmp_path, footprint=(tuple(left_half.exterior.coords),))
        farms = [farm_of(rectangle(10, 10, 20, 20), 1), farm_of(rectangle(80, 10, 20, 20), 2)]
        told = by_farm(look(scene, farms, compute=compute))
        assert [told[1].status, told[2].status] == [Status.OBSERVED, Status.OUTSIDE]

    def test_a_farm_across_the_edge_of_the_swath_is_observed_by_its_part(
        self, tmp_path: Path, compute: Compute
    ) -> None:
        farm = farm_of(rectangle(50, 10, 20, 20))
        answer = look(write(swath(noisy(6, cloud=0)), tmp_path), [farm], compute=compute)
        observed = assert_true(answer, [farm], [swath(noisy(6, cloud=0))], [RAW], tmp_path)[1]
        assert observed.status is Status.OBSERVED
        assert 0.4 < observed.clear_fraction < 0.5

    def test_no_data_without_a_footprint_or_inside_it_is_nodata(self, tmp_path: Path, compute: Compute) -> None:
        whole = in_degrees(rectangle(-5, -5, 130, 110))
        farm = farm_of(rectangle(80, 10, 20, 20))
        for name, footprint in (("none", ()), ("whole", (tuple(whole.exterior.coords),))):
            scene = write(swath(blank()), tmp_path, name=name, footprint=footprint)
            assert only(look(scene, [farm], compute=compute)).status is Status.NODATA

    @pytest.mark.parametrize("missing", ["red", "nir"])
    def test_one_band_without_data_is_nodata_however_clear_its_classes(
        self, missing: str, tmp_path: Path, compute: Compute
    ) -> None:
        picture = blank()
        getattr(picture, missing)[...] = 0
        scene = write(picture, tmp_path, footprint=())
        observed = only(look(scene, [FARMS[0]], compute=compute))
        assert observed.status is Status.NODATA
        assert observed.class_counts[4] > 0

    def test_water_darker_than_the_offset_has_no_index(self, tmp_path: Path, compute: Compute) -> None:
        observed = only(look(write(blank(red=1020, nir=980, scl=6), tmp_path), [FARMS[0]], compute=compute))
        assert observed.status is Status.NODATA

    def test_cloud_beside_no_data_is_cloud(self, tmp_path: Path, compute: Compute) -> None:
        farm = farm_of(rectangle(50, 10, 20, 20))
        observed = only(look(write(swath(blank(scl=9)), tmp_path), [farm], compute=compute))
        assert observed.status is Status.CLOUD

    @pytest.mark.parametrize("ring", [(), ((15.0, 46.9),), ((15.0, 46.9), (15.1, 46.9)), ((15.0, 46.9),) * 3])
    def test_a_footprint_that_is_no_ring_says_nothing(
        self, ring: tuple[tuple[float, float], ...], tmp_path: Path, compute: Compute
    ) -> None:
        observed = only(look(write(blank(scl=0), tmp_path, footprint=(ring,)), [FARMS[0]], compute=compute))
        assert observed.status is Status.NODATA

    def test_a_crossed_footprint_does_not_stop_the_scene(self, tmp_path: Path, compute: Compute) -> None:
        corners = shapely.get_coordinates(in_degrees(rectangle(0, 0, 120, 100)))[[0, 2, 1, 3, 0]]
        scene = write(blank(scl=0), tmp_path, footprint=(tuple(map(tuple, corners.tolist())),))
        answer = look(scene, FARMS, compute=compute)
        assert {each.status for each in answer.observations} <= {Status.NODATA, Status.OUTSIDE}


def swath(picture: Picture) -> Picture:
    """The same picture, where the sensor saw only the left half."""
    for band in (picture.red, picture.nir, picture.scl):
        band[:, band.shape[1] // 2 :] = 0
    return picture


@pytest.mark.parametrize("odd", [12, 100, 200, 255])
def test_a_class_that_sentinel_2_does_not_have_is_no_data_of_its_own_farm(
    odd: int, tmp_path: Path, compute: Compute
) -> None:
    picture = noisy(7)
    unknown = picture.scl == 4
    true = replace(picture, scl=np.where(unknown, 0, picture.scl))
    odd_picture = replace(picture, scl=np.where(unknown, np.uint8(odd), picture.scl))
    answer = look(write(odd_picture, tmp_path, name="odd"), FARMS, compute=compute)
    plain = look(write(true, tmp_path, name="plain"), FARMS, compute=compute)
    for a, b in zip(answer.observations, plain.observations, strict=True):
        assert (a.class_counts, a.statistics, a.status) == (b.class_counts, b.statistics, b.status)


class TestPieces:
    """Several files of one pass, completed pixel by pixel."""

    @pytest.mark.parametrize("rescales", [[RAW, RAW], [RAW, REMOVED], [REMOVED, RAW]], ids=["raw", "first", "second"])
    def test_pieces_are_completed_pixel_by_pixel_each_with_its_own_offset(
        self, rescales: list[Rescale], tmp_path: Path, compute: Compute
    ) -> None:
        pictures = [noisy(8), noisy(9)]
        for band in (pictures[0].red, pictures[0].nir, pictures[0].scl):
            band[band.shape[0] // 2 :] = 0  # the first piece saw the upper half
        pictures[1].scl[: pictures[1].scl.shape[0] // 3] = 0  # the second the lower two thirds: some is seen twice
        scenes = [
            write(picture, tmp_path, name=f"piece{number}", rescale=rescale)
            for number, (picture, rescale) in enumerate(zip(pictures, rescales, strict=True))
        ]
        observed = assert_true(look(scenes, FARMS, compute=compute), FARMS, pictures, rescales, tmp_path)
        assert observed[1].item_ids == ("piece0", "piece1")
        assert observed[2].item_ids == ("piece0",)
        assert observed[4].item_ids == ("piece1",)
        assert observed[1].rescale_rule == " | ".join(dict.fromkeys(each.rule for each in rescales))

    def test_a_pixel_that_is_clear_but_lacks_a_band_is_taken_from_the_next_piece(
        self, tmp_path: Path, compute: Compute
    ) -> None:
        pictures = [noisy(10, gaps=0.5), noisy(11, gaps=0.2)]
        scenes = [write(picture, tmp_path, name=f"piece{number}") for number, picture in enumerate(pictures)]
        assert_true(look(scenes, FARMS, compute=compute), FARMS, pictures, [RAW, RAW], tmp_path)

    def test_cloud_in_the_first_piece_is_an_answer(self, tmp_path: Path, compute: Compute) -> None:
        scenes = [write(blank(scl=9), tmp_path, name="cloud"), write(blank(), tmp_path, name="clear")]
        assert only(look(scenes, [FARMS[0]], compute=compute)).status is Status.CLOUD
        assert only(look(scenes[::-1], [FARMS[0]], compute=compute)).status is Status.OBSERVED

    def test_a_farm_that_no_tile_holds_whole_is_mosaicked(self, tmp_path: Path, compute: Compute) -> None:
        # the right tile starts 10 px before the left one ends and lies 31 rows lower, its SCL grid on an odd phase
        right = replace(GRID, left=GRID.left + 1100, top=GRID.top - 310)
        pictures = [noisy(12), noisy(13, right, scl_grid=scl_grid_of(right, right_m=-10, down_m=-10))]
        scenes = [
            write(picture, tmp_path, name=tile, tile=tile, rescale=rescale)
            for picture, tile, rescale in zip(pictures, ("33TWM", "33TXM"), (RAW, REMOVED), strict=True)
        ]
        farms = [farm_of(circle(115, 60, 40.7), 1), farm_of(rectangle(90, 20, 60, 100), 2), FARMS[1]]
        farms[2] = replace(farms[2], id=3)
        observed = assert_true(look(scenes, farms, compute=compute), farms, pictures, [RAW, REMOVED], tmp_path)
        assert observed[1].item_ids == ("33TWM", "33TXM")
        assert observed[3].item_ids == ("33TWM",)

    def test_tiles_on_different_lattices_are_refused(self, tmp_path: Path, compute: Compute) -> None:
        other = replace(GRID, left=GRID.left + 1005)
        scenes = [write(blank(), tmp_path, name="a"), write(blank(other), tmp_path, name="b")]
        with pytest.raises(ValueError, match="lattice"):
            look(scenes, FARMS, compute=compute)


class TestHeadline:
    """Which value is the headline, and from which pixels."""

    def mixed(self) -> tuple[Picture, Farm]:
        """A green field of 10 x 10 pixels on bare ground, drawn half a pixel too large."""
        picture = blank(red=3000, nir=3400, scl=5)
        picture.red[20:30, 20:30], picture.nir[20:30, 20:30] = 1300, 5000
        return picture, farm_of(rectangle(19.5, 19.5, 11, 11))

    def test_inner_pixels_make_the_headline_when_there_are_enough(self, tmp_path: Path, compute: Compute) -> None:
        picture, farm = self.mixed()
        observed = only(look(write(picture, tmp_path), [farm], compute=compute))
        assert observed.statistics is not None
        assert observed.rule is Rule.INNER
        assert observed.statistics.inner_pixel_count == 100
        assert observed.ndvi == observed.statistics.inner_mean == pytest.approx(37 / 43)
        assert observed.statistics.mean < observed.ndvi - 0.05

    def test_too_few_clear_inner_pixels_leave_the_weighted_mean(self, tmp_path: Path, compute: Compute) -> None:
        picture, farm = self.mixed()
        picture.scl[10:15, 10:15] = 9
        picture.scl[12, 12] = picture.scl[11, 11] = 4  # 8 inner pixels stay clear
        scene = write(picture, tmp_path)
        observed = only(look(scene, [farm], compute=compute))
        assert observed.statistics is not None
        assert observed.statistics.inner_pixel_count == 8
        assert (observed.rule, observed.ndvi) == (Rule.WEIGHTED, observed.statistics.mean)
        eight = only(look(scene, [farm], compute=compute, min_inner_pixels=8))
        assert eight.statistics is not None
        assert (eight.rule, eight.ndvi) == (Rule.INNER, eight.statistics.inner_mean)

    def test_a_margin_moves_the_inner_pixels_inwards_and_nothing_else(self, tmp_path: Path, compute: Compute) -> None:
        picture, farm = self.mixed()
        scene = write(picture, tmp_path)
        plain, inward = (only(look(scene, [farm], compute=compute, inner_margin_m=m)) for m in (0, 15))
        assert plain.statistics is not None
        assert inward.statistics is not None
        assert inward.statistics.inner_pixel_count == 64
        assert (
            replace(
                inward.statistics,
                inner_pixel_count=plain.statistics.inner_pixel_count,
                inner_mean=plain.statistics.inner_mean,
                inner_median=plain.statistics.inner_median,
            )
            == plain.statistics
        )


def test_a_farm_in_the_south_is_observed_alike(tmp_path: Path, compute: Compute) -> None:
    grid = replace(GRID, epsg=32736, left=699960, top=9800020)
    picture = noisy(14, grid)
    farms = [
        farm_of(shapely.transform(shape, lambda xy: xy + np.array([199980, 4600000])), number, epsg=grid.epsg)
        for number, shape in enumerate(SHAPES, start=1)
    ]
    scene = write(picture, tmp_path, tile="36MZE")
    assert_true(look(scene, farms, compute=compute), farms, [picture], [RAW], tmp_path)


@pytest.mark.parametrize(
    "grid",
    [replace(GRID, left=GRID.left + 20), replace(GRID, top=GRID.top - 10), replace(GRID, epsg=32634)],
    ids=["east", "south", "another zone"],
)
def test_a_file_that_lies_elsewhere_than_its_item_says_is_a_failure(
    grid: Grid, tmp_path: Path, compute: Compute
) -> None:
    scene = write(noisy(15), tmp_path)
    wrong = replace(scene, **{band: replace(getattr(scene, band), grid=grid) for band in ("red", "nir")})
    wrong = replace(wrong, scl=replace(scene.scl, grid=scl_grid_of(grid)))
    told = by_farm(look(wrong, [farm_of(SHAPES[0], epsg=grid.epsg)], compute=compute))[1]
    assert isinstance(told, FarmFailure)
    assert "unreadable" in told.problem
    assert not told.is_retryable


def test_a_file_of_reflectances_instead_of_digital_numbers_is_a_failure(tmp_path: Path, compute: Compute) -> None:
    picture = noisy(16)
    scene = write(replace(picture, red=(picture.red * 1e-4).astype(np.float32)), tmp_path)
    told = by_farm(look(scene, [FARMS[0]], compute=compute))[1]
    assert isinstance(told, FarmFailure)
    assert "unreadable" in told.problem


def test_a_boundary_that_collapses_spoils_no_other_farm(tmp_path: Path, compute: Compute) -> None:
    scene = write(noisy(17), tmp_path)
    line = shapely.Polygon([(15, 46.9), (15, 46.95), (15, 46.9), (15, 46.9)])
    flat = replace(FARMS[0], id=99, boundary=shapely.to_wkb(line))
    expected = look(scene, FARMS, compute=compute).observations
    for farms in ([flat, *FARMS], [*FARMS, flat], [*FARMS[:3], flat, *FARMS[3:]], [flat]):
        told = by_farm(look(scene, farms, compute=compute))
        assert told.pop(99).status is Status.OUTSIDE
        assert list(told.values()) == [each for each in expected if each.farm_id in told]
