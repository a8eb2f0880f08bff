"""What a run leaves in the Prefect UI."""

from __future__ import annotations

from collections.abc import Iterable

import httpx
import structlog
from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import PrefectException

log = structlog.get_logger(__name__)


def leave_artifact(lines: Iterable[str], *, key: str, description: str) -> None:
    """Leave a summary, in Markdown; a server that does not take it is only logged."""
    try:
        create_markdown_artifact("\n".join(lines), key=key, description=description)
    except (httpx.HTTPError, PrefectException) as error:  # the run is done, and its state says how it came out
        log.warning("summary not left in Prefect", key=key, error=str(error))
