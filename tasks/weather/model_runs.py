"""Which run of a forecast model Open-Meteo answers from, so that what has not changed is not asked for again.

The service tells it in one small file by model, `/data/MODEL/static/meta.json`, which it does not count as a call. Its
servers take a new run over one after the other; it asks to wait ten minutes before relying on it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from models.errors import UpstreamRejected, UpstreamUnreadable
from tasks.weather.answers import NotJson, json_object_or_list
from tasks.weather.open_meteo import SOURCE
from tasks.weather.open_meteo_requests import Hosts
from tasks.weather.polite import Ask, Passing, PoliteClient, Reply, refuse, utc_now

SETTLES_WITHIN = dt.timedelta(minutes=10)
"""From when a run is first available until every server answers from it."""

_FOLDERS: Mapping[str, str] = {
    "icon_global": "dwd_icon",
    "icon_eu": "dwd_icon_eu",
    "icon_d2": "dwd_icon_d2",
}
"""Where the service keeps a model under another name than it is asked for by. Seamless models are several, and have
no run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRun:
    """The newest run of a model that the service answers from."""

    initialised_at: dt.datetime
    available_at: dt.datetime

    @property
    def settled_at(self) -> dt.datetime:
        """From when on answers are surely of this run."""
        return self.available_at + SETTLES_WITHIN


def newest_run(
    client: PoliteClient, hosts: Hosts, model: str, *, now: Callable[[], dt.datetime] = utc_now
) -> ModelRun | None:
    """Ask for the newest run of a model; None where the service has no such file, as for models joined of several.

    Args:
        client: whose requests nobody counts.
        hosts: where the service is. No key is sent: it would stand in the address.
        model: as in a request for weather.
        now: the clock.

    Raises:
        UpstreamUnavailable: down or overloaded after all tries.
        UpstreamUnreadable: the file is not what it was.
    """
    ask = Ask(
        url=f"{hosts.forecast.rstrip('/')}/data/{_FOLDERS.get(model, model)}/static/meta.json", parameters={}, weight=0
    )

    def read(reply: Reply) -> ModelRun:
        refuse(SOURCE, reply, now=now())
        return _run_from(reply)

    try:
        return client.fetch(ask, read=read)
    except UpstreamRejected:
        return None


def _run_from(reply: Reply) -> ModelRun:
    try:
        document = json_object_or_list(reply.body)
    except NotJson as error:
        raise Passing(str(error)) from error
    told = document if isinstance(document, dict) else {}
    return ModelRun(
        initialised_at=_time(told.get("last_run_initialisation_time"), reply),
        available_at=_time(told.get("last_run_availability_time"), reply),
    )


def _time(seconds: object, reply: Reply) -> dt.datetime:
    # Beyond year 2100 it is no time, and beyond 9999 none that Python knows.
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not 0 < seconds < 4_102_444_800:
        raise UpstreamUnreadable(SOURCE, f"{seconds!r} is not the time of a model run", url=reply.url)
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
