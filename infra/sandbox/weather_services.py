"""Both weather services on loopback, over one true climate, and what they would be in our settings."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from infra.sandbox.serving import serve_app
from infra.sandbox.weather_climate import Climate
from infra.sandbox.weather_limits import Allowance, Clock
from infra.sandbox.weather_open_meteo import OpenMeteoStandIn
from infra.sandbox.weather_power import PowerStandIn


def utc_now() -> dt.datetime:
    """The present instant."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeatherServices:
    """Running stand-ins: their addresses, what they heard, and the truth behind them."""

    open_meteo_url: str
    """Address of the forecast and, with the same paths as at the real service, of the archive."""
    nasa_power_url: str
    open_meteo: OpenMeteoStandIn
    nasa_power: PowerStandIn
    truth: Climate

    @property
    def historical_forecast_url(self) -> str:
        """Address of past forecasts, which are at another host and the same path in reality."""
        return f"{self.open_meteo_url}/historical-forecast"

    @property
    def settings(self) -> Mapping[str, str]:
        """Environment variables that lead Swath here."""
        return {
            "SWATH_OPEN_METEO_URL": self.open_meteo_url,
            "SWATH_OPEN_METEO_ARCHIVE_URL": self.open_meteo_url,
            "SWATH_OPEN_METEO_HISTORICAL_FORECAST_URL": self.historical_forecast_url,
            "SWATH_NASA_POWER_URL": self.nasa_power_url,
        }


@contextlib.contextmanager
def weather_services(
    seed: int,
    *,
    clock: Clock = utc_now,
    allowance: Allowance | None = None,
    power_per_minute: int = 30,
) -> Iterator[WeatherServices]:
    """Run stand-ins for Open-Meteo and NASA POWER on free ports of loopback until the context ends.

    Args:
        seed: Of the world; the sky agrees with the imagery of the same seed.
        clock: The present instant for them: what is known, what is late, and when counters start anew.
        allowance: Of Open-Meteo; by default that of its free service.
        power_per_minute: Requests that NASA POWER answers within 60 seconds.

    Raises:
        ServerTrouble: a server did not start.
    """
    truth = Climate(seed)
    open_meteo = OpenMeteoStandIn(truth, clock=clock, allowance=allowance or Allowance())
    nasa_power = PowerStandIn(truth, clock=clock, per_minute=power_per_minute)
    with (
        serve_app(open_meteo.app, name="sandbox's Open-Meteo") as open_meteo_url,
        serve_app(nasa_power.app, name="sandbox's NASA POWER") as nasa_power_url,
    ):
        yield WeatherServices(
            open_meteo_url=open_meteo_url,
            nasa_power_url=nasa_power_url,
            open_meteo=open_meteo,
            nasa_power=nasa_power,
            truth=truth,
        )
