"""How often a caller may ask: counted in Redis for all workers together, in this process alone while Redis is away.

A sliding window of two counters: what was counted in the window before weighs in by the share of it that the last
`window_s` seconds still touch. So no stretch of that length holds about twice the limit, as a fixed window would allow
at its turn, and a caller costs one small hash instead of a list of instants. Refused requests are not counted: who
asks too often is served at the rate that is allowed. Redis tells the time, so the clocks of workers do not matter.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from infra.settings import Settings
from serving.principal import Limit, ScopeKind, Taken

WINDOW_S = 60

MOST_BUCKETS = 10_000
"""Callers that one process counts by itself; beyond, those are forgotten that asked longest ago."""

LUA = """
local function take_at(key, requests, window_s, now)
  local number = math.floor(now / window_s)
  local passed = now - number * window_s
  local held = redis.call('HMGET', key, 'window', 'now', 'before')
  local window, current, before = tonumber(held[1]), 0, 0
  if window == number then
    current, before = tonumber(held[2]), tonumber(held[3])
  elseif window == number - 1 then
    before = tonumber(held[2])
  end
  local used = current + before * (window_s - passed) / window_s
  local allowed = used + 1 <= requests
  if allowed then
    current, used = current + 1, used + 1
    redis.call('HSET', key, 'window', number, 'now', current, 'before', before)
    redis.call('EXPIRE', key, 2 * window_s)
  end
  local remaining = math.max(0, math.floor(requests - used))
  local goal = requests - remaining - 1
  local wait
  if current <= goal then
    wait = window_s * (1 - (goal - current) / before) - passed
  else
    wait = window_s - passed + window_s * (1 - goal / current)
  end
  return {allowed and 1 or 0, remaining, math.max(1, math.ceil(wait))}
end

local function take(key, requests, window_s)
  local time = redis.call('TIME')
  return take_at(key, requests, window_s, tonumber(time[1]) + tonumber(time[2]) / 1000000)
end
"""
"""`take` counts one request and tells whether it is allowed, what is left, and in how many seconds there is more."""


class SlidingThrottle:
    """Limits by kind of caller."""

    lua = LUA

    def __init__(self, limits: dict[ScopeKind, Limit], *, clock: Callable[[], float] = time.time) -> None:
        self._limits = limits
        self._clock = clock
        self._counted: OrderedDict[str, tuple[int, int, int]] = OrderedDict()

    def limit(self, kind: ScopeKind) -> Limit:
        """How often callers of this kind may ask."""
        return self._limits[kind]

    def take(self, bucket: str, limit: Limit) -> Taken:
        """Count one request in this process alone, by the same rule as Redis does."""
        now, window_s = self._clock(), limit.window_s
        number = math.floor(now / window_s)
        passed = now - number * window_s
        window, current, before = self._counted.get(bucket, (number, 0, 0))
        if window != number:
            current, before = 0, current if window == number - 1 else 0
        used = current + before * (window_s - passed) / window_s
        is_allowed = used + 1 <= limit.requests
        if is_allowed:
            current, used = current + 1, used + 1
            self._count(bucket, (number, current, before))
        remaining = max(0, math.floor(limit.requests - used))
        goal = limit.requests - remaining - 1
        if current <= goal:
            wait = window_s * (1 - (goal - current) / before) - passed
        else:
            wait = window_s - passed + window_s * (1 - goal / current)
        return Taken(is_allowed, limit, remaining, max(1, math.ceil(wait)))

    def _count(self, bucket: str, counted: tuple[int, int, int]) -> None:
        self._counted[bucket] = counted
        self._counted.move_to_end(bucket)
        while len(self._counted) > MOST_BUCKETS:
            self._counted.popitem(last=False)


def make_throttle(settings: Settings) -> SlidingThrottle:
    """The throttle that the settings describe."""
    per_minute: dict[ScopeKind, int] = {
        "api_key": settings.limit_api_key_per_minute,
        "jwt": settings.limit_jwt_per_minute,
        "nextcloud_hmac": settings.limit_nextcloud_hmac_per_minute,
        "anonymous": settings.limit_anonymous_per_minute,
    }
    return SlidingThrottle({kind: Limit(requests, WINDOW_S, kind) for kind, requests in per_minute.items()})
