"""The true weather of the simulated world: any place, any hour, by a seed, and physically coherent.

One field of moisture drives the rest: where it is high there is cloud, where it is higher there is rain, and both
dim the sun, flatten the day's curve of temperature and raise the dew point. Over the districts that the simulated
satellites picture, it follows the sky of the pictures at the time of each pass.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from infra.sandbox.weather_noise import Floats, Noise
from infra.sandbox.weather_physics import (
    clear_sun_of_days_mj_m2,
    evapotranspiration_mm,
    relative_humidity_pct,
    sun_above_w_m2,
)
from infra.sandbox.weather_sky import Skies

_MEMORY_DAYS = 40
"""How far back rain is still felt in the soil."""
_SOIL_KEEPS_PER_DAY = math.exp(-1 / 7)
_EPOCH = dt.date(1970, 1, 1)
_SUMS = ("precipitation_mm", "et0_mm", "shortwave_radiation_w_m2")

Series = Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class Hours:
    """The true weather of one place, hour by hour, over whole UTC days and one hour more."""

    first: dt.date
    days: int
    values: Series
    """By name as in `models.weather.HOURLY_VARIABLES`: float64 of 24 values a day and one more, none missing. The
    first stands for 00:00 of the first day; sums are over the hour that ends there."""

    def daily(self, *, is_cut_late: bool = True) -> dict[str, Floats]:
        """The same by UTC day, by name as in `models.weather.DAILY_VARIABLES`: float64 of one value a day.

        Args:
            is_cut_late: Sum what fell from midnight to midnight. False: as Open-Meteo does, which sums its hours
                named 00:00 to 23:00, and so counts the last hour of the day before.
        """
        found = self._means()
        temperature = self._by_day("temperature_c")
        found |= {"temperature_min_c": temperature.min(axis=1), "temperature_max_c": temperature.max(axis=1)}
        shift = 1 if is_cut_late else 0
        for name in ("precipitation_mm", "et0_mm"):
            found[name] = self._by_day(name, shift=shift).sum(axis=1)
        sun = self._by_day("shortwave_radiation_w_m2", shift=shift).sum(axis=1)
        return found | {"shortwave_radiation_mj_m2": sun * 0.0036}

    def _means(self) -> dict[str, Floats]:
        names = {name: "temperature_mean_c" if name == "temperature_c" else name for name in self.values}
        return {ours: self._by_day(name).mean(axis=1) for name, ours in names.items() if name not in _SUMS}

    def _by_day(self, name: str, *, shift: int = 0) -> Floats:
        return self.values[name][shift : shift + 24 * self.days].reshape(self.days, 24)


class Climate:
    """The weather of the world of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._skies = Skies(seed)
        self._noises = {
            name: Noise(seed, name, period_h, span_degrees)
            for name, period_h, span_degrees in (
                ("moisture of the week", 60, 9),
                ("moisture of the day", 13, 2.5),
                ("strength of rain", 3, 0.5),
                ("air mass", 80, 12),
                ("warmth", 19, 3),
                ("dryness", 45, 6),
                ("pressure", 90, 15),
                ("wind", 26, 6),
                ("gusts", 5, 1.5),
                ("height of the land", 1e9, 1),
            )
        }

    def day(self, latitude: float, longitude: float, day: dt.date) -> dict[str, float]:
        """The true weather of one place on one UTC day, by name as in `models.weather.DAILY_VARIABLES`."""
        return {name: float(values[0]) for name, values in self.hours(latitude, longitude, day, day).daily().items()}

    def elevation_m(self, latitude: float, longitude: float) -> float:
        """Height of the land above the sea, metres: 20 to 420."""
        return 220 + 200 * float(self._noise("height of the land", latitude, longitude, np.zeros(1))[0])

    def hours(self, latitude: float, longitude: float, first: dt.date, last: dt.date) -> Hours:
        """The true weather of one place from `first` to `last`, UTC days, both included."""
        known_from = first - dt.timedelta(days=_MEMORY_DAYS)
        days = (last - known_from).days + 1
        hours = 24.0 * (known_from - _EPOCH).days + np.arange(24 * days + 1, dtype=np.float64)
        values = self._values(latitude, longitude, hours)
        wanted = {name: series[24 * _MEMORY_DAYS :] for name, series in values.items()}
        return Hours(first, days - _MEMORY_DAYS, wanted)

    def _values(self, latitude: float, longitude: float, hours: Floats) -> dict[str, Floats]:
        height_m = self.elevation_m(latitude, longitude)
        moisture = self._moisture(latitude, longitude, hours)
        cloud = np.clip(0.45 + 0.75 * moisture, 0, 1)
        strength = 1 + 0.6 * self._noise("strength of rain", latitude, longitude, hours)
        rain = np.maximum(0, moisture - 0.33) ** 1.3 * 3.2 * strength
        slow, temperature = self._temperatures(latitude, longitude, hours, cloud, height_m)
        dryness = 5 + 4 * self._noise("dryness", latitude, longitude, hours) - 3 * (cloud - 0.5)
        dew_point = np.minimum(slow - dryness, temperature - 0.2)
        wind = 3.4 * (1 + 0.8 * self._noise("wind", latitude, longitude, hours)) + 0.08 * (temperature - slow)
        wind = np.maximum(0.3, wind * (1 + 0.25 * self._noise("gusts", latitude, longitude, hours)))
        at_sea = 1014 + 11 * self._noise("pressure", latitude, longitude, hours) - 6 * moisture
        # An hour's radiation is told at its end: the sun stood half an hour back in the middle of it.
        sun = sun_above_w_m2(latitude, longitude, hours - 0.5) * 0.75 * (1 - 0.72 * cloud**3)
        values = {
            "temperature_c": temperature,
            "dew_point_c": dew_point,
            "relative_humidity_pct": relative_humidity_pct(temperature, dew_point),
            "precipitation_mm": rain,
            "wind_speed_10m_m_s": wind,
            # The profile over grass that FAO-56 has, equation 47.
            "wind_speed_2m_m_s": wind * 4.87 / math.log(67.8 * 10 - 5.42),
            "shortwave_radiation_w_m2": sun,
            "surface_pressure_hpa": at_sea * math.exp(-height_m / 8430),
            "cloud_cover_pct": 100 * cloud,
            "soil_temperature_top_c": slow + 0.45 * (temperature - slow),
            "soil_moisture_top_m3_m3": _soil_moisture(rain),
        }
        return values | {"et0_mm": _et0_of_hours(values, hours, latitude=latitude, height_m=height_m)}

    def _moisture(self, latitude: float, longitude: float, hours: Floats) -> Floats:
        week = self._noise("moisture of the week", latitude, longitude, hours)
        day = self._noise("moisture of the day", latitude, longitude, hours)
        return self._skies.over(latitude, longitude, hours, 0.8 * week + 0.5 * day)

    def _temperatures(
        self, latitude: float, longitude: float, hours: Floats, cloud: Floats, height_m: float
    ) -> tuple[Floats, Floats]:
        """Without and with the curve of the day: warmest at three in the afternoon by the sun, flat under cloud."""
        from_equator = abs(math.sin(math.radians(latitude)))
        of_the_place = 28 - 26 * from_equator**2 - 20 * from_equator**8 - 0.0065 * height_m
        coldest_day = 20 if latitude >= 0 else 20 + 182.6
        season = -0.27 * abs(latitude) * np.cos(2 * np.pi * (hours / 24 - coldest_day) / 365.2425)
        air = 5.5 * self._noise("air mass", latitude, longitude, hours)
        air += 2.5 * self._noise("warmth", latitude, longitude, hours)
        slow = of_the_place + season + air
        by_the_sun = hours + longitude / 15
        swing = (2 + 5 * (1 - cloud)) * math.cos(math.radians(latitude)) ** 0.5
        return slow, slow + swing * np.cos(2 * np.pi * (by_the_sun - 15) / 24)

    def _noise(self, name: str, latitude: float, longitude: float, hours: Floats) -> Floats:
        return self._noises[name].at(latitude, longitude, hours)


def _soil_moisture(rain: Floats) -> Floats:
    """Share of water in the uppermost soil, after all the rain of some weeks; it dries out within days."""
    days = len(rain) // 24
    of_days = rain[1 : 24 * days + 1].reshape(days, 24)
    fading = _SOIL_KEEPS_PER_DAY ** np.arange(_MEMORY_DAYS)
    before = np.concatenate([[0.0], np.convolve(of_days.sum(axis=1), fading)[:days]])
    hour = np.arange(24)
    so_far = np.concatenate([np.zeros((days, 1)), of_days.cumsum(axis=1)[:, :-1]], axis=1)
    within = before[:days, None] * _SOIL_KEEPS_PER_DAY ** (hour / 24) + so_far
    water_mm = np.append(within.ravel(), before[days])
    return np.asarray(0.1 + 0.3 * (1 - np.exp(-water_mm / 18)))


def _et0_of_hours(values: Series, hours: Floats, *, latitude: float, height_m: float) -> Floats:
    """ET0 of each day by FAO-56, spread over its hours as the sun shone; evenly where it did not."""
    days = len(hours) // 24
    by_day = {name: values[name][: 24 * days].reshape(days, 24) for name in values}
    sun = values["shortwave_radiation_w_m2"][1 : 24 * days + 1].reshape(days, 24)
    total = sun.sum(axis=1, keepdims=True)
    clear = clear_sun_of_days_mj_m2(latitude, hours[: 24 * days : 24], height_m=height_m)
    of_days = evapotranspiration_mm(
        low_c=by_day["temperature_c"].min(axis=1),
        high_c=by_day["temperature_c"].max(axis=1),
        dew_point_c=by_day["dew_point_c"].mean(axis=1),
        wind_2m_m_s=by_day["wind_speed_2m_m_s"].mean(axis=1),
        sun_mj_m2=total[:, 0] * 0.0036,
        clear_mj_m2=clear,
        pressure_kpa=by_day["surface_pressure_hpa"].mean(axis=1) / 10,
    )
    share = np.where(total > 0, sun / np.where(total > 0, total, 1), 1 / 24)
    # The very first hour belongs to a day that is not there; nobody is told of it.
    return np.concatenate([[0.0], (share * of_days[:, None]).ravel()])
