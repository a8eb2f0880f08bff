from __future__ import annotations

import asyncio
import re
from collections import deque
from itertools import accumulate

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from serving.principal import Limit, Taken
from serving.throttle import LUA, MOST_BUCKETS, SlidingThrottle
from tests.support.api_workers import Worker, worker

AT = LUA + "return take_at(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))"
"""The script with the clock in our hands."""

LIMIT = Limit(5, 60, "api_key")


class Clock:
    def __init__(self, now: float = 1_795_000_020.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def by_redis(client: Redis, bucket: str, limit: Limit, now: float) -> Taken:
    allowed, remaining, reset_s = client.eval(AT, 1, bucket, limit.requests, limit.window_s, repr(now))
    return Taken(allowed == 1, limit, remaining, reset_s)


class TestRule:
    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        limit=st.builds(Limit, st.integers(1, 12), st.sampled_from([1, 7, 60])),
        steps=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0, 20.0, 61.0, 200.0]), min_size=1, max_size=60),
    )
    def test_redis_and_a_process_alone_count_alike(self, redis_url: str, limit: Limit, steps: list[float]) -> None:
        clock = Clock()
        alone = SlidingThrottle({}, clock=clock)
        with Redis.from_url(redis_url) as client:
            client.delete("bucket")
            for now in accumulate(steps, initial=clock.now):
                clock.now = now
                assert by_redis(client, "bucket", limit, now) == alone.take("bucket", limit)

    @settings(max_examples=100)
    @given(steps=st.lists(st.floats(0, 40), min_size=1, max_size=200))
    def test_no_window_ever_holds_much_more_than_the_limit(self, steps: list[float]) -> None:
        """A fixed window would let through twice the limit around its turn."""
        clock, limit = Clock(), Limit(20, 60)
        throttle = SlidingThrottle({}, clock=clock)
        allowed: deque[float] = deque()
        for now in accumulate(steps, initial=clock.now):
            clock.now = now
            if throttle.take("bucket", limit).is_allowed:
                allowed.append(now)
            while allowed and allowed[0] <= now - 60:
                allowed.popleft()
            assert len(allowed) <= 30

    @settings(max_examples=100)
    @given(steps=st.lists(st.sampled_from([0.0, 0.1, 1.0, 9.0, 45.0]), min_size=1, max_size=40))
    def test_who_waits_as_long_as_told_gets_more_and_who_comes_sooner_does_not(self, steps: list[float]) -> None:
        clock = Clock()
        throttle = SlidingThrottle({}, clock=clock)
        for now in accumulate(steps, initial=clock.now):
            clock.now = now
            taken = throttle.take("bucket", LIMIT)
        while taken.is_allowed:
            taken = throttle.take("bucket", LIMIT)
        clock.now += max(0, taken.reset_s - 1.001)
        assert taken.reset_s == 1 or not throttle.take("bucket", LIMIT).is_allowed
        clock.now += 1.002
        assert throttle.take("bucket", LIMIT).is_allowed

    def test_a_burst_at_the_turn_of_a_window_does_not_get_twice_the_limit(self) -> None:
        clock = Clock(now=60 * 29_916_667 - 0.5)
        throttle = SlidingThrottle({}, clock=clock)
        before = [throttle.take("bucket", LIMIT).is_allowed for _ in range(5)]
        clock.now += 1
        assert all(before)
        assert not throttle.take("bucket", LIMIT).is_allowed

    def test_refused_requests_are_not_counted(self) -> None:
        clock = Clock(now=60 * 29_916_667)
        throttle = SlidingThrottle({}, clock=clock)
        taken = [throttle.take("bucket", LIMIT).is_allowed for _ in range(50)]
        assert sum(taken) == 5
        clock.now += 60 + 12.1  # a fifth of the window after is over, so one of the five weighs no more
        assert throttle.take("bucket", LIMIT).is_allowed

    def test_buckets_do_not_touch_each_other_and_their_number_is_bounded(self) -> None:
        throttle = SlidingThrottle({}, clock=Clock())
        one = Limit(1, 60)
        assert all(throttle.take(f"bucket {n}", one).is_allowed for n in range(MOST_BUCKETS + 1))
        assert not throttle.take(f"bucket {MOST_BUCKETS}", one).is_allowed
        assert throttle.take("bucket 0", one).is_allowed  # forgotten, as the one that asked longest ago


class TestHeaders:
    def test_they_are_as_the_draft_has_them(self) -> None:
        told = dict(Taken(True, LIMIT, 3, 17).headers())
        assert told == {b"ratelimit-policy": b'"api_key";q=5;w=60', b"ratelimit": b'"api_key";r=3;t=17'}

    def test_who_is_refused_is_told_when_to_come_again(self) -> None:
        assert dict(Taken(False, LIMIT, 0, 17).headers())[b"retry-after"] == b"17"


async def statuses(worker: Worker, count: int) -> list[int]:
    return [(await worker.http.get("/open")).status_code for _ in range(count)]


class TestWorkers:
    def test_all_workers_count_together(self, database_url: str, redis_url: str) -> None:
        async def run() -> list[int]:
            async with (
                worker(database_url, redis_url, limit_anonymous_per_minute=10) as one,
                worker(database_url, redis_url, limit_anonymous_per_minute=10) as other,
            ):
                found = [await statuses(each, 4) for each in (one, other, one, other)]
                refused = await one.http.get("/open")
                assert refused.status_code == 429
                assert 1 <= int(refused.headers["retry-after"]) <= 120
                assert re.fullmatch(r'"anonymous";q=10;w=60', refused.headers["ratelimit-policy"])
                assert refused.headers["ratelimit"].startswith('"anonymous";r=0;t=')
                assert refused.json()["status"] == "error"
                return [status for each in found for status in each]

        assert asyncio.run(run()) == [200] * 10 + [429] * 6

    def test_while_redis_is_away_each_worker_counts_by_itself(self, database_url: str) -> None:
        async def run() -> list[int]:
            async with worker(database_url, "redis://127.0.0.1:1", limit_anonymous_per_minute=3) as alone:
                return await statuses(alone, 5)

        assert asyncio.run(run()) == [200, 200, 200, 429, 429]

    def test_nothing_is_left_in_redis_of_who_stays_away(self, database_url: str, redis_url: str) -> None:
        async def run() -> None:
            async with worker(database_url, redis_url, limit_anonymous_per_minute=2) as one:
                await statuses(one, 3)

        asyncio.run(run())
        with Redis.from_url(redis_url) as client:
            keys = client.keys("swath:v1:throttle:*")
            assert len(keys) == 1
            assert 0 < client.ttl(keys[0]) <= 120
