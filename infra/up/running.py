"""`swath up`: everything on one machine, started in order by readiness, kept running, and stopped in order.

    Postgres, Redis -> migrations -> API
                                  -> Prefect -> deployments -> workers

Stopping goes the other way round. Flow runs that are at work are ended then and handed back to Prefect: every scene is
saved as soon as it is done, so all that is lost is the scene in hand, and the next start goes on with the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import httpx

from infra.local import Addresses, local_servers
from infra.local.prefect import PrefectProgram, prefect_program
from infra.settings import Settings
from infra.up.one import only_one, write_note
from infra.up.parts import Keeper, Part, Say
from infra.up.programs import POOLS, Place, api_part, prefect_part, program, worker_part
from infra.up.runs import end_leftovers, hand_back, living_runs
from infra.up.stores import watch_stores
from models.errors import BadInput, ServerTrouble
from models.schema import upgrade

OWN = "swath"
"""Name under which we ourselves speak in the log."""
UI_PORT = 4200
LEFTOVERS_TIMEOUT_S = 8.0
DEPLOY_WAIT_S = 300
"""For Prefect's server, whose first start makes its tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Where everything is, once it answers."""

    api_url: str
    ui_url: str
    auth_file: Path | None
    """Holds what to log in with at the UI; None where the Prefect server is somebody else's."""
    api_s: float
    """From the start until the API answered."""
    ui_s: float
    all_s: float


def up(settings: Settings, *, api_port: int, ui_port: int, say: Say, tell: Callable[[Ready], None]) -> None:
    """Run everything until SIGINT or SIGTERM.

    Args:
        settings: of this process.
        api_port: of the API, on the host of the settings; 0 takes a free one.
        ui_port: of Prefect's server and UI, on loopback; 0 takes a free one.
        say: takes every line that a part says.
        tell: called once, when everything answers.

    Raises:
        AlreadyRunning: on this home there is one.
        BadInput: somebody else has the port.
        ServerTrouble: a part does not start; all others are stopped again.
    """
    begun = time.monotonic()
    # Parts have working folders of their own, so they must not be told a relative one.
    settings = settings.model_copy(update={"home": Path(os.path.realpath(settings.home.expanduser()))})
    with only_one(settings.home) as note:
        mark = hashlib.sha256(os.fsencode(settings.home)).hexdigest()[:12]
        if leftovers := end_leftovers(mark, timeout_s=LEFTOVERS_TIMEOUT_S):
            say(OWN, f"ended {leftovers} processes of an earlier `swath up` that was killed")
        api_port = _free_port(settings.serve_host, api_port)
        with _stores(settings, say) as addresses, _prefect(settings, addresses, ui_port) as (server, url, auth):
            place = Place(
                settings=settings,
                addresses=addresses,
                api_port=api_port,
                mark=mark,
                prefect=server,
                prefect_url=url,
                prefect_auth=auth,
            )

            def ready(found: Ready) -> None:
                write_note(note, api_url=found.api_url, ui_url=found.ui_url)
                tell(found)

            try:
                asyncio.run(_Run(place, say, begun=begun).until_told(ready))
            finally:
                # asyncio gave the signals back, and they would end us at once: our stores are still to be stopped.
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_IGN)
                say(OWN, "all parts have ended; letting go of the stores")


@contextlib.contextmanager
def _stores(settings: Settings, say: Say) -> Iterator[Addresses]:
    begun = time.monotonic()
    with local_servers(settings) as addresses:
        upgrade(addresses.database_url)
        say(OWN, f"stores answer and the schema is up to date after {time.monotonic() - begun:.1f} s")
        yield addresses


@contextlib.contextmanager
def _prefect(
    settings: Settings, addresses: Addresses, port: int
) -> Iterator[tuple[PrefectProgram | None, str, str | None]]:
    """A Prefect server to be run, or the address of the one that the environment names; and how to log in."""
    if url := os.environ.get("PREFECT_API_URL"):
        yield None, url, os.environ.get("PREFECT_API_AUTH_STRING")
        return
    with prefect_program(addresses.database_url, settings.home, port=port) as found:
        yield found, found.server.api_url, found.server.auth


def _free_port(host: str, port: int) -> int:
    """The port itself if it can be listened on, or a free one for 0."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family) as listener:
            return int(listener.getsockname()[1])
    except OSError as error:
        raise BadInput("--port", f"the API cannot listen on {host}:{port}: {error.strerror}") from error


class _Run:
    """All parts, from their start to their end."""

    def __init__(self, place: Place, say: Say, *, begun: float) -> None:
        self._place = place
        self._say = say
        self._begun = begun
        self._keepers: list[Keeper] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._told = asyncio.Event()
        self._client = httpx.AsyncClient(trust_env=False, timeout=3)

    async def until_told(self, ready: Callable[[Ready], None]) -> None:
        """Start all parts, keep them, and stop them when a signal comes.

        Raises:
            ServerTrouble: a part does not start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._tell)
        told = asyncio.create_task(self._told.wait())
        starting = asyncio.create_task(self._start_all())
        try:
            await asyncio.wait({starting, told}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                ready(starting.result())
                await told
        finally:
            starting.cancel()
            told.cancel()
            await asyncio.wait({starting, told})
            await self._stop_all()
            await self._client.aclose()

    def _tell(self) -> None:
        if not self._told.is_set():
            self._say(OWN, "stopping; flow runs at work are handed back and go on at the next start")
            self._told.set()
            return
        self._say(OWN, "told again: ending all parts at once")
        for keeper in self._keepers:
            keeper.kill()

    async def _start_all(self) -> Ready:
        place = self._place
        try:
            async with asyncio.TaskGroup() as group:
                api = group.create_task(self._start(api_part(place, self._client)))
                others = group.create_task(self._start_prefect_and_workers(api))
        except ExceptionGroup as problems:
            raise _first(problems) from problems
        api_s, (ui_s, all_s) = api.result(), others.result()
        self._tasks.append(asyncio.create_task(watch_stores(place.settings, self._say)))
        return Ready(
            api_url=place.api_url,
            ui_url=place.ui_url,
            auth_file=None if place.prefect is None else place.prefect.folder / "auth",
            api_s=api_s,
            ui_s=ui_s,
            all_s=max(api_s, all_s),
        )

    async def _start_prefect_and_workers(self, api: asyncio.Task[float]) -> tuple[float, float]:
        """Start Prefect's server, register the deployments, and start the workers; return when UI and workers answered.

        The deployments' flows are loaded while the server starts, which takes as long; but not before the API answers,
        which needs neither.
        """
        place = self._place
        async with asyncio.TaskGroup() as group:
            ui = group.create_task(self._start_prefect())
            await asyncio.wait({api})
            group.create_task(self._deploy())
        await self._hand_back()
        async with asyncio.TaskGroup() as group:
            for pool in POOLS:
                worker = worker_part(place, pool, self._client)
                group.create_task(self._start(replace(worker, while_starting=partial(self._handing_back_dead, pool))))
        return ui.result(), self._elapsed()

    async def _start_prefect(self) -> float:
        place = self._place
        if place.prefect is not None:
            await self._start(prefect_part(place, place.prefect, self._client))
        return self._elapsed()

    async def _start(self, part: Part) -> float:
        """Start a part, keep it from then on, and return when it answered, in seconds since the beginning."""
        keeper = Keeper(part, self._say)
        self._keepers.append(keeper)
        await keeper.start()
        self._tasks.append(asyncio.create_task(keeper.keep()))
        return self._elapsed()

    async def _deploy(self) -> None:
        """Register deployments and alerts, in a process of its own: it loads all flows, and we want none of them."""
        process = await asyncio.create_subprocess_exec(
            *program("infra.cli", "deploy", "--wait", str(DEPLOY_WAIT_S)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._place.environment,
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            lines = (await process.stdout.read()).decode(errors="replace").splitlines()
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        for line in lines:
            self._say("deploy", line)
        if code != 0:
            raise ServerTrouble("the deployments could not be registered:\n" + "\n".join(lines[-5:]))

    async def _hand_back(self) -> None:
        """Hand back the runs of all our workers, none of which runs."""
        await asyncio.to_thread(self._hand_back_of, set(POOLS))

    def _hand_back_of(self, pools: set[str], living: Collection[str] = ()) -> None:
        place = self._place
        names = hand_back(
            place.prefect_url,
            place.prefect_auth,
            database_url=place.addresses.database_url,
            workers={place.workers[pool] for pool in pools},
            has_no_others=place.prefect is not None,
            living=living,
            pools=pools,
        )
        if names:
            self._say(OWN, f"handed back, to be gone on with: {', '.join(names)}")

    @contextlib.contextmanager
    def _handing_back_dead(self, pool: str) -> Iterator[None]:
        """Before a worker starts: hand back runs that went with the one before it, which nobody else would tell.

        Until then they are Running for Prefect, or Pending for ever, and keep the places of their pool and deployment.
        """
        self._hand_back_of({pool}, living_runs(self._place.mark))
        yield

    async def _stop_all(self) -> None:
        """Stop the API and the workers, then what they left running, and Prefect's server last."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        prefect = [keeper for keeper in self._keepers if keeper.part.name == "prefect"]
        others = [keeper for keeper in self._keepers if keeper not in prefect]
        await asyncio.gather(*(keeper.stop() for keeper in others))
        await asyncio.to_thread(end_leftovers, self._place.mark, timeout_s=LEFTOVERS_TIMEOUT_S)
        if others:
            try:
                await self._hand_back()
            except ServerTrouble as error:
                self._say(OWN, f"{error}; it is done at the next start")
        for keeper in prefect:
            await keeper.stop()

    def _elapsed(self) -> float:
        return round(time.monotonic() - self._begun, 2)


def _first(problems: ExceptionGroup[Exception]) -> Exception:
    first = problems.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
