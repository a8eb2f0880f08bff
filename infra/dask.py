"""Where Dask runs: threads of this process, or a cluster when one is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import dask
import dask.threaded

from infra.settings import Settings
from models.errors import ClusterTrouble, ServerTrouble

Compute = Callable[[Sequence[Any]], Sequence[Any]]


@contextmanager
def dask_compute(settings: Settings) -> Iterator[Compute]:
    """Give a function that runs delayed values and returns their results in order.

    Threads by default, more of them than cores, because a block waits on the network before it is decoded: with two
    cores, sixteen reads in flight took half the time of two.

    Raises:
        ServerTrouble: the scheduler named by `SWATH_DASK_ADDRESS` does not answer.
    """
    if settings.dask_address is None:
        with threaded_compute(settings.read_threads) as compute:
            yield compute
        return
    from distributed import Client

    try:
        client = Client(settings.dask_address, timeout=settings.http_connect_timeout_s, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise ServerTrouble(
            f"no Dask scheduler at {settings.dask_address} (SWATH_DASK_ADDRESS): start one or unset it"
        ) from error
    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    def on_cluster(tasks: Sequence[Any]) -> Sequence[Any]:
        try:
            results: Sequence[Any] = client.gather(client.compute(list(tasks)))
        except (KilledWorker, CommClosedError, CancelledError) as error:
            raise ClusterTrouble(f"the Dask cluster at {settings.dask_address} lost work: {error}") from error
        return results

    with client:
        yield on_cluster


@contextmanager
def threaded_compute(threads: int) -> Iterator[Compute]:
    """Run delayed values in threads of this process; scenes that run at the same time share them."""
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        # The function, not its name: given a name, Dask imports all of `distributed` to see whether a client is open.
        yield lambda tasks: dask.compute(*tasks, scheduler=dask.threaded.get, pool=pool)
