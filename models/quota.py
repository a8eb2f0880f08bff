"""What outside services were asked in the present minute, hour and day, by all processes together.

Open-Meteo counts weighted calls in the clock's minute, hour and UTC day, and refuses beyond its limits. The counts
are kept in Postgres, so that every process of an installation respects them; live work comes before backfills.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b

from sqlalchemy import Connection, Engine, Row, func, select, text
from sqlalchemy.exc import DBAPIError

from models.errors import UpstreamUnavailable


class Span(enum.StrEnum):
    """A stretch of the clock in which calls are counted."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


LENGTHS = {Span.MINUTE: dt.timedelta(minutes=1), Span.HOUR: dt.timedelta(hours=1), Span.DAY: dt.timedelta(days=1)}

_REMEMBERED = {Span.MINUTE: dt.timedelta(hours=1), Span.HOUR: dt.timedelta(days=2), Span.DAY: dt.timedelta(days=32)}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaLimits:
    """Most weighted calls in each span; by default those of Open-Meteo's free service."""

    per_minute: float = 600
    per_hour: float = 5_000
    per_day: float = 10_000
    backfill_share: float = 0.75
    """Of what live work leaves in a span, the part that backfills may use: a quarter always stays for live work."""
    edge: dt.timedelta = dt.timedelta(seconds=1)
    """A call this near to the turn of a span counts in both: clocks differ, and requests take time."""

    def __post_init__(self) -> None:
        """Refuse limits that could never be kept."""
        if min(self.per_minute, self.per_hour, self.per_day) <= 0 or not 0 < self.backfill_share <= 1:
            raise ValueError("limits are above 0, the share of backfills is above 0 and at most 1")
        if not dt.timedelta(0) <= self.edge <= dt.timedelta(seconds=20):
            raise ValueError("the edge is from 0 to 20 seconds")

    def of(self, span: Span) -> float:
        """Most weighted calls in a span."""
        return {Span.MINUTE: self.per_minute, Span.HOUR: self.per_hour, Span.DAY: self.per_day}[span]

    def heaviest(self, *, is_live: bool) -> float:
        """Weight above which a request could never be sent."""
        return min(self.of(span) for span in Span) * (1 if is_live else self.backfill_share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The request may be sent; its weight is counted already."""

    left: float
    """Weighted calls that live work has left in the tightest span."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitUntil:
    """The request may not be sent now; nothing was counted."""

    at: dt.datetime
    """When it is worth asking again."""
    span: Span
    """The longest span that is used up: of a day, the task should end rather than wait."""


def charge(
    connection: Connection,
    service: str,
    *,
    weight: float,
    now: dt.datetime,
    limits: QuotaLimits,
    is_live: bool,
    account: str = "",
) -> Allowed | WaitUntil:
    """Count a request of this weight before it is sent, if it fits into the present minute, hour and day.

    Live work may use all that is left. Backfills together may use `backfill_share` of what live work has not used.
    Whoever charges the same service and account waits until the caller's transaction ends: make it a short one of
    its own, committed before the request is sent.

    Args:
        connection: in a transaction that is committed before the request is sent.
        service: whose limits these are, such as `open-meteo`.
        weight: weighted calls as the service counts them.
        now: the time by this process's clock.
        limits: the service's limits.
        is_live: False for backfills.
        account: the API key, if there is one; only a digest of it is stored.

    Raises:
        ValueError: the weight is not above 0, or more than could ever be sent.
    """
    if not 0 < weight <= limits.heaviest(is_live=is_live):
        raise ValueError(f"weight {weight:g} is not above 0 and at most {limits.heaviest(is_live=is_live):g}")
    who = {"service": service, "account": _digest(account)}
    _lock_account(connection, who)
    spans = _spans_at(now, limits.edge)
    counts = {
        (Span(row.span), row.starts_at): row
        for row in connection.execute(text(_COUNTS), who | {"from": min(start for _, start in spans)})
    }
    left = {place: _left(counts.get(place), limits, place[0], is_live=is_live) for place in spans}
    if full := [place for place, room in left.items() if weight > room + 1e-9]:
        at = max(start + LENGTHS[span] for span, start in full) + limits.edge
        return WaitUntil(at=at, span=max((span for span, _ in full), key=lambda span: LENGTHS[span]))
    _count(connection, who, spans, live=weight * is_live, backfill=weight * (not is_live))
    _forget(connection, who, now)
    of_live = (_left(counts.get(place), limits, place[0], is_live=True) for place in spans)
    return Allowed(left=min(of_live) - weight)


def note_refusal(
    connection: Connection, service: str, *, span: Span, now: dt.datetime, limits: QuotaLimits, account: str = ""
) -> WaitUntil:
    """Note that the service itself said that a span is used up (others may share the address), and until when.

    From here on every process waits for the span's end.
    """
    who = {"service": service, "account": _digest(account)}
    _lock_account(connection, who)
    spans = [(span, _start(span, now))]
    _count(connection, who, spans, live=limits.of(span), backfill=0)
    return WaitUntil(at=spans[0][1] + LENGTHS[span] + limits.edge, span=span)


@contextmanager
def one_in_flight(engine: Engine, service: str, *, account: str = "", timeout_s: float = 300) -> Iterator[None]:
    """Hold the only place for a request to this service, among all processes; a process that dies gives it back.

    Keeps a connection of its own, which is idle meanwhile.

    Raises:
        UpstreamUnavailable: another request has kept the place for as long as `timeout_s`.
    """
    key = {"key": _lock_key("in flight", service, _digest(account))}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(select(func.set_config("lock_timeout", f"{max(1, round(timeout_s * 1000))}ms", False)))
        try:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == "55P03":  # lock_not_available
                raise UpstreamUnavailable(service, f"another request has been in flight for {timeout_s:g} s") from error
            raise
        finally:
            connection.execute(text("RESET lock_timeout"))
        try:
            yield
        finally:
            # If this connection broke meanwhile, the place is free again already, and the answer is not to be lost.
            with suppress(DBAPIError):
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)


def _spans_at(now: dt.datetime, edge: dt.timedelta) -> list[tuple[Span, dt.datetime]]:
    return sorted({(span, _start(span, at)) for span in Span for at in (now - edge, now + edge)})


def _start(span: Span, at: dt.datetime) -> dt.datetime:
    at = at.astimezone(dt.UTC).replace(second=0, microsecond=0)
    if span is Span.MINUTE:
        return at
    return at.replace(minute=0) if span is Span.HOUR else at.replace(minute=0, hour=0)


def _left(row: Row[tuple[object, ...]] | None, limits: QuotaLimits, span: Span, *, is_live: bool) -> float:
    live, backfill = (row.live, row.backfill) if row else (0.0, 0.0)
    left: float = limits.of(span) - live
    return left - backfill if is_live else left * limits.backfill_share - backfill


def _count(
    connection: Connection,
    who: dict[str, str],
    spans: list[tuple[Span, dt.datetime]],
    *,
    live: float,
    backfill: float,
) -> None:
    given = {"spans": [span.value for span, _ in spans], "starts": [start for _, start in spans]}
    connection.execute(text(_ADD), who | given | {"live": live, "backfill": backfill})


def _forget(connection: Connection, who: dict[str, str], now: dt.datetime) -> None:
    for span, kept_for in _REMEMBERED.items():
        connection.execute(text(_FORGET), who | {"span": span.value, "before": now - kept_for})


def _lock_account(connection: Connection, who: dict[str, str]) -> None:
    key = _lock_key("charge", who["service"], who["account"])
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


def _lock_key(*words: str) -> int:
    return int.from_bytes(blake2b("\0".join(("swath", *words)).encode(), digest_size=8).digest(), signed=True)


def _digest(account: str) -> str:
    return blake2b(account.encode(), digest_size=8).hexdigest() if account else ""


_COUNTS = """
SELECT span, starts_at, live, backfill FROM weather_quota
WHERE service = :service AND account = :account AND starts_at >= :from
"""

_ADD = """
INSERT INTO weather_quota AS q (service, account, span, starts_at, live, backfill)
SELECT :service, :account, span, starts_at, :live, :backfill
FROM unnest(CAST(:spans AS text[]), CAST(:starts AS timestamptz[])) AS given(span, starts_at)
ON CONFLICT (service, account, span, starts_at) DO UPDATE
SET live = q.live + excluded.live, backfill = q.backfill + excluded.backfill
"""

_FORGET = """
DELETE FROM weather_quota
WHERE service = :service AND account = :account AND span = :span AND starts_at < :before
"""
