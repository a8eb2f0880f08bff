"""Databases that tests may fill and forget: copies of one migrated template, which take a few milliseconds."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

from infra.local.postgres import PostgresServer
from models.schema import upgrade

TEMPLATE = "template_swath"
_numbers = itertools.count(1)


def make_template(server: PostgresServer) -> None:
    """Create the template by the migrations that an installation runs."""
    server.create_database(TEMPLATE)
    upgrade(server.url_for(TEMPLATE))


@contextlib.contextmanager
def fresh_database(server: PostgresServer, *, template: str) -> Iterator[str]:
    """Give the address of a new copy of a database, dropped at the end together with its connections."""
    name = f"test_{next(_numbers)}"
    server.create_database(name, template=template)
    try:
        yield server.url_for(name)
    finally:
        server.drop_database(name)
