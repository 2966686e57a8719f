"""End a worker whose run was killed: it would go on to the end of its stage, beside the
next run and on the same cores."""

import functools
import multiprocessing
import os
import threading
import time

import psutil

EVERY = 1.0  # seconds from one look to the next


@functools.cache
def follow() -> None:
    """Watch, in a worker, for the end of who started it; in another process do nothing.

    The worker then ends at once and writes nothing more: what the store keeps is
    written in one step.
    """
    parent = psutil.Process().parent()
    if multiprocessing.parent_process() is None or parent is None:
        return
    threading.Thread(target=_look, args=(parent,), daemon=True).start()


def _look(parent: psutil.Process) -> None:
    # An orphan has another parent (POSIX) or none (Windows).
    while psutil.Process().parent() == parent:
        time.sleep(EVERY)
    os._exit(1)
