"""What one worker counts, on a sheet that the metrics page reads; a successor of the worker goes on with it."""

from __future__ import annotations

import itertools
import time
from bisect import bisect_left
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final, get_args

from serving.principal import ScopeKind
from serving.sheets import CELLS, Sheets

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends, seconds; one more bucket has the rest."""

CLASSES: Final = ("2xx", "3xx", "4xx", "5xx")
CACHE: Final = ("hit", "miss", "away")
KINDS: Final[tuple[ScopeKind, ...]] = get_args(ScopeKind)

STORES: Final = ("redis", "postgres", "prefect")
"""What there is a breaker for."""

NO_ROUTE: Final = "none"
"""Label of requests for paths that there are not, whatever they are."""

OTHER: Final = "other"
"""Label of methods that a route does not have."""

CLASS_CELLS: Final = len(BUCKETS_S) + 2
"""Of a status class: its buckets, the rest, and the sum of seconds."""

_CLASSES_AT = 1  # the first cell of a row is 1 when anything is in the others
_CACHE_AT = _CLASSES_AT + len(CLASSES) * CLASS_CELLS
_ROW_CELLS = _CACHE_AT + len(CACHE)

OF_CLASS: Final = tuple(
    slice(_CLASSES_AT + place * CLASS_CELLS, _CLASSES_AT + (place + 1) * CLASS_CELLS) for place in range(len(CLASSES))
)
"""Cells within a row by status class: buckets, the rest, sum of seconds."""

OF_CACHE: Final = slice(_CACHE_AT, _ROW_CELLS)
"""Cells within a row that tell how its reads came out, in the order of `CACHE`."""
_places = itertools.count(1)  # the first cell says which layout this is


class _Number:
    """One cell of a sheet as a whole number."""

    def __init__(self) -> None:
        self.place = next(_places)

    def __get__(self, counts: Any, _owner: Any = None) -> int:
        return int(counts.cells[self.place])

    def __set__(self, counts: Any, value: int) -> None:
        counts.cells[self.place] = value


class Layout:
    """Where on a sheet the figures of each route are.

    Args:
        routes: template and method of each.
    """

    def __init__(self, routes: Iterable[tuple[str, str]] = ()) -> None:
        named = dict.fromkeys(routes)
        others = dict.fromkeys((route, OTHER) for route, _ in named)
        self.rows: tuple[tuple[str, str], ...] = (*named, *others, (NO_ROUTE, OTHER))
        """Route and method of each row of figures."""
        self._at = {row: _FIRST + place * _ROW_CELLS for place, row in enumerate(self.rows)}
        self._at |= {(route, "HEAD"): at for (route, method), at in self._at.items() if method == "GET"}
        self._nothing = self._at[NO_ROUTE, OTHER]
        self.cells = _FIRST + len(self.rows) * _ROW_CELLS
        if self.cells > CELLS:
            raise ValueError(f"{len(self.rows)} routes do not fit on a sheet")
        told = repr((self.rows, BUCKETS_S, CLASSES, CACHE, KINDS, _FIRST)).encode()
        self.mark = float(int.from_bytes(blake2b(told, digest_size=6).digest()) + 1)
        """Tells a sheet of this layout from one that other code has written."""

    def at(self, route: str | None, method: str) -> int:
        """First cell of the row for a request; never a new one."""
        if route is None:
            return self._nothing
        return self._at.get((route, method)) or self._at.get((route, OTHER), self._nothing)

    @property
    def plain(self) -> slice:
        """Cells of what belongs to no route."""
        return slice(0, _FIRST)

    def row(self, place: int) -> slice:
        """Cells of a row; the first of them is 1 when anything is in the others."""
        start = _FIRST + place * _ROW_CELLS
        return slice(start, start + _ROW_CELLS)


class Counts:
    """Plain numbers: reading them costs no store anything."""

    cache_hits = _Number()
    """Reads answered with the bytes that Redis had."""
    cache_misses = _Number()
    """Reads that Redis knew nothing of."""
    cache_away = _Number()
    """Reads while Redis did not answer."""
    single_flight_waits = _Number()
    """Misses that waited for another request to read the same from Postgres."""
    database_reads = _Number()
    """Read models read from Postgres."""
    refused = _Number()
    """Credentials that were not good."""
    not_modified = _Number()
    """Answers without a body, because the reader has it already."""
    token_cache_hits = _Number()
    """Shared tokens given out that Redis had."""
    token_cache_misses = _Number()
    """Shared tokens that Redis did not have, or that had to be renewed."""
    token_mint_count = _Number()
    """Shared tokens made."""

    beat_ms = _Number()
    """When the worker told its standing last, in milliseconds since 1970."""
    redis_is_open = _Number()
    """1 while Redis is left alone."""
    postgres_is_open = _Number()
    prefect_is_open = _Number()
    redis_opened = _Number()
    """How often Redis has been left alone."""
    postgres_opened = _Number()
    prefect_opened = _Number()
    pool_most = _Number()
    """Connections to Postgres that there may be."""
    pool_size = _Number()
    pool_in_use = _Number()
    pool_waiting = _Number()
    """Requests that wait for a connection."""

    def __init__(self, layout: Layout | None = None, sheets: Sheets | None = None, *, worker: int = 0) -> None:
        self.layout = layout or Layout()
        self.sheets = sheets or Sheets(1)
        self.cells = self.sheets.sheet(worker)
        if self.cells[0] != self.layout.mark:
            self.cells[: self.layout.cells] = memoryview(bytes(8 * self.layout.cells)).cast("d")
            self.cells[0] = self.layout.mark
        self.opened_before = {name: getattr(self, f"{name}_opened") for name in STORES}
        """What workers before this one have counted of breakers, which begin at 0."""

    @property
    def throttled(self) -> int:
        """Requests refused because there were too many."""
        return int(sum(self.cells[THROTTLED]))

    def note_throttled(self, kind: ScopeKind) -> None:
        """Count a request that was refused because there were too many of its kind."""
        self.cells[THROTTLED.start + KINDS.index(kind)] += 1

    def note_request(self, route: str | None, method: str, *, status: int, seconds: float, cache: str | None) -> None:
        """Count a request that was answered.

        Args:
            route: template of its path; None: there is nothing at that path.
            method: as it was sent, whatever it is.
            status: of the answer.
            seconds: until it was sent.
            cache: how its read came out, if it was one.
        """
        cells, row = self.cells, self.layout.at(route, method)
        start = row + _CLASSES_AT + min(max(status // 100 - 2, 0), 3) * CLASS_CELLS
        cells[row] = 1
        cells[start + bisect_left(BUCKETS_S, seconds)] += 1
        cells[start + CLASS_CELLS - 1] += seconds
        if cache in CACHE:
            cells[row + _CACHE_AT + CACHE.index(cache)] += 1

    def beat(self) -> None:
        """Say that this worker lives and gets to its work."""
        self.beat_ms = int(time.time() * 1000)


def place_of(name: str) -> int:
    """The cell of a number of `Counts`."""
    number: _Number = vars(Counts)[name]
    return number.place


_FIXED = next(_places)
THROTTLED: Final = slice(_FIXED, _FIXED + len(KINDS))
"""Cells of requests refused because there were too many, in the order of `KINDS`."""
_FIRST = THROTTLED.stop
