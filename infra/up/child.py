"""The program in which a part of `swath up` runs: a Python module that ends when its parent does.

Run as a file, with `python -P child.py NICENESS MODULE ARGUMENT...`. The parent holds the other end of our standard
input, which the kernel closes when it dies, however it dies: then we end as by SIGTERM, and soon in any case.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading

GRACE_S = 20


def main() -> None:
    """Become the module."""
    niceness, module, *arguments = sys.argv[1:]
    os.nice(int(niceness))
    leash = os.dup(0)
    os.set_inheritable(leash, False)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)  # whatever the module starts must not hold the parent's pipe
    os.close(nowhere)
    threading.Thread(target=_end_with_the_parent, args=(leash,), name="leash", daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_the_parent(leash: int) -> None:
    while os.read(leash, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    main()
