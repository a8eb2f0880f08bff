"""Variables that look like settings of Swath and are none: a typo should be seen, not silently change nothing."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Mapping

from infra.settings import Settings

PREFIX = "SWATH_"

STARTED_BY_UP = "SWATH_UP"
"""`swath up` sets it for all that it starts, and has told of unknown variables itself."""

OTHERS = frozenset(
    {
        STARTED_BY_UP,
        # What `infra/deploy/compose.yaml` is filled in with.
        "SWATH_API_BIND",
        "SWATH_DASK_MEMORY",
        "SWATH_DASK_THREADS",
        "SWATH_DASK_WORKERS",
        "SWATH_DB_PASSWORD",
        "SWATH_PREFECT_PASSWORD",
        "SWATH_PREFECT_UI_URL",
        "SWATH_REDIS_PASSWORD",
    }
)
"""Variables of ours that are no settings."""

# Kubernetes tells pods of a Service swath-api by SWATH_API_SERVICE_HOST, SWATH_API_PORT, SWATH_API_PORT_80_TCP_ADDR ...
_SERVICE_HOST = "_SERVICE_HOST"
_OF_SERVICE = re.compile(r"_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")


def unknown_settings(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Return the variables with our prefix that nothing of ours reads, each with the known name most like it.

    Empty ones count as unset. Values are not looked at otherwise.
    """
    if environment.get(STARTED_BY_UP):
        return {}
    settings = {name.upper() for name in Settings.model_fields}
    ours = [name for name, value in environment.items() if value and name.upper().startswith(PREFIX)]
    services = [name.removesuffix(_SERVICE_HOST) for name in ours if name.endswith(_SERVICE_HOST)]
    unknown = [
        name
        for name in sorted(ours)
        if name.upper() not in OTHERS
        and name.upper().removeprefix(PREFIX) not in settings
        and not any(name.startswith(each) and _OF_SERVICE.fullmatch(name, len(each)) for each in services)
    ]
    return {name: _nearest(name.upper().removeprefix(PREFIX), settings) for name in unknown}


def _nearest(name: str, settings: Collection[str]) -> str | None:
    found = difflib.get_close_matches(name, sorted(settings), n=1, cutoff=0.7)
    return f"{PREFIX}{found[0]}" if found else None


def words_of_unknown_settings() -> list[str]:
    """A sentence for each unknown variable of this process, without its value."""
    return [
        f"{name} is no setting and is ignored" + (f"; did you mean {nearest}?" if nearest else "")
        for name, nearest in unknown_settings(os.environ).items()
    ]
