"""The `swath up` of the demo: the command itself, as an operator would start it, ended with the demo."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from infra.local.processes import tail
from infra.settings import Settings
from infra.up.programs import program
from infra.up.running import UI_PORT, Ready
from models.errors import ServerTrouble

STOP_TIMEOUT_S = 60.0
LOG_FILE = "up.log"
MAX_LOG_BYTES = 10_000_000


@dataclass(frozen=True, slots=True)
class DemoUp:
    """A `swath up` that is starting or running."""

    process: subprocess.Popen[bytes]
    log_file: Path
    """What all its parts say."""

    def wait_until_ready(self) -> Ready:
        """Wait for all parts.

        Raises:
            ServerTrouble: it ended instead; with the last that it said.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise ServerTrouble(self._last_words())
        facts = orjson.loads(line)
        return Ready(**{**facts, "auth_file": facts["auth_file"] and Path(facts["auth_file"])})

    def see_that_it_runs(self) -> None:
        """Do nothing while it runs.

        Raises:
            ServerTrouble: it has ended; with the last that it said.
        """
        if (code := self.process.poll()) is not None:
            raise ServerTrouble(f"swath up ended with exit code {code}: {self._last_words()}")

    def _last_words(self) -> str:
        """What it said in the end: the error, from the line on that names it."""
        return f"\n{tail(self.log_file)}".rpartition("\nswath: ")[2].strip()


@contextlib.contextmanager
def demo_up(settings: Settings) -> Iterator[DemoUp]:
    """Start `swath up` on this home, on its usual ports unless somebody has them, and stop it at the end.

    It is told all that is in the environment, and ends with this process, however that ends.
    """
    api_port, ui_port = _free(settings.serve_host, settings.serve_port), _free("127.0.0.1", UI_PORT)
    command = program("infra.cli", "up", "--json", "--port", str(api_port), "--ui-port", str(ui_port))
    log_file = settings.home / LOG_FILE
    with log_file.open("ab") as log:  # a second demo on this home, which is refused, must not empty it
        if log.tell() > MAX_LOG_BYTES:
            log.truncate(0)
        process = subprocess.Popen(
            command,
            env=os.environ | {"SWATH_HOME": str(settings.home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us, who still need it for a moment
        )
    with process:
        try:
            yield DemoUp(process, log_file)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
            process.kill()


def _free(host: str, port: int) -> int:
    """The port if it can be listened on, else 0, which takes a free one."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return port
    except OSError:
        return 0
