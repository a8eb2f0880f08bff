"""On a cluster of processes the answers are those of threads, faults included."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import LocalCluster, Security

from infra.dask import BLOCKS_PER_THREAD, Cluster, Compute, dask_compute
from infra.settings import Settings
from models.domain import FarmFailure, MaskPolicy
from models.errors import ClusterTrouble, ServerTrouble
from tests.support.certificates import certificates
from tests.support.file_server import FileServer, file_server
from tests.support.sky import GRID, RAW, REMOVED, by_farm, circle, farm_of, look, noisy, rectangle, scl_grid_of, write

FARMS = [farm_of(circle(8 + 9 * number, 12 + 8 * number, 3 + number), number) for number in range(1, 10)]
FARMS += [farm_of(rectangle(110, 90, 30, 30), 20), farm_of(rectangle(400, 400, 5, 5), 21)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Compute]:
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, host="127.0.0.1", dashboard_address="127.0.0.1:0"
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


@contextlib.contextmanager
def in_process(**options: Any) -> Iterator[LocalCluster]:
    """A scheduler and its workers in threads of this process."""
    with LocalCluster(
        processes=False, host="127.0.0.1", dashboard_address="127.0.0.1:0", threads_per_worker=2, **options
    ) as it:
        yield it


_running: list[LocalCluster] = []


def tasks_known(_number: int) -> int:
    """How many tasks the scheduler has now, asked by one of them."""
    return len(_running[0].scheduler.tasks)


def test_a_scene_however_large_is_on_the_cluster_a_few_blocks_at_a_time() -> None:
    with in_process(n_workers=1, protocol="tcp://") as running:
        _running[:] = [running]
        with dask_compute(Settings(dask_address=running.scheduler_address)) as compute:
            counts = compute([dask.delayed(tasks_known)(number) for number in range(200)])
    assert len(counts) == 200
    assert max(counts) <= 2 * 2 * BLOCKS_PER_THREAD + 8, "two waves for two threads, and some that are being forgotten"


def test_a_cluster_without_workers_is_not_waited_for_for_ever() -> None:
    with in_process(n_workers=0, protocol="tcp://") as running:
        cluster = Cluster(Settings(dask_address=running.scheduler_address), poll_s=0.05, workerless_s=0.2)
        try:
            with pytest.raises(ClusterTrouble, match="no worker") as caught:
                cluster([dask.delayed(abs)(-2)])
        finally:
            cluster.close()
    assert caught.value.is_retryable


@pytest.mark.slow
def test_a_cluster_is_spoken_to_by_tls_and_with_a_certificate_of_its_authority_only(tmp_path: Path) -> None:
    ours, theirs = (certificates(tmp_path / name) for name in ("ours", "theirs"))
    names = ("tls_ca_file", "tls_scheduler_cert", "tls_scheduler_key", "tls_worker_cert", "tls_worker_key")
    authority, certificate, key = map(str, ours)
    files = dict(zip(names, (authority, certificate, key, certificate, key), strict=True))
    security = Security(**files, tls_client_cert=certificate, tls_client_key=key, require_encryption=True)
    with in_process(n_workers=1, protocol="tls://", security=security) as running:
        with dask_compute(tls_settings(running.scheduler_address, ours)) as compute:
            assert list(compute([dask.delayed(abs)(-2)])) == [2]
        with pytest.raises(ServerTrouble), dask_compute(tls_settings(running.scheduler_address, theirs)):
            pass


def tls_settings(address: str, files: tuple[Path, Path, Path]) -> Settings:
    authority, certificate, key = files
    return Settings(
        dask_address=address,
        dask_tls_ca_file=authority,
        dask_tls_cert_file=certificate,
        dask_tls_key_file=key,
        http_connect_timeout_s=2,
    )


def test_certificates_that_are_missing_or_none_are_named(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.pem"
    files = (nothing, nothing, nothing)
    with pytest.raises(ServerTrouble, match="SWATH_DASK_TLS"), dask_compute(tls_settings("tls://127.0.0.1:9", files)):
        pass
    with pytest.raises(ValueError, match="needed together"):
        Settings(dask_address="tls://127.0.0.1:9")
    with pytest.raises(ValueError, match="needed together"):
        Settings(dask_address="tls://127.0.0.1:9", dask_tls_ca_file=nothing)


def test_a_scheduler_that_does_not_answer_is_said_with_its_setting() -> None:
    settings = Settings(dask_address="tcp://127.0.0.1:9", http_connect_timeout_s=1)
    with pytest.raises(ServerTrouble, match="SWATH_DASK_ADDRESS"), dask_compute(settings):
        pass
