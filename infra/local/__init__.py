"""Real servers of our own, for machines that have none: Postgres, Valkey and Prefect's API."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from infra.settings import Settings

__all__ = ["Addresses", "local_servers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the stores are; not shown by `repr`, because addresses given by the user may hold passwords."""

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)


@contextlib.contextmanager
def local_servers(settings: Settings) -> Iterator[Addresses]:
    """Give the addresses of Postgres and Redis: those of the settings, and embedded servers where they name none.

    Raises:
        ServerTrouble: when an embedded server cannot be run.
    """
    # Imported here: who only wants one server, or has both outside, need not load the others.
    from infra.local.postgres import local_postgres
    from infra.local.valkey import local_valkey

    with contextlib.ExitStack() as stack:
        if settings.database_url is not None:
            database_url = settings.database_url.get_secret_value()
        else:
            database_url = stack.enter_context(local_postgres(settings.home)).url
        if settings.redis_url is not None:
            redis_url = settings.redis_url.get_secret_value()
        else:
            redis_url = stack.enter_context(local_valkey(settings.home)).url
        yield Addresses(database_url=database_url, redis_url=redis_url)
