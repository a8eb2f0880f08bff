"""Where Dask runs: threads of this process, or a cluster when one is named.

Workers of a cluster hold no password: they are sent which pixels of which file to read and give back the numbers.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import dask
import dask.threaded
import structlog
from dask.optimization import cull
from dask.utils import ensure_dict

from infra.settings import Settings
from models.errors import ClusterTrouble, ServerTrouble

log = structlog.get_logger(__name__)

Compute = Callable[[Sequence[Any]], Sequence[Any]]

BLOCKS_PER_THREAD = 2
"""Blocks of one wave for each thread of the cluster. Two waves of a scene are out at a time: while one is fetched, the
next is at work. So what lies on workers and on the wire does not grow with the scene."""
POLL_S = 5.0
"""Between two looks whether there still is a cluster, while its answer is waited for."""
ANSWER_S = 30.0
"""Longest wait for a word of the scheduler."""
TRANSFER_S = 300.0
"""Longest wait for the numbers of one block, once they are there."""
WORKERLESS_S = 300.0
"""How long a cluster may be without any worker: as long as a new machine takes to come up."""
PATIENCE_S = 120.0
"""How long a scheduler that is gone is worth further tries of a scene; later on scenes fail at once."""
LOOK_AGAIN_S = 60.0
"""Between two looks whether a scheduler that has been gone for long is back."""


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
    cluster = Cluster(settings)
    cluster.connect()
    try:
        log.info("on a Dask cluster", address=settings.dask_address, dashboard=cluster.dashboard)
        yield cluster
    finally:
        cluster.close()


@contextmanager
def threaded_compute(threads: int) -> Iterator[Compute]:
    """Run delayed values in threads of this process; scenes that run at the same time share them."""
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        # The function, not its name: given a name, Dask imports all of `distributed` to see whether a client is open.
        yield lambda tasks: dask.compute(*tasks, scheduler=dask.threaded.get, pool=pool)


def dashboard_of(compute: Compute) -> str | None:
    """Address of the page on which one sees the cluster at work; None for threads."""
    return compute.dashboard if isinstance(compute, Cluster) else None


class Cluster:
    """Runs delayed values on the workers of a Dask cluster, for several threads at a time.

    A worker that ends is replaced by the others. A scheduler that ends is found again when it comes back.
    """

    def __init__(self, settings: Settings, *, poll_s: float = POLL_S, workerless_s: float = WORKERLESS_S) -> None:
        self._settings = settings
        self._address = str(settings.dask_address)
        self._poll_s = poll_s
        self._workerless_s = workerless_s
        self._lock = threading.Lock()
        self._client: Any = None
        self._gone_since: float | None = None
        self._looked_at = 0.0
        self.dashboard: str | None = None

    def __call__(self, tasks: Sequence[Any]) -> Sequence[Any]:
        """The results of delayed values, in order.

        Raises:
            ClusterTrouble: the cluster lost the work; another try may succeed.
            ServerTrouble: the scheduler has been gone for long.
        """
        from distributed import KilledWorker
        from distributed.client import ClosedClientError

        client = self.connect()
        try:
            return self._run(client, tasks)
        except (KilledWorker, ClosedClientError, CancelledError) as error:
            raise self._trouble(str(error)) from error
        except OSError as error:  # also what is raised in the reading; that of imagery is an answer and never raised
            raise self._trouble(f"{type(error).__name__}: {error}") from error

    def _run(self, client: Any, tasks: Sequence[Any]) -> list[Any]:
        graph, keys = _graph_of(tasks), [task.key for task in tasks]
        size = BLOCKS_PER_THREAD * max(1, sum(self._threads(client).values()))
        results: list[Any] = []
        out: deque[Any] = deque()
        try:
            for first in range(0, len(keys), size):
                wave = keys[first : first + size]
                # Culled here: a client sends all it is given, and the scheduler would find out what it needs.
                out.extend(client.get(cull(graph, wave)[0], wave, sync=False))
                while len(out) > size:
                    results.append(self._result(client, out.popleft()))
            while out:
                results.append(self._result(client, out.popleft()))
        finally:
            for future in out:
                future.release()
        return results

    def _result(self, client: Any, future: Any) -> Any:
        """Wait for one result, for as long as there is a cluster that may bring it, and let the cluster forget it."""
        workerless_since: float | None = None
        try:
            while True:
                try:
                    future.exception(timeout=self._poll_s)  # waits for the end, whichever it is
                    return future.result(timeout=TRANSFER_S)
                except TimeoutError:
                    if future.status != "pending":
                        raise
                now = time.monotonic()
                workerless_since = None if self._threads(client) else workerless_since or now
                if workerless_since is not None and now - workerless_since >= self._workerless_s:
                    raise self._trouble(f"it has had no worker for {self._workerless_s:.0f} s")
        finally:
            future.release()

    def _threads(self, client: Any) -> dict[str, int]:
        """Threads of each worker, asked of the scheduler."""
        if client.status != "running" and client.status != "connecting":
            raise self._trouble("its scheduler is gone")
        try:
            threads: dict[str, int] = client.sync(client.scheduler.ncores, callback_timeout=ANSWER_S)
        except (TimeoutError, AttributeError) as error:  # a client that closes meanwhile has no scheduler
            raise self._trouble("its scheduler does not answer") from error
        return threads

    def _trouble(self, problem: str) -> ClusterTrouble:
        return ClusterTrouble(f"the Dask cluster at {self._address} lost work: {problem}")

    def connect(self) -> Any:
        """The connection, made anew where it is lost.

        Raises:
            ClusterTrouble: the scheduler was there and is gone.
            ServerTrouble: it never was, or has been gone for long.
        """
        with self._lock:
            if self._client is not None and self._client.status in ("running", "connecting"):
                return self._client
            is_first = self._client is None
            now = time.monotonic()
            gone_s = now - (self._gone_since or now)
            if gone_s > PATIENCE_S and now - self._looked_at < LOOK_AGAIN_S:
                raise ServerTrouble(self._nobody(gone_s))
            self._looked_at = now
            try:
                self._client = self._open()
            except (OSError, TimeoutError) as error:
                if is_first:
                    raise ServerTrouble(self._nobody(0)) from error
                self._gone_since = self._gone_since or now
                trouble = ClusterTrouble if gone_s <= PATIENCE_S else ServerTrouble
                raise trouble(self._nobody(gone_s)) from error
            self._gone_since = None
            self.dashboard = _dashboard(self._client)
            return self._client

    def _nobody(self, gone_s: float) -> str:
        since = f", for {gone_s:.0f} s now" if gone_s > 0 else ""
        return f"no Dask scheduler at {self._address} (SWATH_DASK_ADDRESS){since}: start one or unset it"

    def _open(self) -> Any:
        from distributed import Client

        timeout_s = self._settings.http_connect_timeout_s
        return Client(self._address, timeout=timeout_s, set_as_default=False, security=_security(self._settings))

    def close(self) -> None:
        """Close the connection; what is still at work there is given up."""
        with self._lock:
            if self._client is not None:
                self._client.close()


def _graph_of(tasks: Sequence[Any]) -> dict[Any, Any]:
    """All tasks that these delayed values need, and maybe more."""
    graph: dict[Any, Any] = {}
    for each in {id(each): each for each in (task.__dask_graph__() for task in tasks)}.values():
        graph |= ensure_dict(each)
    return graph


def _dashboard(client: Any) -> str | None:
    try:
        link: str | None = client.dashboard_link
    except KeyError:  # the scheduler runs without
        return None
    return link


def _security(settings: Settings) -> Any:
    """How the connection is secured; None for one that is not.

    Raises:
        ServerTrouble: a certificate or key cannot be read.
    """
    if settings.dask_tls_ca_file is None:
        return None
    from distributed import Security

    files = {
        "tls_ca_file": settings.dask_tls_ca_file,
        "tls_client_cert": settings.dask_tls_cert_file,
        "tls_client_key": settings.dask_tls_key_file,
    }
    security = Security(require_encryption=True, **{name: str(file) for name, file in files.items()})
    try:
        security.get_connection_args("client")
    except OSError as error:  # also what is no certificate: ssl.SSLError
        raise ServerTrouble(f"certificates in SWATH_DASK_TLS_... cannot be used: {error}") from error
    return security
