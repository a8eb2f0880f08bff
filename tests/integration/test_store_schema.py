from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, make_url, text

from infra.local.postgres import PostgresServer
from models.errors import BadInput, ServerTrouble
from models.schema import HEAD, SCHEMA_LOCK, VERSION_TABLE, ensure_partitions, upgrade
from models.tables import metadata
from tests.support.databases import fresh_database

# Everything that Postgres knows of the shape of our tables, as it would write it itself.
SHAPE = """
SELECT 'column', table_name::text || '.' || column_name, concat_ws(' ', ordinal_position, data_type, udt_name,
       is_nullable, column_default, is_identity, identity_generation)
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'partitions', partrelid::regclass::text, pg_get_partkeydef(partrelid) FROM pg_partitioned_table
UNION ALL SELECT 'sequence', sequencename, concat_ws(' ', data_type, start_value, increment_by, cycle) FROM pg_sequences
ORDER BY 1, 2
"""


@pytest.fixture
def empty_url(postgres_server: PostgresServer) -> Iterator[str]:
    with fresh_database(postgres_server, template="template1") as url:
        yield url


def engine_for(url: str) -> Engine:
    return create_engine(make_url(url).set(drivername="postgresql+psycopg"))


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    yield made
    made.dispose()


def shape(connection: Connection) -> list[tuple[str, ...]]:
    rows = connection.execute(text(SHAPE))
    return [tuple(row) for row in rows if VERSION_TABLE not in row[1]]


class TestUpgrade:
    def test_the_migrations_make_exactly_the_tables_that_the_code_knows(
        self, database_url: str, empty_url: str
    ) -> None:
        migrated, declared = engine_for(database_url), engine_for(empty_url)
        with migrated.connect() as one, declared.begin() as other:
            metadata.create_all(other)
            assert shape(one) == shape(other)
            context = MigrationContext.configure(
                one, opts={"version_table": VERSION_TABLE, "compare_server_default": True}
            )
            assert compare_metadata(context, metadata) == []
        migrated.dispose()
        declared.dispose()

    def test_the_newest_step_is_the_one_named(self) -> None:
        config = Config()
        config.set_main_option("script_location", "models:migrations")
        assert ScriptDirectory.from_config(config).get_current_head() == HEAD

    @pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg", "postgresql+asyncpg", "postgres"])
    def test_any_driver_name_will_do(self, empty_url: str, driver: str) -> None:
        upgrade(make_url(empty_url).set(drivername=driver).render_as_string(hide_password=False))

    def test_once_up_to_date_it_takes_milliseconds(self, database_url: str) -> None:
        upgrade(database_url)
        started = time.perf_counter()
        upgrade(database_url)
        assert time.perf_counter() - started < 0.2

    def test_several_at_once_do_it_once(self, empty_url: str) -> None:
        problems: list[Exception] = []

        def run() -> None:
            try:
                upgrade(empty_url)
            except Exception as error:
                problems.append(error)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert problems == []

    def test_a_process_waits_for_the_one_that_is_at_work(self, empty_url: str) -> None:
        """The lock is in the database, so it holds between processes as well."""
        engine = engine_for(empty_url)
        with engine.begin() as other:
            other.execute(text(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})"))
            thread = threading.Thread(target=upgrade, args=(empty_url,))
            thread.start()
            thread.join(0.7)
            assert thread.is_alive()
        thread.join(30)
        with engine.connect() as connection:
            assert connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars().all() == [HEAD]
        engine.dispose()

    def test_a_database_of_a_newer_swath_is_refused(self, engine: Engine, database_url: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
        with pytest.raises(ServerTrouble, match=r"9999.*newer Swath"):
            upgrade(database_url)

    def test_a_database_that_does_not_answer_is_trouble_of_a_server(self) -> None:
        with pytest.raises(ServerTrouble, match="does not answer"):
            upgrade("postgresql://nobody:secret@127.0.0.1:1/none")

    @pytest.mark.parametrize("url", ["", "mysql://127.0.0.1/a", "not an address"])
    def test_what_is_no_postgres_is_bad_input(self, url: str) -> None:
        with pytest.raises(BadInput, match="database_url"):
            upgrade(url)


class TestPartitions:
    def names(self, engine: Engine) -> list[str]:
        query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'observations'::regclass ORDER BY 1"
        with engine.connect() as connection:
            return list(connection.execute(text(query)).scalars())

    def test_those_of_every_year_touched_are_made_and_only_once(self, engine: Engine) -> None:
        for _ in range(2):
            with engine.begin() as connection:
                ensure_partitions(connection, dt.date(2023, 12, 31), dt.date(2025, 1, 1))
        assert self.names(engine) == ["observations_2023", "observations_2024", "observations_2025"]

    def test_a_partition_has_every_constraint_and_index_of_its_parent(self, engine: Engine) -> None:
        with engine.begin() as connection:
            ensure_partitions(connection, dt.date(2024, 1, 1), dt.date(2024, 1, 1))
            for query in (
                "SELECT count(*) FROM pg_constraint WHERE contype <> 'n' AND conrelid = '{}'::regclass",
                "SELECT count(*) FROM pg_index WHERE indrelid = '{}'::regclass",
            ):
                of_parent, of_partition = (
                    connection.execute(text(query.format(name))).scalar_one()
                    for name in ("observations", "observations_2024")
                )
                assert of_parent == of_partition > 3

    def test_readers_do_not_wait_while_one_is_made(self, engine: Engine) -> None:
        with engine.begin() as maker, engine.connect() as reader:
            ensure_partitions(maker, dt.date(2024, 1, 1), dt.date(2024, 1, 1))
            reader.execute(text("SET lock_timeout = '1s'"))
            assert reader.execute(text("SELECT count(*) FROM observations JOIN farms ON true")).scalar_one() == 0

    def test_two_makers_at_once_make_it_once(self, engine: Engine) -> None:
        def make() -> None:
            with engine.begin() as connection:
                ensure_partitions(connection, dt.date(2021, 1, 1), dt.date(2023, 1, 1))

        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(self.names(engine)) == 3

    def test_days_out_of_order_or_out_of_reason_are_refused(self, engine: Engine) -> None:
        with engine.begin() as connection:
            for first, last in [((2024, 2, 1), (2024, 1, 1)), ((1, 1, 1), (2024, 1, 1)), ((2024, 1, 1), (9999, 1, 1))]:
                with pytest.raises(ValueError, match="no partitions"):
                    ensure_partitions(connection, dt.date(*first), dt.date(*last))
