"""What is asked of Open-Meteo, and what it weighs."""

from __future__ import annotations

import datetime as dt

import pytest

from models.errors import BadInput
from models.weather import DAILY_VARIABLES, HOURLY_VARIABLES, Cell, Grain
from tasks.weather.cells import nasa_power_cell, open_meteo_cell
from tasks.weather.open_meteo_requests import (
    DEFAULT_MODELS,
    MAX_LOCATIONS,
    Endpoint,
    Hosts,
    Request,
    ask_for,
    request_weight,
    requests_for,
)

DAY = dt.date(2024, 6, 1)


def cells(count: int) -> tuple[Cell, ...]:
    return tuple(open_meteo_cell(4 + number % 50 / 10, 50 + number // 50 / 10) for number in range(count))


def request(
    *grains: Grain,
    endpoint: Endpoint = Endpoint.ARCHIVE,
    count: int = 1,
    days: int = 1,
    model: str | None = None,
) -> Request:
    return Request(
        endpoint=endpoint,
        cells=cells(count),
        grains=frozenset(grains),
        first_day=DAY,
        last_day=DAY + dt.timedelta(days=days - 1),
        model=model or DEFAULT_MODELS[endpoint],
    )


@pytest.mark.parametrize(
    ("variables", "days", "locations", "weight"),
    [
        (1, 1, 1, 1),
        (10, 14, 1, 1),
        (15, 14, 1, 1.5),  # the examples of the service's own page
        (15, 28, 1, 3.0),
        (9, 7, 1, 1),
        (9, 7, 100, 100),
        (8, 3653, 1, 208.742857),  # ten years of eight variables
    ],
)
def test_a_request_weighs_what_the_service_counts(variables: int, days: int, locations: int, weight: float) -> None:
    assert request_weight(variables=variables, days=days, locations=locations) == pytest.approx(weight)


@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_every_unit_the_model_and_utc_are_said_in_every_request(endpoint: Endpoint) -> None:
    asked = ask_for(request(Grain.DAILY, endpoint=endpoint), Hosts()).parameters
    assert asked["temperature_unit"] == "celsius"
    assert asked["wind_speed_unit"] == "ms"
    assert asked["precipitation_unit"] == "mm"
    assert asked["timezone"] == "GMT"
    assert asked["timeformat"] == "iso8601"
    assert asked["models"] == DEFAULT_MODELS[endpoint]
    assert (asked["start_date"], asked["end_date"]) == ("2024-06-01", "2024-06-01")
    assert "apikey" not in asked


@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_all_variables_but_wind_at_2_m_are_asked_for(endpoint: Endpoint) -> None:
    variables = request(Grain.DAILY, Grain.HOURLY, endpoint=endpoint).variables
    daily = {each.ours for each in (*variables.daily, *variables.daily_means)}
    assert daily == set(DAILY_VARIABLES) - {"wind_speed_2m_m_s"}
    assert {each.ours for each in variables.hourly} == set(HOURLY_VARIABLES) - {"wind_speed_2m_m_s"}


def test_hours_that_serve_days_too_are_asked_for_once() -> None:
    both = request(Grain.DAILY, Grain.HOURLY, endpoint=Endpoint.FORECAST)
    hourly = both.variables.sections["hourly"]
    assert len(hourly) == len(set(hourly)) == 11
    assert both.weight == pytest.approx(1.6)


def test_soil_is_the_models_own_uppermost_layer_or_not_asked_for() -> None:
    era5 = request(Grain.DAILY).variables.sections
    assert "soil_moisture_0_to_7cm_mean" in era5["daily"]
    icon = request(Grain.HOURLY, endpoint=Endpoint.FORECAST, model="icon_seamless").variables.sections
    assert {"soil_temperature_0cm", "soil_moisture_0_to_1cm"} < set(icon["hourly"])
    other = request(Grain.HOURLY, endpoint=Endpoint.FORECAST, model="jma_gsm").variables.sections
    assert not [name for name in other["hourly"] if name.startswith("soil")]


def test_a_district_is_one_request_and_no_request_is_too_heavy_for_a_minute() -> None:
    district = requests_for(cells(140), endpoint=Endpoint.ARCHIVE, grains=[Grain.DAILY], first_day=DAY, last_day=DAY)
    assert len(district) == 1
    months = requests_for(
        cells(140), endpoint=Endpoint.ARCHIVE, grains=[Grain.DAILY], first_day=DAY, last_day=dt.date(2024, 8, 31)
    )
    assert sum(len(each.cells) for each in months) == 140
    assert all(each.weight <= 300 for each in months)
    assert len(months) <= 5


def test_many_years_of_a_cell_are_split_into_requests_without_a_gap_or_a_doubled_day() -> None:
    first = dt.date(1950, 1, 1)
    years = requests_for(cells(2), endpoint=Endpoint.ARCHIVE, grains=[Grain.DAILY], first_day=first, last_day=DAY)
    assert all(each.weight <= 300 for each in years)
    for cell in cells(2):
        days = [
            each.first_day + dt.timedelta(days=number)
            for each in years
            if each.cells == (cell,)
            for number in range(each.days)
        ]
        assert days == [first + dt.timedelta(days=number) for number in range((DAY - first).days + 1)]


def test_no_more_locations_than_the_service_takes() -> None:
    sizes = [
        len(each.cells)
        for each in requests_for(
            cells(2100), endpoint=Endpoint.ARCHIVE, grains=[Grain.DAILY], first_day=DAY, last_day=DAY, max_weight=1e9
        )
    ]
    assert sizes == [MAX_LOCATIONS, MAX_LOCATIONS, 100]
    assert requests_for([], endpoint=Endpoint.ARCHIVE, grains=[Grain.DAILY], first_day=DAY, last_day=DAY) == []


def test_a_long_list_and_a_key_are_posted_and_a_short_list_is_not() -> None:
    assert not ask_for(request(Grain.DAILY, count=3), Hosts()).is_form
    assert ask_for(request(Grain.DAILY, count=300), Hosts()).is_form
    hosts = Hosts.of_customers("the-key")
    asked = ask_for(request(Grain.DAILY), hosts)
    assert asked.is_form
    assert asked.url == "https://customer-archive-api.open-meteo.com/v1/archive"
    assert asked.parameters["apikey"] == "the-key"
    assert "the-key" not in repr(asked) + repr(hosts)


def test_one_setting_leads_to_a_server_of_ones_own() -> None:
    own = "http://weather.example:8080/"
    hosts = Hosts(forecast=own, archive=own, historical_forecast=own)
    assert [hosts.address(endpoint) for endpoint in Endpoint] == [
        "http://weather.example:8080/v1/forecast",
        "http://weather.example:8080/v1/archive",
        "http://weather.example:8080/v1/forecast",
    ]


@pytest.mark.parametrize("model", ["best_match", "era5,ecmwf_ifs", "", "era5&apikey=x"])
def test_a_model_that_is_not_one_model_is_refused(model: str) -> None:
    with pytest.raises(BadInput, match="model"):
        Request(
            endpoint=Endpoint.ARCHIVE,
            cells=cells(1),
            grains=frozenset({Grain.DAILY}),
            first_day=DAY,
            last_day=DAY,
            model=model,
        )


def test_requests_that_make_no_sense_are_refused() -> None:
    with pytest.raises(BadInput, match="cells"):
        request(Grain.DAILY, count=0)
    with pytest.raises(BadInput, match="before"):
        request(Grain.DAILY, days=0)
    with pytest.raises(BadInput, match="grains"):
        request()
    with pytest.raises(BadInput, match="grains"):
        request(Grain.CURRENT)
    with pytest.raises(BadInput, match="cells of Open-Meteo"):
        Request(
            endpoint=Endpoint.ARCHIVE,
            cells=(nasa_power_cell(4, 51),),
            grains=frozenset({Grain.DAILY}),
            first_day=DAY,
            last_day=DAY,
            model="era5",
        )
