"""What runs are called in Prefect's UI: what of which days, instead of two words by chance."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

from prefect.runtime import flow_run

Parameters = dict[str, Any]
"""Of a run, as its flow gets them; a default may be missing."""


def named(words: Callable[[Parameters], str]) -> Callable[[], str]:
    """A `flow_run_name` that these words make of the parameters of a run."""
    return lambda: words(dict(flow_run.parameters))


def of_days(what: str, first: object, last: object) -> str:
    """What of which days, the last one included."""
    return f"{what} of {first}" if str(first) == str(last) else f"{what} of {first} to {last}"


def of_last_days(what: str, back: int, last: dt.date, *, most: int) -> str:
    """What of the last so many days; a number that the flow will refuse is left out."""
    return of_days(what, last - dt.timedelta(days=back), last) if 0 <= back <= most else what


def of_asked(what: str, given: Parameters) -> str:
    """What of which days and of which farms, where a run was asked for some."""
    farms: Sequence[object] | None = given.get("farms")
    words = [of_days(what, given["start"], given["end"])]
    if farms is not None:
        words.append("1 farm" if len(farms) == 1 else f"{len(farms)} farms")
    if given.get("bbox") is not None:
        words.append("in a box")
    return ", ".join(words)
