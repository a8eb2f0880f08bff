"""What every test finds: real servers, a database of its own, and no way out of this machine."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from redis import Redis

from infra.local.postgres import PostgresServer, local_postgres
from infra.local.prefect import PrefectServer, local_prefect
from infra.local.valkey import ValkeyServer, local_valkey
from tests.support.archives import SHARED_DATA
from tests.support.closed_network import closed_network
from tests.support.databases import TEMPLATE, fresh_database, make_template
from tests.support.memory_home import memory_home
from tests.support.order import long_files_first

_PREFECT_HOME = Path(tempfile.mkdtemp(prefix="swath-prefect-"))


def pytest_configure(config: pytest.Config) -> None:
    """Start from the same environment everywhere: the settings of whoever runs the tests do not count."""
    config.option.loadscopereorder = False  # workers take files in the order of `long_files_first`
    gc.set_threshold(50_000, 20, 20)  # an eighth of the time that it takes to import everything
    for name in [name for name in os.environ if name.startswith(("SWATH_", "PREFECT_", "PG", "GDAL_"))]:
        del os.environ[name]
    # How long one example takes is for benchmarks: tests run side by side on few cores.
    settings.register_profile("swath", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("swath")
    os.environ |= closed_network() | {"PREFECT_HOME": str(_PREFECT_HOME), "DO_NOT_TRACK": "1"}


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(_PREFECT_HOME, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long."""
    long_files_first(items)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs the recorded data where it is absent, and say so; on CI its absence is a failure."""
    if item.get_closest_marker("shared_data") is not None:
        _need_shared_data()


def _need_shared_data() -> None:
    if SHARED_DATA.is_dir():
        return
    problem = f"the recorded data are not there: {SHARED_DATA}"
    if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
        pytest.fail(f"{problem}; on CI they must be", pytrace=False)
    pytest.skip(problem)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recorded imagery, items and answers."""
    _need_shared_data()
    return SHARED_DATA


@pytest.fixture(scope="session")
def server_home() -> Iterator[Path]:
    """A home whose embedded servers serve the tests of this process."""
    with memory_home() as home:
        yield home


@pytest.fixture(scope="session")
def postgres_server(server_home: Path) -> Iterator[PostgresServer]:
    """A running Postgres with a migrated template database."""
    with local_postgres(server_home, durable=False) as server:
        make_template(server)
        yield server


@pytest.fixture
def database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """Address of a database that has our tables, holds no rows and is nobody else's."""
    with fresh_database(postgres_server, template=TEMPLATE) as url:
        yield url


@pytest.fixture(scope="session")
def valkey_server(server_home: Path) -> Iterator[ValkeyServer]:
    """A running Valkey."""
    with local_valkey(server_home) as server:
        yield server


@pytest.fixture
def redis_url(valkey_server: ValkeyServer) -> str:
    """Address of an empty Valkey."""
    with Redis.from_url(valkey_server.url) as client:
        client.flushall()
    return valkey_server.url


@pytest.fixture(scope="session")
def prefect_api(server_home: Path, postgres_server: PostgresServer) -> Iterator[PrefectServer]:
    """A running Prefect API server, which flows of this process and its children use from here on."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    with local_prefect(postgres_server.url, server_home, services=False) as server:
        os.environ |= server.environment
        with temporary_settings({PREFECT_API_URL: server.api_url, PREFECT_API_AUTH_STRING: server.auth}):
            yield server
            # While there is a server to take it; else Prefect's client tries for a minute when the process ends.
            EventsWorker.drain_all(timeout=10)
            APILogWorker.drain_all(timeout=10)
        for name in server.environment:
            del os.environ[name]
