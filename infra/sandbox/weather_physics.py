"""The formulas behind the simulated weather, for whole series at once, and not those of `tasks.weather`."""

from __future__ import annotations

import math

import numpy as np

from infra.sandbox.weather_noise import Floats

_SOLAR_CONSTANT_W_M2 = 1361.0
_TROPICAL_YEAR_DAYS = 365.2422


def saturation_kpa(temperature_c: Floats) -> Floats:
    """Vapour pressure of saturated air, by Magnus and Tetens."""
    return np.asarray(0.6108 * np.exp(17.27 * temperature_c / (temperature_c + 237.3)))


def relative_humidity_pct(temperature_c: Floats, dew_point_c: Floats) -> Floats:
    """Share of the vapour that the air could hold, in percent."""
    return np.asarray(100 * saturation_kpa(dew_point_c) / saturation_kpa(temperature_c))


def sun_above_w_m2(latitude: float, longitude: float, hours: Floats) -> Floats:
    """Sunlight on a level square metre above the atmosphere.

    Args:
        latitude: Degrees north.
        longitude: Degrees east.
        hours: Hours since 1970-01-01 UTC.

    Returns:
        float64 of the shape of `hours`; 0 while the sun is below the horizon.
    """
    declination, nearness = _sun(hours)
    hour_angle = (hours % 24 + longitude / 15 - 12) * (math.pi / 12)
    here = math.radians(latitude)
    height = math.sin(here) * np.sin(declination) + math.cos(here) * np.cos(declination) * np.cos(hour_angle)
    return np.asarray(_SOLAR_CONSTANT_W_M2 * nearness * np.maximum(0, height))


def clear_sun_of_days_mj_m2(latitude: float, midnights: Floats, *, height_m: float) -> Floats:
    """Sunlight that reaches the ground over whole days without cloud, one value for each midnight, by FAO-56."""
    declination, nearness = _sun(midnights + 12)
    here = math.radians(latitude)
    sunset = np.arccos(np.clip(-math.tan(here) * np.tan(declination), -1, 1))
    sines = sunset * math.sin(here) * np.sin(declination)
    cosines = math.cos(here) * np.cos(declination) * np.sin(sunset)
    above = np.maximum(0, _SOLAR_CONSTANT_W_M2 * 0.0864 / math.pi * nearness * (sines + cosines))
    return np.asarray((0.75 + 2e-5 * height_m) * above)


def evapotranspiration_mm(
    *,
    low_c: Floats,
    high_c: Floats,
    dew_point_c: Floats,
    wind_2m_m_s: Floats,
    sun_mj_m2: Floats,
    clear_mj_m2: Floats,
    pressure_kpa: Floats,
) -> Floats:
    """Evapotranspiration of the reference grass over days by FAO-56 Penman-Monteith, one value for each; at least 0."""
    mean_c = (low_c + high_c) / 2
    saturation = (saturation_kpa(low_c) + saturation_kpa(high_c)) / 2
    vapour = saturation_kpa(dew_point_c)
    brightness = np.clip(np.where(clear_mj_m2 > 0, sun_mj_m2 / np.maximum(clear_mj_m2, 1e-9), 0.5), 0.25, 1)
    heat = 4.903e-9 * ((high_c + 273.16) ** 4 + (low_c + 273.16) ** 4) / 2
    net = 0.77 * sun_mj_m2 - heat * (0.34 - 0.14 * np.sqrt(vapour)) * (1.35 * brightness - 0.35)
    slope = 4098 * saturation_kpa(mean_c) / (mean_c + 237.3) ** 2
    gamma = 0.000665 * pressure_kpa
    drying = gamma * 900 / (mean_c + 273) * wind_2m_m_s * (saturation - vapour)
    return np.maximum(0, (0.408 * slope * net + drying) / (slope + gamma * (1 + 0.34 * wind_2m_m_s)))


def _sun(hours: Floats) -> tuple[Floats, Floats]:
    """Declination in radians, and how much stronger the sun is than at its mean distance."""
    angle = 2 * np.pi * (hours / 24 / _TROPICAL_YEAR_DAYS % 1)
    return 0.409 * np.sin(angle - 1.39), 1 + 0.033 * np.cos(angle)
