"""Which farms somebody asked to see at once: one refresh of a farm in flight, however many ask."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the table of refreshes."""
    op.execute(
        """
        CREATE TABLE farm_refreshes (
            farm_id bigint NOT NULL,
            token uuid NOT NULL,
            run_id uuid,
            asked_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT pk_farm_refreshes PRIMARY KEY (farm_id),
            CONSTRAINT fk_farm_refreshes_farm_id FOREIGN KEY (farm_id) REFERENCES farms (id) ON DELETE CASCADE
        )
        """
    )
