"""Flow runs are counted for the metrics page, under the name of the flow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from prefect.runtime import flow_run
from redis import Redis

from infra.work_figures import Outcome, counted_run


@contextlib.contextmanager
def counted(client: Redis) -> Iterator[Outcome]:
    """Count the flow run of this process, which does its work in the block and tells there how it comes out."""
    with counted_run(client, flow_run.flow_name or "by hand") as outcome:
        yield outcome
