"""The sandbox's Open-Meteo, read by the real client: the truth within its known errors, and limits that bite."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator

import httpx
import pytest

from infra.sandbox.weather_limits import Allowance
from infra.sandbox.weather_open_meteo_values import newest_run
from infra.sandbox.weather_services import WeatherServices, weather_services
from infra.sandbox.weather_telling import ARCHIVE_ERRORS, FORECAST_ERRORS
from models.errors import UpstreamExhausted, UpstreamRejected, UpstreamUnavailable
from models.weather import Cell, Grain, Kind, Reading, WeatherAnswer
from tasks.weather.cells import open_meteo_cell
from tasks.weather.model_runs import newest_run as newest_run_told
from tasks.weather.open_meteo import OpenMeteo
from tasks.weather.open_meteo_requests import Endpoint, Hosts, requests_for
from tasks.weather.polite import Manners, PoliteClient
from tests.support.weather_sandbox import Moment, erring

NOW = dt.datetime(2024, 9, 2, 10, 20, 30, tzinfo=dt.UTC)
CELLS = tuple(open_meteo_cell(21 + number / 10, 45.5) for number in range(3))
ALL_GRAINS = (Grain.CURRENT, Grain.HOURLY, Grain.DAILY)


@pytest.fixture
def moment() -> Moment:
    return Moment(NOW)


@pytest.fixture
def services(moment: Moment) -> Iterator[WeatherServices]:
    with weather_services(7, clock=moment) as running:
        yield running


def client(services: WeatherServices, moment: Moment, **manners: float) -> OpenMeteo:
    hosts = Hosts(
        forecast=services.open_meteo_url,
        archive=services.open_meteo_url,
        historical_forecast=services.historical_forecast_url,
    )
    wanted = Manners(retries=int(manners.get("retries", 2)), longest_wait_s=manners.get("longest_wait_s", 3700))
    return OpenMeteo(hosts, manners=wanted, now=moment, sleep=moment.sleep)


def fetch(
    services: WeatherServices,
    moment: Moment,
    endpoint: Endpoint,
    *,
    days: tuple[dt.date, dt.date],
    grains: tuple[Grain, ...] = (Grain.DAILY,),
    cells: tuple[Cell, ...] = CELLS,
) -> list[WeatherAnswer]:
    requests = requests_for(cells, endpoint=endpoint, grains=grains, first_day=days[0], last_day=days[1])
    with client(services, moment) as open_meteo:
        answers = [open_meteo.fetch(request) for request in requests]
    heard = [each for each in services.open_meteo.heard if each.status == 200]
    assert [each.weight for each in heard] == pytest.approx([request.weight for request in requests])
    assert not any(answer.implausible for answer in answers)
    return answers


def days_of(answers: list[WeatherAnswer], cell: Cell, grain: Grain = Grain.DAILY) -> dict[dt.datetime, Reading]:
    readings = itertools.chain.from_iterable(answer.readings for answer in answers)
    return {each.at: each for each in readings if each.cell == cell and each.grain is grain}


@pytest.mark.parametrize("day", [dt.date(2019, 3, 8), dt.date(2024, 7, 20)])
def test_the_archive_tells_the_truth_but_for_its_known_errors(
    services: WeatherServices, moment: Moment, day: dt.date
) -> None:
    [answer] = fetch(services, moment, Endpoint.ARCHIVE, days=(day, day))
    assert answer.missing == {}
    for cell in CELLS:
        truth = services.truth.hours(cell.latitude, cell.longitude, day, day).daily(is_cut_late=False)
        told = days_of([answer], cell)[dt.datetime.combine(day, dt.time(), dt.UTC)].values
        for name, hourly, digits in (
            ("temperature_mean_c", "temperature_c", 0.05),
            ("temperature_min_c", "temperature_c", 0.05),
            ("temperature_max_c", "temperature_c", 0.05),
            ("dew_point_c", "dew_point_c", 0.05),
            ("relative_humidity_pct", "relative_humidity_pct", 0.5),
            ("precipitation_mm", "precipitation_mm", 0.005),
            ("wind_speed_10m_m_s", "wind_speed_10m_m_s", 0.005),
            ("shortwave_radiation_mj_m2", "shortwave_radiation_w_m2", 0.005),
            ("surface_pressure_hpa", "surface_pressure_hpa", 0.05),
            ("cloud_cover_pct", "cloud_cover_pct", 0.5),
            ("et0_mm", "et0_mm", 0.005),
            ("soil_temperature_top_c", "soil_temperature_top_c", 0.05),
            ("soil_moisture_top_m3_m3", "soil_moisture_top_m3_m3", 0.0005),
        ):
            is_new = day.year == 2024
            expected = erring(ARCHIVE_ERRORS, hourly, float(truth[name][0]), is_provisional=is_new)
            assert told[name] == pytest.approx(expected, abs=digits + 1e-6), name


def test_the_archive_is_five_days_late(services: WeatherServices, moment: Moment) -> None:
    answers = fetch(services, moment, Endpoint.ARCHIVE, days=(dt.date(2024, 8, 20), dt.date(2024, 9, 2)))
    assert max(days_of(answers, CELLS[0])).date() == dt.date(2024, 8, 28)


def test_a_forecast_tells_now_each_hour_and_each_day_until_its_run_ends(
    services: WeatherServices, moment: Moment
) -> None:
    days = NOW.date(), NOW.date() + dt.timedelta(days=15)
    answers = fetch(services, moment, Endpoint.FORECAST, days=days, grains=ALL_GRAINS)
    run = newest_run(NOW)
    assert run.began_at == dt.datetime(2024, 9, 2, 0, tzinfo=dt.UTC)
    hours = days_of(answers, CELLS[1], Grain.HOURLY)
    assert (min(hours), max(hours)) == (run.began_at, run.ends_at)
    assert max(days_of(answers, CELLS[1])) == run.ends_at - dt.timedelta(days=1)
    [now] = days_of(answers, CELLS[1], Grain.CURRENT)
    assert now == NOW.replace(minute=15, second=0)
    assert {each.kind for answer in answers for each in answer.readings} == {Kind.FORECAST}


def test_a_forecast_errs_more_the_farther_it_looks_ahead_and_never_more_than_said(
    services: WeatherServices, moment: Moment
) -> None:
    days = NOW.date(), NOW.date() + dt.timedelta(days=13)
    hours = days_of(
        fetch(services, moment, Endpoint.FORECAST, days=days, grains=(Grain.HOURLY,)), CELLS[0], Grain.HOURLY
    )
    truth = services.truth.hours(CELLS[0].latitude, CELLS[0].longitude, *days).values["temperature_c"]
    error = FORECAST_ERRORS["temperature_c"]
    off = [
        hours[at].values["temperature_c"] - float(value) - error.offset for at, value in zip(hours, truth, strict=False)
    ]
    for number, each in enumerate(off):
        assert abs(each) <= error.spread_a_day * number / 24 + 0.051
    assert max(map(abs, off[:24])) < max(map(abs, off[-48:]))


def test_past_forecasts_are_those_of_the_hours_just_after_each_run(services: WeatherServices, moment: Moment) -> None:
    day = dt.date(2024, 8, 10)
    [answer] = fetch(services, moment, Endpoint.HISTORICAL_FORECAST, days=(day, day))
    truth = services.truth.day(CELLS[0].latitude, CELLS[0].longitude, day)
    told = days_of([answer], CELLS[0])[dt.datetime.combine(day, dt.time(), dt.UTC)]
    error = FORECAST_ERRORS["temperature_c"]
    assert told.values["temperature_max_c"] == pytest.approx(truth["temperature_max_c"] + error.offset, abs=0.051)
    assert told.is_final


def test_many_locations_come_by_form_and_one_as_an_object(services: WeatherServices, moment: Moment) -> None:
    day = dt.date(2024, 8, 10)
    many = tuple(open_meteo_cell(10 + number / 10, 50) for number in range(120))
    [answer] = fetch(services, moment, Endpoint.ARCHIVE, days=(day, day), cells=many)
    assert len(answer.readings) == 120
    services.open_meteo.heard.clear()
    [answer] = fetch(services, moment, Endpoint.ARCHIVE, days=(day, day), cells=many[:1])
    assert len(answer.readings) == 1


def test_the_minutes_allowance_is_waited_for_and_then_there_is_more(moment: Moment) -> None:
    days = dt.date(2024, 6, 1), dt.date(2024, 6, 14)
    with weather_services(7, clock=moment, allowance=Allowance(minute=4)) as services:
        fetch(services, moment, Endpoint.ARCHIVE, days=days)
        fetch_again = requests_for(
            CELLS, endpoint=Endpoint.ARCHIVE, grains=[Grain.DAILY], first_day=days[0], last_day=days[1]
        )
        with client(services, moment) as open_meteo:
            open_meteo.fetch(fetch_again[0])
        assert [each.status for each in services.open_meteo.heard] == [200, 429, 200]
    assert moment.now >= NOW.replace(minute=21, second=0)


def test_the_days_allowance_ends_the_work_until_tomorrow(moment: Moment) -> None:
    with weather_services(7, clock=moment, allowance=Allowance(day=4)) as services:
        day = dt.date(2024, 6, 1)
        fetch(services, moment, Endpoint.ARCHIVE, days=(day, day))
        with client(services, moment) as open_meteo, pytest.raises(UpstreamExhausted) as stopped:
            open_meteo.fetch(
                requests_for(CELLS, endpoint=Endpoint.ARCHIVE, grains=[Grain.DAILY], first_day=day, last_day=day)[0]
            )
        assert stopped.value.until == dt.datetime(2024, 9, 3, tzinfo=dt.UTC)
        moment.now += dt.timedelta(days=1)
        services.open_meteo.heard.clear()
        fetch(services, moment, Endpoint.ARCHIVE, days=(day, day))


def test_a_service_that_is_down_says_503(services: WeatherServices, moment: Moment) -> None:
    services.open_meteo.is_down = True
    with pytest.raises(UpstreamUnavailable, match="503"):
        fetch(services, moment, Endpoint.ARCHIVE, days=(dt.date(2024, 6, 1), dt.date(2024, 6, 1)))
    assert services.open_meteo.weighted_calls == 0


def test_a_future_that_no_run_reaches_is_refused(services: WeatherServices, moment: Moment) -> None:
    with pytest.raises(UpstreamRejected, match="out of allowed range from 2024-06-01 to 2024-09-17"):
        fetch(services, moment, Endpoint.FORECAST, days=(dt.date(2024, 9, 18), dt.date(2024, 9, 18)))


GOOD = {"latitude": "45.5", "longitude": "21", "daily": "temperature_2m_max"}
DAY = {"start_date": "2024-08-10", "end_date": "2024-08-10"}


@pytest.mark.parametrize(
    ("path", "given", "reason"),
    [
        ("archive", GOOD, "Both 'start_date' and 'end_date' must be set in the url"),
        ("forecast", GOOD | DAY | {"past_days": "2"}, "'past_days' is mutually exclusive with 'start_date'"),
        ("forecast", GOOD | {"latitude": "300.0"}, "Latitude must be in range of -90 to 90°. Given: 300.0."),
        ("forecast", GOOD | {"forecast_days": "17"}, "Forecast days is invalid"),
        ("forecast", GOOD | {"longitude": "1,2"}, "must have the same number of elements"),
        ("forecast", GOOD | {"daily": "sunshine"}, "invalid String value sunshine"),
        ("forecast", GOOD | {"timezone": "Mars/Olympus"}, "Invalid timezone"),
        ("archive", GOOD | DAY | {"models": "gfs"}, "invalid String value gfs"),
        ("archive", GOOD | DAY | {"current": "temperature_2m"}, "Parameter 'current'"),
        ("archive", GOOD | DAY | {"daily": "surface_pressure_mean"}, "surface_pressure_mean"),
        ("archive", GOOD | DAY | {"end_date": "2024-09-03"}, "Parameter 'end_date' is out of allowed range"),
    ],
)
def test_what_the_service_refuses_is_refused_with_a_reason(
    services: WeatherServices, path: str, given: dict[str, str], reason: str
) -> None:
    answer = httpx.get(f"{services.open_meteo_url}/v1/{path}", params=given)
    assert (answer.status_code, answer.json()["error"]) == (400, True)
    assert reason in answer.json()["reason"]


def test_more_than_a_thousand_locations_are_refused(services: WeatherServices) -> None:
    given = GOOD | {"latitude": ",".join(["1"] * 1001), "longitude": ",".join(["1"] * 1001)}
    answer = httpx.post(f"{services.open_meteo_url}/v1/forecast", data=given)
    assert answer.json()["reason"] == "Parameter 'latitude' and 'longitude' must not exceed 1000 coordinates."


def test_who_does_not_name_a_unit_gets_the_services_own(services: WeatherServices) -> None:
    asked = {"latitude": "45.5", "longitude": "21", "hourly": "wind_speed_10m", **DAY}
    url = f"{services.open_meteo_url}/v1/forecast"
    plain = httpx.get(url, params=asked).json()
    in_metres = httpx.get(url, params=asked | {"wind_speed_unit": "ms"}).json()
    assert (plain["hourly_units"]["wind_speed_10m"], in_metres["hourly_units"]["wind_speed_10m"]) == ("km/h", "m/s")
    first, second = (each["hourly"]["wind_speed_10m"][0] for each in (plain, in_metres))
    assert first == pytest.approx(3.6 * second, abs=0.03)


def test_the_times_of_runs_cost_nothing_and_change_every_six_hours(services: WeatherServices, moment: Moment) -> None:
    url = f"{services.open_meteo_url}/data/ecmwf_ifs025/static/meta.json"
    began = [httpx.get(url).json()["last_run_initialisation_time"]]
    moment.now += dt.timedelta(hours=6)
    began.append(httpx.get(url).json()["last_run_initialisation_time"])
    assert began == [dt.datetime(2024, 9, 2, hour, tzinfo=dt.UTC).timestamp() for hour in (0, 6)]
    with PoliteClient("open-meteo", Manners(), now=moment) as polite:
        told = newest_run_told(polite, Hosts(forecast=services.open_meteo_url), "ecmwf_ifs025", now=moment)
        assert newest_run_told(polite, Hosts(forecast=services.open_meteo_url), "none", now=moment) is None
    assert told is not None
    run = newest_run(moment.now)
    assert (told.initialised_at, told.available_at) == (run.began_at, run.came_at)
    assert services.open_meteo.weighted_calls == 0
