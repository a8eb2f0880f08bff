"""How far each source is from the truth: known errors, in whole series, and the last digit that it tells.

A source tells `truth x factor + offset`, forecasts a little more wrongly with each day ahead, kept within what is
possible, and rounded. So a test that knows the truth knows what must be stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from infra.sandbox.weather_noise import Floats

_POSSIBLE = {
    "relative_humidity_pct": (0.0, 100.0),
    "cloud_cover_pct": (0.0, 100.0),
    "soil_moisture_top_m3_m3": (0.0, 1.0),
    "precipitation_mm": (0.0, np.inf),
    "wind_speed_10m_m_s": (0.0, np.inf),
    "wind_speed_2m_m_s": (0.0, np.inf),
    "shortwave_radiation_w_m2": (0.0, np.inf),
    "et0_mm": (0.0, np.inf),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """How a source errs in one hourly variable."""

    factor: float = 1
    offset: float = 0
    provisional_offset: float = 0
    """Added as long as the value is to be replaced."""
    provisional_factor: float = 1
    """Multiplied as long as the value is to be replaced."""
    spread_a_day: float = 0
    """Largest further error for each day that the hour lies ahead."""


_EXACT = Error()

ARCHIVE_ERRORS: Mapping[str, Error] = {
    "temperature_c": Error(offset=0.2, provisional_offset=0.3),
    "dew_point_c": Error(offset=0.2, provisional_offset=0.3),
    "precipitation_mm": Error(factor=1.05),
    "wind_speed_10m_m_s": Error(factor=1.04),
    "shortwave_radiation_w_m2": Error(factor=0.98),
    "surface_pressure_hpa": Error(offset=0.3),
    "cloud_cover_pct": Error(factor=0.95),
    "et0_mm": Error(factor=1.02),
    "soil_temperature_top_c": Error(offset=-0.3),
    "soil_moisture_top_m3_m3": Error(offset=0.01),
}
"""Open-Meteo's reanalysis."""
FORECAST_ERRORS: Mapping[str, Error] = {
    "temperature_c": Error(offset=-0.1, spread_a_day=0.25),
    "dew_point_c": Error(offset=-0.1, spread_a_day=0.25),
    "precipitation_mm": Error(factor=0.95),
    "wind_speed_10m_m_s": Error(factor=0.98, spread_a_day=0.1),
    "shortwave_radiation_w_m2": Error(factor=1.02),
    "surface_pressure_hpa": Error(spread_a_day=0.2),
    "cloud_cover_pct": Error(spread_a_day=1.5),
    "et0_mm": Error(factor=0.99),
    "soil_temperature_top_c": Error(offset=-0.1, spread_a_day=0.2),
}
"""Open-Meteo's forecasts, from the beginning of the newest run on."""
POWER_ERRORS: Mapping[str, Error] = {
    "temperature_c": Error(offset=-0.3, provisional_offset=0.2),
    "dew_point_c": Error(offset=-0.3, provisional_offset=0.2),
    "precipitation_mm": Error(factor=0.93),
    "wind_speed_10m_m_s": Error(factor=0.96),
    "wind_speed_2m_m_s": Error(factor=0.96),
    "shortwave_radiation_w_m2": Error(factor=1.03, provisional_factor=0.97),
    "surface_pressure_hpa": Error(offset=-0.4),
}
"""NASA POWER."""


def told(
    errors: Mapping[str, Error],
    truth: Mapping[str, Floats],
    *,
    is_provisional: Mapping[str, Floats] | None = None,
    days_ahead: Floats | None = None,
    wander: Floats | None = None,
) -> dict[str, Floats]:
    """What a source tells of the true hours, before it rounds.

    Args:
        errors: Of the source, by variable; exact where there is none.
        truth: By variable, float64 of shape (n), none missing.
        is_provisional: By variable, 1 for hours that are to be replaced, else 0, shape (n); None: none is.
        days_ahead: How far ahead each hour lies, shape (n); None: nothing is a forecast.
        wander: Where within its spread a forecast errs, within [-1, 1], shape (n).

    Returns:
        By variable, float64 of shape (n), none missing.
    """
    found = {}
    for name, values in truth.items():
        error = errors.get(name, _EXACT)
        early = is_provisional[name] if is_provisional is not None else np.zeros(len(values))
        wrong = values * error.factor + error.offset
        wrong = wrong * (1 + early * (error.provisional_factor - 1)) + early * error.provisional_offset
        if days_ahead is not None and wander is not None:
            wrong = wrong + error.spread_a_day * days_ahead * wander
        found[name] = np.clip(wrong, *_POSSIBLE[name]) if name in _POSSIBLE else wrong
    # However both err, air holds no more water than it can.
    if "dew_point_c" in found:
        found["dew_point_c"] = np.minimum(found["dew_point_c"], found["temperature_c"])
    return found
