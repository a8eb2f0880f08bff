"""The app: every endpoint of every area on one list, and what surrounds them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import groupby

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from infra.settings import Settings, load_settings
from infra.telemetry import set_up_logs
from models.errors import BadInput
from serving import changes, farms, health, integrations, metrics, ndvi, pages, weather
from serving.answering import Path
from serving.counts import Counts, Layout
from serving.endpoints import Endpoint
from serving.faults import ApiError
from serving.frame import Frame
from serving.resources import Addresses, Resources, open_resources
from serving.sheets import Sheets

ENDPOINTS: tuple[Endpoint, ...] = (
    *farms.ENDPOINTS,
    *ndvi.ENDPOINTS,
    *weather.ENDPOINTS,
    *changes.ENDPOINTS,
    *integrations.ENDPOINTS,
    *health.ENDPOINTS,
    *pages.ENDPOINTS,
)
"""All of them. Routes are tried in this order, so those with fixed words come before those with a variable."""


def create_app(
    settings: Settings,
    addresses: Addresses,
    *,
    endpoints: Sequence[Endpoint] = ENDPOINTS,
    sheets: Sheets | None = None,
    worker: int = 0,
) -> Starlette:
    """Make the app; its connections are opened when it starts, and no server needs to be there yet.

    Args:
        settings: of this process.
        addresses: where the servers are.
        endpoints: what it has.
        sheets: where all workers count; None: this one counts for itself.
        worker: whose sheet is this one's.
    """
    endpoints = with_metrics(settings, endpoints)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[Mapping[str, Resources]]:
        counts = Counts(layout_of(endpoints), sheets, worker=worker)
        async with open_resources(settings, addresses, counts) as resources:
            yield {"resources": resources}

    app = Starlette(routes=_routes(endpoints), lifespan=lifespan)
    # Starlette's own two layers would catch what the frame answers, and hand on each message once more.
    app.middleware_stack = Frame(_with_cors(app.router, settings))
    # A redirect is no envelope, and it would take its host from the caller's word.
    app.router.redirect_slashes = False
    app.router.default = _nothing_here
    return app


def _with_cors(app: ASGIApp, settings: Settings) -> ASGIApp:
    if not settings.cors_origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "POST", "PATCH", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "If-None-Match", "X-API-Key", "X-Request-ID"],
        expose_headers=["ETag", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-ID"],
    )


async def _nothing_here(scope: Scope, _receive: Receive, _send: Send) -> None:
    if scope["type"] == "http":
        raise ApiError(404, "there is nothing at this path; /docs lists what there is")


def _routes(endpoints: Sequence[Endpoint]) -> list[Route]:
    order = {each.path: place for place, each in reversed(list(enumerate(endpoints)))}
    by_path = groupby(sorted(endpoints, key=lambda each: order[each.path]), key=lambda each: each.path)
    answered = {path: Path(list(group)) for path, group in by_path}
    # A slash at the end is easily forgotten: the same without it, where nothing else is at that path.
    without = {path.removesuffix("/"): path for path in answered if path.endswith("/") and path != "/"}
    return [
        *(Route(path, answers, name=path) for path, answers in answered.items()),
        *(Route(short, answered[path], name=path) for short, path in without.items() if short not in answered),
    ]


def with_metrics(settings: Settings, endpoints: Sequence[Endpoint] = ENDPOINTS) -> tuple[Endpoint, ...]:
    """The endpoints, and the metrics page where it is to be part of the app."""
    return (*endpoints, metrics.ENDPOINT) if settings.metrics == "app" else tuple(endpoints)


def layout_of(endpoints: Sequence[Endpoint]) -> Layout:
    """Where the workers of an app with these endpoints count."""
    return Layout((each.path, each.method) for each in endpoints)


def app_from_environment(sheets: Sheets | None = None, *, worker: int = 0) -> Starlette:
    """Make the app of a worker whose stores are named by the environment.

    Raises:
        BadInput: a setting is wrong, or a store has no address.
    """
    settings = load_settings()
    set_up_logs(settings.log_level, as_json=settings.log_json)
    return create_app(settings, addresses_of(settings), sheets=sheets, worker=worker)


def addresses_of(settings: Settings) -> Addresses:
    """Where the servers are, as settings and environment say; a worker starts none of its own.

    Raises:
        BadInput: a store has no address.
    """
    if settings.database_url is None or settings.redis_url is None:
        missing = "SWATH_DATABASE_URL" if settings.database_url is None else "SWATH_REDIS_URL"
        raise BadInput(missing, "is not set", allowed="an address; `swath serve` starts servers where there are none")
    return Addresses(
        database_url=settings.database_url.get_secret_value(),
        redis_url=settings.redis_url.get_secret_value(),
        prefect_url=os.environ.get("PREFECT_API_URL") or None,
        prefect_auth=os.environ.get("PREFECT_API_AUTH_STRING") or None,
    )
