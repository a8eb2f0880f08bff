"""The tables of `swath status`: each fits into 80 columns without breaking a word or a number."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from itertools import product
from string import ascii_uppercase

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from infra.cli.status_report import Quota, Report, ToldRun
from models.gaps import Gap
from models.health import Region
from models.quota import Span
from models.searches import CatalogSearch
from models.status import FailedWork

SHOWN = 12
GAPS_SHOWN = 8
LONGEST_NAME = 32
"""Characters of a catalog's name on one line."""

_OUTCOMES = {"running": "cyan", "ended": "green", "broken": "yellow", "died": "red"}
_FRESH = dt.timedelta(days=6)
"""Of a zone: two satellites look every five days."""

_ANY_WIDTH = 10_000


class Notes:
    """Long texts, such as problems with addresses, told once below a table; in the table stands their number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, words: str) -> str:
        """The number under which these words are told."""
        return str(self._numbers.setdefault(words, len(self._numbers) + 1))

    def below(self, table: Table) -> RenderableType:
        """The table, and the notes below it over the whole width."""
        lines = [(f"[dim]{number}[/]", escape(words)) for words, number in self._numbers.items()]
        return Group(table, hanging(lines)) if lines else table


def hanging(lines: Sequence[tuple[str, str]]) -> Table:
    """Lines of a mark and words; further lines of the words begin where the first one does."""
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, justify="right")
    table.add_column(overflow="fold")
    for mark, words in lines:
        table.add_row(mark, words)
    return table


def regions(report: Report, console: Console) -> RenderableType | None:
    """How fresh each zone is; catalogs by their names where there is room, else by letters, and closer together."""
    if not report.regions:
        return None
    catalogs = sorted({name for region in report.regions for name in region.seen})
    names = [name.rpartition("/")[2].replace("sentinel-2", "S2") for name in catalogs]
    letters = [*ascii_uppercase, *map(str, range(len(catalogs)))][: len(catalogs)]
    ways = [names, letters] if len({*names}) == len(names) else [letters]
    for labels, gap in product(ways, (2, 1)):
        table = _regions(report, catalogs, labels, gap=gap)
        if console.measure(table, options=console.options.update(width=_ANY_WIDTH)).maximum <= console.width:
            break
    if labels is letters:
        legend = " ".join(f"{letter}={escape(name)}" for letter, name in zip(letters, catalogs, strict=True))
        return Group(table, f"[dim]Passes in {legend}[/]")
    return table


def _regions(report: Report, catalogs: list[str], labels: list[str], *, gap: int) -> Table:
    table = _table("Regions, last 30 days", gap=gap)
    for name in ("zone", "tiles", "last pass", "last value", *labels, "used", "clear", "open", "gaps"):
        is_text = name in ("zone", "last pass", "last value")
        table.add_column(escape(name), justify="left" if is_text else "right", overflow="fold")
    for region in report.regions:
        seen = [f"{region.seen.get(name, 0):,}" for name in catalogs]
        table.add_row(*_place(region, report.at), *seen, *_numbers(region))
    return table


def _place(region: Region, now: dt.datetime) -> tuple[str, ...]:
    colour = "green" if now - region.newest_pass <= _FRESH else "yellow"
    newest = f"[{colour}]{region.newest_pass:%Y-%m-%d}[/]"
    return region.zone, f"{region.tiles:,}", newest, str(region.newest_value_day or "-")


def _numbers(region: Region) -> tuple[str, ...]:
    unfinished = f"{region.unfinished:,}" if region.unfinished else "-"
    missing = f"[yellow]{region.missing:,}[/]" if region.missing else "-"
    return f"{region.used:,}", f"{region.clear:,}", unfinished, missing


def gaps(report: Report) -> RenderableType | None:
    """Passes that no catalog has, and what is done about each."""
    marked = [("late", "dim", report.late), ("missing", "yellow", report.gaps), ("lost", "dim", report.lost)]
    rows = [(word, colour, gap) for word, colour, found in marked for gap in found]
    table = _table("Gaps: passes in no catalog")
    for name in ("day", "tile", "satellite", "orbit", "farms", ""):
        table.add_column(name, justify="right" if name == "farms" else "left", overflow="fold")
    for word, colour, gap in rows[:GAPS_SHOWN]:
        orbit = f"R{gap.relative_orbit:03}" if gap.relative_orbit else "-"
        facts = (str(gap.day), gap.tile, gap.platform, orbit, f"{gap.farms:,}")
        table.add_row(*map(escape, facts), f"[{colour}]{word}, {_asked(word, gap, report.at)}[/]")
    return _with_rest(table, len(rows) - GAPS_SHOWN, "--json lists all of the last 30 days") if rows else None


def _asked(word: str, gap: Gap, now: dt.datetime) -> str:
    return "not asked for any more" if word == "lost" else f"asked for {ago(gap.asked_at, now)}"


def failed(report: Report) -> RenderableType | None:
    """Scenes that failed, when they are tried again, and why they failed."""
    table, notes, found = _table("Failed"), Notes(), report.work.failed
    for name in ("day", "tile", "farms", "runs", "next try", "why"):
        table.add_column(name, justify="right" if name in ("farms", "runs", "why") else "left", overflow="fold")
    for each in found[:SHOWN]:
        facts = (str(each.day), each.tile_set, f"{each.pending_farms:,}", f"{each.failed_runs or 1:,}")
        why = notes.number(each.problem) if each.problem else ""
        table.add_row(*map(escape, facts), _next_try(each, report.at), why)
    shown = notes.below(table)
    return _with_rest(shown, len(found) - SHOWN, "--json lists up to a hundred") if found else None


def _next_try(each: FailedWork, now: dt.datetime) -> str:
    if each.given_up_at is not None:
        return "[red]given up[/]"
    if each.not_before is not None and each.not_before > now:
        return f"in {age(each.not_before - now)}"
    return "next run"


def sources(report: Report) -> RenderableType | None:
    """When each catalog and each weather model answered last, and what."""
    table, notes = _table("Sources"), Notes()
    for name in ("source", "answered", ""):
        table.add_column(name, overflow="fold")
    for search in report.catalogs:
        table.add_row(_in_lines(search.catalog), ago(search.answered_at, report.at), _gave(search, notes))
    for model in report.weather:
        table.add_row(escape(model.model), ago(model.told_at, report.at), f"{escape(model.kind)} to {model.newest_day}")
    return notes.below(table) if table.row_count else None


def _in_lines(catalog: str) -> str:
    """A long name, of a host and its collection, on two lines."""
    return escape(catalog.replace("/", "/\n", 1) if len(catalog) > LONGEST_NAME else catalog)


def _gave(search: CatalogSearch, notes: Notes) -> str:
    if search.problem:
        return f"[yellow]no answer of late, why: {notes.number(search.problem)}[/]"
    if search.answered_at is None:
        return ""
    return f"{search.scenes:,} scenes of {search.first_day} to {search.last_day}"


def calls(report: Report) -> RenderableType | None:
    """What the weather services were asked of late, and what is left of their allowances."""
    table = _table("Weighted calls")
    for name in ("service", "this minute", "this hour", "today"):
        table.add_column(name, justify="left" if name == "service" else "right", overflow="fold")
    services: dict[str, dict[Span, Quota]] = {}
    for quota in report.quotas:
        services.setdefault(quota.service, {})[quota.span] = quota
    for service, by_span in services.items():
        table.add_row(escape(service), *(_used(by_span.get(span)) for span in (Span.MINUTE, Span.HOUR, Span.DAY)))
    return table if services else None


def _used(quota: Quota | None) -> str:
    if quota is None:
        return "-"
    left = "" if quota.limit is None else f", {max(0.0, quota.limit - quota.used):,.0f} left"
    return f"{quota.used:,.0f}{left}"


def runs(report: Report) -> RenderableType | None:
    """The last runs, how they came out, and what those say that did not come out well."""
    table, notes = _table("Last runs"), Notes()
    for name in ("run", "began, UTC", "took", "came out", "why"):
        table.add_column(name, justify="right" if name in ("took", "why") else "left", overflow="fold")
    for run in report.runs:
        state = run.prefect_state or run.outcome
        why = notes.number(run.message) if run.message and state != "Completed" else ""
        took = age((run.ended_at or report.at) - run.started_at)
        began = f"{run.started_at:%Y-%m-%d %H:%M}"
        table.add_row(escape(run.kind), began, took, f"[{_colour(run, state)}]{escape(state)}[/]", why)
    return notes.below(table) if report.runs else None


def _colour(run: ToldRun, state: str) -> str:
    return {"Failed": "red", "Crashed": "red", "Completed": "green"}.get(state, _OUTCOMES[run.outcome])


def _table(title: str, *, gap: int = 2) -> Table:
    """A table flush with the left edge, `gap` blanks between its columns."""
    return Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, gap - 1, 0, 0),  # and one blank of the box
        title=title,
        title_justify="left",
        title_style="bold",
    )


def _with_rest(shown: RenderableType, more: int, how: str) -> RenderableType:
    return Group(shown, f"[dim]and {more:,} more; {how}[/]") if more > 0 else shown


def ago(instant: dt.datetime | None, now: dt.datetime) -> str:
    """How long ago it was, in the unit that a person would say it in."""
    return "never" if instant is None else f"{age(now - instant)} ago"


def age(length: dt.timedelta) -> str:
    """A length of time in one unit; what is below zero is none."""
    seconds = max(0.0, length.total_seconds())
    for unit, unit_s, below in [("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)]:
        if seconds < unit_s * below:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds / 86_400:,.0f} days"
