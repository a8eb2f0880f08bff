"""The primary that Sentinels name: all of them are asked at once, so that those which died with it cost no time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any

import redis.asyncio as redis
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError

from infra.redis_address import SentinelAddress
from serving.flights import Flights
from serving.patience import Patience

log = structlog.get_logger(__name__)

ANSWER_TIMEOUT_S = 0.4
"""Longest wait for a Sentinel, connecting included: less than an exchange with Redis may take."""

LOOK_AGAIN_S = 3.0
"""How often they are asked although all is well: a primary that was relieved goes on answering for ten seconds."""

GRACE_S = 0.05
"""How long the others are waited for when one has answered: some may hang, and some know better."""

Place = tuple[str, int]


class Sentinels:
    """Find the primary; remember which one it was."""

    def __init__(self, address: SentinelAddress) -> None:
        self._address = address
        self._flights: Flights[Place] = Flights()
        self.known: Place | None = None
        """Host and port of the primary, as found out last."""
        self._looked_at = 0.0
        self._look: asyncio.Task[None] | None = None

    async def primary(self) -> Place:
        """Return host and port of the primary, found out once for all who want to know it now.

        Raises:
            redis.ConnectionError: no Sentinel answers, or all say that it is down.
        """
        return await self._flights.once("primary", self._found)

    def look_again(self) -> None:
        """See to it that `known` is not of long ago; returns at once."""
        if self.known is not None and time.monotonic() - self._looked_at > LOOK_AGAIN_S:
            self._looked_at = time.monotonic()
            self._look = asyncio.ensure_future(self._looked())

    async def _looked(self) -> None:
        with contextlib.suppress(RedisConnectionError):  # whoever has a connection goes on with it
            await self.primary()

    async def _found(self) -> Place:
        told = await self._told()
        self._looked_at = time.monotonic()
        if not told:
            raise RedisConnectionError(f"no Sentinel knows a primary {self._address.name!r} that is up")
        # While a failover goes round, some still name the one before: the later configuration counts.
        newest = max(told, key=lambda state: int(state["config-epoch"]))
        place = str(newest["ip"]), int(newest["port"])
        if place != self.known:
            log.info("Redis has a primary", host=place[0], port=place[1])
            self.known = place
        return place

    async def _told(self) -> list[Mapping[str, Any]]:
        """What Sentinels say of the primary, of those that answer and think it is up."""
        asked = {asyncio.ensure_future(self._ask(*place)) for place in self._address.sentinels}
        pending = asked
        told: list[Mapping[str, Any]] = []
        try:
            while pending:
                done, pending = await asyncio.wait(
                    pending, timeout=GRACE_S if told else None, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                told += [state for each in done if (state := each.result()) is not None]
        finally:
            for each in asked:
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        return told

    async def _ask(self, host: str, port: int) -> Mapping[str, Any] | None:
        options: dict[str, Any] = dict(self._address.sentinel_options)
        client = redis.Redis(
            host=host,
            port=port,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
            driver_info=None,
            **options,
        )
        try:
            with Patience(ANSWER_TIMEOUT_S):
                state: Mapping[str, Any] = await client.execute_command(  # type: ignore[no-untyped-call]
                    "SENTINEL MASTER", self._address.name
                )
        except (RedisError, OSError, TimeoutError) as error:
            log.debug("a Sentinel does not answer", host=host, port=port, error=str(error) or type(error).__name__)
            return None
        finally:
            await client.aclose()
        is_up = state["is_master"] and not (state["is_sdown"] or state["is_odown"])
        return state if is_up else None


class _ToPrimary(redis.Connection):
    """A connection that asks where the primary is each time it is opened, and leaves one that is it no more."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        super().__init__(**options)
        self._sentinels = sentinels

    async def connect(self) -> None:
        """Connect unless connected; a pool calls this each time it lends a connection."""
        self._sentinels.look_again()
        if self.is_connected and (self.host, self.port) != self._sentinels.known:
            await self.disconnect(nowait=True)  # it may hang: its answer would be waited for
        if not self.is_connected:
            self.host, self.port = await self._sentinels.primary()
        await super().connect()  # type: ignore[no-untyped-call]

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        """Read an answer; of a server that may not write, none, and the primary is asked for anew."""
        try:
            return await super().read_response(*arguments, **options)
        except ReadOnlyError as error:
            await self.disconnect(nowait=True)
            raise RedisConnectionError("another server is the primary now") from error


class _TlsToPrimary(_ToPrimary, redis.SSLConnection):
    """The same over TLS."""


def sentinel_pool(address: SentinelAddress, **options: Any) -> redis.ConnectionPool:
    """A pool of connections to the primary, whichever that is when one is used; connected when first used.

    Args:
        address: of the Sentinels.
        options: of redis-py, for the connections to the primary.
    """
    given: dict[str, Any] = {key: value for key, value in address.server_options.items() if key != "ssl"}
    kind = _TlsToPrimary if address.is_tls else _ToPrimary
    return redis.ConnectionPool(connection_class=kind, sentinels=Sentinels(address), **given, **options)
