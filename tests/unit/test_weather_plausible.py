"""What is kept out of the stores, and what is not."""

from __future__ import annotations

import datetime as dt
import math

import pytest

from models.weather import DAILY_VARIABLES, HOURLY_VARIABLES, Grain, Kind, Reading
from tasks.weather.cells import open_meteo_cell
from tasks.weather.plausible import LIMITS, plausible

CELL = open_meteo_cell(4.3, 51.3)
NOON = dt.datetime(2024, 6, 1, tzinfo=dt.UTC)


def reading(values: dict[str, float], grain: Grain = Grain.DAILY) -> Reading:
    return Reading(
        cell=CELL, grain=grain, at=NOON, kind=Kind.REANALYSIS, model="era5_seamless", values=values, is_final=True
    )


def test_every_variable_has_limits_with_a_source() -> None:
    assert set(LIMITS[Grain.DAILY]) == set(DAILY_VARIABLES)
    assert set(LIMITS[Grain.HOURLY]) == set(HOURLY_VARIABLES)
    assert all(limits.low < limits.high and limits.source for each in LIMITS.values() for limits in each.values())


def test_an_implausible_value_is_kept_out_and_told_and_the_others_stay() -> None:
    kept, refused = plausible([reading({"temperature_max_c": 71.6, "precipitation_mm": 4.2})])
    assert [dict(each.values) for each in kept] == [{"precipitation_mm": 4.2}]
    assert [(each.cell, each.at, each.variable, each.value) for each in refused] == [
        (CELL, NOON, "temperature_max_c", 71.6)
    ]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("temperature_mean_c", -999.0),
        ("surface_pressure_hpa", 101.3),  # kilopascals
        ("temperature_mean_c", 288.15),  # kelvin
        ("relative_humidity_pct", -1.0),
        ("soil_moisture_top_m3_m3", 31.0),  # percent
        ("shortwave_radiation_mj_m2", 240.0),  # watts
        ("et0_mm", math.nan),
        ("precipitation_mm", math.inf),
    ],
)
def test_fill_values_wrong_units_and_no_numbers_are_implausible(variable: str, value: float) -> None:
    kept, refused = plausible([reading({variable: value})])
    assert kept == ()
    assert [each.variable for each in refused] == [variable]


def test_rare_weather_is_plausible() -> None:
    before = (
        reading({"temperature_min_c": -89.2, "precipitation_mm": 1825.0}),
        reading({"temperature_c": 56.7, "shortwave_radiation_w_m2": 1400.0, "cloud_cover_pct": 100.0}, Grain.HOURLY),
    )
    assert plausible(before) == (before, ())


def test_temperatures_of_a_day_that_contradict_each_other_are_all_kept_out() -> None:
    kept, refused = plausible(
        [reading({"temperature_min_c": 12.0, "temperature_mean_c": 9.0, "temperature_max_c": 15.0, "et0_mm": 2.0})]
    )
    assert [dict(each.values) for each in kept] == [{"et0_mm": 2.0}]
    assert len(refused) == 3


def test_rounding_does_not_make_a_calm_day_implausible() -> None:
    calm = (reading({"temperature_min_c": 0.1, "temperature_mean_c": 0.04, "temperature_max_c": 0.1}),)
    assert plausible(calm) == (calm, ())
