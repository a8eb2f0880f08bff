"""The sandbox's NASA POWER, read by the real client: its cells, its lateness, its errors and its limits."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import httpx
import pytest

from infra.sandbox.weather_power_values import meteorology_place, solar_place
from infra.sandbox.weather_services import WeatherServices, weather_services
from infra.sandbox.weather_telling import POWER_ERRORS
from models.errors import UpstreamRejected, UpstreamUnavailable
from models.weather import Grain, WeatherAnswer
from tasks.weather.cells import nasa_power_cell
from tasks.weather.nasa_power import NasaPower
from tasks.weather.nasa_power_requests import PowerRequest
from tasks.weather.polite import Manners
from tests.support.weather_sandbox import Moment, erring

NOW = dt.datetime(2024, 9, 2, 10, 20, 30, tzinfo=dt.UTC)
CELL = nasa_power_cell(21.03, 45.56)


@pytest.fixture
def moment() -> Moment:
    return Moment(NOW)


@pytest.fixture
def services(moment: Moment) -> Iterator[WeatherServices]:
    with weather_services(7, clock=moment) as running:
        yield running


def fetch(
    services: WeatherServices, moment: Moment, first: dt.date, last: dt.date, *, grain: Grain = Grain.DAILY
) -> WeatherAnswer:
    manners = Manners(retries=2)
    with NasaPower(services.nasa_power_url, manners=manners, now=moment, sleep=moment.sleep) as power:
        return power.fetch(PowerRequest(cell=CELL, grain=grain, first_day=first, last_day=last))


@pytest.mark.parametrize("day", [dt.date(2019, 3, 8), dt.date(2024, 8, 25)])
def test_a_day_is_the_truth_of_its_cells_but_for_the_known_errors(
    services: WeatherServices, moment: Moment, day: dt.date
) -> None:
    answer = fetch(services, moment, day, day)
    assert (answer.missing, answer.implausible) == ({}, ())
    [told] = answer.readings
    here = services.truth.day(*meteorology_place(CELL.latitude, CELL.longitude), day)
    sky = services.truth.day(*solar_place(CELL.latitude, CELL.longitude), day)
    is_new = day.year == 2024
    for name, hourly, digits in (
        ("temperature_mean_c", "temperature_c", 0.005),
        ("temperature_min_c", "temperature_c", 0.005),
        ("temperature_max_c", "temperature_c", 0.005),
        ("dew_point_c", "dew_point_c", 0.005),
        ("relative_humidity_pct", "relative_humidity_pct", 0.005),
        ("precipitation_mm", "precipitation_mm", 0.005),
        ("wind_speed_10m_m_s", "wind_speed_10m_m_s", 0.005),
        ("wind_speed_2m_m_s", "wind_speed_2m_m_s", 0.005),
        ("surface_pressure_hpa", "surface_pressure_hpa", 0.05),
        ("cloud_cover_pct", "cloud_cover_pct", 0.005),
        ("shortwave_radiation_mj_m2", "shortwave_radiation_w_m2", 0.005),
    ):
        truth = sky if hourly in ("cloud_cover_pct", "shortwave_radiation_w_m2") else here
        expected = erring(POWER_ERRORS, hourly, truth[name], is_provisional=is_new)
        assert told.values[name] == pytest.approx(expected, abs=digits + 1e-6), name
    assert told.is_final is not is_new
    assert told.values["et0_mm"] == pytest.approx(here["et0_mm"], rel=0.15, abs=0.3)


def test_meteorology_is_two_days_late_and_radiation_seven(services: WeatherServices, moment: Moment) -> None:
    answer = fetch(services, moment, dt.date(2024, 8, 20), dt.date(2024, 9, 2))
    with_sun = [each.at.date() for each in answer.readings if "shortwave_radiation_mj_m2" in each.values]
    assert max(each.at.date() for each in answer.readings) == dt.date(2024, 8, 31)
    assert max(with_sun) == dt.date(2024, 8, 26)
    assert answer.data_sets == ("flashflux", "geosit", "power")


def test_hours_add_up_to_their_day(services: WeatherServices, moment: Moment) -> None:
    day = dt.date(2024, 6, 10)
    hours = fetch(services, moment, day, day + dt.timedelta(days=1), grain=Grain.HOURLY).readings
    [whole] = fetch(services, moment, day, day).readings
    midnight = dt.datetime.combine(day, dt.time(), dt.UTC)
    ended = [each for each in hours if midnight < each.at <= midnight + dt.timedelta(days=1)]
    begun = [each for each in hours if each.at.date() == day]
    assert sum(each.values["precipitation_mm"] for each in ended) == pytest.approx(
        whole.values["precipitation_mm"], abs=0.13
    )
    sun = sum(each.values["shortwave_radiation_w_m2"] for each in ended) * 0.0036
    assert sun == pytest.approx(whole.values["shortwave_radiation_mj_m2"], abs=0.13)
    assert max(each.values["temperature_c"] for each in begun) == whole.values["temperature_max_c"]


def test_who_does_not_say_utc_gets_days_by_the_sun(services: WeatherServices) -> None:
    asked = {
        "parameters": "T2M,ALLSKY_SFC_SW_DWN",
        "community": "RE",
        "longitude": "150",
        "latitude": "-30",
        "start": "20240601",
        "end": "20240602",
    }
    url = f"{services.nasa_power_url}/api/temporal/hourly/point"
    by_the_sun = httpx.get(url, params=asked).json()
    utc = httpx.get(url, params=asked | {"time-standard": "UTC"}).json()
    assert (by_the_sun["header"]["time_standard"], utc["header"]["time_standard"]) == ("LST", "UTC")
    series, in_utc = (each["properties"]["parameter"]["T2M"] for each in (by_the_sun, utc))
    assert series["2024060210"] == in_utc["2024060200"]
    assert utc["parameters"]["ALLSKY_SFC_SW_DWN"]["units"] == "Wh/m^2"


GOOD = {
    "parameters": "T2M",
    "community": "AG",
    "longitude": "21",
    "latitude": "45",
    "start": "20240601",
    "end": "20240602",
}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (GOOD | {"start": "2024-06-01"}, "Please provide a correct start date formatting."),
        (GOOD | {"start": "19700101"}, "Please provide a correct start date formatting."),
        (GOOD | {"end": "20240903"}, "Please provide a correct end date formatting."),
        (GOOD | {"parameters": "SNOWMEN"}, "The parameter SNOWMEN is not available."),
        (GOOD | {"latitude": "91"}, "Please provide a latitude"),
        (GOOD | {"parameters": ",".join(["T2M"] * 21)}, "A maximum of 20 parameters"),
        (GOOD | {"community": "XX"}, "Please provide a correct time standard and community."),
    ],
)
def test_bad_requests_are_422_with_messages(services: WeatherServices, given: dict[str, str], message: str) -> None:
    answer = httpx.get(f"{services.nasa_power_url}/api/temporal/daily/point", params=given)
    assert answer.status_code == 422
    assert message in answer.json()["messages"][0]
    assert answer.json()["header"].startswith("The POWER Daily API failed to complete your request")


def test_a_request_without_a_field_is_422_in_the_other_shape(services: WeatherServices) -> None:
    given = {name: value for name, value in GOOD.items() if name != "start"}
    answer = httpx.get(f"{services.nasa_power_url}/api/temporal/daily/point", params=given)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "start"])


def test_beyond_the_requests_of_a_minute_it_is_429_and_says_for_how_long(moment: Moment) -> None:
    day = dt.date(2024, 6, 1)
    with weather_services(7, clock=moment, power_per_minute=2) as services:
        for _ in range(3):
            fetch(services, moment, day, day)
        assert [each.status for each in services.nasa_power.heard] == [200, 200, 429, 200]
    assert moment.now > NOW + dt.timedelta(seconds=60)


def test_a_service_that_is_down_answers_by_a_page(services: WeatherServices, moment: Moment) -> None:
    services.nasa_power.is_down = True
    with pytest.raises(UpstreamUnavailable, match="503"):
        fetch(services, moment, dt.date(2024, 6, 1), dt.date(2024, 6, 1))
    services.nasa_power.is_down = False
    with pytest.raises(UpstreamRejected, match="end date"):
        fetch(services, moment, dt.date(2024, 6, 1), dt.date(2024, 9, 3))
