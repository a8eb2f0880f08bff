"""What a cluster is sent for a scene, and what it gives back."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import numpy as np
import pytest
from dask.callbacks import Callback
from dask.optimization import cull
from dask.utils import ensure_dict

from infra.settings import Settings
from models.domain import Grid
from tasks.bench import http_limits
from tasks.imagery.pixels import PixelsOfBlock, gather
from tasks.imagery.reader import HttpLimits
from tasks.imagery.runs import Runs
from tasks.imagery.stack import stack
from tasks.imagery.wanted import wanted_strips
from tests.support.sky import RAW, blank, circle, farm_of, look, noisy, write

TILE = Grid(epsg=32633, left=499980, top=5200020, resolution_m=10, width=10_980, height=10_980)
FIELDS, DOWN, ACROSS = 1000, 20, 18
"""So many fields of 3.6 ha on the tile, in pixels."""


def fields() -> tuple[Any, Any]:
    """Rows and columns of the pixels of all fields, field by field."""
    rng = np.random.default_rng(5)
    rows, cols = np.indices((DOWN, ACROSS), dtype=np.int32).reshape(2, -1)
    corners = rng.integers(0, TILE.height - DOWN, (2, FIELDS, 1), dtype=np.int32)
    return (corners[0] + rows).ravel(), (corners[1] + cols).ravel()


class Kept(Exception):
    """Ends a gathering once its tasks are known."""

    def __init__(self, tasks: Sequence[Any]) -> None:
        self.graph, self.keys = ensure_dict(tasks[0].__dask_graph__()), [task.key for task in tasks]


def keep(tasks: Sequence[Any]) -> Sequence[Any]:
    raise Kept(tasks)


def test_a_scene_with_many_farms_is_sent_in_less_than_a_byte_a_pixel(tmp_path: Path) -> None:
    scene = write(blank(), tmp_path, url="http://127.0.0.1:9")
    scene = replace(scene, red=replace(scene.red, grid=TILE), nir=replace(scene.nir, grid=TILE))
    rows, cols = fields()
    wanted = wanted_strips(Runs.of(rows, cols), TILE.shape)
    array = stack(scene, ("red", "nir"), wanted=wanted, limits=HttpLimits()).data[0]
    with pytest.raises(Kept) as kept:
        gather(array, Runs.of(rows, cols), compute=keep)
    graph, keys = kept.value.graph, kept.value.keys
    whole, one = (len(cloudpickle.dumps(cull(graph, some)[0])) for some in (keys, keys[:1]))
    assert whole < 0.75 * len(rows), "two arrays of places would be 16 bytes"
    assert one < 0.3 * whole, "one block does not take along what others need"


def test_results_of_tasks_are_pixels_of_farms_and_not_blocks(tmp_path: Path) -> None:
    sizes: dict[str, int] = {}

    class Sizes(Callback):  # type: ignore[misc]
        def _posttask(self, key: Any, value: Any, *_: Any) -> None:
            if isinstance(value, np.ndarray) and value.dtype.kind == "u":
                sizes[str(key)] = value.nbytes

    def counted(tasks: Sequence[Any]) -> Sequence[Any]:
        with Sizes():
            results: Sequence[Any] = dask.compute(*tasks, scheduler="sync")
        return results

    scene = write(noisy(1, cloud=0), tmp_path)
    farm = farm_of(circle(20, 20, 4))
    [observation] = look(scene, [farm], compute=counted, chunk=(64, 64)).observations
    assert observation.statistics is not None
    assert sizes
    assert max(sizes.values()) <= 2 * 81, "of a chunk of 8 kB, a square of 9 x 9 around the farm at most"


def test_wanted_pixels_come_out_of_a_pickle_as_they_were() -> None:
    rng = np.random.default_rng(0)
    for number in (0, 1, 1000):
        for dtype in (np.uint16, np.int32):
            runs = Runs(*rng.integers(0, 10_000, (3, number)).astype(dtype))
            again = pickle.loads(pickle.dumps(PixelsOfBlock(runs))).runs
            np.testing.assert_array_equal(again.rows, runs.rows)
            np.testing.assert_array_equal(again.cols, runs.cols)
            np.testing.assert_array_equal(again.counts, runs.counts)


def test_what_a_cluster_is_sent_holds_no_settings_and_no_password(tmp_path: Path) -> None:
    settings = Settings(
        database_url="postgresql://swath:hunter2@db/swath",
        redis_url="redis://:hunter3@cache",
        dask_address="tcp://127.0.0.1:8786",
    )
    sent: list[bytes] = []

    def pickled(tasks: Sequence[Any]) -> Sequence[Any]:
        sent.append(cloudpickle.dumps(tasks))
        results: Sequence[Any] = dask.compute(*tasks, scheduler="sync")
        return results

    farms = [farm_of(circle(20 + 9 * number, 20, 4), number) for number in range(3)]
    scene = write(noisy(2), tmp_path, rescale=RAW)
    look(scene, farms, compute=pickled, http=http_limits(settings))
    assert len(sent) == 2, "scene classes, then red and near infrared"
    for secret in (b"hunter", b"postgresql://", b"redis://", b"Settings"):
        assert not any(secret in each for each in sent)
