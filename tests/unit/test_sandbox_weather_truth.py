"""The true weather of the simulated world: coherent, the same however it is asked for, and like the pictures."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from infra.sandbox.passes import passes_between
from infra.sandbox.places import NORTH
from infra.sandbox.sky import weather_of
from infra.sandbox.weather_climate import Climate, Hours
from models.weather import DAILY_VARIABLES, HOURLY_VARIABLES
from tasks.weather.evapotranspiration import reference_evapotranspiration_mm, saturation_vapour_pressure_kpa

SEED = 7
MEADOWS = (45.55, 20.99)
FAR_SOUTH = (-33.48, -62.79)
YEAR = (dt.date(2023, 1, 1), dt.date(2023, 12, 31))


@pytest.fixture(scope="module")
def climate() -> Climate:
    return Climate(SEED)


@pytest.fixture(scope="module")
def year(climate: Climate) -> Hours:
    return climate.hours(*MEADOWS, *YEAR)


def test_all_variables_that_are_stored_are_known(year: Hours) -> None:
    assert year.values.keys() == set(HOURLY_VARIABLES)
    assert year.daily().keys() == set(DAILY_VARIABLES)
    assert all(np.isfinite(series).all() for series in [*year.values.values(), *year.daily().values()])


def test_an_hour_has_the_same_weather_whatever_days_are_asked_for(climate: Climate, year: Hours) -> None:
    some = climate.hours(*MEADOWS, dt.date(2023, 5, 10), dt.date(2023, 5, 12))
    start = 24 * (dt.date(2023, 5, 10) - YEAR[0]).days
    for name, series in some.values.items():
        # Before 40 days rain is forgotten but for a three-hundredth part; ET0 of the hour before is not known.
        within = slice(1, None)
        assert series[within] == pytest.approx(year.values[name][start : start + 73][within], abs=2e-3), name


def test_another_seed_has_other_weather(climate: Climate) -> None:
    day = dt.date(2023, 5, 10)
    assert Climate(8).day(*MEADOWS, day) != climate.day(*MEADOWS, day) == Climate(SEED).day(*MEADOWS, day)


def test_air_never_holds_more_water_than_it_can(year: Hours) -> None:
    values = year.values
    assert (values["dew_point_c"] < values["temperature_c"]).all()
    assert values["relative_humidity_pct"].max() <= 100


def test_rain_comes_in_spells_and_from_cloud(year: Hours) -> None:
    rain, cloud = year.values["precipitation_mm"], year.values["cloud_cover_pct"]
    assert cloud[rain > 0].min() > 65
    is_wet = year.daily()["precipitation_mm"] > 0.5
    assert 0.1 < is_wet.mean() < 0.45
    assert is_wet[1:][is_wet[:-1]].mean() > 1.5 * is_wet.mean()


def test_the_soil_is_wetter_after_rain_and_dries_again(year: Hours) -> None:
    soil, rain = year.values["soil_moisture_top_m3_m3"], year.values["precipitation_mm"]
    change = np.diff(soil)
    assert (change[rain[1:] > 0.5] > 0).mean() > 0.95
    assert (change[rain[1:] == 0] < 0).all()


def test_the_sun_shines_by_day_and_less_through_cloud(climate: Climate, year: Hours) -> None:
    sun = year.values["shortwave_radiation_w_m2"][:-1].reshape(-1, 24)
    assert sun[:, 22:24].max() == sun[:, :2].max() == 0 < sun[:, 11].min()
    daily = year.daily()
    june = slice(151, 181)
    cloud, light = daily["cloud_cover_pct"][june], daily["shortwave_radiation_mj_m2"][june]
    assert np.corrcoef(cloud, light)[0, 1] < -0.7
    dark = climate.hours(80, 20, dt.date(2023, 12, 20), dt.date(2023, 12, 22)).values["shortwave_radiation_w_m2"]
    assert dark.max() == 0


@pytest.mark.parametrize(("place", "warm", "cold"), [(MEADOWS, 7, 1), (FAR_SOUTH, 1, 7)])
def test_summer_is_warm_on_either_half_of_the_globe(
    climate: Climate, place: tuple[float, float], warm: int, cold: int
) -> None:
    means = {month: _month_mean(climate, place, month) for month in (warm, cold)}
    assert means[warm] > means[cold] + 10


def _month_mean(climate: Climate, place: tuple[float, float], month: int) -> float:
    daily = climate.hours(*place, dt.date(2023, month, 1), dt.date(2023, month, 28)).daily()
    return float(daily["temperature_mean_c"].mean())


def test_it_is_warmer_in_the_afternoon_by_the_sun_than_before_dawn(climate: Climate) -> None:
    for longitude in (-120.0, 0.0, 75.0):
        values = climate.hours(40, longitude, dt.date(2023, 6, 1), dt.date(2023, 6, 30)).values["temperature_c"]
        by_hour = values[:-1].reshape(-1, 24).mean(axis=0)
        afternoon, dawn = (round(hour - longitude / 15) % 24 for hour in (15, 4))
        assert by_hour[afternoon] > by_hour[dawn] + 3


def test_neighbours_have_nearly_the_same_weather_also_across_the_antimeridian(climate: Climate) -> None:
    day = dt.date(2023, 6, 15)
    for one, other in (((45.5, 21.0), (45.6, 21.0)), ((10.0, 179.99), (10.0, -179.99)), ((10, 180), (10, -180))):
        here, there = climate.day(*one, day), climate.day(*other, day)
        assert abs(here["temperature_mean_c"] - there["temperature_mean_c"]) < 1
        assert abs(here["cloud_cover_pct"] - there["cloud_cover_pct"]) < 15


def test_et0_is_that_of_fao_56_told_independently(climate: Climate, year: Hours) -> None:
    daily = year.daily()
    for number in range(0, 365, 7):
        expected = reference_evapotranspiration_mm(
            latitude_degrees=MEADOWS[0],
            elevation_m=climate.elevation_m(*MEADOWS),
            day=YEAR[0] + dt.timedelta(days=number),
            temperature_min_c=daily["temperature_min_c"][number],
            temperature_max_c=daily["temperature_max_c"][number],
            vapour_pressure_kpa=saturation_vapour_pressure_kpa(daily["dew_point_c"][number]),
            wind_speed_2m_m_s=daily["wind_speed_2m_m_s"][number],
            shortwave_radiation_mj_m2=daily["shortwave_radiation_mj_m2"][number],
            pressure_kpa=daily["surface_pressure_hpa"][number] / 10,
        )
        assert daily["et0_mm"][number] == pytest.approx(expected, abs=0.06)


def test_the_sky_over_a_district_is_the_one_in_its_pictures(climate: Climate) -> None:
    seen: dict[str, list[float]] = {}
    for a_pass in passes_between(dt.date(2024, 4, 1), dt.date(2024, 8, 31)):
        if a_pass.district == NORTH:
            hours = climate.hours(*MEADOWS, a_pass.day, a_pass.day).values
            at = round(a_pass.acquired_at.hour + a_pass.acquired_at.minute / 60)
            seen.setdefault(weather_of(a_pass, SEED), []).append(float(hours["cloud_cover_pct"][at]))
    assert max(seen["clear"]) < 5
    assert 15 < min(seen["scattered"]) <= max(seen["scattered"]) < 60
    assert min(seen["overcast"]) > 85
