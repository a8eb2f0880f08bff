"""What to ask of NASA POWER: one cell a request, parameters, and UTC said explicitly."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from models.errors import BadInput
from models.weather import Cell, Grain, Source
from tasks.weather.polite import Ask

DEFAULT_URL = "https://power.larc.nasa.gov"
MOST_PARAMETERS: Mapping[Grain, int] = {Grain.DAILY: 20, Grain.HOURLY: 15}
"""Parameters that the service takes in one request for a point."""
FIRST_DAY: Mapping[Grain, dt.date] = {Grain.DAILY: dt.date(1981, 1, 1), Grain.HOURLY: dt.date(2001, 1, 1)}

Convert = Callable[[float], float]


def _same(value: float) -> float:
    return value


def _times(factor: float) -> Convert:
    return lambda value: value * factor


_CELSIUS = MappingProxyType({"C": _same, "K": lambda value: value - 273.15})
_PERCENT = MappingProxyType({"%": _same})
_SPEED = MappingProxyType({"m/s": _same})
_PRESSURE = MappingProxyType({"kPa": _times(10), "hPa": _same, "Pa": _times(0.01)})
_RAIN_OF_A_DAY = MappingProxyType(dict.fromkeys(("mm/day", "mm"), _same))
_RAIN_OF_AN_HOUR = MappingProxyType(dict.fromkeys(("mm/hour", "mm/hr", "mm"), _same))
# Solar units change with the community: AG tells megajoules, others kilowatt hours or watts.
_SUN_OF_A_DAY = MappingProxyType(
    dict.fromkeys(("MJ/m^2/day",), _same)
    | dict.fromkeys(("kW-hr/m^2/day", "kWh/m^2/day"), _times(3.6))
    | {"W/m^2": _times(0.0864)}
)
_SUN_OF_AN_HOUR = MappingProxyType(
    dict.fromkeys(("MJ/hr", "MJ/m^2/hr", "MJ/m^2/hour"), _times(1e6 / 3600))
    | dict.fromkeys(("Wh/m^2", "W/m^2"), _same)
    | dict.fromkeys(("kW-hr/m^2/hr", "kW-hr/m^2/hour"), _times(1000))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of the service, what we call it, and how each unit it may come in becomes ours."""

    api: str
    ours: str
    units: Mapping[str, Convert]
    is_solar: bool = False
    """From the satellites of CERES, on 1 degree and later than the meteorology."""
    is_over_the_hour: bool = False
    """An hourly value that we name by the end of its hour; the service names all by the beginning."""


_BOTH = (
    Parameter(api="T2MDEW", ours="dew_point_c", units=_CELSIUS),
    Parameter(api="RH2M", ours="relative_humidity_pct", units=_PERCENT),
    Parameter(api="WS10M", ours="wind_speed_10m_m_s", units=_SPEED),
    Parameter(api="WS2M", ours="wind_speed_2m_m_s", units=_SPEED),
    Parameter(api="PS", ours="surface_pressure_hpa", units=_PRESSURE),
    Parameter(api="CLOUD_AMT", ours="cloud_cover_pct", units=_PERCENT, is_solar=True),
)
PARAMETERS: Mapping[Grain, tuple[Parameter, ...]] = {
    Grain.DAILY: (
        Parameter(api="T2M", ours="temperature_mean_c", units=_CELSIUS),
        Parameter(api="T2M_MIN", ours="temperature_min_c", units=_CELSIUS),
        Parameter(api="T2M_MAX", ours="temperature_max_c", units=_CELSIUS),
        *_BOTH,
        Parameter(api="PRECTOTCORR", ours="precipitation_mm", units=_RAIN_OF_A_DAY),
        Parameter(api="ALLSKY_SFC_SW_DWN", ours="shortwave_radiation_mj_m2", units=_SUN_OF_A_DAY, is_solar=True),
    ),
    Grain.HOURLY: (
        Parameter(api="T2M", ours="temperature_c", units=_CELSIUS),
        *_BOTH,
        Parameter(api="PRECTOTCORR", ours="precipitation_mm", units=_RAIN_OF_AN_HOUR, is_over_the_hour=True),
        Parameter(
            api="ALLSKY_SFC_SW_DWN",
            ours="shortwave_radiation_w_m2",
            units=_SUN_OF_AN_HOUR,
            is_solar=True,
            is_over_the_hour=True,
        ),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerRequest:
    """Weather of one cell on some UTC days, daily or hourly."""

    cell: Cell
    grain: Grain
    first_day: dt.date
    last_day: dt.date

    def __post_init__(self) -> None:
        """Refuse what the service would refuse.

        Raises:
            BadInput: a cell of another source, no days, days before the service has any, or another grain.
        """
        if self.cell.source is not Source.NASA_POWER:
            raise BadInput("cell", f"{self.cell.key} is no cell of NASA POWER")
        if self.grain not in PARAMETERS:
            raise BadInput("grain", f"NASA POWER has no {self.grain} weather", allowed="daily, hourly")
        if self.last_day < self.first_day:
            raise BadInput("last_day", f"{self.last_day} is before {self.first_day}")
        if self.first_day < FIRST_DAY[self.grain]:
            raise BadInput("first_day", f"{self.first_day} is too early", allowed=f"from {FIRST_DAY[self.grain]} on")

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What is asked for."""
        return PARAMETERS[self.grain]

    @property
    def days_asked(self) -> tuple[dt.date, dt.date]:
        """First and last day as the service is asked for them.

        Hours begin one day earlier, because the sum of the hour that ends at midnight is in the day before.
        """
        if self.grain is Grain.HOURLY:
            return max(FIRST_DAY[Grain.HOURLY], self.first_day - dt.timedelta(days=1)), self.last_day
        return self.first_day, self.last_day


def ask_power(request: PowerRequest, *, url: str = DEFAULT_URL) -> Ask:
    """The HTTP request for a request."""
    first, last = request.days_asked
    return Ask(
        url=f"{url.rstrip('/')}/api/temporal/{request.grain.value}/point",
        parameters={
            "parameters": ",".join(parameter.api for parameter in request.parameters),
            "community": "AG",
            "longitude": str(request.cell.longitude),
            "latitude": str(request.cell.latitude),
            "start": f"{first:%Y%m%d}",
            "end": f"{last:%Y%m%d}",
            "format": "JSON",
            "time-standard": "UTC",
        },
    )
