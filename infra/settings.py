"""Settings, read once from the environment, frozen, and passed down.

Every field is one environment variable with the prefix `SWATH_`. The table in the README is checked against this
module by a test, so the description of each field is what a user reads.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from models.domain import MaskPolicy
from models.errors import BadInput


def default_home() -> Path:
    """Where Swath keeps its own servers and data: `/var/lib/swath` for root, else under the user's data folder.

    PostgreSQL refuses to run as root and is then run as another user, who must be able to reach the folder; a
    root user's home usually cannot be entered by others.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/swath")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "swath"


class Settings(BaseSettings):
    """All settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix="SWATH_", frozen=True, extra="ignore", env_ignore_empty=True, allow_inf_nan=False
    )

    home: Path = Field(default_factory=default_home, description="Folder of the embedded servers and their data.")
    database_url: SecretStr | None = Field(
        default=None, description="Postgres, as `postgresql://user:password@host/name`. Unset: an embedded server."
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="Redis or Valkey, as `redis://`, `rediss://` (TLS) or `unix://`; of Sentinel as "
        "`redis+sentinel://user:password@host1:26379,host2/NAME/0`, with `rediss+` for TLS and `?sentinel_password=` "
        "where Sentinels want one. Unset: an embedded server.",
    )

    stac_url: str | None = Field(
        default=None, description="One STAC API to use instead of the default list of catalogs."
    )
    stac_collection: str = Field(
        default="sentinel-2-l2a",
        description="Collection to search at `SWATH_STAC_URL`; several, in order of preference, separated by commas.",
    )
    stac_profile: str | None = Field(
        default=None,
        description="How items at `SWATH_STAC_URL` are to be read: `earth-search-c1`, `earth-search-l2a`, "
        "`planetary-computer`, `cdse` or `generic`. Unset: told from the items themselves.",
    )
    catalogs: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("earth-search-c1", "earth-search-l2a", "planetary-computer"),
        description="Catalog profiles in order of preference, separated by commas.",
    )

    dask_address: str | None = Field(
        default=None,
        pattern=r"^(tcp|tls|ws|wss)://[^\s/]+:[0-9]+/?$",
        description="Scheduler of a Dask cluster, as `tcp://host:8786`. Unset: threads of this process.",
    )
    dask_tls_ca_file: Path | None = Field(
        default=None,
        description="Certificate of the authority that the Dask cluster trusts, PEM; with a `tls://` address.",
    )
    dask_tls_cert_file: Path | None = Field(
        default=None, description="Our certificate for the Dask cluster, signed by that authority."
    )
    dask_tls_key_file: Path | None = Field(default=None, description="Key of that certificate.")
    read_threads: int = Field(default=16, ge=1, le=256, description="Blocks read at the same time, per process.")
    scenes_at_once: int = Field(default=2, ge=1, le=64, description="Scenes observed at the same time, per flow run.")
    http_timeout_s: float = Field(
        default=30, gt=0, le=600, description="Longest wait for one answer of a catalog or file server."
    )
    http_connect_timeout_s: float = Field(default=10, gt=0, le=600, description="Longest wait for a connection.")
    http_retries: int = Field(
        default=4, ge=0, le=20, description="Further tries of one request after 429, 5xx or a broken connection."
    )
    http_retry_delay_s: float = Field(
        default=0.5, gt=0, le=60, description="Wait before the first further try; grows from there."
    )
    scene_retries: int = Field(default=3, ge=0, le=10, description="Further tries of a scene within one flow run.")
    scene_retry_delay_s: float = Field(
        default=10,
        ge=0,
        le=3600,
        description="Wait before the first further try of a scene; doubles each time, with jitter.",
    )
    scene_runs: int = Field(
        default=5,
        ge=1,
        le=100,
        description="Runs in which a scene may fail before it is given up; the next catalog that has it is then asked.",
    )
    scene_rest_s: float = Field(
        default=3600,
        ge=0,
        le=604_800,
        description="Wait before a later run tries a failed scene again; triples each time, up to three days.",
    )
    gap_days: int = Field(
        default=10, ge=1, le=60, description="Days for which a pass that no catalog has is asked for again."
    )
    gap_alert_days: int = Field(
        default=3, ge=1, le=60, description="Days after which a pass that no catalog has is told of as missing."
    )

    clear_classes: Annotated[frozenset[int], NoDecode] = Field(
        default=frozenset({4, 5, 6, 7, 11}), description="Scene classes (SCL) whose pixels count, separated by commas."
    )
    cloud_dilation_m: float = Field(
        default=0,
        ge=0,
        le=1000,
        description="Pixels nearer than this to cloud or shadow (classes 3, 8, 9, 10) do not count.",
    )
    inner_margin_m: float = Field(
        default=0, ge=0, le=1000, description="How far inside the boundary a pixel must lie to be an inner pixel."
    )
    min_inner_pixels: int = Field(
        default=9, ge=1, description="Clear inner pixels needed for the headline `ndvi` to be the inner mean."
    )

    min_farm_area_ha: float = Field(default=0.001, ge=0, description="Smallest farm that an import accepts, hectares.")
    max_farm_area_ha: float = Field(default=100_000, gt=0, description="Largest farm that an import accepts, hectares.")

    open_meteo_url: str = Field(
        default="https://api.open-meteo.com",
        pattern="^https?://",
        description="Open-Meteo's forecasts: the public service, or an instance of your own.",
    )
    open_meteo_archive_url: str = Field(
        default="https://archive-api.open-meteo.com",
        pattern="^https?://",
        description="Open-Meteo's reanalysis.",
    )
    open_meteo_historical_forecast_url: str = Field(
        default="https://historical-forecast-api.open-meteo.com",
        pattern="^https?://",
        description="Open-Meteo's past forecasts.",
    )
    open_meteo_key: SecretStr | None = Field(
        default=None,
        description="Key of an Open-Meteo customer; of the three addresses those left at their defaults become the "
        "customers' ones.",
    )
    open_meteo_forecast_model: str = Field(
        default="ecmwf_ifs025",
        pattern="^[a-z0-9_]+$",
        description="The one model that forecasts are taken from.",
    )
    open_meteo_archive_model: str = Field(
        default="era5_seamless",
        pattern="^[a-z0-9_]+$",
        description="The one model that the past is taken from.",
    )
    open_meteo_cell_degrees: float = Field(
        default=0.1,
        ge=0.01,
        le=5,
        description="Side of the cells in which Open-Meteo is asked, degrees; must divide 90.",
    )
    open_meteo_calls_per_minute: float = Field(
        default=600, ge=10, description="Weighted calls that Open-Meteo allows in a minute."
    )
    open_meteo_calls_per_hour: float = Field(
        default=5_000, ge=10, description="Weighted calls that Open-Meteo allows in an hour."
    )
    open_meteo_calls_per_day: float = Field(
        default=10_000, ge=10, description="Weighted calls that Open-Meteo allows in a day."
    )
    nasa_power_url: str = Field(
        default="https://power.larc.nasa.gov",
        pattern="^https?://",
        description="NASA POWER.",
    )
    nasa_power_at_once: int = Field(
        default=2, ge=1, le=5, description="Requests to NASA POWER at the same time, per process."
    )
    weather_lookback_days: int = Field(
        default=14, ge=0, le=366, description="How far back the daily weather run fills days that are missing."
    )
    forecast_max_age_h: float = Field(
        default=6,
        gt=0,
        le=48,
        description="Hours after which a stored forecast is asked for again; models run every 6.",
    )

    time_zone: str = Field(
        default="UTC",
        description="Time zone of the schedules in `prefect.yaml`, such as `Europe/Berlin`.",
    )
    alert_url: SecretStr | None = Field(
        default=None,
        description="Webhook told of flow runs that failed, crashed or are late, and of missing passes. Unset: nobody.",
    )
    keep_runs_days: int = Field(
        default=30, ge=1, le=3650, description="Flow runs that ended longer ago are deleted from Prefect."
    )
    keep_forecasts_days: int = Field(
        default=30,
        ge=1,
        le=3650,
        description="Forecasts for times longer ago are deleted where the same cell has something better by now.",
    )

    secret_key: SecretStr | None = Field(
        default=None,
        description="Master secret of at least 32 characters, from which signing keys and tokens are derived; several, "
        "newest first, separated by commas. Unset: made once and kept in `SWATH_HOME`.",
    )
    jwt_keys_file: Path | None = Field(
        default=None,
        description="JWK set with the keys of foreign tokens (HS256, RS256, ES256, EdDSA), told apart by `kid`; read "
        "again when it changes. Unset: only Swath's own tokens count.",
    )
    jwt_issuer: str | None = Field(
        default=None, description="`iss` of foreign tokens; needed with `SWATH_JWT_KEYS_FILE`."
    )
    jwt_audience: str = Field(default="swath", min_length=1, description="`aud` that tokens must have.")
    token_ttl_s: int = Field(
        default=3600, ge=60, le=86_400, description="How long a shared integration token is good, seconds."
    )
    token_margin_s: int = Field(
        default=300, ge=10, le=43_200, description="How long before its end a shared token is renewed, seconds."
    )
    limit_api_key_per_minute: int = Field(
        default=6_000, ge=1, le=10_000_000, description="Requests that one API key may make in a minute."
    )
    limit_jwt_per_minute: int = Field(
        default=6_000, ge=1, le=10_000_000, description="Requests that the tokens of one client may make in a minute."
    )
    limit_nextcloud_hmac_per_minute: int = Field(
        default=60, ge=1, le=10_000_000, description="Signed requests that one address may make in a minute."
    )
    limit_anonymous_per_minute: int = Field(
        default=120,
        ge=1,
        le=10_000_000,
        description="Requests without credentials that one address may make in a minute.",
    )

    serve_host: str = Field(default="127.0.0.1", description="Address on which `swath serve` listens.")
    serve_port: int = Field(default=8080, ge=0, le=65535, description="Port of the API; 0 takes a free one.")
    serve_workers: int = Field(default=1, ge=1, le=256, description="Processes that serve the API.")
    serve_connections: int = Field(
        default=8, ge=1, le=200, description="Most connections to Postgres of one worker of the API."
    )
    serve_trusted_proxies: str = Field(
        default="127.0.0.1",
        description="Addresses of proxies whose `X-Forwarded-For` and `-Proto` are believed, separated by commas.",
    )
    metrics: Literal["listener", "app", "off"] = Field(
        default="listener",
        description="Where `/metrics` is told: `listener`, on a port of its own; `app`, beside the API, which needs "
        "`SWATH_METRICS_TOKEN`; or `off`.",
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address of the metrics listener.")
    metrics_port: int = Field(
        default=9464,
        ge=0,
        le=65535,
        description="Port of the metrics listener; 0, or where it is left at its default and somebody has it, takes a "
        "free one.",
    )
    metrics_token: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="What Prometheus must present as `Authorization: Bearer`. Unset: nothing.",
    )
    cors_origins: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        default=None, description="Origins whose web pages may call the API, separated by commas. Unset: none."
    )

    log_level: str = Field(
        default="INFO",
        pattern="^(DEBUG|INFO|WARNING|ERROR)$",
        description="`DEBUG`, `INFO`, `WARNING` or `ERROR`; unset, the command line logs from `WARNING` on.",
    )
    log_json: bool = Field(default=False, description="Write log events as JSON lines.")

    @field_validator("catalogs", "cors_origins", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("clear_classes", mode="before")
    @classmethod
    def _split_classes(cls, value: object) -> object:
        return frozenset(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("clear_classes")
    @classmethod
    def _known_classes(cls, value: frozenset[int]) -> frozenset[int]:
        if not value or not value <= frozenset(range(1, 12)):
            raise ValueError("scene classes are whole numbers from 1 to 11 (0 is no data)")
        return value

    @field_validator("time_zone")
    @classmethod
    def _known_time_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"{value!r} is not a time zone such as Europe/Berlin")
        return value

    @field_validator("alert_url")
    @classmethod
    def _is_web_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value

    @model_validator(mode="after")
    def _areas_in_order(self) -> Settings:
        if self.min_farm_area_ha > self.max_farm_area_ha:
            raise ValueError("SWATH_MIN_FARM_AREA_HA must not be above SWATH_MAX_FARM_AREA_HA")
        return self

    @model_validator(mode="after")
    def _dask_tls_is_whole(self) -> Settings:
        files = (self.dask_tls_ca_file, self.dask_tls_cert_file, self.dask_tls_key_file)
        is_tls = (self.dask_address or "").startswith("tls://")
        if any(files) and not all(files):
            raise ValueError("SWATH_DASK_TLS_CA_FILE, _CERT_FILE and _KEY_FILE are needed together")
        if is_tls != all(files):
            raise ValueError("a SWATH_DASK_ADDRESS with tls:// and SWATH_DASK_TLS_CA_FILE are needed together")
        return self

    @model_validator(mode="after")
    def _tokens_in_order(self) -> Settings:
        if 2 * self.token_margin_s > self.token_ttl_s:
            raise ValueError("SWATH_TOKEN_MARGIN_S must be at most half of SWATH_TOKEN_TTL_S")
        if self.jwt_keys_file is not None and self.jwt_issuer is None:
            raise ValueError("SWATH_JWT_ISSUER is needed with SWATH_JWT_KEYS_FILE")
        return self

    @model_validator(mode="after")
    def _metrics_are_not_for_everybody(self) -> Settings:
        if self.metrics == "app" and self.metrics_token is None:
            raise ValueError(
                "SWATH_METRICS_TOKEN is needed with SWATH_METRICS=app: else all who reach the API read them"
            )
        return self

    @property
    def mask_policy(self) -> MaskPolicy:
        """The mask policy that these settings describe."""
        return MaskPolicy(clear_classes=self.clear_classes, dilation_m=self.cloud_dilation_m)


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        BadInput: naming the variable, what is wrong with it and what is allowed. Secret values are not repeated.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        if not first["loc"]:  # said of several, which the message names
            raise BadInput("SWATH_*", first["msg"].removeprefix("Value error, ")) from None
        field = str(first["loc"][0])
        is_odd_text = first["type"] == "string_pattern_mismatch"
        problem = "is not as it should be" if is_odd_text else first["msg"].removeprefix("Value error, ")
        raise BadInput(f"SWATH_{field}".upper(), problem, allowed=_allowed(Settings.model_fields[field])) from None


_IN_WORDS = {
    "^https?://": "an address that begins with http:// or https://",
    "^[a-z0-9_]+$": "small letters, digits and underscores",
    "^(DEBUG|INFO|WARNING|ERROR)$": "DEBUG, INFO, WARNING, ERROR",
    r"^(tcp|tls|ws|wss)://[^\s/]+:[0-9]+/?$": "tcp://host:8786 or tls://host:8786",
}
"""What the patterns of settings allow."""


def _allowed(field: FieldInfo) -> str | None:
    """What a setting may be, as far as its type and bounds tell; None where only its validator knows."""
    told: dict[str, Any] = {}
    for each in field.metadata:
        told |= {
            name: value
            for name in ("gt", "ge", "lt", "le", "pattern")
            if (value := getattr(each, name, None)) is not None
        }
    if "pattern" in told:
        return _IN_WORDS.get(told["pattern"])
    if field.annotation is bool:
        return "true or false"
    if field.annotation not in (int, float):
        return None
    bounds = [f"above {told['gt']:,}"] if "gt" in told else [f"from {told['ge']:,}"] if "ge" in told else []
    bounds += [f"up to {told['le']:,}"] if "le" in told else []
    return " ".join(["a whole number" if field.annotation is int else "a number", *bounds])
