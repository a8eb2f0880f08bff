"""Work asked for through Prefect's HTTP API, never waited for longer than it takes to note the request."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import httpx
import structlog

from serving.breaker import Breaker

log = structlog.get_logger(__name__)

TIMEOUT_S = 2.0
REFRESH = "refresh-farm"
"""Name of the flow and of its deployment."""


ENDED = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


class PrefectAway(Exception):
    """Prefect does not answer, does not know the deployment, or no address is set."""


class PrefectApi:
    """A client of the few routes that are needed, behind a breaker."""

    def __init__(self, url: str | None, *, auth: str | None = None) -> None:
        self._client: httpx.AsyncClient | None = None
        self._deployment_id: str | None = None
        self.breaker = Breaker("prefect", failures=2, rest_s=5.0)
        if url is not None:
            user, _, password = (auth or "").partition(":")
            self._client = httpx.AsyncClient(
                base_url=url.rstrip("/") + "/",
                timeout=TIMEOUT_S,
                trust_env=False,
                auth=(user, password) if auth else None,
                limits=httpx.Limits(max_connections=8),
            )

    @property
    def is_known(self) -> bool:
        """Whether there is an address to ask at."""
        return self._client is not None

    async def health(self) -> None:
        """See that Prefect answers.

        Raises:
            PrefectAway: it does not.
        """
        await self._ask("GET", "health")

    async def refresh(self, farms: Sequence[uuid.UUID], *, idempotency_key: str) -> uuid.UUID:
        """Ask for a run that observes these farms; the same key twice is the same run. Returns the run's id.

        Raises:
            PrefectAway: it could not be asked for.
        """
        deployment = await self._deployment()
        body = {
            "parameters": {"external_farm_ids": [str(farm) for farm in farms]},
            "idempotency_key": idempotency_key,
            "tags": ["api"],
        }
        found = await self._ask("POST", f"deployments/{deployment}/create_flow_run", json=body)
        return uuid.UUID(found["id"])

    async def has_ended(self, run_id: uuid.UUID) -> bool:
        """Whether a run has come to an end, or is not known any more.

        Raises:
            PrefectAway: it cannot be told.
        """
        found = await self._ask("GET", f"flow_runs/{run_id}", none_if_unknown=True)
        return found is None or (found.get("state") or {}).get("type") in ENDED

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _deployment(self) -> str:
        if self._deployment_id is None:
            found = await self._ask("GET", f"deployments/name/{REFRESH}/{REFRESH}")
            self._deployment_id = str(found["id"])
        return self._deployment_id

    async def _ask(self, method: str, path: str, *, none_if_unknown: bool = False, **more: Any) -> Any:
        if self._client is None:
            raise PrefectAway("PREFECT_API_URL is not set")
        if not self.breaker.may_try():
            raise PrefectAway("left alone")
        try:
            answer = await self._client.request(method, path, **more)
        except httpx.HTTPError as error:
            self.breaker.failed()
            raise PrefectAway(f"Prefect does not answer: {type(error).__name__}") from error
        if answer.status_code >= 500:
            self.breaker.failed()
            raise PrefectAway(f"Prefect answers {answer.status_code}")
        self.breaker.succeeded()
        if answer.is_success:
            return answer.json()
        if answer.status_code == 404 and none_if_unknown:
            return None
        if answer.status_code == 404:
            self._deployment_id = None  # deployed anew under another id, or not yet
        raise PrefectAway(f"Prefect answers {answer.status_code} to {method} {path.partition('/')[0]}")
