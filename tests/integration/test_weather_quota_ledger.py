from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from models.errors import UpstreamUnavailable
from models.quota import Allowed, QuotaLimits, Span, WaitUntil, charge, note_refusal, one_in_flight
from tests.support.facts import engine_for
from tests.support.other_process import Program

LIMITS = QuotaLimits()
NOON = dt.datetime(2026, 11, 20, 12, 0, 30, tzinfo=dt.UTC)
MINUTE, HOUR, DAY = dt.timedelta(minutes=1), dt.timedelta(hours=1), dt.timedelta(days=1)
SECOND = dt.timedelta(seconds=1)
NEXT_MINUTE = NOON.replace(second=0) + MINUTE


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = engine_for(database_url)
    yield made
    made.dispose()


def ask(
    engine: Engine,
    weight: float = 100,
    *,
    now: dt.datetime = NOON,
    is_live: bool = True,
    limits: QuotaLimits = LIMITS,
    account: str = "",
) -> Allowed | WaitUntil:
    with engine.begin() as connection:
        return charge(connection, "open-meteo", weight=weight, now=now, limits=limits, is_live=is_live, account=account)


def spent(engine: Engine) -> dict[tuple[str, dt.datetime], float]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT span, starts_at, live + backfill AS spent FROM weather_quota"))
        return {(row.span, row.starts_at): row.spent for row in rows}


class TestSpans:
    def test_what_fits_is_counted_in_minute_hour_and_day(self, engine: Engine) -> None:
        assert ask(engine, 209.5) == Allowed(left=390.5)
        assert spent(engine) == {
            ("minute", NOON.replace(second=0)): 209.5,
            ("hour", NOON.replace(second=0)): 209.5,
            ("day", NOON.replace(hour=0, second=0)): 209.5,
        }

    def test_a_full_minute_waits_for_the_next_and_counts_nothing(self, engine: Engine) -> None:
        assert ask(engine, 600) == Allowed(left=0)
        before = spent(engine)
        assert ask(engine, 1) == WaitUntil(at=NEXT_MINUTE + SECOND, span=Span.MINUTE)
        assert spent(engine) == before
        assert ask(engine, 600, now=NEXT_MINUTE + SECOND) == Allowed(left=0)

    def test_a_full_hour_waits_for_the_next(self, engine: Engine) -> None:
        for turn in range(10):
            assert isinstance(ask(engine, 500, now=NOON + turn * MINUTE), Allowed)
        next_hour = NOON.replace(second=0) + HOUR
        assert ask(engine, 1, now=NOON + 11 * MINUTE) == WaitUntil(at=next_hour + SECOND, span=Span.HOUR)
        assert isinstance(ask(engine, 1, now=next_hour + SECOND), Allowed)

    def test_a_full_day_waits_for_the_next_day_in_utc(self, engine: Engine) -> None:
        limits = QuotaLimits(per_day=1_000)
        for turn in range(2):
            ask(engine, 500, now=NOON + turn * MINUTE, limits=limits)
        midnight = NOON.replace(hour=0, second=0) + DAY
        elsewhere = (NOON + 5 * MINUTE).astimezone(dt.timezone(9 * HOUR))
        assert ask(engine, 1, now=elsewhere, limits=limits) == WaitUntil(at=midnight + SECOND, span=Span.DAY)
        assert isinstance(ask(engine, 1, now=midnight + SECOND, limits=limits), Allowed)

    def test_a_call_at_the_turn_of_a_minute_counts_in_both(self, engine: Engine) -> None:
        """The service's clock may be in the other minute, so it could count both in one."""
        ask(engine, 400, now=NEXT_MINUTE - SECOND / 2)
        assert ask(engine, 400, now=NEXT_MINUTE + 5 * SECOND) == WaitUntil(
            at=NEXT_MINUTE + MINUTE + SECOND, span=Span.MINUTE
        )
        assert ask(engine, 150, now=NEXT_MINUTE + SECOND / 2) == Allowed(left=50)

    def test_services_and_accounts_are_counted_apart_and_no_key_is_stored(self, engine: Engine) -> None:
        ask(engine, 600)
        assert isinstance(ask(engine, 600, account="a secret key"), Allowed)
        with engine.begin() as connection:
            other = charge(connection, "nasa-power", weight=600, now=NOON, limits=LIMITS, is_live=True)
            assert isinstance(other, Allowed)
            rows = str(connection.execute(text("SELECT * FROM weather_quota")).all())
        assert "secret" not in rows

    def test_old_counts_are_forgotten(self, engine: Engine) -> None:
        for turn in range(40):
            ask(engine, 1, now=NOON + turn * DAY)
            ask(engine, 1, now=NOON + turn * DAY + MINUTE)
        assert len(spent(engine)) <= 2 + 3 + 33

    @pytest.mark.parametrize("weight", [0, -1, 600.1, float("nan")])
    def test_a_weight_that_could_never_be_sent_is_refused(self, engine: Engine, weight: float) -> None:
        with pytest.raises(ValueError, match="weight"):
            ask(engine, weight)
        assert spent(engine) == {}


class TestLiveFirst:
    def test_backfills_leave_their_share_to_live_work(self, engine: Engine) -> None:
        assert ask(engine, 450, is_live=False) == Allowed(left=150)
        assert isinstance(ask(engine, 1, is_live=False), WaitUntil)
        assert ask(engine, 150) == Allowed(left=0)

    def test_many_small_backfills_do_not_use_up_what_is_left_either(self, engine: Engine) -> None:
        ask(engine, 200)
        allowed = sum(isinstance(ask(engine, 10, is_live=False), Allowed) for _ in range(60))
        assert allowed == 30  # three quarters of the 400 that live work left
        assert isinstance(ask(engine, 100), Allowed)
        assert isinstance(ask(engine, 1), WaitUntil)

    def test_a_backfill_heavier_than_its_share_is_refused_at_once(self, engine: Engine) -> None:
        assert LIMITS.heaviest(is_live=False) == 450
        with pytest.raises(ValueError, match="450"):
            ask(engine, 451, is_live=False)


class TestTogether:
    def test_many_threads_never_exceed_a_limit_and_waste_none_of_it(self, engine: Engine) -> None:
        limits = QuotaLimits(per_minute=60)
        answers: list[Allowed | WaitUntil] = []

        def work() -> None:
            answers.extend(ask(engine, 3, limits=limits) for _ in range(10))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(answers) == 80
        assert sum(isinstance(each, Allowed) for each in answers) == 20
        assert max(spent(engine).values()) == 60

    def test_processes_share_one_count(self, database_url: str, engine: Engine) -> None:
        program = """
import datetime as dt, sys
from sqlalchemy import create_engine
from models.quota import Allowed, QuotaLimits, charge
engine = create_engine(sys.argv[1].replace("postgresql://", "postgresql+psycopg://"))
now = dt.datetime(2026, 11, 20, 12, 0, 30, tzinfo=dt.UTC)
allowed = 0
for _ in range(40):
    with engine.begin() as connection:
        answer = charge(connection, "open-meteo", weight=10, now=now, limits=QuotaLimits(), is_live=True)
    allowed += isinstance(answer, Allowed)
sys.exit(allowed)
"""
        processes = [Program(program, database_url) for _ in range(3)]
        allowed = [process.finish() for process in processes]
        for process in processes:
            process.__exit__(None, None, None)
        assert sum(allowed) == 60
        assert spent(engine)["minute", NOON.replace(second=0)] == 600

    def test_what_the_service_says_counts_for_all(self, engine: Engine) -> None:
        """Others behind the same address may have used the hour up."""
        next_hour = NOON.replace(second=0) + HOUR
        with engine.begin() as connection:
            told = note_refusal(connection, "open-meteo", span=Span.HOUR, now=NOON, limits=LIMITS)
        assert told == WaitUntil(at=next_hour + SECOND, span=Span.HOUR)
        assert ask(engine, 1) == told
        assert ask(engine, 1, is_live=False) == told
        assert isinstance(ask(engine, 1, now=next_hour + SECOND), Allowed)


class TestInFlight:
    def test_one_request_at_a_time(self, engine: Engine) -> None:
        inside, most = 0, 0

        def work() -> None:
            nonlocal inside, most
            for _ in range(3):
                with one_in_flight(engine, "open-meteo"):
                    inside += 1
                    most = max(most, inside)
                    time.sleep(0.01)
                    inside -= 1

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert most == 1

    def test_another_account_has_a_place_of_its_own(self, engine: Engine) -> None:
        with (
            one_in_flight(engine, "open-meteo"),
            one_in_flight(engine, "open-meteo", account="key", timeout_s=0.1),
            one_in_flight(engine, "nasa-power", timeout_s=0.1),
        ):
            pass

    def test_whoever_waits_too_long_is_told_so_and_may_try_again(self, engine: Engine) -> None:
        with (
            one_in_flight(engine, "open-meteo"),
            pytest.raises(UpstreamUnavailable, match="another request has been in flight") as told,
            one_in_flight(engine, "open-meteo", timeout_s=0.1),
        ):
            pass
        assert told.value.is_retryable
        with one_in_flight(engine, "open-meteo", timeout_s=0.1):
            pass

    def test_a_failed_request_gives_the_place_back(self, engine: Engine) -> None:
        with pytest.raises(RuntimeError), one_in_flight(engine, "open-meteo"):
            raise RuntimeError
        with one_in_flight(engine, "open-meteo", timeout_s=0.1):
            pass

    def test_a_process_that_is_killed_gives_the_place_back(self, database_url: str, engine: Engine) -> None:
        program = """
import sys
from sqlalchemy import create_engine
from models.quota import one_in_flight
engine = create_engine(sys.argv[1].replace("postgresql://", "postgresql+psycopg://"))
with one_in_flight(engine, "open-meteo"):
    print("inside", flush=True)
    sys.stdin.readline()
"""
        with Program(program, database_url) as other:
            assert other.says("inside")
            with pytest.raises(UpstreamUnavailable), one_in_flight(engine, "open-meteo", timeout_s=0.1):
                pass
            other.kill()
            with one_in_flight(engine, "open-meteo", timeout_s=20):
                pass

    def test_a_connection_lost_during_the_request_does_not_lose_its_answer(self, engine: Engine) -> None:
        with one_in_flight(engine, "open-meteo"), engine.connect() as connection:
            kill = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            assert connection.execute(text(kill)).scalars().all() == [True]
            answer = "weather"
        assert answer
        with one_in_flight(engine, "open-meteo", timeout_s=5):
            pass
