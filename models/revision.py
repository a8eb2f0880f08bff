"""The one order in which readers see changes.

Every row that readers follow carries a revision from one counter. A sequence alone is not enough: a transaction that
took number 7 may commit after one that took 8, and a reader that has seen 8 would never come back for 7. So writers
take a lock that lasts until their transaction ends, and only then draw numbers: revisions become visible in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # serving writes farms without loading SQLAlchemy
    from sqlalchemy import Connection

REVISION_LOCK = 0x5357_4154_4801
"""Key of the Postgres advisory lock that orders revisions ("SWATH", 1). Never reuse it for anything else."""

TAKE_LOCK = f"SELECT pg_advisory_xact_lock({REVISION_LOCK})"
"""What `lock_revisions` asks Postgres, for those who speak to it without SQLAlchemy."""


def lock_revisions(connection: Connection) -> None:
    """Wait until this transaction may draw revisions; held until it ends.

    Call it before the first `nextval('revision_seq')`, column defaults included, and as late as possible: writers
    wait for each other from here on.
    """
    connection.exec_driver_sql(TAKE_LOCK)
