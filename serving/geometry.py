"""Boundaries checked by a child process: the rules of the import, without its libraries in a worker that serves.

The child starts when it is first needed, and again when it died. Each boundary has its own limit of time; one that
takes longer, or all of the memory, costs the child its life and the caller a plain answer, and nobody else anything.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from models.errors import BadInput
from serving.faults import unavailable

log = structlog.get_logger(__name__)

START_TIMEOUT_S = 15.0
"""It takes a third of a second."""

STARTS = 2
"""Tries to start a child before the answer is 503."""

BOUNDARY_TIMEOUT_S = 5.0
"""Longest that one boundary may take. An ordinary one takes 0.3 ms, one of 100,000 vertices half a second."""

REQUEST_TIMEOUT_S = 20.0
"""Longest that all boundaries of one request may take."""

AT_ONCE = 50
"""Boundaries of one request before it is another request's turn."""

MOST_WAITING = 32
"""Requests that may wait for their turn; beyond, the answer is 503 at once."""

_PROGRAM: tuple[str, ...] = ("-m", "tasks.farms.checking")
_MOST_ANSWER_BYTES = 64 * 1024**2
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "TMPDIR", "PROJ_DATA", "PROJ_LIB")
"""Of our environment, which holds secrets, what the child needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A boundary that keeps every rule."""

    wkb: bytes
    bbox: tuple[float, float, float, float]
    area_ha: float
    repairs: tuple[str, ...]


Drawn = Mapping[str, Any]
"""What a caller drew: `geometry`, `bbox` and `centroid`, those that were given."""

_TOO_COMPLEX = "a simpler shape"


class BoundaryChecker:
    """The one child of a worker; requests take turns."""

    def __init__(
        self,
        *,
        min_ha: float,
        max_ha: float,
        boundary_timeout_s: float = BOUNDARY_TIMEOUT_S,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        self.starts = 0
        """How often a child was started."""
        self._limits = (repr(min_ha), repr(max_ha))
        self._boundary_timeout_s = boundary_timeout_s
        self._request_timeout_s = request_timeout_s
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._child: Process | None = None

    @property
    def child_id(self) -> int | None:
        """Process id of the child, while there is one."""
        return None if self._child is None else self._child.pid

    async def check(self, drawn: Sequence[Drawn]) -> list[Checked | BadInput]:
        """Check boundaries, and tell of each what it is or what is wrong with it, in the order given.

        Raises:
            ApiError: 503, too many requests wait for their turn, or the child cannot be started.
        """
        if self._waiting >= MOST_WAITING:
            raise unavailable("the check of boundaries", retry_after_s=2)
        self._waiting += 1
        deadline = time.monotonic() + self._request_timeout_s
        told: list[Checked | BadInput] = []
        try:
            for start in range(0, len(drawn), AT_ONCE):
                async with self._turn:
                    await self._check_some(drawn[start : start + AT_ONCE], told, deadline)
        finally:
            self._waiting -= 1
        return told

    async def aclose(self) -> None:
        """End the child."""
        async with self._turn:
            await self._end()

    async def _check_some(self, drawn: Sequence[Drawn], told: list[Checked | BadInput], deadline: float) -> None:
        first, suspect = len(told), -1
        while (done := len(told) - first) < len(drawn):
            if time.monotonic() > deadline:
                problem = f"was not checked: those before it took all of {self._request_timeout_s:g} s"
                told.extend([BadInput("geometry", problem, allowed=_TOO_COMPLEX)] * (len(drawn) - done))
                return
            try:
                await self._ask(drawn[done:], told)
            except TimeoutError:
                problem = f"takes longer than {self._boundary_timeout_s:g} s to check: it is too complex"
                told.append(BadInput("geometry", problem, allowed=_TOO_COMPLEX))
            except _Died:
                at = len(told) - first
                if at == suspect:  # twice at the same boundary: it is the boundary
                    problem = "takes more memory to check than there is: it is too complex"
                    told.append(BadInput("geometry", problem, allowed=_TOO_COMPLEX))
                suspect = at

    async def _ask(self, drawn: Sequence[Drawn], told: list[Checked | BadInput]) -> None:
        """Send boundaries to the child and add its answers as they come.

        Raises:
            TimeoutError: it took too long over the boundary after the last answer.
            _Died: it died over it, or was gone before.
        """
        child = await self._living()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(orjson.dumps(drawn) + b"\n")
            async with asyncio.timeout(self._request_timeout_s):
                await child.stdin.drain()
            for _ in drawn:
                async with asyncio.timeout(self._boundary_timeout_s):
                    line = await child.stdout.readline()
                if not line.endswith(b"\n"):
                    raise _Died
                told.append(_read(line))
        except (ConnectionError, _Died):
            log.warning("the child that checks boundaries is gone", code=child.returncode)
            await self._end()
            raise _Died from None
        except BaseException:  # also when the caller went away: what it has not answered must reach nobody else
            await self._end()
            raise

    async def _living(self) -> Process:
        if self._child is not None and self._child.returncode is None:
            return self._child
        for _ in range(STARTS):
            await self._end()
            child = await self._started()
            if child is not None:
                return child
        raise unavailable("the check of boundaries")

    async def _started(self) -> Process | None:
        """Start a child; None when it ended, or was not ready in time."""
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        child = self._child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", *_PROGRAM, *self._limits),
            stdin=PIPE,
            stdout=PIPE,
            limit=_MOST_ANSWER_BYTES,
            env=environment | {"OPENBLAS_NUM_THREADS": "1"},
        )
        self.starts += 1
        assert child.stdout is not None
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                if await child.stdout.readline() == b'"ready"\n':
                    return child
            problem = "it ended"
        except TimeoutError:
            problem = f"not within {START_TIMEOUT_S:g} s"
        except BaseException:
            await self._end()
            raise
        await self._end()
        log.error("the child that checks boundaries does not start", problem=problem, code=child.returncode)
        return None

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.stdin is not None:
            child.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


class _Died(Exception):
    """The child ended before it had answered."""


def _read(line: bytes) -> Checked | BadInput:
    answer = orjson.loads(line)
    error = answer.get("error")
    if error is not None:
        return BadInput(error["field"], error["problem"], allowed=error["allowed"])
    return Checked(
        wkb=base64.b64decode(answer["wkb"]),
        bbox=tuple(answer["bbox"]),
        area_ha=answer["area_ha"],
        repairs=tuple(answer["repairs"]),
    )
