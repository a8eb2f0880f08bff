"""`POST /api/v1/integrations/token`: a signed request in, the client's one shared token out."""

from __future__ import annotations

import datetime as dt
import time
from typing import Literal

import structlog
from pydantic import BaseModel

from models.shared_tokens import USE_NONCE, nonce_key
from serving.cache import CacheAway
from serving.credentials import signing_key
from serving.database import DatabaseAway
from serving.endpoints import Answer, Call, Endpoint
from serving.faults import ApiError, unavailable
from serving.minting import ClientEnded
from serving.principal import UNAUTHENTICATED
from serving.resources import Resources
from serving.signatures import WINDOW_S, Signed, read_signed, refused

log = structlog.get_logger(__name__)

KEPT_S = WINDOW_S + 60
"""How long after its timestamp a nonce is remembered: while its request would be taken, and what clocks differ by."""

TokenCall = Call[None, None, None]


class IntegrationToken(BaseModel):
    """The shared token of the client that asked."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    expires_at: dt.datetime
    """When it ends; ask again before, and the answer is the next one."""
    expires_in: int
    """The same in seconds from now."""


async def token(call: TokenCall) -> Answer:
    """Check the signature, use up the nonce, and give the token."""
    resources = call.resources
    now = time.time()
    signature = read_signed(
        call.headers, method="POST", target=call.raw_path, body=call.raw_body, masters=resources.masters, now=now
    )
    try:
        admission = await resources.gate.admit(
            signing_key(signature.prefix), kind="nextcloud_hmac", address=call.address, fetch=None
        )
        await _use_nonce(resources, signature)
        client_id = admission.principal.client_id
        assert client_id is not None
        shared = await resources.mint.token(client_id, admission.principal.name)
    except DatabaseAway as error:
        raise unavailable("what tokens are made from") from error
    except ClientEnded:
        raise ApiError(401, "the client is revoked", headers=UNAUTHENTICATED) from None
    call.trace.client = admission.principal.name
    data = IntegrationToken(
        access_token=shared.token,
        expires_at=shared.expires_at,
        expires_in=max(0, int(shared.expires_at.timestamp() - now)),
    )
    return Answer.of(data.model_dump(), cache_control="no-store")


async def _use_nonce(resources: Resources, signature: Signed) -> None:
    """Use up a nonce, for all workers.

    Redis turns most repetitions away; Postgres has the last word, because Redis may have lost what it knew. While
    Postgres is away Redis alone decides.

    Raises:
        ApiError: 401, it was used before.
        DatabaseAway: neither store can tell.
    """
    prefix, nonce, ends = signature.prefix, signature.nonce, signature.timestamp + KEPT_S
    kept_s = max(1, ends - int(time.time()))
    try:
        is_new = await resources.cache.ask(
            lambda client: client.set(nonce_key(prefix, nonce), b"1", nx=True, ex=kept_s)
        )
    except CacheAway:
        is_new = None
    else:
        if not is_new:
            raise _used()
    values = {"prefix": prefix, "nonce": nonce, "expires_at": dt.datetime.fromtimestamp(ends, dt.UTC)}
    try:
        async with resources.database.transaction() as connection:
            stored = await (await connection.execute(USE_NONCE, values)).fetchone()
    except DatabaseAway:
        if is_new is None:
            raise
        log.warning("nonce is known to Redis alone", prefix=prefix)
        return
    if stored is None:
        raise _used()


def _used() -> ApiError:
    return refused([("x-swath-nonce", "was used before")])


ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/api/v1/integrations/token",
        handler=token,
        summary="The client's one shared token, for a request signed by HMAC-SHA256",
        tag="integrations",
        scope=None,
        throttle="nextcloud_hmac",
        answers={200: IntegrationToken},
        has_raw_body=True,
    ),
)
