"""What keeps the database fit over the years: partitions ahead, forecasts let go, statistics for the planner."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import Connection, text

from models.schema import FIRST_YEARS, ensure_partitions

DAYS_AHEAD = 120
"""Partitions are there this long before the first row needs them: making one makes writers wait."""


def partitions_ahead(connection: Connection, *, today: dt.date) -> None:
    """See that every partitioned table takes rows of today and of the coming months."""
    for table in FIRST_YEARS:
        ensure_partitions(connection, today, today + dt.timedelta(days=DAYS_AHEAD), table=table)


def forget_forecasts(connection: Connection, *, before: dt.date) -> int:
    """Delete forecasts for times before a day where the same cell has an observation or a reanalysis of that time.

    Nothing is lost: a forecast that is all there is stays. Returns how many rows were deleted.
    """
    hourly = connection.execute(text(_FORGET.format(table="weather_hourly", time="at")), {"before": before})
    daily = connection.execute(text(_FORGET.format(table="weather_daily", time="day")), {"before": before})
    return hourly.rowcount + daily.rowcount


_FORGET = """
DELETE FROM {table} AS old
WHERE old.kind = 'forecast' AND old.{time} < :before
    AND EXISTS (
        SELECT 1 FROM {table} AS better
        WHERE better.cell_id = old.cell_id AND better.{time} = old.{time} AND better.kind <> 'forecast'
    )
"""


def refresh_statistics(connection: Connection) -> None:
    """Count anew what the query planner knows of the partitioned tables as a whole.

    Autovacuum looks after each partition, and never after the table that they belong to.
    """
    for table in FIRST_YEARS:
        connection.execute(text(f"ANALYZE {table}"))
