"""ET0 and its parts against the worked examples of FAO Irrigation and Drainage Paper 56."""

from __future__ import annotations

import datetime as dt

import pytest

from tasks.weather.evapotranspiration import (
    clear_sky_radiation_mj_m2,
    extraterrestrial_radiation_mj_m2,
    net_longwave_radiation_mj_m2,
    net_radiation_mj_m2,
    pressure_at_elevation_kpa,
    psychrometric_constant_kpa_per_c,
    reference_evapotranspiration_mm,
    saturation_vapour_pressure_kpa,
    slope_of_saturation_kpa_per_c,
    vapour_pressure_from_humidity_kpa,
    wind_speed_at_2_m,
)


def sunny_radiation(sunshine_h: float, day_length_h: float, extraterrestrial_mj_m2: float) -> float:
    """Radiation from hours of sunshine (equation 35), which the examples start from and our sources do not."""
    return (0.25 + 0.5 * sunshine_h / day_length_h) * extraterrestrial_mj_m2


def test_example_2_pressure_and_psychrometric_constant_at_1800_m() -> None:
    assert pressure_at_elevation_kpa(1800) == pytest.approx(81.8, abs=0.05)
    assert psychrometric_constant_kpa_per_c(81.8) == pytest.approx(0.054, abs=0.0005)


def test_example_3_saturation_vapour_pressure() -> None:
    assert saturation_vapour_pressure_kpa(24.5) == pytest.approx(3.075, abs=0.001)
    assert saturation_vapour_pressure_kpa(15) == pytest.approx(1.705, abs=0.001)


def test_example_5_actual_vapour_pressure_from_humidity() -> None:
    pressure = vapour_pressure_from_humidity_kpa(
        temperature_min_c=18, temperature_max_c=25, humidity_min_pct=54, humidity_max_pct=82
    )
    assert pressure == pytest.approx(1.70, abs=0.005)


def test_example_8_extraterrestrial_radiation_on_3_september_at_20_south() -> None:
    assert extraterrestrial_radiation_mj_m2(-20, dt.date(2015, 9, 3)) == pytest.approx(32.2, abs=0.05)


def test_example_11_net_longwave_radiation_in_rio_de_janeiro_in_may() -> None:
    longwave = net_longwave_radiation_mj_m2(
        temperature_min_c=19.1,
        temperature_max_c=25.1,
        vapour_pressure_kpa=2.1,
        shortwave_radiation_mj_m2=14.5,
        clear_sky_mj_m2=18.8,
    )
    assert longwave == pytest.approx(3.5, abs=0.05)


def test_example_14_wind_from_10_m_to_2_m() -> None:
    assert wind_speed_at_2_m(3.2, height_m=10) == pytest.approx(2.4, abs=0.05)


def test_example_17_bangkok_in_april_5_72_mm() -> None:
    day, latitude = dt.date(2015, 4, 15), 13 + 44 / 60
    extraterrestrial = extraterrestrial_radiation_mj_m2(latitude, day)
    assert extraterrestrial == pytest.approx(38.06, abs=0.02)
    assert slope_of_saturation_kpa_per_c(30.2) == pytest.approx(0.246, abs=0.0005)
    shortwave = sunny_radiation(8.5, 12.31, extraterrestrial)
    assert shortwave == pytest.approx(22.65, abs=0.02)
    net = net_radiation_mj_m2(
        latitude_degrees=latitude,
        elevation_m=2,
        day=day,
        temperature_min_c=25.6,
        temperature_max_c=34.8,
        vapour_pressure_kpa=2.85,
        shortwave_radiation_mj_m2=shortwave,
    )
    assert net == pytest.approx(14.33, abs=0.02)
    et0 = reference_evapotranspiration_mm(
        latitude_degrees=latitude,
        elevation_m=2,
        day=day,
        temperature_min_c=25.6,
        temperature_max_c=34.8,
        vapour_pressure_kpa=2.85,
        wind_speed_2m_m_s=2,
        shortwave_radiation_mj_m2=shortwave,
        pressure_kpa=101.3,
        soil_heat_flux_mj_m2=0.14,
    )
    assert et0 == pytest.approx(5.72, abs=0.01)


def test_example_18_uccle_on_6_july_3_88_mm() -> None:
    day, latitude = dt.date(2015, 7, 6), 50 + 48 / 60
    wind = wind_speed_at_2_m(10 / 3.6, height_m=10)
    assert wind == pytest.approx(2.078, abs=0.001)
    vapour = vapour_pressure_from_humidity_kpa(
        temperature_min_c=12.3, temperature_max_c=21.5, humidity_min_pct=63, humidity_max_pct=84
    )
    assert vapour == pytest.approx(1.409, abs=0.001)
    extraterrestrial = extraterrestrial_radiation_mj_m2(latitude, day)
    assert extraterrestrial == pytest.approx(41.09, abs=0.02)
    assert clear_sky_radiation_mj_m2(extraterrestrial, elevation_m=100) == pytest.approx(30.90, abs=0.02)
    shortwave = sunny_radiation(9.25, 16.1, extraterrestrial)
    assert shortwave == pytest.approx(22.07, abs=0.02)
    pressure = pressure_at_elevation_kpa(100)
    assert pressure == pytest.approx(100.1, abs=0.05)
    et0 = reference_evapotranspiration_mm(
        latitude_degrees=latitude,
        elevation_m=100,
        day=day,
        temperature_min_c=12.3,
        temperature_max_c=21.5,
        vapour_pressure_kpa=vapour,
        wind_speed_2m_m_s=wind,
        shortwave_radiation_mj_m2=shortwave,
        pressure_kpa=pressure,
    )
    assert et0 == pytest.approx(3.88, abs=0.005)


def test_example_20_lyon_in_july_4_56_mm() -> None:
    et0 = reference_evapotranspiration_mm(
        latitude_degrees=45 + 43 / 60,
        elevation_m=200,
        day=dt.date(2015, 7, 15),
        temperature_min_c=14.8,
        temperature_max_c=26.6,
        vapour_pressure_kpa=saturation_vapour_pressure_kpa(14.8),
        wind_speed_2m_m_s=2,
        shortwave_radiation_mj_m2=22.29,
        pressure_kpa=pressure_at_elevation_kpa(200),
    )
    assert et0 == pytest.approx(4.56, abs=0.015)


@pytest.mark.parametrize("latitude", [-90.0, 89.75, 90.0])
def test_polar_days_and_nights_have_an_answer(latitude: float) -> None:
    for month in range(1, 13):
        et0 = reference_evapotranspiration_mm(
            latitude_degrees=latitude,
            elevation_m=0,
            day=dt.date(2024, month, 21),
            temperature_min_c=-40,
            temperature_max_c=-30,
            vapour_pressure_kpa=saturation_vapour_pressure_kpa(-41),
            wind_speed_2m_m_s=5,
            shortwave_radiation_mj_m2=0,
            pressure_kpa=100,
        )
        assert 0 <= et0 < 1
    assert extraterrestrial_radiation_mj_m2(70, dt.date(2024, 12, 21)) == 0
