"""
Deadlines of many requests, kept by one thread that sleeps until the next.

A timer for each request would be a thread for each. What is over before its deadline is called off, and forgotten.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

__all__ = ["Deadlines"]

SPARE = 256  # entries without a callback that may lie about

log = logging.getLogger("camrt.server")


class Deadlines:
    """Calls back when a time has come, unless it was called off; safe for threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._times: list[tuple[float, int]] = []  # a heap; entries called off are left in it for a while
        self._calls: dict[int, Callable[[], None]] = {}
        self._numbers = itertools.count()
        self._is_open = True
        self._thread = threading.Thread(target=self._keep, name="camrt-deadlines", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, until: float, call: Callable[[], None]) -> int:
        """
        Have something called at a time.

        Parameters
        ----------
        until : float
            The time (`time.monotonic`).
        call : callable
            Called once, soon after, by the thread that keeps all deadlines: it must be quick.

        Returns
        -------
        int
            For `call_off`.
        """
        with self._changed:
            number = next(self._numbers)
            self._calls[number] = call
            heapq.heappush(self._times, (until, number))
            if self._times[0][1] == number:  # sooner than what the thread sleeps for
                self._changed.notify()
        return number

    def call_off(self, number: int) -> None:
        """
        Forget a deadline.

        Parameters
        ----------
        number : int
            What `add` gave; nothing happens where the time has come already.
        """
        with self._changed:
            self._calls.pop(number, None)
            if len(self._times) > 2 * len(self._calls) + SPARE:
                self._times = [entry for entry in self._times if entry[1] in self._calls]
                heapq.heapify(self._times)

    def close(self) -> None:
        """Forget all deadlines and end the thread."""
        with self._changed:
            self._is_open = False
            self._calls.clear()
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _keep(self) -> None:
        """Call what is due, and sleep until something is."""
        while True:
            with self._changed:
                while self._is_open and not (due := self._due()):
                    self._changed.wait(self._times[0][0] - time.monotonic() if self._times else None)
                if not self._is_open:
                    return
            for call in due:
                try:
                    call()
                except Exception:
                    log.exception("what a deadline called failed")

    def _due(self) -> list[Callable[[], None]]:
        """Take out what is due; called under the lock."""
        due: list[Callable[[], None]] = []
        now = time.monotonic()
        while self._times and (self._times[0][0] <= now or self._times[0][1] not in self._calls):
            call = self._calls.pop(heapq.heappop(self._times)[1], None)
            if call is not None:
                due.append(call)
        return due
