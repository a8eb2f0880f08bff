"""The database brought to the shape that this code expects, and partitions made when they are needed.

Started by every process that opens the stores, so what is already right costs one query.
"""

from __future__ import annotations

import datetime as dt
import threading

from sqlalchemy import Connection, Engine, NullPool, create_engine, func, make_url, select, text
from sqlalchemy.exc import ArgumentError, OperationalError, ProgrammingError

from models.errors import BadInput, ServerTrouble
from models.revision import lock_revisions

HEAD = "0006"
"""Newest step in `models/migrations`; a test keeps it true. Named here so that being up to date needs no Alembic."""

VERSION_TABLE = "swath_schema_version"
"""Where the database says which step it is at. Not Alembic's own name: Prefect may live in the same database."""

SCHEMA_LOCK = 0x5357_4154_4802
"""Key of the Postgres advisory lock held while the schema changes ("SWATH", 2). Never reuse it."""

_one_at_a_time = threading.Lock()
"""Alembic keeps what it is working on in module globals."""


def upgrade(database_url: str) -> None:
    """Bring the database at this address to the newest schema, whatever driver the address names.

    All steps land or none. Several processes may call this at once: one works, the others wait for it.

    Raises:
        BadInput: the address is not one of Postgres.
        ServerTrouble: the database cannot be reached or used, or a newer Swath has already changed it.
    """
    engine = _engine(database_url)
    try:
        if _current(engine) != HEAD:
            _take_missing_steps(engine)
    except OperationalError as error:
        raise ServerTrouble(f"the database does not answer: {_in_a_line(error.orig)}") from error
    except ProgrammingError as error:
        raise ServerTrouble(f"the database cannot be brought up to date: {_in_a_line(error.orig)}") from error
    finally:
        engine.dispose()


def _in_a_line(error: BaseException | None) -> str:
    return " ".join(str(error).split())


def _engine(database_url: str) -> Engine:
    try:
        address = make_url(database_url)
    except ArgumentError as error:
        raise BadInput("database_url", "not a database address", allowed="postgresql://…") from error
    if not address.drivername.startswith("postgres"):
        raise BadInput("database_url", f"is for {address.drivername}", allowed="postgresql://…")
    return create_engine(address.set(drivername="postgresql+psycopg"), poolclass=NullPool)


def _current(engine: Engine) -> str | None:
    with engine.connect() as connection:
        try:
            return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) == "42P01":  # no such table: an empty database
                return None
            raise


def _take_missing_steps(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", "models:migrations")
    with _one_at_a_time, engine.begin() as connection:
        connection.execute(select(func.pg_advisory_xact_lock(SCHEMA_LOCK)))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise ServerTrouble(
                f"the database is at a schema version that this Swath does not know ({error}); "
                "a newer Swath has used it: install that version or a later one"
            ) from error


FIRST_YEARS = {"observations": 1972, "weather_daily": 1940, "weather_hourly": 1940}
"""Tables partitioned by year, and the first year that may be in them: of Landsat, and of the ERA5 reanalysis."""


def ensure_partitions(connection: Connection, first: dt.date, last: dt.date, *, table: str = "observations") -> None:
    """Make the yearly partitions of a table for rows from `first` to `last`, UTC days, both included.

    Costs one small query when they are there. Otherwise it waits for writers of whatever carries a revision, and
    they for it, until the caller's transaction ends; readers are never kept waiting.

    Raises:
        ValueError: `last` is before `first`, the years are out of reason, or the table has no partitions.
    """
    if table not in FIRST_YEARS:
        raise ValueError(f"{table} has no partitions")
    years = _years(first, last, earliest=FIRST_YEARS[table])
    if not _missing(connection, table, years):
        return
    # A foreign key makes a new partition of observations lock `farms`, whose writers hold this lock first: the same
    # order for all.
    lock_revisions(connection)
    for year in _missing(connection, table, years):
        name = f"{table}_{year}"
        # CREATE ... PARTITION OF would stop all readers; attaching stops none. No default partition, either: every
        # later attach would have to search it.
        connection.execute(text(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)"))
        connection.execute(
            text(
                f"ALTER TABLE {table} ATTACH PARTITION {name} "
                f"FOR VALUES FROM ('{year}-01-01 00:00:00+00') TO ('{year + 1}-01-01 00:00:00+00')"
            )
        )


def _years(first: dt.date, last: dt.date, *, earliest: int) -> list[int]:
    years = list(range(first.year, last.year + 1))
    if last < first or years[0] < earliest or years[-1] > 2100:
        raise ValueError(f"no partitions for {first} to {last}: days in order from {earliest} to 2100 are expected")
    return years


def _missing(connection: Connection, table: str, years: list[int]) -> list[int]:
    # Not `to_regclass`: it may answer from a cache that does not yet know what was committed while we waited.
    found = connection.execute(
        text(
            "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = CAST(:table AS regclass)"
        ),
        {"table": table},
    )
    there = set(found.scalars())
    return [year for year in years if f"{table}_{year}" not in there]
