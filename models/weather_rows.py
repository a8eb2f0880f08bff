"""A reading as a row of its table, and how a later telling and a stored one become one row."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass

from models.weather import DAILY_VARIABLES, HOURLY_VARIABLES, Grain, Kind, Reading

SOIL = ("soil_temperature_top_c", "soil_moisture_top_m3_m3")
"""Variables that mean nothing without the layer they are of."""

FINAL = 10**18
"""What a final telling stands above every provisional one; microseconds since 1970 stay below it until year 33658."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Where readings of one grain are kept."""

    table: str
    time: str
    """Column of the day or hour."""
    variables: tuple[str, ...]

    @property
    def above_ground(self) -> tuple[str, ...]:
        """Variables that may be completed from other models and sources: all but those of the soil."""
        return tuple(name for name in self.variables if name not in SOIL)

    @property
    def told(self) -> tuple[str, ...]:
        """Columns that a reading fills, but for its cell."""
        return (self.time, "model", "kind", "is_final", "told_at", *self.variables, "soil_layer")

    @property
    def replaced(self) -> tuple[str, ...]:
        """Columns that a later telling may replace."""
        return ("is_final", "told_at", *self.variables, "soil_layer", "kept")


SHEETS = {
    Grain.DAILY: Sheet(table="weather_daily", time="day", variables=DAILY_VARIABLES),
    Grain.HOURLY: Sheet(table="weather_hourly", time="at", variables=HOURLY_VARIABLES),
}


def row_of(reading: Reading, *, now: dt.datetime) -> tuple[object, ...]:
    """A reading in the order of its sheet's `told`, as COPY takes it.

    Args:
        reading: what was told.
        now: when it was told, where the reading does not say.

    Raises:
        ValueError: a variable is unknown, a number is not finite, or a time or a layer is missing or not what it
            must be.
    """
    sheet = SHEETS[reading.grain]
    values = reading.values
    if unknown := values.keys() - set(sheet.variables):
        raise ValueError(f"no {reading.grain} variables: {', '.join(sorted(unknown))}")
    if odd := [name for name, value in values.items() if not math.isfinite(value)]:
        raise ValueError(f"{reading.cell.key} at {reading.at}: {odd[0]} is {values[odd[0]]}")
    has_soil = not values.keys().isdisjoint(SOIL)
    if has_soil and not reading.soil_layer:
        raise ValueError(f"{reading.cell.key} at {reading.at}: soil of no layer")
    return (
        _time(reading),
        *(reading.model, reading.kind.value, reading.is_final, _told_at(reading, now)),
        *map(values.get, sheet.variables),
        reading.soil_layer if has_soil else None,
    )


def _time(reading: Reading) -> dt.date | dt.datetime:
    at = reading.at
    if at.utcoffset() != dt.timedelta(0):
        raise ValueError(f"{at} is not in UTC")
    if at.minute or at.second or at.microsecond or (reading.grain is Grain.DAILY and at.hour):
        raise ValueError(f"{at} is not the start of a {'day' if reading.grain is Grain.DAILY else 'full hour'}")
    return at.date() if reading.grain is Grain.DAILY else at


def _told_at(reading: Reading, now: dt.datetime) -> dt.datetime:
    if reading.kind is Kind.FORECAST:
        if reading.issued_at is None:
            raise ValueError(f"{reading.cell.key} at {reading.at}: a forecast without an issue time")
        told_at = reading.issued_at
    else:
        told_at = reading.told_at or now
    if told_at.tzinfo is None:
        raise ValueError(f"{told_at} has no time zone")
    return told_at


def standing(row: str) -> str:
    """SQL for how much a row's telling counts, as bigint: a final one more than others, then the later one."""
    return f"(CASE WHEN {row}.is_final THEN {FINAL} ELSE 0 END + (extract(epoch FROM {row}.told_at) * 1000000)::bigint)"


def merge_sql(sheet: Sheet) -> str:
    """SQL that makes of every staged reading, and the stored row if any, the row that is right: table `merged`.

    Value by value the telling of the highest standing counts among those that tell the value, so the order in which
    tellings arrive does not matter. Should two of one standing differ, the larger value counts. Values of the soil
    go together with their layer. `kept` names values whose telling is not the row's own. Each `OFFSET 0` keeps
    Postgres from writing a subquery's expressions out wherever they are used, which was fifteen times slower.
    """
    plain = sheet.above_ground
    return f"""
CREATE TEMPORARY TABLE merged ON COMMIT DROP AS
SELECT cell_id, {sheet.time}, model, kind, is_final, told_at, {", ".join(sheet.variables)}, soil_layer,
       nullif(kept, '{{}}') AS kept, is_known,
       ({_listed("stored_", (*sheet.variables, "soil_layer", "is_final"))})
           IS DISTINCT FROM ({_listed("", (*sheet.variables, "soil_layer", "is_final"))}) AS is_changed,
       (stored_told_at, stored_kept) IS DISTINCT FROM (told_at, nullif(kept, '{{}}')) AS is_noted
FROM (
    SELECT cell_id, {sheet.time}, model, kind, is_known,
           is_final OR coalesce(stored_is_final, false) AS is_final,
           CASE WHEN new_standing >= coalesce(old_standing, 0) THEN told_at ELSE stored_told_at END AS told_at,
           {", ".join(_value(name, name) for name in plain)},
           {", ".join(_value(name, "soil") for name in (*SOIL, "soil_layer"))},
           CASE WHEN is_known THEN
               jsonb_strip_nulls(jsonb_build_object({", ".join(map(_kept, (*plain, "soil")))}))
           END AS kept,
           {_listed("stored_", sheet.replaced)}
    FROM (
        SELECT *, {", ".join(_wins(name) for name in plain)},
               soil_layer IS NOT NULL AND (stored_soil_layer IS NULL OR new_standing > soil_standing
                   OR (new_standing = soil_standing AND {_soil("")} > {_soil("stored_")})) AS soil_wins
        FROM (
            SELECT *, {", ".join(_stood(name) for name in (*plain, "soil"))}
            FROM (
                SELECT c.id AS cell_id, {_listed("s.", sheet.told)}, o.cell_id IS NOT NULL AS is_known,
                       {", ".join(f"o.{name} AS stored_{name}" for name in sheet.replaced)},
                       {standing("s")} AS new_standing, {standing("o")} AS old_standing
                FROM staged_readings AS s JOIN weather_cells AS c ON c.key = s.cell_key
                LEFT JOIN {sheet.table} AS o ON (o.cell_id, o.{sheet.time}, o.model, o.kind)
                    = (c.id, s.{sheet.time}, s.model, s.kind) AND o.{sheet.time} BETWEEN :first AND :last
                OFFSET 0
            ) AS paired
            OFFSET 0
        ) AS stood
        OFFSET 0
    ) AS judged
    OFFSET 0
) AS joined
"""  # noqa: S608


def _listed(prefix: str, names: Sequence[str]) -> str:
    return ", ".join(prefix + name for name in names)


def _stood(name: str) -> str:
    return f"coalesce((stored_kept->>'{name}')::bigint, old_standing) AS {name}_standing"


def _wins(name: str) -> str:
    return (
        f"{name} IS NOT NULL AND (stored_{name} IS NULL OR new_standing > {name}_standing"
        f" OR (new_standing = {name}_standing AND {name} > stored_{name})) AS {name}_wins"
    )


def _value(name: str, decided_by: str) -> str:
    return f"CASE WHEN {decided_by}_wins THEN {name} ELSE stored_{name} END AS {name}"


def _kept(name: str) -> str:
    told = "soil_layer" if name == "soil" else name
    own = "greatest(new_standing, old_standing)"
    return (
        f"'{name}', CASE WHEN {name}_wins THEN nullif(new_standing, {own})"
        f" WHEN stored_{told} IS NOT NULL THEN nullif({name}_standing, {own}) END"
    )


def _soil(prefix: str) -> str:
    parts = ", ".join(f"coalesce({prefix}{name}, '-infinity')" for name in SOIL)
    return f"ROW({prefix}soil_layer, {parts})"
