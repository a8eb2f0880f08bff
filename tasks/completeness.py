"""Which passes are missing in every catalog after a run, and how far back to ask for them again."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import structlog

from models.gaps import Gap, note_gaps, open_gaps, seen_passes, tell_of_gaps
from models.orbits import missing_passes
from tasks.bench import Bench
from tasks.observe import INDEX

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """What is missing of the days of a run."""

    missing: int = 0
    """Passes over a tile that should have been, would have seen farms, and are in no catalog."""
    told: tuple[Gap, ...] = ()
    """Those that have been missing for long enough to be told of, and were not told of before; newest first."""


def look_for_gaps(bench: Bench, days: tuple[dt.date, dt.date], *, now: dt.datetime) -> Completeness:
    """Note which passes of these days are in no catalog, after all catalogs were asked and the farms observed."""
    settings = bench.settings
    with bench.stores.engine.begin() as connection:
        missing = missing_passes(seen_passes(connection, *days), *days)
        count = note_gaps(connection, missing, days, now=now, mask_policy=settings.mask_policy.name, index=INDEX)
        told = tell_of_gaps(
            connection,
            now=now,
            after=dt.timedelta(days=settings.gap_alert_days),
            until=dt.timedelta(days=settings.gap_days),
        )
    for gap in told:
        log.error(
            "pass missing in all catalogs",
            tile=gap.tile,
            platform=gap.platform,
            day=str(gap.day),
            farms=gap.farms,
        )
    return Completeness(missing=count, told=tuple(told))


def first_day_to_ask(bench: Bench, start: dt.date, *, now: dt.datetime) -> dt.date:
    """The day from which catalogs are to be asked: `start`, or before it that of a gap still to be asked for."""
    since = now.date() - dt.timedelta(days=bench.settings.gap_days)
    with bench.stores.engine.connect() as connection:
        gaps = open_gaps(connection, since=since) if since < start else []
    return min([start, *(gap.day for gap in gaps)])
