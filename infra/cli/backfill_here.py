"""A backfill in this process: piece by piece, the newest first, with bars that move."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from infra.cli.backfill_cost import Costs, Wanted
from infra.cli.running import prefect_server, summary_of
from infra.settings import Settings
from models.weather_missing import DaySpan

if TYPE_CHECKING:
    from flows.ndvi import RunSummary
    from flows.weather import WeatherSummary
    from tasks.steps import SceneReport
    from tasks.weather_steps import BatchReport

SHOWN = 20
RATE_OVER_S = 900.0
"""Over which the rate is told: scenes take their time."""


@dataclass(slots=True)
class Outcome:
    """How a backfill came out so far."""

    scenes: int = 0
    observed: int = 0
    not_observed: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    batches: int = 0
    inserted: int = 0
    replaced: int = 0
    cells_failed: int = 0
    is_loss: bool = False
    problems: dict[str, None] = field(default_factory=dict)
    """Each once, in the order in which they came up."""

    def add_ndvi(self, summary: RunSummary) -> None:
        """Count what a run over some days of NDVI did."""
        self.scenes += len(summary.scenes)
        self.observed += summary.observed
        self.not_observed.update(summary.not_observed)
        self.failed += summary.failed
        self.is_loss |= summary.is_loss
        for name, problem in summary.catalog_problems.items():
            self.problems[f"catalog {name} could not be searched: {problem}"] = None
        for scene in summary.scenes:
            if scene.failed:
                self.problems[f"{scene.day} {scene.tile_set}: {scene.problem}"] = None

    def add_weather(self, summary: WeatherSummary) -> None:
        """Count what a run over some days of weather did."""
        self.batches += len(summary.batches)
        self.inserted += summary.inserted
        self.replaced += summary.replaced
        self.cells_failed += summary.failed
        self.is_loss |= summary.is_loss
        self.problems |= dict.fromkeys(summary.problems)

    def facts(self) -> dict[str, Any]:
        """All of it for programs."""
        return {
            "ndvi": {
                "scenes": self.scenes,
                "observed": self.observed,
                "not_observed": dict(sorted(self.not_observed.items())),
                "failed": self.failed,
            },
            "weather": {
                "batches": self.batches,
                "inserted": self.inserted,
                "replaced": self.replaced,
                "failed": self.cells_failed,
            },
            "problems": list(self.problems),
        }


def run_here(settings: Settings, wanted: Wanted, costs: Costs) -> Outcome:
    """Do what is due in this process, every piece as a flow run, and tell how all of it came out.

    A piece with failures does not stop the others.

    Raises:
        ServerTrouble: a run ended before it could tell how it came out.
    """
    outcome = Outcome()
    with prefect_server(settings), _bars() as bars:
        # Loaded here: Prefect reads its settings when it is imported, and takes a second for it.
        from flows.ndvi import RunSummary, ndvi_days
        from flows.ndvi import watching as watching_scenes
        from flows.weather import WeatherSummary, backfill_weather
        from flows.weather import watching as watching_batches

        scenes, batches = (
            _Bar(bars, "scenes", {cost.days: cost.scenes for cost in costs.ndvi}),
            _Bar(bars, "weather", {cost.days: cost.batches for cost in costs.weather}),
        )
        some = {"farms": wanted.farms, "bbox": None if wanted.bbox is None else list(wanted.bbox)}

        def watch_scene(scene: SceneReport, done: int, total: int) -> None:
            scenes.advance(f"{scene.tile_set} {scene.day}", done, total)

        def watch_batch(batch: BatchReport, done: int, total: int) -> None:
            batches.advance(batch.label, done, total)

        with watching_scenes(watch_scene), watching_batches(watch_batch):
            for days, is_weather in _order(costs):
                state: Any
                if is_weather:
                    batches.begin(days)
                    state = backfill_weather(days.first, days.last, **some, return_state=True)
                    outcome.add_weather(summary_of(state, WeatherSummary))
                else:
                    scenes.begin(days)
                    state = ndvi_days(days.first, days.last, **some, return_state=True)
                    outcome.add_ndvi(summary_of(state, RunSummary))
    return outcome


def _order(costs: Costs) -> list[tuple[DaySpan, bool]]:
    """The pieces by their last day, newest first; of one day NDVI before weather, which may have to wait."""
    pieces = [(cost.days, False) for cost in costs.ndvi] + [(cost.days, True) for cost in costs.weather]
    return sorted(pieces, key=lambda piece: (-piece[0].last.toordinal(), piece[1]))


class _Bar:
    """A bar over all pieces, which corrects what was expected of a piece once it is known."""

    def __init__(self, bars: Progress, name: str, expected: dict[DaySpan, int]) -> None:
        self._bars = bars
        self._expected = expected
        self._done_before = self._done = self._ahead = 0
        self._ahead = sum(expected.values())
        self._task = bars.add_task(name, total=self._ahead, latest="", visible=bool(expected))

    def begin(self, days: DaySpan) -> None:
        """A piece begins: what was done before stays."""
        self._done_before = self._done
        self._ahead -= self._expected[days]

    def advance(self, latest: str, done: int, total: int) -> None:
        """So much of the piece is done."""
        self._done = self._done_before + done
        self._bars.update(
            self._task, completed=self._done, total=self._done_before + total + self._ahead, latest=latest
        )


class _Rate(ProgressColumn):
    """Things a minute."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed * 60:.1f}/min" if task.speed else "")


@contextlib.contextmanager
def _bars() -> Iterator[Progress]:
    """Bars on standard error; nothing where there is no terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[latest]}", markup=False),
    )
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden, speed_estimate_period=RATE_OVER_S) as bars:
        yield bars


def print_outcome(console: Console, outcome: Outcome) -> None:
    """Say in a few lines how it came out."""
    table = Table("", "", box=None, show_header=False)
    table.columns[1].justify = "right"
    rows = {"scenes": outcome.scenes, "observed": outcome.observed, **dict(sorted(outcome.not_observed.items()))}
    rows |= {"weather readings new": outcome.inserted, "weather readings replaced": outcome.replaced}
    for name, number in rows.items():
        table.add_row(escape(name), f"{number:,}")
    for name, number in {"failed": outcome.failed, "weather cells failed": outcome.cells_failed}.items():
        if number:
            table.add_row(f"[red]{name}[/red]", f"{number:,}")
    console.print(table)
    for problem in list(outcome.problems)[:SHOWN]:
        console.print(f"  [red]{escape(problem)}[/red]", soft_wrap=True)
    if len(outcome.problems) > SHOWN:
        console.print(f"  and {len(outcome.problems) - SHOWN:,} more")
    if outcome.is_loss:
        console.print("Start it again to do what is missing.")
