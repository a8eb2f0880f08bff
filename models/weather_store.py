"""Weather as it was told: stored in bulk, so that running twice changes nothing and the order of arrival neither."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from models.revision import lock_revisions
from models.schema import ensure_partitions
from models.weather import Cell, Reading
from models.weather_rows import SHEETS, Sheet, merge_sql, row_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveOutcome:
    """What saving a list of readings changed, in readings."""

    inserted: int
    replaced: int
    """Another value than the one stored, one more, or the same values now final."""
    unchanged: int
    changed_cell_keys: tuple[str, ...]
    """Cells with a reading inserted or replaced, in order."""


def save_readings(connection: Connection, readings: Sequence[Reading]) -> SaveOutcome:
    """Store readings of any cells, sources and grains; what is stored already with the same content is left alone.

    A reading is the same one by cell, time, model and kind. Value by value, what a final answer told counts more
    than what a provisional one did, then the later answer (of forecasts: the newer issue); so it does not matter in
    which order answers arrive, and a reading with fewer variables erases nothing: sources replace values, they do
    not withdraw them. The values of the soil are replaced together, with their layer.

    Runs inside the caller's transaction, so that all land or none. From here until it ends, other writers of what
    carries a revision wait: call it late. That a value was told again unchanged is noted without a new revision.

    Raises:
        ValueError: a reading is given twice, is one of the present moment, or is not what `row_of` accepts.
    """
    if any(each.grain not in SHEETS for each in readings):
        raise ValueError("readings of the present moment are not stored")
    if len({_key(each) for each in readings}) < len(readings):
        raise ValueError("a reading is given twice")
    staged = {grain: [each for each in readings if each.grain is grain] for grain in SHEETS}
    outcomes = [_save(connection, SHEETS[grain], some) for grain, some in staged.items() if some]
    return SaveOutcome(
        inserted=sum(each.inserted for each in outcomes),
        replaced=sum(each.replaced for each in outcomes),
        unchanged=sum(each.unchanged for each in outcomes),
        changed_cell_keys=tuple(sorted({key for each in outcomes for key in each.changed_cell_keys})),
    )


def _key(each: Reading) -> tuple[object, ...]:
    return (each.cell.key, each.grain, each.at, each.model, each.kind)


def _save(connection: Connection, sheet: Sheet, readings: Sequence[Reading]) -> SaveOutcome:
    first, last = min(each.at for each in readings), max(each.at for each in readings)
    _stage(connection, sheet, readings)
    lock_revisions(connection)
    save_cells(connection, {each.cell for each in readings})
    ensure_partitions(connection, first.date(), last.date(), table=sheet.table)
    connection.execute(text("DROP TABLE IF EXISTS pg_temp.merged"))
    # The bounds are what lets Postgres leave the other years alone.
    bounds = {"first": first.date(), "last": last.date()} if sheet.time == "day" else {"first": first, "last": last}
    connection.execute(text(merge_sql(sheet)), bounds)
    connection.execute(text(_write_sql(sheet)))
    connection.execute(text(_note_sql(sheet)), bounds)
    counted = connection.execute(text(_COUNT)).one()
    return SaveOutcome(
        inserted=counted.inserted,
        replaced=counted.replaced,
        unchanged=counted.unchanged,
        changed_cell_keys=tuple(counted.changed_cell_keys),
    )


def save_cells(connection: Connection, cells: Collection[Cell]) -> None:
    """Note these cells; a cell that is known stays as it is."""
    ordered = sorted(cells, key=lambda cell: cell.key)
    given = {
        "keys": [cell.key for cell in ordered],
        "sources": [cell.source.value for cell in ordered],
        "latitudes": [cell.latitude for cell in ordered],
        "longitudes": [cell.longitude for cell in ordered],
    }
    connection.execute(text(_SAVE_CELLS), given)


def _stage(connection: Connection, sheet: Sheet, readings: Sequence[Reading]) -> None:
    now = dt.datetime.now(dt.UTC) if any(each.told_at is None for each in readings) else _LONG_AGO
    columns = ", ".join(sheet.told)
    connection.execute(text("DROP TABLE IF EXISTS pg_temp.staged_readings"))
    connection.execute(
        text(
            "CREATE TEMPORARY TABLE staged_readings ON COMMIT DROP AS "  # noqa: S608
            f"SELECT CAST('' AS text) AS cell_key, {columns} FROM {sheet.table} WITH NO DATA"
        )
    )
    driver = connection.connection.driver_connection
    assert driver is not None
    with driver.cursor() as cursor, cursor.copy(f"COPY staged_readings (cell_key, {columns}) FROM STDIN") as copy:
        for each in readings:
            copy.write_row((each.cell.key, *row_of(each, now=now)))
    connection.execute(text("ANALYZE pg_temp.staged_readings"))


_LONG_AGO = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

_SAVE_CELLS = """
INSERT INTO weather_cells (key, source, latitude, longitude)
SELECT given.*
FROM unnest(CAST(:keys AS text[]), CAST(:sources AS text[]),
            CAST(:latitudes AS double precision[]), CAST(:longitudes AS double precision[])) AS given(key)
WHERE NOT EXISTS (SELECT FROM weather_cells AS c WHERE c.key = given.key)
ON CONFLICT (key) DO NOTHING
"""

_COUNT = """
SELECT count(*) FILTER (WHERE NOT is_known) AS inserted,
       count(*) FILTER (WHERE is_known AND is_changed) AS replaced,
       count(*) FILTER (WHERE is_known AND NOT is_changed) AS unchanged,
       coalesce(array_agg(DISTINCT c.key ORDER BY c.key) FILTER (WHERE is_changed OR NOT is_known), '{}')
           AS changed_cell_keys
FROM merged AS m JOIN weather_cells AS c ON c.id = m.cell_id
"""


def _write_sql(sheet: Sheet) -> str:
    columns = ("cell_id", *sheet.told, "kept")
    return f"""
INSERT INTO {sheet.table} ({", ".join(columns)})
SELECT {", ".join(columns)} FROM merged WHERE is_changed OR NOT is_known ORDER BY cell_id, {sheet.time}
ON CONFLICT (cell_id, {sheet.time}, model, kind) DO UPDATE
SET {", ".join(f"{name} = excluded.{name}" for name in sheet.replaced)},
    revision = excluded.revision, updated_at = now()
"""  # noqa: S608


def _note_sql(sheet: Sheet) -> str:
    return f"""
UPDATE {sheet.table} AS o SET told_at = m.told_at, kept = m.kept
FROM merged AS m
WHERE (o.cell_id, o.{sheet.time}, o.model, o.kind) = (m.cell_id, m.{sheet.time}, m.model, m.kind)
    AND o.{sheet.time} BETWEEN :first AND :last AND m.is_known AND NOT m.is_changed AND m.is_noted
"""  # noqa: S608
