"""SIGTERM and Ctrl-C: the process ends soon, whatever it is waiting for."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from types import FrameType

GRACE_S = 10
"""How long after a signal the process may take to end by itself.

Threads that wait for a file server cannot be interrupted, and would keep it for as long as they may wait: 40 seconds
and more, in which service managers send SIGKILL. Ending hard loses nothing: what was saved is committed, work that was
in hand is still planned, locks end with their connections, Prefect's embedded server follows its parent, and the other
embedded servers are found again by the next process.
"""

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}

_LAST_WORDS = b"swath: did not wait any longer for servers that do not answer\n"


def end_soon_when_told() -> None:
    """From now on end this process on SIGTERM and Ctrl-C: with all `finally` blocks, or hard after `GRACE_S`.

    To be called once, by the main thread.
    """
    # By default SIGTERM skips every `finally`, and our embedded servers would be left running.
    signal.signal(signal.SIGTERM, _end)
    # Told by the interpreter's own handler and not by ours, because Prefect puts its own in place of ours during a flow
    # run, and because no handler in Python runs while the main thread waits inside a library.
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    threading.Thread(target=_end_hard_in_time, args=(told,), name="interrupts", daemon=True).start()


def _end(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # whoever asks twice must not stop us from stopping our servers
    raise SystemExit(EXIT_CODES[signal.SIGTERM])


def _end_hard_in_time(told: int) -> None:
    while (number := os.read(told, 1)[0]) not in EXIT_CODES:
        pass
    time.sleep(GRACE_S)
    with contextlib.suppress(OSError):
        os.write(2, _LAST_WORDS)
    os._exit(EXIT_CODES[signal.Signals(number)])
