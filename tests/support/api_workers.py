"""Workers of the API in this process, each with connections of its own, as separate processes would have."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.types import Receive, Scope, Send

from infra.settings import Settings
from models.clients import NewKey
from serving.app import create_app
from serving.endpoints import Answer, Call, Endpoint
from serving.integrations import ENDPOINTS
from serving.resources import Addresses, Resources

SECRET = "a secret of at least thirty-two characters"
TOKEN_PATH = "/api/v1/integrations/token"


async def _tell(call: Call[Any, Any, Any]) -> Answer:
    principal = call.principal
    return Answer.of({"client": principal.name, "scopes": sorted(principal.scopes), "by": principal.scope_kind})


WHO_AM_I = Endpoint(method="GET", path="/who", handler=_tell, summary="Who is calling", tag="test", scope="read")
ANYBODY = Endpoint(method="GET", path="/open", handler=_tell, summary="For anybody", tag="test", scope=None)


@dataclass(frozen=True)
class Worker:
    """A running worker."""

    http: httpx.AsyncClient
    resources: Resources


@contextlib.asynccontextmanager
async def worker(
    database_url: str,
    redis_url: str,
    *,
    endpoints: Sequence[Endpoint] = (*ENDPOINTS, WHO_AM_I, ANYBODY),
    prefect_url: str | None = None,
    prefect_auth: str | None = None,
    **settings: Any,
) -> AsyncIterator[Worker]:
    """Run one worker."""
    chosen = Settings(secret_key=SECRET, **settings)
    addresses = Addresses(
        database_url=database_url, redis_url=redis_url, prefect_url=prefect_url, prefect_auth=prefect_auth
    )
    app = create_app(chosen, addresses, endpoints=endpoints)
    async with app.router.lifespan_context(app) as state:
        assert state is not None

        async def started(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": dict(state)}, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(started), base_url="http://swath") as http:
            yield Worker(http, state["resources"])


def signed_headers(key: NewKey, *, path: str = TOKEN_PATH, body: bytes = b"", **other: str) -> dict[str, str]:
    """Sign a request as a caller does it from the documentation, not by our own code; `other` replaces parts."""
    timestamp = other.get("timestamp", str(int(time.time())))
    nonce = other.get("nonce", secrets.token_hex(16))
    lines = [other.get("method", "POST"), path, timestamp, nonce, hashlib.sha256(body).hexdigest()]
    signature = hmac.new(key.secret.encode(), "\n".join(lines).encode(), hashlib.sha256).hexdigest()
    return {
        "X-Swath-Key": key.key_id,
        "X-Swath-Timestamp": timestamp,
        "X-Swath-Nonce": nonce,
        "X-Swath-Signature": other.get("signature", signature),
    }
