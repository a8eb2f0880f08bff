"""The first runs of the demo: a season of NDVI and this week's weather, left to the workers as an operator would."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from infra.cli.asked_runs import Handed, ask_for_run, prefect_client
from infra.cli.running import Advance, progress_bar
from infra.settings import Settings
from infra.stores import Stores
from models.status import work_by_state

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

SEASON, WEATHER = "ndvi-days/backfill-ndvi", "daily-weather/daily-weather"
LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """How a run came out."""

    name: str
    url: str
    seconds: float
    """Since it was asked for."""
    is_done: bool
    """Whether nothing that was due is missing."""
    words: str


def first_runs(
    console: Console,
    settings: Settings,
    stores: Stores,
    days: tuple[dt.date, dt.date],
    *,
    see_that_up_runs: Callable[[], None],
) -> bool:
    """Ask for both runs, wait for their ends with a bar on a terminal, say how they came out, and whether all was done.

    Raises:
        ServerTrouble: `swath up` has ended, or Prefect's server does not answer or does not know what is to run.
    """
    with prefect_client(settings) as client, progress_bar("scenes") as advance:
        asked = [
            ask_for_run(client, SEASON, {"start": days[0], "end": days[1]}),
            ask_for_run(client, WEATHER, {}),
        ]

        def look() -> None:
            see_that_up_runs()
            _show_progress(stores, advance)

        ends = sorted(_ends(client, asked, look), key=lambda end: end.name)
    for end in ends:
        mark = "[green]✓[/green]" if end.is_done else "[red]✗[/red]"
        console.print(f"{mark} {escape(end.name)}, after {end.seconds:.0f} s: {escape(end.words)}", soft_wrap=True)
        console.print(f"  {end.url}", soft_wrap=True)
    return all(end.is_done for end in ends)


def _ends(client: SyncPrefectClient, asked: list[Handed], look: Callable[[], None]) -> Iterator[_End]:
    """Give each run when it has ended; `look` is called every now and then until then."""
    begun = time.monotonic()
    left = {uuid.UUID(each.flow_run_id): each.url for each in asked}
    while left:
        time.sleep(LOOK_S)
        look()
        for flow_run_id, url in list(left.items()):
            run = client.read_flow_run(flow_run_id)
            if run.state is None or not run.state.is_final():
                continue
            del left[flow_run_id]
            yield _End(
                name=run.name,
                url=url,
                seconds=time.monotonic() - begun,
                is_done=run.state.is_completed(),
                words=run.state.message or str(run.state.name),
            )


def _show_progress(stores: Stores, advance: Advance) -> None:
    with stores.engine.connect() as connection:
        work = work_by_state(connection)
    if total := sum(work.values()):
        advance("", total - work.get("planned", 0), total)
