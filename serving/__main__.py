"""One worker, on a socket that it is given: `python -m serving FILE_DESCRIPTOR [SHEETS WORKER]`.

SHEETS is a file descriptor too: of the memory in which all workers count, this one as number WORKER.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # nothing that is imported is garbage, and to look for some takes a seventh of a worker's start
    from serving.worker import main

    main()
