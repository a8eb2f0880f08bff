"""The program `swath`: Ctrl-C ends it without a word also while it is still being loaded."""

from __future__ import annotations

import signal


def main() -> None:
    """Load the command line, which takes a second, and run it."""
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else the parent wants it left alone
    if is_ours:  # nothing has begun that would have to be ended; Python would show where in an import it was
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from infra.cli import main as run

    if is_ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
