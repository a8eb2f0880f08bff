"""One part of `swath up`: a process that is started, waited for until it answers, and started again when it dies.

Our own and not a supervisor library's (looked at: honcho, circus, supervisor, mprocs): none of them knows readiness as
we need it (a part starts when the one before it answers), two bring a daemon or a message bus of their own, honcho ends
everything when one process dies, and mprocs is for a person at a terminal. What is left to do ourselves is this file.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from models.errors import ServerTrouble

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
STEADY_S = 60.0
"""A part that ran this long after it answered counts as well: its next death is a first one."""
PROBE_S = 0.1
REMEMBERED_LINES = 15
LONGEST_LINE = 16_384

Say = Callable[[str, str], None]
"""Takes the name of a part and a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What runs, and how to tell that it does."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    """All of it."""
    answers: Callable[[], Awaitable[bool]]
    """Whether it does what it is for; asked until it does."""
    start_timeout_s: float = 300.0
    stop_timeout_s: float = 15.0
    """After SIGTERM; then it is killed."""
    folder: Path | None = None
    descriptors: tuple[int, ...] = ()
    while_starting: Callable[[], AbstractContextManager[None]] = nullcontext
    """Held from before it starts until it answers."""


class Keeper:
    """Keeps one part running until told to stop."""

    def __init__(self, part: Part, say: Say) -> None:
        self.part = part
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._pump: asyncio.Task[None] | None = None
        self._said: deque[str] = deque(maxlen=REMEMBERED_LINES)

    @property
    def pid(self) -> int | None:
        """The process that runs now, or ran last."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ServerTrouble: it ended, or does not answer in time; with the last lines it said.
        """
        begun = time.monotonic()
        lock = self.part.while_starting()
        await asyncio.to_thread(lock.__enter__)
        try:
            process = await self._spawn()
            await self._wait_until_it_answers(process, deadline=begun + self.part.start_timeout_s)
        except BaseException:
            await self.stop()
            raise
        finally:
            lock.__exit__(None, None, None)
        self._say(self.part.name, f"ready after {time.monotonic() - begun:.1f} s (process {self.pid})")

    async def keep(self) -> None:
        """Wait for the end of the part that was started, and start it again; until cancelled."""
        delay = FIRST_DELAY_S
        while self._process is not None:
            ready_at = time.monotonic()
            await self._process.wait()
            if time.monotonic() - ready_at > STEADY_S:
                delay = FIRST_DELAY_S
            delay = await self._start_again(self._process.returncode, delay=delay)

    async def stop(self) -> None:
        """End the part if it runs: SIGTERM, and SIGKILL after its time."""
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), self.part.stop_timeout_s)
            except TimeoutError:
                self._say(self.part.name, "is slow to stop and is killed")
                self.kill()
                await process.wait()
        if self._pump is not None:
            # What it said last is in the pipe; a process that it left behind may hold the pipe open for longer.
            await asyncio.wait({self._pump}, timeout=0.5)
            self._pump.cancel()

    def kill(self) -> None:
        """End the part at once."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _start_again(self, code: int | None, *, delay: float) -> float:
        """Start it until it answers, and return how long to wait the next time."""
        problem = _ended(code)
        while True:
            self._say(self.part.name, f"{problem}; it is started again in {delay:.0f} s")
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY_S)
            try:
                await self.start()
            except ServerTrouble as error:
                problem = str(error).partition("\n")[0].rstrip(":")
            else:
                return delay

    async def _spawn(self) -> asyncio.subprocess.Process:
        part = self.part
        self._said.clear()
        try:
            process = await asyncio.create_subprocess_exec(
                *part.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=part.folder,
                env=dict(part.environment),
                pass_fds=part.descriptors,
                start_new_session=True,  # Ctrl-C is for us alone, who stop the parts in order
            )
        except OSError as error:
            raise ServerTrouble(f"{part.name} cannot be run: {error}") from error
        self._process = process
        assert process.stdout is not None
        self._pump = asyncio.create_task(self._pass_on(process.stdout))
        return process

    async def _wait_until_it_answers(self, process: asyncio.subprocess.Process, *, deadline: float) -> None:
        name = self.part.name
        while process.returncode is None:
            if await self.part.answers():
                return
            if time.monotonic() > deadline:
                raise ServerTrouble(f"{name} does not answer:\n{self._last_words()}")
            await asyncio.sleep(PROBE_S)
        raise ServerTrouble(f"{name} {_ended(process.returncode)} before it answered:\n{self._last_words()}")

    async def _pass_on(self, output: asyncio.StreamReader) -> None:
        left = b""
        while chunk := await output.read(65_536):
            *lines, left = (left + chunk).split(b"\n")
            if len(left) > LONGEST_LINE:
                lines, left = [*lines, left], b""
            for line in lines:
                self._pass_line_on(line)
        if left:
            self._pass_line_on(left)

    def _pass_line_on(self, line: bytes) -> None:
        text = line[:LONGEST_LINE].decode(errors="replace").rstrip()
        if text:
            self._said.append(text)
            self._say(self.part.name, text)

    def _last_words(self) -> str:
        return "\n".join(self._said) or "(it said nothing)"


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
