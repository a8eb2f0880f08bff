"""Reference evapotranspiration of a day by FAO-56 Penman-Monteith (Allen et al. 1998), equation by equation.

Numbers of equations are those of the paper. Its symbols: `ea` actual and `es` saturation vapour pressure, `Ra`
extraterrestrial, `Rs` incoming, `Rso` clear-sky and `Rn` net radiation, `u2` wind speed at 2 m.
"""

from __future__ import annotations

import datetime as dt
import math

_SOLAR_CONSTANT_MJ_M2_MIN = 0.0820
_STEFAN_BOLTZMANN_MJ_K4_M2_DAY = 4.903e-9
_ALBEDO_OF_GRASS = 0.23


def saturation_vapour_pressure_kpa(temperature_c: float) -> float:
    """Vapour pressure of saturated air (equation 11); of the dew point it is the actual one (equation 14)."""
    return 0.6108 * math.exp(17.27 * temperature_c / (temperature_c + 237.3))


def slope_of_saturation_kpa_per_c(temperature_c: float) -> float:
    """Slope of the saturation vapour pressure curve (equation 13)."""
    return 4098 * saturation_vapour_pressure_kpa(temperature_c) / (temperature_c + 237.3) ** 2


def pressure_at_elevation_kpa(elevation_m: float) -> float:
    """Air pressure of a standard atmosphere at 20 degrees Celsius (equation 7)."""
    return float(101.3 * ((293 - 0.0065 * elevation_m) / 293) ** 5.26)


def psychrometric_constant_kpa_per_c(pressure_kpa: float) -> float:
    """The psychrometric constant (equation 8)."""
    return 0.000665 * pressure_kpa


def wind_speed_at_2_m(wind_speed_m_s: float, *, height_m: float) -> float:
    """Wind speed at 2 m above grass from that at another height (equation 47).

    Args:
        wind_speed_m_s: Wind speed at `height_m`.
        height_m: Height above ground, at least 1 m.
    """
    return wind_speed_m_s * 4.87 / math.log(67.8 * height_m - 5.42)


def extraterrestrial_radiation_mj_m2(latitude_degrees: float, day: dt.date) -> float:
    """Radiation at the top of the atmosphere over a day (equations 21 to 25); 0 in the polar night."""
    latitude = math.radians(latitude_degrees)
    angle = 2 * math.pi * day.timetuple().tm_yday / 365
    inverse_distance = 1 + 0.033 * math.cos(angle)
    declination = 0.409 * math.sin(angle - 1.39)
    # Beyond [-1, 1] the sun does not set, or does not rise.
    sunset = math.acos(min(1.0, max(-1.0, -math.tan(latitude) * math.tan(declination))))
    both_sines = sunset * math.sin(latitude) * math.sin(declination)
    both_cosines = math.cos(latitude) * math.cos(declination) * math.sin(sunset)
    radiation = 24 * 60 / math.pi * _SOLAR_CONSTANT_MJ_M2_MIN * inverse_distance * (both_sines + both_cosines)
    return max(0.0, radiation)


def clear_sky_radiation_mj_m2(extraterrestrial_mj_m2: float, *, elevation_m: float) -> float:
    """Radiation that reaches the ground without cloud (equation 37)."""
    return (0.75 + 2e-5 * elevation_m) * extraterrestrial_mj_m2


def net_longwave_radiation_mj_m2(
    *,
    temperature_min_c: float,
    temperature_max_c: float,
    vapour_pressure_kpa: float,
    shortwave_radiation_mj_m2: float,
    clear_sky_mj_m2: float,
) -> float:
    """Longwave radiation that leaves the ground over a day (equation 39).

    The ratio of measured to clear-sky radiation stands for cloud. It is held between 0.25 and 1, as the paper limits
    it above and ASCE 2005 below; without any sun it cannot be told and half is taken, as for an average sky.
    """
    kelvin_4 = ((temperature_max_c + 273.16) ** 4 + (temperature_min_c + 273.16) ** 4) / 2
    ratio = shortwave_radiation_mj_m2 / clear_sky_mj_m2 if clear_sky_mj_m2 > 0 else 0.5
    cloudiness = 1.35 * min(1.0, max(0.25, ratio)) - 0.35
    return _STEFAN_BOLTZMANN_MJ_K4_M2_DAY * kelvin_4 * (0.34 - 0.14 * math.sqrt(vapour_pressure_kpa)) * cloudiness


def net_radiation_mj_m2(
    *,
    latitude_degrees: float,
    elevation_m: float,
    day: dt.date,
    temperature_min_c: float,
    temperature_max_c: float,
    vapour_pressure_kpa: float,
    shortwave_radiation_mj_m2: float,
) -> float:
    """Radiation that grass keeps over a day: shortwave less its albedo (equation 38), less longwave (equation 40)."""
    clear_sky = clear_sky_radiation_mj_m2(
        extraterrestrial_radiation_mj_m2(latitude_degrees, day), elevation_m=elevation_m
    )
    longwave = net_longwave_radiation_mj_m2(
        temperature_min_c=temperature_min_c,
        temperature_max_c=temperature_max_c,
        vapour_pressure_kpa=vapour_pressure_kpa,
        shortwave_radiation_mj_m2=shortwave_radiation_mj_m2,
        clear_sky_mj_m2=clear_sky,
    )
    return (1 - _ALBEDO_OF_GRASS) * shortwave_radiation_mj_m2 - longwave


def vapour_pressure_from_humidity_kpa(
    *, temperature_min_c: float, temperature_max_c: float, humidity_min_pct: float, humidity_max_pct: float
) -> float:
    """Actual vapour pressure from the extremes of relative humidity (equation 17).

    With the mean given for both extremes, it is nearly that of equation 19.
    """
    at_min = saturation_vapour_pressure_kpa(temperature_min_c) * humidity_max_pct / 100
    at_max = saturation_vapour_pressure_kpa(temperature_max_c) * humidity_min_pct / 100
    return (at_min + at_max) / 2


def reference_evapotranspiration_mm(
    *,
    latitude_degrees: float,
    elevation_m: float,
    day: dt.date,
    temperature_min_c: float,
    temperature_max_c: float,
    vapour_pressure_kpa: float,
    wind_speed_2m_m_s: float,
    shortwave_radiation_mj_m2: float,
    pressure_kpa: float,
    soil_heat_flux_mj_m2: float = 0.0,
) -> float:
    """Evapotranspiration of the reference grass over a day, ET0 (equation 6).

    Args:
        latitude_degrees: Degrees north.
        elevation_m: Above sea level, for the clear sky.
        day: The day, for the sun.
        temperature_min_c: Lowest temperature at 2 m.
        temperature_max_c: Highest temperature at 2 m; the mean is taken half way between them, as the paper asks.
        vapour_pressure_kpa: Actual vapour pressure.
        wind_speed_2m_m_s: Mean wind speed at 2 m.
        shortwave_radiation_mj_m2: Measured or modelled solar radiation on the ground.
        pressure_kpa: Air pressure at the ground.
        soil_heat_flux_mj_m2: Heat that goes into the soil; 0 for a day (equation 42).

    Returns:
        Millimetres, never below 0: dew is no evapotranspiration.
    """
    mean_c = (temperature_min_c + temperature_max_c) / 2
    saturation = (
        saturation_vapour_pressure_kpa(temperature_min_c) + saturation_vapour_pressure_kpa(temperature_max_c)
    ) / 2
    net = net_radiation_mj_m2(
        latitude_degrees=latitude_degrees,
        elevation_m=elevation_m,
        day=day,
        temperature_min_c=temperature_min_c,
        temperature_max_c=temperature_max_c,
        vapour_pressure_kpa=vapour_pressure_kpa,
        shortwave_radiation_mj_m2=shortwave_radiation_mj_m2,
    )
    slope = slope_of_saturation_kpa_per_c(mean_c)
    gamma = psychrometric_constant_kpa_per_c(pressure_kpa)
    energy = 0.408 * slope * (net - soil_heat_flux_mj_m2)
    air = gamma * 900 / (mean_c + 273) * wind_speed_2m_m_s * (saturation - vapour_pressure_kpa)
    return max(0.0, (energy + air) / (slope + gamma * (1 + 0.34 * wind_speed_2m_m_s)))
