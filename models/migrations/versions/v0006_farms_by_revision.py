"""Farms by revision: who follows the changes asks for the last few of them, again and again."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the index."""
    op.execute("CREATE INDEX ix_farms_revision ON farms (revision)")
