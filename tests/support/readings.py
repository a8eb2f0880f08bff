"""Weather made up for tests of the stores: cells, readings, and what they are worth by the rules told in Python."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

from models.weather import Cell, Grain, Kind, Reading, Source

DAY = dt.date(2024, 6, 10)
MODELS = {Source.OPEN_METEO: "era5_seamless", Source.NASA_POWER: "merra2+flashflux"}
SOIL = ("soil_temperature_top_c", "soil_moisture_top_m3_m3")


def cell(number: int = 0, source: Source = Source.OPEN_METEO) -> Cell:
    """A cell told apart by its number and source."""
    name = "om-0.1" if source is Source.OPEN_METEO else "power"
    return Cell(source=source, key=f"{name}:{number:04}:43", latitude=4.35, longitude=-180 + number / 10)


def midnight(day: dt.date) -> dt.datetime:
    """The start of a UTC day."""
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def daily(where: Cell | None = None, day: dt.date = DAY, **changes: Any) -> Reading:
    """A reading of a day; unless said otherwise a final one, told a week later."""
    return _reading(where or cell(), Grain.DAILY, midnight(day), **changes)


def hourly(where: Cell | None = None, at: dt.datetime | None = None, **changes: Any) -> Reading:
    """A reading of an hour."""
    return _reading(where or cell(), Grain.HOURLY, at or midnight(DAY), **changes)


def _reading(where: Cell, grain: Grain, told_of: dt.datetime, **changes: Any) -> Reading:
    kind = changes.get("kind", Kind.REANALYSIS)
    told = changes.pop("told_at", told_of + dt.timedelta(days=7))
    facts: dict[str, Any] = {
        "cell": where,
        "grain": grain,
        "at": told_of,
        "kind": kind,
        "model": "ifs_seamless" if kind is Kind.FORECAST else MODELS[where.source],
        "values": {"precipitation_mm": 1.5},
        "is_final": kind is not Kind.FORECAST,
        "issued_at": told if kind is Kind.FORECAST else None,
        "told_at": None if kind is Kind.FORECAST else told,
    }
    facts |= changes
    if not facts["values"].keys().isdisjoint(SOIL):
        facts.setdefault("soil_layer", "0-7cm")
    return Reading(**facts)


def standing(reading: Reading) -> tuple[bool, dt.datetime]:
    """How much a telling counts: finals first, then the later one."""
    told = reading.issued_at or reading.told_at
    assert told is not None
    return (reading.is_final, told)


Key = tuple[str, dt.datetime, str, str]


def stored_rows(readings: Iterable[Reading]) -> dict[Key, dict[str, tuple[float, bool]]]:
    """The rule of the store in plain Python: of each variable the value of the highest telling, and if it is final.

    Of the soil, all that the highest telling of any of it told. Values of one standing: the larger one.
    """
    found: dict[Key, list[Reading]] = {}
    for each in readings:
        found.setdefault((each.cell.key, each.at, each.model, each.kind.value), []).append(each)
    return {key: _merged(some) for key, some in found.items()}


def _merged(tellings: list[Reading]) -> dict[str, tuple[float, bool]]:
    names = {name for each in tellings for name in each.values} - set(SOIL)
    merged = {}
    for name in names:
        best = max((each for each in tellings if name in each.values), key=lambda e: (standing(e), e.values[name]))
        merged[name] = (best.values[name], best.is_final)
    if with_soil := [each for each in tellings if not each.values.keys().isdisjoint(SOIL)]:
        best = max(with_soil, key=lambda e: (standing(e), e.soil_layer, *soil(e.values)))
        merged |= {name: (best.values[name], best.is_final) for name in SOIL if name in best.values}
    return merged


def soil(values: Mapping[str, float]) -> tuple[float, ...]:
    """Temperature and moisture, an absent one below all others."""
    return tuple(values.get(name, float("-inf")) for name in SOIL)
