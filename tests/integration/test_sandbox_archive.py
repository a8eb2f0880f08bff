"""The simulated archive, read as any reader would, against the truth that it was drawn from."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource

from infra.sandbox.archive import write_passes
from infra.sandbox.fields import to_degrees
from infra.sandbox.items import C1, COLLECTIONS, L2A
from infra.sandbox.passes import Pass, passes_between
from infra.sandbox.places import DISTRICTS, NORTH, Tile
from infra.sandbox.world import Truth, World
from models.domain import MaskPolicy, Scene
from tasks.imagery.catalogs import catalogs_from
from tasks.imagery.scenes import scene_from

SEED = 7
START, END = dt.date(2024, 6, 1), dt.date(2024, 6, 30)
TILES = {tile.name: tile for district in DISTRICTS for tile in district.tiles}
CLEAR = sorted(MaskPolicy().clear_classes)

Item = dict[str, Any]


class Archive:
    """A written archive with its truth."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.truth = Truth(World(SEED), START, END)
        self.items = write_passes(self.truth.world, self.truth.passes, folder)

    def of(self, a_pass: Pass, collection: str, tile: Tile | None = None) -> list[Item]:
        """The items of one pass, oldest processing first, of one tile or of all."""
        return [
            item
            for item in self.items
            if item["collection"] == collection
            and item["assets"]["red"]["href"].startswith(a_pass.name + "/")
            and (tile is None or item["properties"]["grid:code"].endswith(tile.name))
        ]

    def passes(self, trait: str) -> list[Pass]:
        """The passes of which this is true."""
        return [each for each in self.truth.passes if getattr(each, trait)]

    def read(self, item: Item, asset: str) -> np.ndarray:
        """The digital numbers of one asset."""
        with rasterio.open(self.folder / item["assets"][asset]["href"]) as opened:
            return np.asarray(opened.read(1))

    def clear_ndvi(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        """NDVI as its collection says it is to be computed (0 where there are no data), and which pixels are clear."""
        offset = -0.1 if item["collection"] == C1 else 0.0
        red, nir = (self.read(item, name) * 1e-4 + offset for name in ("red", "nir"))
        ndvi = np.divide(nir - red, nir + red, out=np.zeros_like(red), where=nir + red != 0)
        scl = self.read(item, "scl").repeat(2, axis=0).repeat(2, axis=1)
        return ndvi, np.isin(scl, CLEAR)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return Archive(tmp_path_factory.mktemp("archive"))


def test_the_same_seed_draws_the_same_bytes(tmp_path: Path) -> None:
    passes = tuple(passes_between(dt.date(2024, 6, 7), dt.date(2024, 6, 10)))
    digests = []
    for folder, seed in ((tmp_path / "a", 3), (tmp_path / "b", 3), (tmp_path / "c", 4)):
        write_passes(World(seed), passes, folder)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        names = [str(file.relative_to(folder)) for file in files]
        digests.append((names, [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]))
    assert digests[0] == digests[1]
    assert digests[0][1] != digests[2][1]


def test_a_second_call_writes_nothing_and_a_longer_season_only_adds(tmp_path: Path) -> None:
    passes = tuple(passes_between(dt.date(2024, 6, 7), dt.date(2024, 6, 14)))
    write_passes(World(3), passes[:2], tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.*")}
    items = write_passes(World(3), passes, tmp_path)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert len({item["assets"]["red"]["href"].split("/")[0] for item in items}) == len(passes)
    assert not list(tmp_path.glob("making-*"))


def test_both_collections_give_the_same_reflectance(archive: Archive) -> None:
    compared = 0
    for c1 in (item for item in archive.items if item["collection"] == C1):
        twins = [item for item in archive.items if item["collection"] == L2A and _key(item) == _key(c1)]
        l2a = max(twins, key=lambda item: item["properties"]["updated"])
        for band in ("red", "nir"):
            raw, corrected = archive.read(c1, band).astype(int), archive.read(l2a, band).astype(int)
            assert np.array_equal(raw == 0, corrected == 0)
            assert np.array_equal(raw[raw > 0] - 1000, corrected[raw > 0])
        assert np.array_equal(archive.read(c1, "scl"), archive.read(l2a, "scl"))
        compared += 1
    assert compared > 10


def test_clear_pixels_show_the_true_ndvi(archive: Archive) -> None:
    for a_pass in archive.truth.passes:
        for tile in a_pass.district.tiles:
            for item in archive.of(a_pass, L2A, tile)[-1:]:
                ndvi, is_clear = archive.clear_ndvi(item)
                true = archive.truth.raster(tile, a_pass.district, a_pass.day)
                total = archive.read(item, "red").astype(float) + archive.read(item, "nir")
                # red and nir are each rounded by up to half a digital number
                assert (np.abs(ndvi - true) * total)[is_clear].max(initial=0) < 1.01


def test_the_truth_of_a_farm_is_what_exactextract_finds_in_the_raster(archive: Archive) -> None:
    day = dt.date(2024, 6, 14)
    for farm in archive.truth.farms:
        tile = next((tile for tile in farm.district.tiles if tile.outline.contains(farm.outline)), None)
        if tile is None:
            continue
        left, bottom, right, top = tile.grid.bounds
        source = NumPyRasterSource(
            archive.truth.raster(tile, farm.district, day).astype(float), xmin=left, ymin=bottom, xmax=right, ymax=top
        )
        frame = geopandas.GeoDataFrame(geometry=[farm.outline], crs=farm.district.epsg)
        [found] = exact_extract(source, frame, ["mean"], output="geojson")
        seen = archive.truth.seen_ndvi(farm.external_farm_id, day)
        assert found["properties"]["mean"] == pytest.approx(seen, abs=1e-6), farm.name


def test_the_clear_fraction_of_a_farm_is_what_the_scene_classes_show(archive: Archive) -> None:
    checked = 0
    for a_pass in archive.passes("is_processed_twice"):
        for tile in a_pass.district.tiles:
            [item] = archive.of(a_pass, L2A, tile)[-1:]
            for farm in archive.truth.farms:
                if farm.district != a_pass.district or not tile.outline.contains(farm.outline):
                    continue
                frame = geopandas.GeoDataFrame(geometry=[farm.outline], crs=farm.district.epsg)
                with rasterio.open(archive.folder / item["assets"]["scl"]["href"]) as opened:
                    [found] = exact_extract(opened, frame, ["values", "coverage"], output="geojson")
                values, coverage = (np.asarray(found["properties"][name]) for name in ("values", "coverage"))
                expected = float((coverage * np.isin(values, CLEAR)).sum()) * 400 / farm.outline.area
                told = archive.truth.clear_fraction(farm.external_farm_id, a_pass)
                assert told == pytest.approx(expected, abs=1e-4), farm.name
                checked += 1
    assert checked > 20


def test_the_pieces_of_a_split_pass_complete_each_other(archive: Archive) -> None:
    [a_pass] = archive.passes("is_split")
    for collection in COLLECTIONS:
        if collection == C1 and a_pass.is_missing_in_c1:
            continue
        for tile in NORTH.tiles:
            pieces = archive.of(a_pass, collection, tile)
            has_data = [archive.read(piece, "red") > 0 for piece in pieces]
            assert len(pieces) == 2
            assert np.all(has_data[0] ^ has_data[1])
            assert len({piece["properties"]["s2:datatake_id"] for piece in pieces}) == 1
            assert len({piece["properties"]["s2:datastrip_id"] for piece in pieces}) == 2
            assert len({piece["properties"]["s2:processing_baseline"] for piece in pieces}) == 1


def test_of_two_processings_the_older_one_is_wrong(archive: Archive) -> None:
    [a_pass] = archive.passes("is_processed_twice")
    for tile in NORTH.tiles:
        older, newer = archive.of(a_pass, L2A, tile)
        assert older["id"].endswith("_0_L2A")
        assert newer["id"].endswith("_1_L2A")
        assert older["properties"]["s2:processing_baseline"] < newer["properties"]["s2:processing_baseline"]
        assert older["properties"]["updated"] < newer["properties"]["updated"]
        wrong, is_clear = archive.clear_ndvi(older)
        true = archive.truth.raster(tile, NORTH, a_pass.day)
        assert np.median(true[is_clear] - wrong[is_clear]) > 0.005


def test_a_gap_of_the_first_collection_is_filled_by_the_second(archive: Archive) -> None:
    gaps = archive.passes("is_missing_in_c1")
    assert gaps
    assert all(not archive.of(gap, C1) and archive.of(gap, L2A) for gap in gaps)


def test_the_second_orbit_ends_at_the_edge_of_its_swath(archive: Archive) -> None:
    for a_pass in archive.passes("is_partial"):
        [item] = archive.of(a_pass, L2A)
        share = (archive.read(item, "red") > 0).mean()
        assert item["properties"]["grid:code"] == "MGRS-34TDR"
        assert 0.4 < share < 0.7
        assert np.array_equal(archive.read(item, "scl") == 0, archive.read(item, "nir")[::2, ::2] == 0)


def test_items_say_where_their_pixels_lie(archive: Archive) -> None:
    assert len({(item["collection"], item["id"]) for item in archive.items}) == len(archive.items)
    for item in archive.items:
        tile = TILES[item["properties"]["grid:code"].removeprefix("MGRS-")]
        for name, asset in item["assets"].items():
            with rasterio.open(archive.folder / asset["href"]) as opened:
                assert opened.crs.to_epsg() == tile.grid.epsg
                assert list(opened.transform)[:6] == asset["proj:transform"]
                assert list(opened.shape) == asset["proj:shape"]
                assert (opened.nodata, opened.block_shapes) == (0, [(512, 512)])
                assert opened.dtypes[0] == asset["raster:bands"][0]["data_type"]
            assert "offset" in asset["raster:bands"][0] or name == "scl"
        outline = shapely.geometry.shape(item["geometry"])
        data_share = (archive.read(item, "scl") > 0).mean()
        in_tile = outline.area / to_degrees(tile.outline, tile.grid.epsg).area
        assert in_tile == pytest.approx(data_share, abs=0.005)
        assert tuple(item["bbox"]) == pytest.approx(outline.bounds)


def test_items_have_the_form_of_their_collection(archive: Archive) -> None:
    ids = {
        C1: re.compile(r"S2[ABC]_T\d\d[A-Z]{3}_\d{8}T\d{6}_L2A"),
        L2A: re.compile(r"S2[ABC]_\d\d[A-Z]{3}_\d{8}_\d_L2A"),
    }
    for item in archive.items:
        properties = item["properties"]
        assert ids[item["collection"]].fullmatch(item["id"])
        assert properties["swath:simulated"] is True
        assert ("proj:code" in properties) == (item["collection"] == C1)
        assert ("proj:epsg" in properties) == (item["collection"] == L2A)
        assert properties.get("earthsearch:boa_offset_applied") is (True if item["collection"] == L2A else None)
        assert 0 <= properties["eo:cloud_cover"] <= 100
        json.dumps(item)


def test_every_item_is_a_scene_to_our_own_reader(archive: Archive) -> None:
    for collection, rule in ((C1, -0.1), (L2A, 0.0)):
        [catalog] = catalogs_from([], stac_url="http://127.0.0.1:9", stac_collection=collection)
        for item in (item for item in archive.items if item["collection"] == collection):
            assets = {
                key: {**asset, "href": f"http://127.0.0.1:9/{asset['href']}"} for key, asset in item["assets"].items()
            }
            scene = scene_from({**item, "assets": assets}, catalog)
            assert isinstance(scene, Scene), scene
            assert scene.rescale.offset == rule
            assert scene.rescale.is_certain
            assert f"{scene.day:%Y%m%d}" in item["id"]


def _key(item: Item) -> tuple[str, str, str]:
    properties = item["properties"]
    sensed = properties["s2:datastrip_id"].split("_S")[-1].split("_")[0]
    return properties["platform"], properties["grid:code"], sensed
