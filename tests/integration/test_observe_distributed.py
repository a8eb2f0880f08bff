"""On a cluster of processes the answers are those of threads, faults included."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest

from infra.dask import Compute, dask_compute
from infra.settings import Settings
from models.domain import FarmFailure, MaskPolicy
from models.errors import ClusterTrouble, ServerTrouble
from tests.support.file_server import FileServer, file_server
from tests.support.sky import GRID, RAW, REMOVED, by_farm, circle, farm_of, look, noisy, rectangle, scl_grid_of, write

FARMS = [farm_of(circle(8 + 9 * number, 12 + 8 * number, 3 + number), number) for number in range(1, 10)]
FARMS += [farm_of(rectangle(110, 90, 30, 30), 20), farm_of(rectangle(400, 400, 5, 5), 21)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Compute]:
    from distributed import LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, host="127.0.0.1", dashboard_address=None
        ) as running,
        dask_compute(Settings(dask_address=running.scheduler_address)) as compute,
    ):
        yield compute


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    with file_server(tmp_path) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("dilation_m", [0, 50])
def test_a_cluster_gives_what_threads_give(
    dilation_m: float, server: FileServer, tmp_path: Path, cluster: Compute
) -> None:
    first = noisy(1, scl_grid=scl_grid_of(GRID, right_m=-10, down_m=-10))
    first.scl[30:] = 0
    scenes = [
        write(first, tmp_path, name="first", url=server.url, rescale=RAW),
        write(noisy(2), tmp_path, name="second", url=server.url, rescale=REMOVED),
    ]
    ways = {"policy": MaskPolicy(dilation_m=dilation_m), "chunk": (32, 64)}
    assert look(scenes, FARMS, compute=cluster, **ways) == look(scenes, FARMS, **ways)


@pytest.mark.slow
def test_a_fault_on_a_cluster_is_a_failure_that_heals(server: FileServer, tmp_path: Path, cluster: Compute) -> None:
    scene = write(noisy(3, cloud=0), tmp_path, url=server.url)
    server.fail("*/B08.tif", status=503)
    answer = look(scene, FARMS, compute=cluster, chunk=(32, 64))
    failed = {number for number, each in by_farm(answer).items() if isinstance(each, FarmFailure)}
    assert failed == {farm.id for farm in FARMS} - {21}
    assert {each.problem for each in answer.failures} == {"imagery not read: unavailable"}
    server.heal()
    assert look(scene, FARMS, compute=cluster) == look(scene, FARMS)


@pytest.mark.slow
def test_work_that_a_cluster_lost_is_trouble_worth_another_try(cluster: Compute) -> None:
    with pytest.raises(ClusterTrouble, match="lost work") as caught:
        cluster([dask.delayed(os._exit)(1)])
    assert caught.value.is_retryable
    assert list(cluster([dask.delayed(abs)(-2)])) == [2]  # workers that ended are replaced


def test_a_scheduler_that_does_not_answer_is_said_with_its_setting() -> None:
    settings = Settings(dask_address="tcp://127.0.0.1:9", http_connect_timeout_s=1)
    with pytest.raises(ServerTrouble, match="SWATH_DASK_ADDRESS"), dask_compute(settings):
        pass
