"""How often callers may ask: windows of a minute, counted in Redis for all workers, and here while it is away."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping

from infra.settings import Settings
from serving.principal import Limit, ScopeKind, Taken

WINDOW_S = 60

LIMITS: Mapping[ScopeKind, Limit] = {
    "nextcloud_hmac": Limit(60, WINDOW_S),
    "api_key": Limit(6_000, WINDOW_S),
    "jwt": Limit(6_000, WINDOW_S),
    "anonymous": Limit(60, WINDOW_S),
}

_TAKE = """
local function take(key, requests, window_s)
  local count = redis.call('INCR', key)
  local left = window_s
  if count == 1 then
    redis.call('EXPIRE', key, window_s)
  else
    left = redis.call('TTL', key)
  end
  return {count <= requests and 1 or 0, math.max(0, requests - count), left}
end
"""


class Windows:
    """Fixed windows: a caller has so many requests from the first one on, until the window ends."""

    lua = _TAKE

    def __init__(self, limits: Mapping[ScopeKind, Limit]) -> None:
        self._limits = limits
        self._counted: Counter[str] = Counter()
        self._ends = 0.0

    def limit(self, kind: ScopeKind) -> Limit:
        """How often callers of this kind may ask."""
        return self._limits[kind]

    def take(self, bucket: str, limit: Limit) -> Taken:
        """Count one request in this process alone."""
        now = time.monotonic()
        if now >= self._ends:
            self._counted.clear()
            self._ends = now + WINDOW_S
        self._counted[bucket] += 1
        left = limit.requests - self._counted[bucket]
        return Taken(left >= 0, limit, max(0, left), math.ceil(self._ends - now))


def make_throttle(settings: Settings) -> Windows:
    """The throttle that these settings describe."""
    del settings
    return Windows(LIMITS)
