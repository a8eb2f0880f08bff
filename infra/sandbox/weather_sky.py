"""The sky that the simulated satellites pictured, so that the weather agrees with the pictures."""

from __future__ import annotations

import datetime as dt
import functools

import numpy as np
import pyproj

from infra.sandbox.passes import Pass, passes_between
from infra.sandbox.places import DISTRICTS, District
from infra.sandbox.sky import weather_of
from infra.sandbox.weather_noise import Floats

_MOISTURE = {"clear": -0.6, "cirrus": -0.15, "scattered": -0.15, "broken": 0.3, "overcast": 0.65}
"""What each kind of sky asks of the field that drives the weather: 0 and 34 % cloud, 68 and 94 %."""
_WHOLLY_WITHIN_DEGREES = 0.4
_NOT_BEYOND_DEGREES = 1.2
_FADES_IN_H = 8
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Skies:
    """The skies of all passes of one seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._passes_of_month = functools.lru_cache(maxsize=1_000)(self._drawn)

    def over(self, latitude: float, longitude: float, hours: Floats, moisture: Floats) -> Floats:
        """The moisture as the pictures show it, near a district and a pass; as it is everywhere else.

        Args:
            latitude: Degrees north.
            longitude: Degrees east.
            hours: Hours since 1970-01-01 UTC, going forward by one.
            moisture: For each of them, about [-1.3, 1.3].

        Returns:
            float64 of the same shape, none missing.
        """
        for district in DISTRICTS:
            if (nearness := _nearness(district, latitude, longitude)) > 0:
                moisture = self._towards(district, nearness, hours, moisture)
        return moisture

    def _towards(self, district: District, nearness: float, hours: Floats, moisture: Floats) -> Floats:
        found = moisture.copy()
        months = {
            (at.year, at.month) for at in (_EPOCH + dt.timedelta(hours=float(hour)) for hour in hours[:: 24 * 20])
        }
        last = _EPOCH + dt.timedelta(hours=float(hours[-1]))
        for year, month in sorted({*months, (last.year, last.month)}):
            for seen_at, wanted in self._passes_of_month(district.name, year, month):
                middle = round(seen_at - hours[0])
                span = slice(max(0, middle - _FADES_IN_H), max(0, middle + _FADES_IN_H + 1))
                away_h = np.abs(hours[span] - hours[0] - middle)
                pull = nearness * np.clip(1.5 - 1.5 * away_h / _FADES_IN_H, 0, 1)
                found[span] += pull * (wanted - found[span])
        return found

    def _drawn(self, name: str, year: int, month: int) -> tuple[tuple[float, float], ...]:
        """Of the passes over a district in a month: hours since 1970, and the moisture that their sky asks for."""
        first = dt.date(year, month, 1)
        last = (first + dt.timedelta(days=32)).replace(day=1) - dt.timedelta(days=1)
        seen = [each for each in passes_between(first, last) if each.district.name == name]
        return tuple((_hour(each), _MOISTURE[weather_of(each, self._seed)]) for each in seen)


def _hour(a_pass: Pass) -> float:
    return (a_pass.acquired_at - _EPOCH).total_seconds() / 3600


def _nearness(district: District, latitude: float, longitude: float) -> float:
    """1 at the district, 0 from some way off."""
    east, north = _centre(district.name)
    away = max(abs((longitude - east + 180) % 360 - 180), abs(latitude - north))
    return float(np.clip((_NOT_BEYOND_DEGREES - away) / (_NOT_BEYOND_DEGREES - _WHOLLY_WITHIN_DEGREES), 0, 1))


@functools.cache
def _centre(name: str) -> tuple[float, float]:
    """Longitude and latitude in degrees."""
    district = next(each for each in DISTRICTS if each.name == name)
    left, bottom, right, top = district.grid.bounds
    to_degrees = pyproj.Transformer.from_crs(district.epsg, 4326, always_xy=True)
    east, north = to_degrees.transform((left + right) / 2, (bottom + top) / 2)
    return float(east), float(north)
