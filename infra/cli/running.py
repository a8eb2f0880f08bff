"""Running a flow from the command line: a Prefect API for it, a bar that moves, and its summary."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from infra.settings import Settings
from infra.stores import open_stores
from infra.up.found import prefect_of_up
from models.errors import ServerTrouble

S = TypeVar("S")

Advance = Callable[[str, int, int], None]
"""Told what was finished, how much is done, and how much there is."""


def summary_of(state: Any, kind: type[S]) -> S:
    """The summary that a flow run ended with.

    Raises:
        ServerTrouble: the run ended before it could tell how it came out.
        BaseException: what the run itself raised.
    """
    result = state.result(raise_on_failure=False)
    if isinstance(result, kind):
        return result
    if isinstance(result, BaseException):
        raise result
    raise ServerTrouble(f"the flow run ended as {state.name}: {state.message}")


@contextlib.contextmanager
def prefect_server(settings: Settings) -> Iterator[None]:
    """See that there is a Prefect API: the one that is set, that of a running `swath up`, or one for the block."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
    # What failed is said by us, once; Prefect would print a traceback for it. Its own API is still told.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    if url := os.environ.get("PREFECT_API_URL"):
        _see_that_it_answers(url)
        yield
        return
    if environment := prefect_of_up(settings.home):
        with _known_as(environment):
            _see_that_it_answers(environment["PREFECT_API_URL"])
            yield
        return
    from infra.local.prefect import local_prefect

    with (
        open_stores(settings) as stores,
        local_prefect(stores.database_url, settings.home, services=False) as server,
        _known_as(server.environment),
    ):
        yield


@contextlib.contextmanager
def _known_as(environment: Mapping[str, str]) -> Iterator[None]:
    """Have Prefect's client find a server by these variables for the time of the block."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        _send_the_last_events()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _see_that_it_answers(url: str) -> None:
    """Ask the user's own Prefect server for its version, which needs the password where it has one.

    Raises:
        ServerTrouble: it does not answer, or not as it should.
    """
    import httpx
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            client.raise_for_api_version_mismatch()
    except (RuntimeError, httpx.HTTPError) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise ServerTrouble(
            f"Prefect's server at {url} (PREFECT_API_URL) is of no use: {reason}; "
            "start it, or unset the variable for an embedded one"
        ) from error


def _send_the_last_events() -> None:
    """Let Prefect's client send what it still holds, while there is a server to take it: else it waits a minute."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=10)
    APILogWorker.drain_all(timeout=10)


@contextlib.contextmanager
def progress_bar(things: str) -> Iterator[Advance]:
    """A bar on standard error that moves with every finished thing; nothing where there is no terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[latest]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(things, total=None, latest="")

        def advance(latest: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, latest=latest)

        yield advance
