"""Weather as it is answered: for farms or places, with the source of every value."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, text

from models.reconciling import OF_CELLS, OF_FARMS, reconciled_soil_sql, reconciled_sql
from models.weather import Grain, Kind, Source
from models.weather_rows import SHEETS, SOIL

ROWS_AT_ONCE = 1_000
"""Rows that a streaming query holds in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A value and who told it."""

    value: float
    source: Source
    kind: Kind
    model: str
    is_final: bool
    told_at: dt.datetime
    """When the source told its reading; of a forecast, its issue time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What is known of one farm or place at one time."""

    farm_id: int | None
    """None where cells were asked for."""
    at: dt.datetime
    """UTC: start of the day, or the hour told."""
    values: Mapping[str, Told]
    """By variable, those that are known."""
    soil_layer: str | None = None
    """The layer that `values` are of, where the soil was asked for."""


def reconciled_daily(
    connection: Connection, farm_ids: Collection[int], *, start: dt.date, end: dt.date
) -> Iterator[Weather]:
    """Yield the weather of these farms, ordered by farm and day, some at a time; days without any are left out.

    Each value by the rule of `models.reconciling`. Without the soil; see `reconciled_soil`.
    """
    return _of_farms(connection, Grain.DAILY, farm_ids, first=start, last=end)


def reconciled_hourly(
    connection: Connection, farm_ids: Collection[int], *, start: dt.datetime, end: dt.datetime
) -> Iterator[Weather]:
    """As `reconciled_daily`, hour by hour, both included."""
    return _of_farms(connection, Grain.HOURLY, farm_ids, first=start, last=end)


def reconciled_daily_of_cells(
    connection: Connection, cell_keys: Collection[str], *, start: dt.date, end: dt.date
) -> Iterator[Weather]:
    """As `reconciled_daily`, of the one place that these cells hold: one of each source, of whatever farms."""
    return _of_cells(connection, Grain.DAILY, cell_keys, first=start, last=end)


def reconciled_hourly_of_cells(
    connection: Connection, cell_keys: Collection[str], *, start: dt.datetime, end: dt.datetime
) -> Iterator[Weather]:
    """As `reconciled_daily_of_cells`, hour by hour, both included."""
    return _of_cells(connection, Grain.HOURLY, cell_keys, first=start, last=end)


def reconciled_soil(
    connection: Connection, farm_ids: Collection[int], *, grain: Grain, start: dt.datetime, end: dt.datetime
) -> Iterator[Weather]:
    """Yield the soil of these farms from `start` to `end`, both included, by farm, time and layer.

    Layers differ between models and are told apart; both values of one are of one reading.
    """
    by_day = grain is Grain.DAILY
    bounds = {"first": start.date() if by_day else start, "last": end.date() if by_day else end}
    query = (
        f"WITH {OF_FARMS}, {reconciled_soil_sql(grain)} SELECT f.farm_id, r.* FROM farm_sites AS f "  # noqa: S608
        "JOIN reconciled_soil AS r ON r.site = f.site ORDER BY f.farm_id, r.at, r.soil_layer"
    )
    return _told(connection, query, SOIL, {"farm_ids": sorted(set(farm_ids)), **bounds})


def _joined(sites: str, grain: Grain) -> str:
    return (
        f"WITH {sites}, {reconciled_sql(grain)} SELECT f.farm_id, r.* FROM farm_sites AS f "  # noqa: S608
        "JOIN reconciled AS r ON r.site = f.site ORDER BY f.farm_id, r.at"
    )


def _of_farms(
    connection: Connection, grain: Grain, farm_ids: Collection[int], *, first: dt.date, last: dt.date
) -> Iterator[Weather]:
    given = {"farm_ids": sorted(set(farm_ids)), "first": first, "last": last}
    return _told(connection, _joined(OF_FARMS, grain), SHEETS[grain].above_ground, given)


def _of_cells(
    connection: Connection, grain: Grain, cell_keys: Collection[str], *, first: dt.date, last: dt.date
) -> Iterator[Weather]:
    given = {"cell_keys": sorted(set(cell_keys)), "first": first, "last": last}
    return _told(connection, _joined(OF_CELLS, grain), SHEETS[grain].above_ground, given)


def _told(
    connection: Connection, query: str, variables: tuple[str, ...], given: Mapping[str, Any]
) -> Iterator[Weather]:
    options = {"stream_results": True, "yield_per": ROWS_AT_ONCE}
    with connection.execute(text(query), given, execution_options=options) as rows:
        for row in rows:
            at = row.at
            yield Weather(
                farm_id=row.farm_id,
                at=at.astimezone(dt.UTC) if isinstance(at, dt.datetime) else _midnight(at),
                values=_values(row, variables),
                soil_layer=getattr(row, "soil_layer", None),
            )


def _values(row: Row[Any], variables: tuple[str, ...]) -> dict[str, Told]:
    told = row._mapping
    values = {}
    for name in variables:
        value = told[name]
        if value is not None:
            place = told[f"{name}_place"] - 1
            values[name] = Told(
                value=value,
                source=Source(row.sources[place]),
                kind=Kind(row.kinds[place]),
                model=row.models[place],
                is_final=row.finals[place],
                told_at=row.told_ats[place].astimezone(dt.UTC),
            )
    return values


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)
