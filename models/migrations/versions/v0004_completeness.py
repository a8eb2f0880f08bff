"""Which passes are missing, which scenes were given up, who is at work, and when each catalog answered last."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

_STEPS = [
    """
    ALTER TABLE scenes
        ADD COLUMN relative_orbit integer,
        ADD COLUMN given_up_at timestamptz
    """,
    """
    ALTER TABLE work
        ADD COLUMN run_id uuid,
        ADD COLUMN inputs text,
        ADD COLUMN failed_runs integer NOT NULL DEFAULT 0,
        ADD COLUMN not_before timestamptz,
        ADD COLUMN given_up_at timestamptz
    """,
    "CREATE INDEX ix_work_unfinished ON work (acquired_at) WHERE state <> 'done'",
    """
    CREATE TABLE runs (
        id uuid NOT NULL,
        kind text NOT NULL,
        flow_run_id uuid,
        host text NOT NULL,
        pid integer NOT NULL,
        process text NOT NULL,
        started_at timestamptz NOT NULL DEFAULT now(),
        beat_at timestamptz NOT NULL DEFAULT now(),
        ended_at timestamptz,
        outcome text,
        CONSTRAINT pk_runs PRIMARY KEY (id),
        CONSTRAINT ck_runs_known_outcome CHECK (outcome IN ('ended', 'broken', 'died')),
        CONSTRAINT ck_runs_ended_has_outcome CHECK ((ended_at IS NULL) = (outcome IS NULL))
    )
    """,
    "CREATE INDEX ix_runs_started_at ON runs (started_at)",
    """
    CREATE TABLE gaps (
        tile text NOT NULL,
        platform text NOT NULL,
        relative_orbit integer NOT NULL,
        day date NOT NULL,
        expected_at timestamptz NOT NULL,
        like_pass text NOT NULL,
        farms integer NOT NULL,
        noted_at timestamptz NOT NULL DEFAULT now(),
        asked_at timestamptz NOT NULL DEFAULT now(),
        alerted_at timestamptz,
        filled_at timestamptz,
        CONSTRAINT pk_gaps PRIMARY KEY (tile, platform, relative_orbit, day)
    )
    """,
    "CREATE INDEX ix_gaps_day ON gaps (day)",
    """
    CREATE TABLE catalog_searches (
        catalog text NOT NULL,
        asked_at timestamptz NOT NULL,
        answered_at timestamptz,
        first_day date,
        last_day date,
        scenes integer,
        problem text,
        CONSTRAINT pk_catalog_searches PRIMARY KEY (catalog)
    )
    """,
]


def upgrade() -> None:
    """Add what completeness, retries and the reconciler need."""
    for step in _STEPS:
        op.execute(step)
