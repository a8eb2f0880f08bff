"""What Alembic runs: the missing steps, on the connection and in the transaction that `models.schema` opened."""

from __future__ import annotations

from alembic import context

from models.schema import VERSION_TABLE
from models.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()
