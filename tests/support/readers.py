"""Readers of the API over HTTP that ask the same again and again, and note how and when they are answered."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.support.api import Api


@dataclass(frozen=True)
class Told:
    """One answer."""

    at: float
    """On the monotonic clock, seconds."""
    seconds: float
    kind: str
    """Status and who answered, such as `200 hit`, `200 away` or `304 none`."""


@dataclass
class Readers:
    """Threads that read one path."""

    api: Api
    key: str
    path: str
    pause_s: float = 0.0
    told: list[Told] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def seen(self) -> Counter[str]:
        """How many answers of each kind have come."""
        return Counter(each.kind for each in self.told)

    def run(self) -> None:
        """Read until told to stop."""
        with self.api.client(self.key) as client:
            while not self._stop.is_set():
                begun = time.monotonic()
                answer = client.get(self.path)
                timing = answer.headers.get("server-timing", "")
                how = timing.rpartition('desc="')[2].rstrip('"') if "desc=" in timing else "none"
                assert answer.status_code < 500 or answer.headers["retry-after"]
                now = time.monotonic()
                with self._changed:
                    self.told.append(Told(now, now - begun, f"{answer.status_code} {how}"))
                    self._changed.notify_all()
                self._stop.wait(self.pause_s)

    def wait_for(self, kind: str, more: int = 20, *, timeout_s: float = 60) -> None:
        """Wait until so many more answers of a kind have come."""
        with self._changed:
            enough = self.seen[kind] + more
            assert self._changed.wait_for(lambda: self.seen[kind] >= enough, timeout=timeout_s), self.seen

    def stop(self) -> None:
        """Let the threads end."""
        self._stop.set()


@contextlib.contextmanager
def readers(api: Api, key: str, path: str, *, count: int = 8, pause_s: float = 0.0) -> Iterator[Readers]:
    """Let so many read until the end of the block."""
    group = Readers(api, key, path, pause_s)
    threads = [threading.Thread(target=group.run) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield group
    finally:
        group.stop()
        for thread in threads:
            thread.join(60)
