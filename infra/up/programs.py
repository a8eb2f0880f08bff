"""Which programs `swath up` runs, what they are told, and how each shows that it works."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from infra.local import Addresses
from infra.local.prefect import PrefectProgram, starting_alone
from infra.settings import Settings
from infra.up.parts import Part
from infra.up.runs import MARK

POOLS = {"swath": (4, 0), "swath-backfill": (1, 10)}
"""Work pools that get a worker: how many runs it takes at once, and how nice its runs are to everything else."""

_CHILD = Path(__file__).with_name("child.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What all programs share."""

    settings: Settings
    addresses: Addresses
    api_port: int
    mark: str
    """Of this home: tells our processes from everybody else's."""
    prefect: PrefectProgram | None
    """None where the environment names a server of somebody else."""
    prefect_url: str
    prefect_auth: str | None = field(repr=False)

    @property
    def api_url(self) -> str:
        """Where the API is served."""
        host = self.settings.serve_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.api_port}"

    @property
    def ui_url(self) -> str:
        """Where Prefect's UI is."""
        return self.prefect_url.removesuffix("/").removesuffix("/api")

    @property
    def workers(self) -> dict[str, str]:
        """Names of our workers by pool: always the same for one home on one machine."""
        return {pool: f"{pool}@{socket.gethostname()}-{self.mark}" for pool in POOLS}

    @property
    def environment(self) -> dict[str, str]:
        """The environment of our programs, Prefect's server excepted; holds secrets."""
        defaults = {
            "SWATH_LOG_LEVEL": self.settings.log_level,
            "PREFECT_HOME": str(self.settings.home / "prefect"),
            "PREFECT_LOGGING_COLORS": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "3",
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "DO_NOT_TRACK": "1",
        }
        ours = {
            "SWATH_HOME": str(self.settings.home),
            "SWATH_DATABASE_URL": self.addresses.database_url,
            "SWATH_REDIS_URL": self.addresses.redis_url,
            "PREFECT_API_URL": self.prefect_url,
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "160",  # nobody's terminal: lines go into our log
            "TERM": "dumb",
            MARK: self.mark,
        }
        # A proxy for the world outside must not get what is meant for this machine.
        direct = f"{os.environ.get('no_proxy') or os.environ.get('NO_PROXY') or ''},127.0.0.1,localhost,::1".lstrip(",")
        ours |= {"no_proxy": direct, "NO_PROXY": direct}
        auth = {} if self.prefect_auth is None else {"PREFECT_API_AUTH_STRING": self.prefect_auth}
        return {**defaults, **os.environ, **ours, **auth}


def program(module: str, *arguments: str, niceness: int = 0) -> tuple[str, ...]:
    """The command that runs a Python module which ends when we do; to be started with a pipe as standard input."""
    return (sys.executable, "-P", str(_CHILD), str(niceness), module, *arguments)


def prefect_part(place: Place, server: PrefectProgram, client: httpx.AsyncClient) -> Part:
    """Prefect's own server with its scheduler and its UI."""
    more = {
        "PYTHONUNBUFFERED": "1",
        "PREFECT_LOGGING_COLORS": "false",
        # What belonged to runs that are gone; the runs themselves are let go by the nightly maintenance.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,orphans",
        # By default 15 s, which a busy machine can take to start a run's process.
        "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "120",
    }
    return Part(
        name="prefect",
        command=server.command,
        environment={**more, **server.environment},
        answers=_gets(client, f"{place.prefect_url}/health"),
        folder=server.folder,
        descriptors=(server.listener.fileno(),),
        while_starting=lambda: starting_alone(place.settings.home),
    )


def api_part(place: Place, client: httpx.AsyncClient) -> Part:
    """The API."""
    host, port = place.settings.serve_host, str(place.api_port)
    return Part(
        name="api",
        command=program("infra.cli", "serve", "--host", host, "--port", port),
        environment=place.environment,
        answers=_gets(client, f"{_reachable(place.api_url)}/healthz"),
    )


def worker_part(place: Place, pool: str, client: httpx.AsyncClient) -> Part:
    """A Prefect worker that takes the runs of one pool."""
    limit, niceness = POOLS[pool]
    name = place.workers[pool]
    options = ["--pool", pool, "--name", name, "--limit", str(limit), "--install-policy", "never"]
    return Part(
        name="worker" if pool == "swath" else "backfill",
        command=program(
            "prefect",
            "worker",
            "start",
            "--type",
            "process",
            "--no-create-pool-if-not-found",
            *options,
            niceness=niceness,
        ),
        environment=place.environment | {"TMPDIR": str(_scratch(place.settings.home))},
        answers=_is_polling(place, pool, name, client),
        folder=place.settings.home,
    )


def _scratch(home: Path) -> Path:
    """Folder for what a worker keeps for a while: Prefect's own, /tmp/runner_storage, belongs to whoever came first."""
    folder = home / "prefect" / "tmp"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _reachable(url: str) -> str:
    """An address to ask at where a server listens on all of them."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def _gets(client: httpx.AsyncClient, url: str) -> Callable[[], Awaitable[bool]]:
    async def answers() -> bool:
        try:
            return (await client.get(url)).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    return answers


def _is_polling(place: Place, pool: str, name: str, client: httpx.AsyncClient) -> Callable[[], Awaitable[bool]]:
    """Whether Prefect has heard of the worker since now: it may know it from an earlier start."""
    user, _, password = (place.prefect_auth or "").partition(":")
    login = httpx.BasicAuth(user, password) if place.prefect_auth else httpx.USE_CLIENT_DEFAULT
    address = f"{place.prefect_url.rstrip('/')}/work_pools/{pool}/workers/filter"
    known: list[str] = []

    async def last_heard() -> str | None:
        """When it was last heard of, "" for never, None while the server does not say."""
        try:
            answer = await client.post(address, json={"workers": {"status": {"any_": ["ONLINE"]}}}, auth=login)
            found = answer.json() if answer.is_success else []
        except (httpx.HTTPError, ValueError):
            return None
        times = [str(each["last_heartbeat_time"]) for each in found if each["name"] == name]
        return times[0] if times else ""

    async def answers() -> bool:
        heard = await last_heard()
        if heard is not None and not known:
            known.append(heard)
        return heard is not None and heard > known[0]

    return answers
