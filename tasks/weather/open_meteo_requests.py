"""What to ask of Open-Meteo: endpoints, variables, units, one pinned model, and what a request weighs."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlencode

from models.errors import BadInput
from models.weather import Cell, Grain, Source
from tasks.weather.polite import Ask

MAX_LOCATIONS = 1000
"""Locations that the service accepts in one request."""
MAX_WEIGHT = 300.0
"""Heaviest request we make of several locations: half of the 600 that are free in a minute."""
FORECAST_DAYS = 16
LONGEST_ADDRESS = 2000
"""Characters of a query above which a form is posted instead."""


class Endpoint(StrEnum):
    """A kind of data, with its own address."""

    FORECAST = "forecast"
    """The newest model run: up to 92 days back and 16 ahead, today included."""
    ARCHIVE = "archive"
    """Reanalysis since 1940, five days late."""
    HISTORICAL_FORECAST = "historical-forecast"
    """The first hours of every past model run, joined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoilLayer:
    """A model's uppermost layer of soil, and what the service calls its variables."""

    depth: str
    temperature: str
    moisture: str


_TO_7_CM = SoilLayer(depth="0-7cm", temperature="soil_temperature_0_to_7cm", moisture="soil_moisture_0_to_7cm")
_TO_10_CM = SoilLayer(depth="0-10cm", temperature="soil_temperature_0_to_10cm", moisture="soil_moisture_0_to_10cm")
_TO_1_CM = SoilLayer(depth="0-1cm", temperature="soil_temperature_0cm", moisture="soil_moisture_0_to_1cm")

SOIL_LAYERS: Mapping[str, SoilLayer] = {
    **dict.fromkeys(("era5_seamless", "era5", "era5_land", "ecmwf_ifs", "ecmwf_ifs025"), _TO_7_CM),
    **dict.fromkeys(("ncep_gfs_seamless", "ncep_gfs_global", "gfs_seamless", "gfs_global"), _TO_10_CM),
    **dict.fromkeys(("icon_seamless", "icon_global", "icon_eu", "icon_d2"), _TO_1_CM),
}
"""By model. Of other models we ask for no soil, rather than join layers that are not the same."""

DEFAULT_MODELS: Mapping[Endpoint, str] = {
    Endpoint.FORECAST: "ecmwf_ifs025",
    Endpoint.ARCHIVE: "era5_seamless",
    Endpoint.HISTORICAL_FORECAST: "ecmwf_ifs025",
}
"""One global model ahead and one behind, from one house and with one soil layer. ECMWF tells 15 days; the sixteenth
day of a forecast then has no values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One variable of the service, what we call it, and its unit as we ask for it."""

    api: str
    ours: str
    unit: str


_INSTANT = (
    Variable(api="temperature_2m", ours="temperature_c", unit="°C"),
    Variable(api="dew_point_2m", ours="dew_point_c", unit="°C"),
    Variable(api="relative_humidity_2m", ours="relative_humidity_pct", unit="%"),
    Variable(api="wind_speed_10m", ours="wind_speed_10m_m_s", unit="m/s"),
    Variable(api="surface_pressure", ours="surface_pressure_hpa", unit="hPa"),
    Variable(api="cloud_cover", ours="cloud_cover_pct", unit="%"),
)
_OVER_THE_HOUR = (
    Variable(api="precipitation", ours="precipitation_mm", unit="mm"),
    Variable(api="shortwave_radiation", ours="shortwave_radiation_w_m2", unit="W/m²"),
    Variable(api="et0_fao_evapotranspiration", ours="et0_mm", unit="mm"),
)
_DAILY = (
    Variable(api="temperature_2m_min", ours="temperature_min_c", unit="°C"),
    Variable(api="temperature_2m_max", ours="temperature_max_c", unit="°C"),
    Variable(api="precipitation_sum", ours="precipitation_mm", unit="mm"),
    Variable(api="shortwave_radiation_sum", ours="shortwave_radiation_mj_m2", unit="MJ/m²"),
    Variable(api="et0_fao_evapotranspiration", ours="et0_mm", unit="mm"),
)
_NO_DAILY_MEAN = frozenset({"surface_pressure"})
"""Means that the archive does not make; its other ones save it from sending, and us from reading, every hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variables:
    """What one request asks for, by section of the answer."""

    current: tuple[Variable, ...] = ()
    hourly: tuple[Variable, ...] = ()
    """Wanted as hourly values."""
    daily: tuple[Variable, ...] = ()
    """Made by the service from its own hours."""
    daily_means: tuple[Variable, ...] = ()
    """Hourly at the service, wanted as the mean of a day, which we make; named by what the mean is called."""

    @property
    def sections(self) -> dict[str, list[str]]:
        """Names as the service knows them, by section; no section is empty."""
        hourly = dict.fromkeys(variable.api for variable in (*self.hourly, *self.daily_means))
        found = {
            "current": [variable.api for variable in self.current],
            "hourly": list(hourly),
            "daily": [variable.api for variable in self.daily],
        }
        return {section: names for section, names in found.items() if names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Weather of some cells on some UTC days, from one model."""

    endpoint: Endpoint
    cells: tuple[Cell, ...]
    grains: frozenset[Grain]
    first_day: dt.date
    last_day: dt.date
    model: str

    def __post_init__(self) -> None:
        """Refuse what the service would refuse, or worse, answer.

        Raises:
            BadInput: no cells or too many, cells of another source, no days or grains, or more than one model.
        """
        if not 0 < len(self.cells) <= MAX_LOCATIONS:
            raise BadInput("cells", f"{len(self.cells)} in one request", allowed=f"1 to {MAX_LOCATIONS}")
        if any(cell.source is not Source.OPEN_METEO for cell in self.cells):
            raise BadInput("cells", "not all are cells of Open-Meteo")
        if self.last_day < self.first_day:
            raise BadInput("last_day", f"{self.last_day} is before {self.first_day}")
        if not self.grains or (Grain.CURRENT in self.grains and self.endpoint is not Endpoint.FORECAST):
            raise BadInput("grains", "current weather comes with a forecast only, and something must be asked for")
        if self.model == "best_match" or not re.fullmatch("[a-z0-9_]+", self.model):
            raise BadInput("model", f"{self.model!r} is not one model", allowed="one name; best_match joins several")

    @property
    def days(self) -> int:
        """How many days are asked for."""
        return (self.last_day - self.first_day).days + 1

    @property
    def variables(self) -> Variables:
        """The variables that these grains take from this endpoint and model."""
        return _variables(self.endpoint, self.grains, SOIL_LAYERS.get(self.model))

    @property
    def weight(self) -> float:
        """What the request costs, as the service counts."""
        count = sum(map(len, self.variables.sections.values()))
        return request_weight(variables=count, days=self.days, locations=len(self.cells))


def request_weight(*, variables: int, days: int, locations: int) -> float:
    """Weighted calls of one request: ten variables over two weeks at one location are one call.

    Args:
        variables: Variables in all sections, times models.
        days: Days asked for.
        locations: Locations asked for; none costs less than one call.
    """
    return max(1.0, variables / 10, variables / 10 * days / 14) * locations


def requests_for(
    cells: Iterable[Cell],
    *,
    endpoint: Endpoint,
    grains: Iterable[Grain],
    first_day: dt.date,
    last_day: dt.date,
    model: str | None = None,
    max_weight: float = MAX_WEIGHT,
    max_locations: int = MAX_LOCATIONS,
) -> list[Request]:
    """The fewest requests that ask for all cells, none heavier than allowed: too many days of one cell are split.

    Args:
        cells: Cells of Open-Meteo, each once.
        endpoint: Where to ask.
        grains: What to ask for.
        first_day: First UTC day.
        last_day: Last UTC day, included.
        model: One model; the endpoint's default if None.
        max_weight: Heaviest request.
        max_locations: Most cells of one request.

    Raises:
        BadInput: as `Request` says.
    """
    chosen = model or DEFAULT_MODELS[endpoint]
    asked = frozenset(grains)

    def request(some: tuple[Cell, ...], first: dt.date, last: dt.date) -> Request:
        return Request(endpoint=endpoint, cells=some, grains=asked, first_day=first, last_day=last, model=chosen)

    everything = tuple(cells)
    if not everything:
        return []
    spans = _spans(request(everything[:1], first_day, last_day), max_weight)
    # The first span is the longest: what fits into it fits into all.
    heaviest = request(everything[:1], *spans[0]).weight
    size = max(1, min(max_locations, MAX_LOCATIONS, int(max_weight / heaviest)))
    batches = [everything[start : start + size] for start in range(0, len(everything), size)]
    return [request(batch, *span) for batch in batches for span in spans]


def _spans(whole: Request, max_weight: float) -> list[tuple[dt.date, dt.date]]:
    """The days of a request of one cell in as few and as equal pieces as are light enough."""
    pieces = min(whole.days, math.ceil(whole.weight / max_weight))
    length = math.ceil(whole.days / pieces)
    starts = [whole.first_day + dt.timedelta(days=offset) for offset in range(0, whole.days, length)]
    return [(start, min(whole.last_day, start + dt.timedelta(days=length - 1))) for start in starts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """Where the endpoints are, each without a path, and the key if there is one."""

    forecast: str = "https://api.open-meteo.com"
    archive: str = "https://archive-api.open-meteo.com"
    historical_forecast: str = "https://historical-forecast-api.open-meteo.com"
    api_key: str | None = field(default=None, repr=False)

    @classmethod
    def of_customers(cls, api_key: str) -> Hosts:
        """The addresses for customers with a key."""
        return cls(
            forecast="https://customer-api.open-meteo.com",
            archive="https://customer-archive-api.open-meteo.com",
            historical_forecast="https://customer-historical-forecast-api.open-meteo.com",
            api_key=api_key,
        )

    def address(self, endpoint: Endpoint) -> str:
        """The full address of an endpoint."""
        match endpoint:
            case Endpoint.FORECAST:
                return f"{self.forecast.rstrip('/')}/v1/forecast"
            case Endpoint.ARCHIVE:
                return f"{self.archive.rstrip('/')}/v1/archive"
            case Endpoint.HISTORICAL_FORECAST:
                return f"{self.historical_forecast.rstrip('/')}/v1/forecast"


def ask_for(request: Request, hosts: Hosts) -> Ask:
    """The HTTP request for a request: every unit said, UTC days, one model.

    A long list of cells goes as a form, and so does a key, which would else stand in the logs of every proxy.
    """
    parameters = {
        "latitude": ",".join(str(cell.latitude) for cell in request.cells),
        "longitude": ",".join(str(cell.longitude) for cell in request.cells),
        **{section: ",".join(names) for section, names in request.variables.sections.items()},
        "models": request.model,
        "start_date": request.first_day.isoformat(),
        "end_date": request.last_day.isoformat(),
        "temperature_unit": "celsius",
        "wind_speed_unit": "ms",
        "precipitation_unit": "mm",
        "timeformat": "iso8601",
        "timezone": "GMT",
        "cell_selection": "land",
    }
    if hosts.api_key is not None:
        parameters["apikey"] = hosts.api_key
    return Ask(
        url=hosts.address(request.endpoint),
        parameters=parameters,
        is_form=hosts.api_key is not None or len(urlencode(parameters)) > LONGEST_ADDRESS,
        weight=request.weight,
    )


def _variables(endpoint: Endpoint, grains: frozenset[Grain], soil: SoilLayer | None) -> Variables:
    instant = _INSTANT if soil is None else (*_INSTANT, *_soil(soil))
    means = tuple(
        Variable(api=each.api, ours=each.ours.replace("temperature_c", "temperature_mean_c"), unit=each.unit)
        for each in instant
    )
    made_there = [mean for mean in means if endpoint is Endpoint.ARCHIVE and mean.api not in _NO_DAILY_MEAN]
    is_daily = Grain.DAILY in grains
    return Variables(
        current=_INSTANT if Grain.CURRENT in grains else (),
        hourly=(*instant, *_OVER_THE_HOUR) if Grain.HOURLY in grains else (),
        daily=(
            *_DAILY,
            *(Variable(api=f"{each.api}_mean", ours=each.ours, unit=each.unit) for each in made_there),
        )
        if is_daily
        else (),
        daily_means=tuple(mean for mean in means if mean not in made_there) if is_daily else (),
    )


def _soil(layer: SoilLayer) -> tuple[Variable, ...]:
    return (
        Variable(api=layer.temperature, ours="soil_temperature_top_c", unit="°C"),
        Variable(api=layer.moisture, ours="soil_moisture_top_m3_m3", unit="m³/m³"),
    )
