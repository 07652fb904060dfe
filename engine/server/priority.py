"""
Threads that compute give way to the one that talks.

On a machine whose cores are all computing, the loop would wait its turn behind runs of the model: refusals, probes and
deadlines would be late. Linux keeps a priority for each thread, and threads inherit it from the one that starts them, so
ONNX Runtime's do too.
"""

from __future__ import annotations

import os
import sys
import threading

__all__ = ["give_way"]

POLITE = 5  # of nice's 19: where everybody computes, a third of the share of the one that talks


def give_way() -> bool:
    """
    Let this thread, and those that it will start, compute with lower priority.

    Returns
    -------
    bool
        Whether it does: Linux keeps priorities for threads, and the process's first thread keeps its own.
    """
    if sys.platform != "linux":
        return False
    thread, loop = threading.get_native_id(), os.getpid()  # the process's first thread, which talks
    if thread == loop:
        return False
    try:
        os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, loop) + POLITE))
    except OSError:  # a sandbox may forbid it
        return False
    return True
