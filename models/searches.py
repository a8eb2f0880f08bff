"""When each catalog was asked last, and what it answered."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from sqlalchemy import Connection, text

LONGEST_PROBLEM = 500
"""Characters kept of what went wrong; the log has all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogSearch:
    """The last search of one catalog, and the last that it answered."""

    catalog: str
    asked_at: dt.datetime
    answered_at: dt.datetime | None
    first_day: dt.date | None
    """Days of the search that was answered last; the last one is included."""
    last_day: dt.date | None
    scenes: int | None
    """Usable ones that it gave."""
    problem: str | None
    """Why the last search was not answered; None when it was."""


def note_answer(
    connection: Connection, catalog: str, days: tuple[dt.date, dt.date], *, scenes: int, now: dt.datetime
) -> None:
    """Note that a catalog was searched."""
    given = {"catalog": catalog, "first": days[0], "last": days[1], "scenes": scenes, "now": now}
    connection.execute(text(_ANSWERED), given)


_ANSWERED = """
INSERT INTO catalog_searches (catalog, asked_at, answered_at, first_day, last_day, scenes)
VALUES (:catalog, :now, :now, :first, :last, :scenes)
ON CONFLICT (catalog) DO UPDATE
SET asked_at = excluded.asked_at, answered_at = excluded.answered_at, first_day = excluded.first_day,
    last_day = excluded.last_day, scenes = excluded.scenes, problem = NULL
"""


def note_no_answer(connection: Connection, catalog: str, *, problem: str, now: dt.datetime) -> None:
    """Note that a catalog could not be searched, and why; when it last could stays known."""
    connection.execute(text(_NOT_ANSWERED), {"catalog": catalog, "problem": problem[:LONGEST_PROBLEM], "now": now})


_NOT_ANSWERED = """
INSERT INTO catalog_searches (catalog, asked_at, problem) VALUES (:catalog, :now, :problem)
ON CONFLICT (catalog) DO UPDATE SET asked_at = excluded.asked_at, problem = excluded.problem
"""


def catalog_searches(connection: Connection) -> list[CatalogSearch]:
    """Return the last searches of all catalogs that were ever asked, by name."""
    found = []
    for row in connection.execute(text("SELECT * FROM catalog_searches ORDER BY catalog")).mappings():
        instants = {name: row[name] and row[name].astimezone(dt.UTC) for name in ("asked_at", "answered_at")}
        found.append(CatalogSearch(**{**row, **instants}))
    return found
