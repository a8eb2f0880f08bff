"""Tables of the truth. Used inside `models` and by the migrations only; everybody else calls the query modules."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Sequence,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REAL, UUID

from models.weather import DAILY_VARIABLES, HOURLY_VARIABLES

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

revision_seq = Sequence("revision_seq", metadata=metadata)
"""One counter for everything that readers follow: drives ETag, the changes feed and webhooks."""

farms = Table(
    "farms",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("external_farm_id", UUID(as_uuid=True), nullable=False, unique=True),
    Column("external_user_id", Text),
    Column("name", Text, nullable=False),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("boundary_version", Integer, nullable=False),
    Column("west", Double, nullable=False),
    Column("south", Double, nullable=False),
    Column("east", Double, nullable=False),
    Column("north", Double, nullable=False),
    Column("area_ha", Double, nullable=False),
    Column("revision", BigInteger, nullable=False, server_default=revision_seq.next_value()),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("client_id", BigInteger, ForeignKey("clients.id")),
    CheckConstraint("south <= north", name="south_below_north"),
    CheckConstraint("area_ha > 0", name="has_area"),
    Index(None, "client_id", "id"),
    Index(None, "revision"),
)
"""`client_id` is the client of the API that the farm belongs to; NULL: the operator's own."""

farm_boundaries = Table(
    "farm_boundaries",
    metadata,
    Column("farm_id", BigInteger, ForeignKey("farms.id", ondelete="CASCADE"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("wkb", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("farm_id", "version"),
)

scenes = Table(
    "scenes",
    metadata,
    Column("catalog", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("collection", Text, nullable=False),
    Column("skipped_reason", Text),
    Column("tile", Text),
    Column("pass_id", Text),
    Column("acquired_at", DateTime(timezone=True)),
    Column("day", Date),
    Column("document", JSONB(none_as_null=True)),
    Column("first_seen_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("relative_orbit", Integer),
    Column("given_up_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("catalog", "item_id"),
    CheckConstraint("(document IS NULL) = (skipped_reason IS NOT NULL)", name="usable_or_skipped"),
    Index(None, "day"),
    Index(None, "pass_id"),
)

work = Table(
    "work",
    metadata,
    Column("pass_id", Text, nullable=False),
    Column("tile_set", Text, nullable=False),
    Column("index", Text, nullable=False),
    Column("mask_policy", Text, nullable=False),
    Column("day", Date, nullable=False),
    Column("acquired_at", DateTime(timezone=True), nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("observed", Integer, nullable=False, server_default=text("0")),
    Column("not_observed", JSONB, nullable=False, server_default=text("'{}'")),
    Column("pending_farm_ids", ARRAY(BigInteger), nullable=False, server_default=text("'{}'")),
    Column("problem", Text),
    Column("is_retryable", Boolean),
    Column("planned_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("finished_at", DateTime(timezone=True)),
    Column("run_id", UUID(as_uuid=True)),
    Column("inputs", Text),
    Column("failed_runs", Integer, nullable=False, server_default=text("0")),
    Column("not_before", DateTime(timezone=True)),
    Column("given_up_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("pass_id", "tile_set", "index", "mask_policy"),
    CheckConstraint("state IN ('planned', 'done', 'failed')", name="known_state"),
    Index(None, "day"),
    Index("ix_work_unfinished", "acquired_at", postgresql_where=text("state <> 'done'")),
)
"""`run_id`: who planned it last. `inputs`: from what the runs failed that `failed_runs` counts, one after the other."""

runs = Table(
    "runs",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("flow_run_id", UUID(as_uuid=True)),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process", Text, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("beat_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("ended_at", DateTime(timezone=True)),
    Column("outcome", Text),
    CheckConstraint("outcome IN ('ended', 'broken', 'died')", name="known_outcome"),
    CheckConstraint("(ended_at IS NULL) = (outcome IS NULL)", name="ended_has_outcome"),
    Index(None, "started_at"),
)
"""Who is at work: a living run holds an advisory lock made from its id. `process` tells a pid used again."""

gaps = Table(
    "gaps",
    metadata,
    Column("tile", Text, nullable=False),
    Column("platform", Text, nullable=False),
    Column("relative_orbit", Integer, nullable=False),
    Column("day", Date, nullable=False),
    Column("expected_at", DateTime(timezone=True), nullable=False),
    Column("like_pass", Text, nullable=False),
    Column("farms", Integer, nullable=False),
    Column("noted_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("asked_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("alerted_at", DateTime(timezone=True)),
    Column("filled_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("tile", "platform", "relative_orbit", "day"),
    Index(None, "day"),
)
"""Passes that were expected and are in no catalog. `relative_orbit` is 0 where it is not told; `like_pass` is the pass
of the same orbit by which this one was expected."""

catalog_searches = Table(
    "catalog_searches",
    metadata,
    Column("catalog", Text, primary_key=True),
    Column("asked_at", DateTime(timezone=True), nullable=False),
    Column("answered_at", DateTime(timezone=True)),
    Column("first_day", Date),
    Column("last_day", Date),
    Column("scenes", Integer),
    Column("problem", Text),
)
"""When each catalog was asked last and when it answered; days and scenes are those of its last answer."""

observations = Table(
    "observations",
    metadata,
    Column("farm_id", BigInteger, ForeignKey("farms.id", ondelete="CASCADE"), nullable=False),
    Column("boundary_version", Integer, nullable=False),
    Column("acquired_at", DateTime(timezone=True), nullable=False),
    Column("index", Text, nullable=False),
    Column("mask_policy", Text, nullable=False),
    Column("pass_id", Text, nullable=False),
    Column("day", Date, nullable=False),
    Column("status", Text, nullable=False),
    Column("ndvi", Double),
    Column("rule", Text),
    Column("clear_fraction", Double, nullable=False),
    Column("mean", Double),
    Column("std", Double),
    Column("min", Double),
    Column("max", Double),
    Column("median", Double),
    Column("p10", Double),
    Column("p25", Double),
    Column("p75", Double),
    Column("p90", Double),
    Column("histogram", ARRAY(REAL)),
    Column("inner_mean", Double),
    Column("inner_median", Double),
    Column("inner_pixel_count", Integer),
    Column("pixel_count", Integer),
    Column("clear_area_ha", Double),
    Column("clipped_count", Integer),
    Column("class_counts", ARRAY(Integer), nullable=False),
    Column("item_ids", ARRAY(Text), nullable=False),
    Column("processing_baseline", Text),
    Column("catalog", Text, nullable=False),
    Column("rescale_rule", Text, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("software_version", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("revision", BigInteger, nullable=False, server_default=revision_seq.next_value()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("farm_id", "boundary_version", "acquired_at", "index", "mask_policy"),
    CheckConstraint("status IN ('observed', 'cloud', 'outside', 'nodata')", name="known_status"),
    CheckConstraint("(status = 'observed') = (ndvi IS NOT NULL)", name="observed_has_ndvi"),
    CheckConstraint("ndvi BETWEEN -1 AND 1", name="ndvi_in_range"),
    CheckConstraint("clear_fraction BETWEEN 0 AND 1", name="clear_fraction_in_range"),
    Index(None, "pass_id"),
    Index(None, "day"),
    Index(None, "revision"),
    Index(None, "farm_id", "revision"),
    postgresql_partition_by="RANGE (acquired_at)",
)

weather_cells = Table(
    "weather_cells",
    metadata,
    Column("id", Integer, Identity(), primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    Column("source", Text, nullable=False),
    Column("latitude", Double, nullable=False),
    Column("longitude", Double, nullable=False),
    CheckConstraint("latitude BETWEEN -90 AND 90", name="latitude_in_range"),
    CheckConstraint("longitude >= -180 AND longitude < 180", name="longitude_in_range"),
)

farm_cells = Table(
    "farm_cells",
    metadata,
    Column("farm_id", BigInteger, ForeignKey("farms.id", ondelete="CASCADE"), nullable=False),
    Column("source", Text, nullable=False),
    Column("boundary_version", Integer, nullable=False),
    Column("cell_id", Integer, ForeignKey("weather_cells.id"), nullable=False),
    Column("revision", BigInteger, nullable=False, server_default=revision_seq.next_value()),
    PrimaryKeyConstraint("farm_id", "source"),
    Index(None, "cell_id"),
    Index(None, "revision"),
)


def _told(variables: tuple[str, ...]) -> list[Column[Any]]:
    """Columns of what a source told.

    Single precision: sources tell at most seven significant digits, two decimals, and rows are half as large. No
    foreign key leads to the cells, which are never deleted: ten years of a thousand cells are millions of rows.
    """
    return [
        Column("is_final", Boolean, nullable=False),
        Column("told_at", DateTime(timezone=True), nullable=False),
        *(Column(name, REAL) for name in variables),
        Column("soil_layer", Text),
        Column("kept", JSONB(none_as_null=True)),
        Column("revision", BigInteger, nullable=False, server_default=revision_seq.next_value()),
        Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    ]


weather_daily = Table(
    "weather_daily",
    metadata,
    Column("cell_id", Integer, nullable=False),
    Column("day", Date, nullable=False),
    Column("model", Text, nullable=False),
    Column("kind", Text, nullable=False),
    *_told(DAILY_VARIABLES),
    PrimaryKeyConstraint("cell_id", "day", "model", "kind"),
    CheckConstraint("kind IN ('observed', 'reanalysis', 'forecast')", name="known_kind"),
    Index(None, "revision"),
    postgresql_partition_by="RANGE (day)",
)
"""`told_at` of a forecast is its issue time. `kept`: which values are of an earlier telling, and of which."""

weather_hourly = Table(
    "weather_hourly",
    metadata,
    Column("cell_id", Integer, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("model", Text, nullable=False),
    Column("kind", Text, nullable=False),
    *_told(HOURLY_VARIABLES),
    PrimaryKeyConstraint("cell_id", "at", "model", "kind"),
    CheckConstraint("kind IN ('observed', 'reanalysis', 'forecast')", name="known_kind"),
    postgresql_partition_by="RANGE (at)",
)

weather_quota = Table(
    "weather_quota",
    metadata,
    Column("service", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("span", Text, nullable=False),
    Column("starts_at", DateTime(timezone=True), nullable=False),
    Column("live", Double, nullable=False),
    Column("backfill", Double, nullable=False),
    PrimaryKeyConstraint("service", "account", "span", "starts_at"),
    CheckConstraint("span IN ('minute', 'hour', 'day')", name="known_span"),
)

clients = Table(
    "clients",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("token_generation", Integer, nullable=False, server_default=text("1")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("revoked_at", DateTime(timezone=True)),
    CheckConstraint("scopes <@ ARRAY['read', 'farms:write', 'admin']", name="known_scopes"),
)
"""A shared token of an earlier `token_generation` is no longer taken."""

client_keys = Table(
    "client_keys",
    metadata,
    Column("prefix", Text, primary_key=True),
    Column("client_id", BigInteger, ForeignKey("clients.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("digest", LargeBinary),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    CheckConstraint("kind IN ('api', 'hmac')", name="known_kind"),
    CheckConstraint("(kind = 'api') = (digest IS NOT NULL)", name="digest_of_api_keys_only"),
    Index(None, "client_id"),
)
"""`digest` is SHA-256 of a whole API key. The secret of an `hmac` key is derived from the master key, not stored."""

integration_tokens = Table(
    "integration_tokens",
    metadata,
    Column("client_id", BigInteger, ForeignKey("clients.id"), primary_key=True, autoincrement=False),
    Column("token_id", UUID(as_uuid=True), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("signed_by", Text, nullable=False),
    Column("issued_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
)
"""What the one shared token of a client says; the token itself is these facts signed again, so it is not stored."""

used_nonces = Table(
    "used_nonces",
    metadata,
    Column("prefix", Text, nullable=False),
    Column("nonce", Text, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("prefix", "nonce"),
    Index(None, "expires_at"),
)

farm_refreshes = Table(
    "farm_refreshes",
    metadata,
    Column("farm_id", BigInteger, ForeignKey("farms.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("token", UUID(as_uuid=True), nullable=False),
    Column("run_id", UUID(as_uuid=True)),
    Column("asked_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
"""The last refresh of a farm that was asked for; `run_id` is NULL while Prefect is being asked."""
