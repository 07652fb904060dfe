"""
Memory that nobody uses goes back to the machine.

A model that was replaced is freed, but the C library keeps its pages for later. On a server that swaps versions that is
memory lost to everybody else: over ten swaps of a 14 MB model the process grew from 250 to 430 MB and stayed there. The
same holds, in megabytes, for the requests of a busy time.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
import weakref
from collections.abc import Callable

__all__ = ["trim", "trim_after", "trim_when_quiet"]

SETTLED = 0.5  # seconds from the end of an owner until what it held is free too
QUIET = 3.0  # seconds without work after which a busy time is over


def trim() -> bool:
    """
    Give free pages of the C library's heap back to the machine.

    Returns
    -------
    bool
        Whether that can be done here: glibc alone can be asked.

    Notes
    -----
    Cost: a few milliseconds, during which allocations of other threads wait.
    """
    try:
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
    except (AttributeError, OSError, TypeError):  # another C library; TypeError: Windows
        return False
    return True


def trim_after(owner: object) -> None:
    """
    Trim soon after an object has ended.

    Parameters
    ----------
    owner : object
        What holds much memory through others, which end with it.
    """
    weakref.finalize(owner, _soon).atexit = False


async def trim_when_quiet(count: Callable[[], int], held: Callable[[], float]) -> None:
    """
    Trim once after every busy time, until cancelled.

    Parameters
    ----------
    count : callable
        How many requests there have been.
    held : callable
        The work that waits or runs.
    """
    seen = trimmed = count()
    while True:
        await asyncio.sleep(QUIET)
        now = count()
        if now == seen != trimmed and not held():
            await asyncio.to_thread(trim)
            trimmed = now
        seen = now


def _soon() -> None:
    """Trim when what the owner held has been freed; whoever dropped it is not kept waiting."""
    timer = threading.Timer(SETTLED, trim)
    timer.daemon = True
    timer.start()
