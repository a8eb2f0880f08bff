"""What NASA POWER is asked, what its answers mean, and which are not believed."""

from __future__ import annotations

import copy
import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.errors import BadInput, UpstreamUnreadable
from models.weather import DAILY_VARIABLES, Grain, Kind, WeatherAnswer
from tasks.weather.cells import nasa_power_cell, open_meteo_cell
from tasks.weather.nasa_power_answers import is_final, power_weather_from
from tasks.weather.nasa_power_requests import MOST_PARAMETERS, PARAMETERS, PowerRequest, ask_power
from tests.support.weather_answers import POWER_VALUES, Truth, power_answer

NOW = dt.datetime(2024, 7, 12, 9, tzinfo=dt.UTC)
UCCLE = nasa_power_cell(4.36, 50.8)
DAY = dt.date(2024, 7, 6)
MIDNIGHT = dt.datetime(2024, 7, 6, tzinfo=dt.UTC)


def request(grain: Grain = Grain.DAILY, *, days: int = 1) -> PowerRequest:
    return PowerRequest(cell=UCCLE, grain=grain, first_day=DAY, last_day=DAY + dt.timedelta(days=days - 1))


def document(asked: PowerRequest, truth: Truth | None = None) -> dict[str, Any]:
    ask = ask_power(asked)
    return power_answer(ask.url, ask.parameters, truth)


def answer(asked: PowerRequest, truth: Truth | None = None) -> WeatherAnswer:
    return power_weather_from(document(asked, truth), asked, now=NOW)


def test_utc_the_community_and_the_cells_centre_are_said() -> None:
    ask = ask_power(request(days=3), url="http://power.example/")
    assert ask.url == "http://power.example/api/temporal/daily/point"
    assert ask.parameters["time-standard"] == "UTC"
    assert ask.parameters["community"] == "AG"
    assert ask.parameters["format"] == "JSON"
    assert (ask.parameters["longitude"], ask.parameters["latitude"]) == ("4.375", "51.0")
    assert (ask.parameters["start"], ask.parameters["end"]) == ("20240706", "20240708")


def test_no_more_parameters_than_the_service_takes() -> None:
    for grain, most in MOST_PARAMETERS.items():
        assert len(PARAMETERS[grain]) <= most


def test_requests_that_make_no_sense_are_refused() -> None:
    with pytest.raises(BadInput, match="no cell of NASA POWER"):
        PowerRequest(cell=open_meteo_cell(4, 51), grain=Grain.DAILY, first_day=DAY, last_day=DAY)
    with pytest.raises(BadInput, match="before"):
        request(days=0)
    with pytest.raises(BadInput, match="too early"):
        PowerRequest(cell=UCCLE, grain=Grain.DAILY, first_day=dt.date(1980, 12, 31), last_day=DAY)
    with pytest.raises(BadInput, match="grain"):
        request(Grain.CURRENT)


def test_a_day_is_told_in_our_units_with_et0_as_the_fao_paper_has_it() -> None:
    told = answer(request())
    [day] = told.readings
    assert (day.at, day.kind, day.model) == (MIDNIGHT, Kind.REANALYSIS, "merra2+ceres")
    assert set(day.values) == set(DAILY_VARIABLES) - {"soil_temperature_top_c", "soil_moisture_top_m3_m3"}
    assert day.values["surface_pressure_hpa"] == 1001.2
    assert day.values["wind_speed_2m_m_s"] == 2.08
    assert day.values["shortwave_radiation_mj_m2"] == 22.07
    assert day.values["et0_mm"] == pytest.approx(3.88, abs=0.01)
    assert told.data_sets == ("merra2", "power", "syn1deg")
    assert not told.missing
    assert not told.implausible


@pytest.mark.parametrize(
    ("unit", "told", "expected"),
    [("MJ/m^2/day", 21.6, 21.6), ("kW-hr/m^2/day", 6.0, 21.6), ("W/m^2", 250.0, 21.6)],
)
def test_radiation_is_converted_by_the_unit_in_the_answer(unit: str, told: float, expected: float) -> None:
    found = document(request(), lambda name, _: told if name.startswith("ALLSKY") else POWER_VALUES[name])
    found["parameters"]["ALLSKY_SFC_SW_DWN"]["units"] = unit
    [day] = power_weather_from(found, request(), now=NOW).readings
    assert day.values["shortwave_radiation_mj_m2"] == pytest.approx(expected)


def test_hourly_sums_are_named_by_the_end_of_their_hour() -> None:
    def rising(name: str, at: dt.datetime) -> float:
        hour = (at - MIDNIGHT) / dt.timedelta(hours=1)
        return {"PRECTOTCORR": 50 + hour, "ALLSKY_SFC_SW_DWN": 1.8, "T2M": hour}.get(name, POWER_VALUES[name])

    asked = request(Grain.HOURLY)
    assert ask_power(asked).parameters["start"] == "20240705"
    told = answer(asked, rising).readings
    assert [each.at for each in told] == [MIDNIGHT + dt.timedelta(hours=hour) for hour in range(24)]
    assert [each.values["temperature_c"] for each in told] == list(range(24))
    assert [each.values["precipitation_mm"] for each in told] == [49 + hour for hour in range(24)]
    assert told[0].values["shortwave_radiation_w_m2"] == 500
    assert "et0_mm" not in told[0].values


@pytest.mark.parametrize("fill", [-999.0, -99.0])
def test_the_fill_value_of_the_header_is_missing_and_so_is_minus_999(fill: float) -> None:
    def without_sun(name: str, at: dt.datetime) -> float:
        if name == "PRECTOTCORR":
            return -999.0
        return fill if name == "ALLSKY_SFC_SW_DWN" and at == MIDNIGHT else POWER_VALUES[name]

    found = document(request(days=2), without_sun)
    found["header"]["fill_value"] = fill
    told = power_weather_from(found, request(days=2), now=NOW)
    first, second = told.readings
    assert "shortwave_radiation_mj_m2" not in first.values
    assert "et0_mm" not in first.values
    assert "et0_mm" in second.values
    assert told.missing == {UCCLE.key: ("precipitation_mm",)}
    assert not told.implausible


def test_days_that_are_not_there_yet_are_no_readings() -> None:
    late = MIDNIGHT + dt.timedelta(days=2)
    told = answer(request(days=4), lambda name, at: POWER_VALUES[name] if at < late else None)
    assert [each.at.day for each in told.readings] == [6, 7]


def test_a_dropped_parameter_is_noticed_and_the_others_stay() -> None:
    found = document(request())
    del found["properties"]["parameter"]["T2MDEW"], found["parameters"]["T2MDEW"]
    told = power_weather_from(found, request(), now=NOW)
    assert told.missing == {UCCLE.key: ("dew_point_c",)}
    # The vapour pressure is then that of the mean humidity.
    assert told.readings[0].values["et0_mm"] == pytest.approx(3.88, abs=0.1)


def test_wind_at_2_m_is_reduced_from_10_m_for_et0_only() -> None:
    told = answer(request(), lambda name, _: None if name == "WS2M" else POWER_VALUES[name])
    assert told.readings[0].values["et0_mm"] == pytest.approx(3.88, abs=0.01)
    assert "wind_speed_2m_m_s" not in told.readings[0].values


@pytest.mark.parametrize("name", ["T2M_MAX", "T2M_MIN", "PS", "ALLSKY_SFC_SW_DWN"])
def test_without_one_of_its_inputs_there_is_no_et0(name: str) -> None:
    told = answer(request(), lambda each, _: None if each == name else POWER_VALUES[each])
    assert "et0_mm" not in told.readings[0].values


def test_an_implausible_input_makes_no_et0() -> None:
    told = answer(request(), lambda name, _: 220.7 if name.startswith("ALLSKY") else POWER_VALUES[name])
    assert [each.variable for each in told.implausible] == ["shortwave_radiation_mj_m2"]
    assert "et0_mm" not in told.readings[0].values


@pytest.mark.parametrize(
    ("days", "has_solar", "final"),
    [(10, False, False), (11, False, True), (11, True, False), (120, True, False), (121, True, True)],
)
def test_values_are_final_ten_days_on_and_with_radiation_120(days: int, has_solar: bool, final: bool) -> None:
    assert is_final(MIDNIGHT, has_solar=has_solar, now=MIDNIGHT + dt.timedelta(days=days)) is final


Damage = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda found: found["header"].update(time_standard="LST"), "times are in 'LST', UTC was asked for"),
        (lambda found: found["header"].pop("fill_value"), "the fill value is None"),
        (lambda found: found["header"].update(sources="MERRA2"), "sources are 'MERRA2'"),
        (lambda found: found.pop("header"), "header: not an object"),
        (lambda found: found.pop("properties"), "properties: not an object"),
        (lambda found: found["properties"].update(parameter=[]), "parameters: not an object"),
        (lambda found: found.pop("parameters"), "units: not an object"),
        (lambda found: found["parameters"].pop("T2M"), "unit of T2M: not an object"),
        (lambda found: found["parameters"]["T2M"].update(units="F"), "T2M in 'F'; known are C, K"),
        (lambda found: found["parameters"]["PS"].update(units=None), "PS in None"),
        (lambda found: found["properties"]["parameter"].update(T2M=[1.0]), "values of T2M: not an object"),
        (lambda found: found["properties"]["parameter"]["T2M"].update({"20240706": "7.2"}), "is '7.2', not a number"),
        (lambda found: found["properties"]["parameter"]["T2M"].update({"20240709": 7.2}), "a value for 20240709"),
        (lambda found: found["properties"]["parameter"]["T2M"].update({"202407": 7.2}), "'202407' is not a day"),
        (lambda found: found["properties"]["parameter"]["T2M"].update({"20240732": 7.2}), "'20240732' is not a day"),
        (lambda found: found["geometry"].update(coordinates=[-105.27, 40.02, 1801]), "an answer for 40.02, -105.27"),
        (lambda found: found["geometry"].update(coordinates=[]), "without a place"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_refused_whole(damage: Damage, told: str) -> None:
    found = copy.deepcopy(document(request()))
    damage(found)
    with pytest.raises(UpstreamUnreadable, match=told):
        power_weather_from(found, request(), now=NOW)


@pytest.mark.shared_data
def test_the_recorded_answer_is_read_with_its_own_units_and_its_dropped_parameters(shared_data: Path) -> None:
    found = json.loads((shared_data / "nasa-power/captures/point_daily_2param.json").read_text())
    asked = PowerRequest(
        cell=nasa_power_cell(-105.27, 40.02),
        grain=Grain.DAILY,
        first_day=dt.date(2024, 2, 1),
        last_day=dt.date(2024, 2, 3),
    )
    told = power_weather_from(found, asked, now=NOW)
    assert [dict(each.values) for each in told.readings] == [
        {"temperature_mean_c": mean, "shortwave_radiation_mj_m2": pytest.approx(kilowatt_hours * 3.6)}
        for mean, kilowatt_hours in ((7.25, 3.5455), (3.78, 2.7302), (0.67, 2.8867))
    ]
    assert all(each.is_final for each in told.readings)
    assert told.data_sets == ("merra2", "syn1deg")
    assert len(told.missing[asked.cell.key]) == 9


@pytest.mark.shared_data
def test_et0_of_a_recorded_month_in_athens_is_what_winter_there_has(shared_data: Path) -> None:
    table = (
        shared_data / "nasa-power/pynasapower/POWER_Point_Daily_20220101_20220201_037d98N_023d73E_LST.txt"
    ).read_text()
    names, *rows = [line.split() for line in table.splitlines() if line.strip()]
    by_day = {
        dt.datetime(2022, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=int(row[1]) - 1): dict(zip(names, row, strict=True))
        for row in rows
    }
    asked = PowerRequest(
        cell=nasa_power_cell(23.73, 37.98),
        grain=Grain.DAILY,
        first_day=dt.date(2022, 1, 1),
        last_day=dt.date(2022, 2, 1),
    )

    def recorded(name: str, at: dt.datetime) -> float | None:
        if name == "PS":
            return 100.0  # not in the recording
        return float(by_day[at][name]) if name in names else None

    told = answer(asked, recorded).readings
    et0 = [each.values["et0_mm"] for each in told]
    assert len(et0) == 32
    assert 0.3 < min(et0) < max(et0) < 3.0
    assert 1.0 < sum(et0) / 32 < 1.8
