"""What answers of Open-Meteo mean, and which are not believed."""

from __future__ import annotations

import copy
import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.errors import UpstreamUnreadable
from models.weather import Grain, Kind, WeatherAnswer
from tasks.weather.answers import json_object_or_list
from tasks.weather.cells import open_meteo_cell
from tasks.weather.open_meteo_answers import weather_from
from tasks.weather.open_meteo_requests import DEFAULT_MODELS, Endpoint, Hosts, Request, ask_for
from tests.support.weather_answers import Truth, mild, open_meteo_answer

NOW = dt.datetime(2024, 6, 3, 10, 20, tzinfo=dt.UTC)
DAY = dt.date(2024, 6, 1)
MIDNIGHT = dt.datetime(2024, 6, 1, tzinfo=dt.UTC)
CELLS = tuple(open_meteo_cell(x / 10, 51.3) for x in (43, 44, 45))


def request(*grains: Grain, endpoint: Endpoint = Endpoint.FORECAST, count: int = 1, days: int = 1) -> Request:
    return Request(
        endpoint=endpoint,
        cells=CELLS[:count],
        grains=frozenset(grains),
        first_day=DAY,
        last_day=DAY + dt.timedelta(days=days - 1),
        model=DEFAULT_MODELS[endpoint],
    )


def document(asked: Request, truth: Truth = mild) -> Any:
    return open_meteo_answer(ask_for(asked, Hosts()).parameters, truth)


def answer(asked: Request, truth: Truth = mild, *, now: dt.datetime = NOW) -> WeatherAnswer:
    return weather_from(document(asked, truth), asked, now=now)


def test_a_forecast_tells_hours_and_days_with_their_issue_time() -> None:
    told = answer(request(Grain.DAILY, Grain.HOURLY))
    hours = [each for each in told.readings if each.grain is Grain.HOURLY]
    [day] = [each for each in told.readings if each.grain is Grain.DAILY]
    assert [each.at for each in hours] == [MIDNIGHT + dt.timedelta(hours=hour) for hour in range(24)]
    assert hours[0].values["wind_speed_10m_m_s"] == 3.5
    assert hours[0].values["shortwave_radiation_w_m2"] == 150
    assert day.at == MIDNIGHT
    assert dict(day.values) == {
        "temperature_mean_c": 12.0,
        "temperature_min_c": 7.5,
        "temperature_max_c": 16.5,
        "dew_point_c": 8.0,
        "relative_humidity_pct": 76.0,
        "precipitation_mm": 2.4,
        "wind_speed_10m_m_s": 3.5,
        "shortwave_radiation_mj_m2": 12.96,
        "surface_pressure_hpa": 1012.5,
        "cloud_cover_pct": 40.0,
        "et0_mm": 0.1,
        "soil_temperature_top_c": 11.0,
        "soil_moisture_top_m3_m3": 0.31,
    }
    assert {(each.kind, each.model, each.is_final, each.issued_at, each.soil_layer) for each in told.readings} == {
        (Kind.FORECAST, "ecmwf_ifs025", False, NOW, "0-7cm")
    }
    assert not told.missing
    assert not told.implausible


def test_current_weather_is_told_for_its_instant() -> None:
    [now] = answer(request(Grain.CURRENT)).readings
    assert (now.grain, now.at) == (Grain.CURRENT, MIDNIGHT + dt.timedelta(hours=10, minutes=15))
    assert now.values["temperature_c"] == 12.0
    assert "precipitation_mm" not in now.values


def test_the_archive_is_reanalysis_and_final_once_era5_has_replaced_era5t() -> None:
    asked = request(Grain.DAILY, endpoint=Endpoint.ARCHIVE)
    [early] = answer(asked, now=MIDNIGHT + dt.timedelta(days=120)).readings
    [late] = answer(asked, now=MIDNIGHT + dt.timedelta(days=121)).readings
    assert (early.kind, early.model, early.issued_at) == (Kind.REANALYSIS, "era5_seamless", None)
    assert [early.is_final, late.is_final] == [False, True]
    assert early.values == answer(request(Grain.DAILY)).readings[0].values


def test_past_forecasts_are_forecasts_that_become_final() -> None:
    asked = request(Grain.DAILY, endpoint=Endpoint.HISTORICAL_FORECAST)
    [reading] = answer(asked).readings
    assert (reading.kind, reading.is_final) == (Kind.FORECAST, True)


def test_a_past_forecast_was_issued_no_later_than_the_time_it_is_of() -> None:
    one_day = request(Grain.DAILY, Grain.HOURLY, endpoint=Endpoint.HISTORICAL_FORECAST)
    told = answer(one_day, now=MIDNIGHT + dt.timedelta(days=9)).readings
    by_day = {each.issued_at for each in told if each.grain is Grain.DAILY}
    assert by_day == {MIDNIGHT + dt.timedelta(days=1)}
    assert all(each.issued_at == each.at for each in told if each.grain is Grain.HOURLY)
    soon = MIDNIGHT + dt.timedelta(hours=7)
    assert {each.issued_at for each in answer(one_day, now=soon).readings if each.grain is Grain.DAILY} == {soon}


def test_the_past_was_told_when_the_answer_came() -> None:
    asked = request(Grain.DAILY, endpoint=Endpoint.ARCHIVE)
    assert {each.told_at for each in answer(asked, now=NOW).readings} == {NOW}


def test_a_mean_is_made_of_all_24_hours_or_not_at_all() -> None:
    def by_hour(api: str, at: dt.datetime) -> float | None:
        if api == "temperature_2m":
            return float(at.hour)
        if api == "surface_pressure" and at.hour == 23:
            return None
        return mild(api, at)

    [day] = answer(request(Grain.DAILY), by_hour).readings
    assert day.values["temperature_mean_c"] == 11.5
    assert "surface_pressure_hpa" not in day.values


def test_nulls_at_the_end_of_a_forecast_are_absent_values() -> None:
    def until_the_second_day(api: str, at: dt.datetime) -> float | None:
        return mild(api, at) if at < MIDNIGHT + dt.timedelta(hours=36) else None

    told = answer(request(Grain.DAILY, Grain.HOURLY, days=3), until_the_second_day)
    days = [each for each in told.readings if each.grain is Grain.DAILY]
    assert [each.at.day for each in days] == [1, 2]
    assert "temperature_max_c" in days[1].values
    assert "temperature_mean_c" not in days[1].values
    assert sum(each.grain is Grain.HOURLY for each in told.readings) == 36


def test_a_variable_without_any_value_is_told_as_missing_with_its_cell() -> None:
    def without_soil(api: str, at: dt.datetime) -> float | None:
        return None if api.startswith("soil_moisture") else mild(api, at)

    asked = request(Grain.DAILY, count=2)
    found = document(asked, without_soil)
    del found[1]["daily"]["et0_fao_evapotranspiration"], found[1]["daily_units"]["et0_fao_evapotranspiration"]
    told = weather_from(found, asked, now=NOW)
    assert told.missing == {
        CELLS[0].key: ("soil_moisture_top_m3_m3",),
        CELLS[1].key: ("et0_mm", "soil_moisture_top_m3_m3"),
    }


def test_several_locations_are_told_apart_by_order_and_the_first_has_no_id() -> None:
    asked = request(Grain.DAILY, count=3)
    found = document(asked)
    assert "location_id" not in found[0]
    for index, location in enumerate(found):
        location["daily"]["precipitation_sum"] = [float(index)]
    told = weather_from(found, asked, now=NOW)
    assert [(each.cell, each.values["precipitation_mm"]) for each in told.readings] == [
        (cell, float(index)) for index, cell in enumerate(CELLS)
    ]


def test_one_location_may_also_come_as_a_list_of_one() -> None:
    asked = request(Grain.DAILY)
    assert weather_from([document(asked)], asked, now=NOW) == weather_from(document(asked), asked, now=NOW)


def test_a_bare_nan_is_an_absent_value() -> None:
    asked = request(Grain.HOURLY)
    body = json.dumps(document(asked)).replace("1012.5", "nan", 1).encode()
    readings = weather_from(json_object_or_list(body), asked, now=NOW).readings
    assert "surface_pressure_hpa" not in readings[0].values
    assert readings[1].values["surface_pressure_hpa"] == 1012.5


def test_an_implausible_value_is_kept_out_and_told() -> None:
    told = answer(request(Grain.DAILY), lambda api, at: 99.0 if api == "temperature_2m_max" else mild(api, at))
    assert [(each.variable, each.value) for each in told.implausible] == [("temperature_max_c", 99.0)]
    assert "temperature_max_c" not in told.readings[0].values


Damage = Callable[[dict[str, Any]], Any]


def hourly(**changes: Any) -> Damage:
    return lambda found: found["hourly"].update(changes)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda found: found["hourly"]["temperature_2m"].pop(), "23 hourly values of temperature_2m for 24 times"),
        (lambda found: found["hourly"]["time"].pop(), "24 hourly values .* for 23 times"),
        (hourly(temperature_2m=None), "no hourly values of temperature_2m"),
        (hourly(temperature_2m=["12.0"] * 24), "'12.0' is not a number"),
        (hourly(temperature_2m=[True] * 24), "True is not a number"),
        (hourly(time=["yesterday"] * 24), "'yesterday' is not a time"),
        (hourly(time=[1717200000] * 24), "1717200000 is not a time"),
        (hourly(time=["2024-06-01T00:00"] * 24), "do not go forward"),
        (hourly(time=[f"2024-06-01T{hour:02}:30" for hour in range(24)]), "off the full hour"),
        (hourly(time=[f"2024-06-02T{hour:02}:00" for hour in range(24)]), "2024-06-01 to 2024-06-01 was asked for"),
        (hourly(time=None), "without times"),
        (lambda found: found["hourly_units"].update(wind_speed_10m="km/h"), "wind_speed_10m in 'km/h', 'm/s' was"),
        (lambda found: found["hourly_units"].update(temperature_2m="°F"), "temperature_2m in '°F'"),
        (lambda found: found["hourly_units"].update(shortwave_radiation="W"), "shortwave_radiation in 'W'"),
        (lambda found: found["hourly_units"].pop("precipitation"), "precipitation in None"),
        (lambda found: found["hourly_units"].update(time="unixtime"), "time in 'unixtime'"),
        (lambda found: found.pop("hourly_units"), "without units"),
        (lambda found: found.pop("hourly"), "without hourly values"),
        (lambda found: found.update(utc_offset_seconds=7200), "7200 seconds off UTC"),
        (lambda found: found.pop("utc_offset_seconds"), "None seconds off UTC"),
        (lambda found: found.update(location_id=3), "says that it is location 3"),
        (lambda found: found.update(latitude=48.0), "an answer for 48.0"),
        (lambda found: found.update(longitude=-4.3), "an answer for"),
        (lambda found: found.pop("latitude"), "without a place"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_refused_whole(damage: Damage, told: str) -> None:
    asked = request(Grain.HOURLY)
    found = copy.deepcopy(document(asked))
    damage(found)
    with pytest.raises(UpstreamUnreadable, match=told):
        weather_from(found, asked, now=NOW)


def test_more_or_fewer_locations_than_asked_for_are_refused() -> None:
    found = document(request(Grain.HOURLY, count=3))
    for count in (1, 2):
        with pytest.raises(UpstreamUnreadable, match=f"3 locations in the answer, {count} were"):
            weather_from(found, request(Grain.HOURLY, count=count), now=NOW)
    with pytest.raises(UpstreamUnreadable, match="not an object"):
        weather_from([None], request(Grain.HOURLY), now=NOW)


def test_the_antimeridian_and_the_pole_are_not_far_from_themselves() -> None:
    for longitude, latitude, told in ((-180.0, 10.0, 179.9), (0.0, 90.0, 120.0)):
        asked = Request(
            endpoint=Endpoint.FORECAST,
            cells=(open_meteo_cell(longitude, latitude),),
            grains=frozenset({Grain.HOURLY}),
            first_day=DAY,
            last_day=DAY,
            model="ecmwf_ifs025",
        )
        found = document(asked) | {"longitude": told}
        assert len(weather_from(found, asked, now=NOW).readings) == 24


BERLIN = "open-meteo/all-params/berlin-2025-07-27.json"


def berlin(model: str = "icon_seamless") -> Request:
    return Request(
        endpoint=Endpoint.FORECAST,
        cells=(open_meteo_cell(13.42, 52.52),),
        grains=frozenset({Grain.HOURLY, Grain.DAILY}),
        first_day=dt.date(2025, 7, 27),
        last_day=dt.date(2025, 8, 2),
        model=model,
    )


@pytest.mark.shared_data
def test_the_recorded_forecast_is_refused_for_its_kilometres_an_hour(shared_data: Path) -> None:
    found = json_object_or_list((shared_data / BERLIN).read_bytes())
    with pytest.raises(UpstreamUnreadable, match="wind_speed_10m in 'km/h', 'm/s' was asked for"):
        weather_from(found, berlin(), now=NOW)


@pytest.mark.shared_data
def test_the_recorded_forecast_is_read_once_its_wind_is_in_metres_a_second(shared_data: Path) -> None:
    found = json_object_or_list((shared_data / BERLIN).read_bytes())
    found["hourly_units"]["wind_speed_10m"] = "m/s"
    raw = found["hourly"]["temperature_2m"][24:48]
    told = weather_from(found, berlin(), now=NOW)
    hours = [each for each in told.readings if each.grain is Grain.HOURLY]
    days = [each for each in told.readings if each.grain is Grain.DAILY]
    assert (len(hours), len(days)) == (168, 7)
    assert days[1].values["temperature_mean_c"] == pytest.approx(sum(raw) / 24)
    assert days[1].values["temperature_min_c"] == min(raw)
    assert days[1].values["temperature_max_c"] == max(raw)
    assert hours[0].soil_layer == "0-1cm"
    assert not told.implausible
    assert told.missing == {"om-0.1:525:134": ("shortwave_radiation_w_m2",)}


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["archive-43cae1", "archive-466132", "archive-f5378f"])
def test_recorded_answers_in_local_time_are_refused(shared_data: Path, name: str) -> None:
    folder = shared_data / "open-meteo/tpisel-r-httptest/archive-api.open-meteo.com/v1"
    found = json_object_or_list((folder / f"{name}.json").read_bytes())
    asked = Request(
        endpoint=Endpoint.ARCHIVE,
        cells=(open_meteo_cell(found["longitude"], found["latitude"]),),
        grains=frozenset({Grain.DAILY}),
        first_day=dt.date(2022, 12, 29),
        last_day=dt.date(2023, 1, 8),
        model="era5_seamless",
    )
    with pytest.raises(UpstreamUnreadable, match="seconds off UTC"):
        weather_from(found, asked, now=NOW)
