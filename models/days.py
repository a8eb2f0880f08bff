"""Long spans of days in pieces: calendar months and years, the newest first."""

from __future__ import annotations

import datetime as dt
import enum

from models.weather_missing import DaySpan

ONE_DAY = dt.timedelta(days=1)
FIRST_SCENE = dt.date(2015, 6, 27)
"""First day of which there are images of Sentinel-2."""
FIRST_ANALYSIS = dt.date(1940, 1, 1)
"""First day of the ERA5 reanalysis, which is the oldest weather that is told."""


class Step(enum.StrEnum):
    """How long the pieces are."""

    MONTH = "month"
    YEAR = "year"


def newest_piece(days: DaySpan, step: Step) -> DaySpan:
    """The days of the calendar month or year of the last day."""
    begin = days.last.replace(day=1) if step is Step.MONTH else days.last.replace(month=1, day=1)
    return DaySpan(max(days.first, begin), days.last)


def pieces_newest_first(days: DaySpan, step: Step) -> list[DaySpan]:
    """The days by calendar month or year, the newest first; none where the last day is before the first."""
    pieces = []
    while days.first <= days.last:
        pieces.append(newest_piece(days, step))
        days = DaySpan(days.first, pieces[-1].first - ONE_DAY)
    return pieces
