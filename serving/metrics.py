"""The metrics page: what all workers have counted, and what was found out of the flows. Memory alone is read for it."""

from __future__ import annotations

import hmac
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson

from serving.counts import BUCKETS_S, CACHE, CLASSES, KINDS, OF_CACHE, OF_CLASS, STORES, THROTTLED, Layout, place_of
from serving.endpoints import Answer, Call, Endpoint
from serving.exposition import CONTENT_TYPE, Family, Kind, head, labelled, lines, number
from serving.faults import ApiError
from serving.sheets import Sheet, Sheets

PATH = "/metrics"

REQUESTS = "swath_http_request_seconds"
READS = "swath_cached_reads_total"

_ENDS = (*(number(end) for end in BUCKETS_S), "+Inf")


class Page:
    """Makes the page.

    Args:
        layout: of the workers' sheets; a sheet that another version has written is left out.
        sheets: of all workers.
        clock: seconds since 1970.
    """

    def __init__(self, layout: Layout, sheets: Sheets, *, clock: Callable[[], float] = time.time) -> None:
        self._layout = layout
        self._sheets = sheets
        self._clock = clock
        self._prefixes: dict[tuple[int, int], list[str]] = {}
        self._board: tuple[bytes, list[Family]] = (b"", [])

    def text(self) -> bytes:
        """The page as it is now."""
        now = self._clock()
        sheets = self._sheets_in_use()
        rows = list(self._rows([sheet for _, sheet in sheets]))
        every = [
            *self._requests(rows),
            *self._reads(rows),
            *lines(_plain(_sums([sheet for _, sheet in sheets], self._layout.plain)), now=now),
            *lines([_beats(sheets)], now=now),
            *lines(self._posted(), now=now),
            "",
        ]
        return "\n".join(every).encode()

    def _sheets_in_use(self) -> list[tuple[int, Sheet]]:
        every = ((worker, self._sheets.sheet(worker)) for worker in range(self._sheets.workers))
        return [(worker, sheet) for worker, sheet in every if sheet[0] == self._layout.mark]

    def _posted(self) -> list[Family]:
        posted = self._sheets.posted()
        if posted != self._board[0]:
            self._board = posted, [Family.from_json(each) for each in orjson.loads(posted)]
        return self._board[1]

    def _rows(self, sheets: Sequence[Sheet]) -> Iterator[tuple[int, list[float]]]:
        """Rows in which anything was counted, with the sums of all workers."""
        for row in range(len(self._layout.rows)):
            cells = self._layout.row(row)
            if any(sheet[cells.start] for sheet in sheets):
                yield row, _sums(sheets, cells)

    def _requests(self, rows: Sequence[tuple[int, list[float]]]) -> Iterator[str]:
        yield from head(REQUESTS, "histogram", "Requests by route, and the seconds until they were answered.")
        for row, numbers in rows:
            for status_class, cells in enumerate(OF_CLASS):
                *counts, seconds = numbers[cells]
                if not any(counts):
                    continue
                prefixes = self._prefixes_of(row, status_class)
                up_to = [int(count) for count in itertools.accumulate(counts)]
                yield from map("{}{}".format, prefixes, (*up_to, f"{seconds:.9g}", up_to[-1]))

    def _prefixes_of(self, row: int, status_class: int) -> list[str]:
        known = self._prefixes.get((row, status_class))
        if known is None:
            route, method = self._layout.rows[row]
            labels = {"route": route, "method": method, "status": CLASSES[status_class]}
            known = [f"{REQUESTS}_bucket{labelled({**labels, 'le': end})} " for end in _ENDS]
            known += [f"{REQUESTS}_sum{labelled(labels)} ", f"{REQUESTS}_count{labelled(labels)} "]
            self._prefixes[row, status_class] = known
        return known

    def _reads(self, rows: Sequence[tuple[int, list[float]]]) -> Iterator[str]:
        yield from head(READS, "counter", "Reads by the route whose read model it was, and whether Redis had it.")
        for row, numbers in rows:
            route, method = self._layout.rows[row]
            for how, count in zip(CACHE, numbers[OF_CACHE], strict=True):
                if count:
                    yield f"{READS}{labelled({'route': route, 'method': method, 'cache': how})} {int(count)}"


def _sums(sheets: Sequence[Sheet], cells: slice) -> list[float]:
    if not sheets:
        return [0.0] * (cells.stop - cells.start)
    return [sum(numbers) for numbers in zip(*(sheet[cells].tolist() for sheet in sheets), strict=True)]


_COUNTERS = {
    "single_flight_waits": ("swath_single_flight_waits_total", "Misses that waited for another request's read."),
    "database_reads": ("swath_read_models_read_total", "Times that read models were read from Postgres."),
    "refused": ("swath_credentials_refused_total", "Credentials that were not good."),
    "not_modified": ("swath_not_modified_total", "Answers without a body, because the reader had it."),
    "token_cache_hits": ("token_cache_hits", "Shared tokens given out that Redis had."),
    "token_cache_misses": ("token_cache_misses", "Shared tokens that Redis did not have, or that were renewed."),
    "token_mint_count": ("token_mint_count", "Shared tokens made."),
}
"""Name by attribute of `Counts`. Those of tokens are called as callers have always known them."""


def _cell(totals: list[float], name: str) -> float:
    return totals[place_of(name)]


def _plain(totals: list[float]) -> Iterator[Family]:
    for attribute, (name, told) in _COUNTERS.items():
        yield _one(name, "counter", told, _cell(totals, attribute))
    throttled = [({"scope": kind}, count) for kind, count in zip(KINDS, totals[THROTTLED], strict=True)]
    yield Family(name="swath_throttled_total", kind="counter", told="Requests refused: too many.", samples=throttled)
    yield Family(
        name="swath_breaker_open_workers",
        kind="gauge",
        told="Workers that leave a store alone at the moment, because it did not answer.",
        samples=[({"store": store}, _cell(totals, f"{store}_is_open")) for store in STORES],
    )
    yield Family(
        name="swath_breaker_opened_total",
        kind="counter",
        told="Times that a worker began to leave a store alone.",
        samples=[({"store": store}, _cell(totals, f"{store}_opened")) for store in STORES],
    )
    yield _one(
        "swath_pool_connections_max", "gauge", "Connections to Postgres there may be.", _cell(totals, "pool_most")
    )
    yield _one("swath_pool_connections", "gauge", "Connections to Postgres there are.", _cell(totals, "pool_size"))
    yield _one("swath_pool_connections_in_use", "gauge", "Of these, lent to requests.", _cell(totals, "pool_in_use"))
    yield _one("swath_pool_waiting", "gauge", "Requests that wait for a connection.", _cell(totals, "pool_waiting"))


def _one(name: str, kind: Kind, told: str, value: float) -> Family:
    return Family(name=name, kind=kind, told=told, samples=[({}, value)])


def _beats(sheets: Sequence[tuple[int, Sheet]]) -> Family:
    beats = ((worker, sheet[place_of("beat_ms")] / 1000) for worker, sheet in sheets)
    return Family(
        name="swath_worker_silent_seconds",
        kind="gauge",
        told="Since a worker last told its standing, which it does each second; more: it is stuck.",
        samples=[({"worker": str(worker)}, at) for worker, at in beats if at],
        is_since=True,
    )


def may_read(authorization: str | None, token: str | None) -> bool:
    """Whether who presents this may read the page; without a token everybody may who reaches it."""
    if token is None:
        return True
    given = (authorization or "").encode()
    return hmac.compare_digest(given, b"Bearer " + token.encode())


async def _metrics(call: Call[Any, Any, Any]) -> Answer:
    resources = call.resources
    token = resources.settings.metrics_token
    given = call.headers.get(b"authorization", b"").decode("latin-1")
    if not may_read(given, token.get_secret_value() if token else None):
        raise ApiError(401, "metrics are for who has their token", headers={"www-authenticate": "Bearer"})
    page = Page(resources.counts.layout, resources.counts.sheets)
    return Answer(body=page.text(), media_type=CONTENT_TYPE, has_envelope=False, cache_control="no-store")


ENDPOINT = Endpoint(
    method="GET",
    path=PATH,
    handler=_metrics,
    summary="Figures for Prometheus",
    tag="operation",
    scope=None,
    is_throttled=False,
    media_types=("text/plain",),
)
"""Part of the app where the settings say so."""
