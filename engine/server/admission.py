"""
How much may wait: a budget in forward-equivalents and bytes, and what is promised is kept.

A request is taken if there is room for its work, and if what waits before it will be done in time for its own deadline:
under overload those that are taken are answered, and the others hear at once when to come again. Dear and cheap requests
run beside each other and are counted in two lines, each with its own pace; the last eighth of the budget is kept for cheap
ones, so that a few dear ones cannot shut everybody out.

The pace is the time that work really takes over what the model's rate (`Served.rate`) says. It is measured while something
is held and forgets over a few seconds, so that it follows the machine, whoever else uses it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from .faults import BusyError

__all__ = ["Admission", "Outcome", "Share"]

Outcome = Literal["done", "stopped", "dropped"]

LEAST = 1.0  # forward-equivalents: no request takes less
FOR_CHEAP = 1 / 8  # of the budget
SURE = 0.7  # of its time a request may be expected to take; under overload all wait so long, and few should be too late
MEMORY = 5.0  # seconds after which a measurement of the pace counts for 1/e
PRIOR = 1.0  # seconds that the assumption of a pace of 1 counts for
SOONEST = 0.05  # seconds; a refused client never comes back sooner


@dataclass(eq=False)
class Share:
    """
    What one request holds of the budget.

    Attributes
    ----------
    work : float
        Forward-equivalents.
    size : int
        Bytes.
    seconds : float
        Time that the work takes at the model's rate.
    heavy : bool
        In which line it waits.
    """

    work: float
    size: int
    seconds: float
    heavy: bool
    _is_held: bool = field(default=True, init=False)


@dataclass
class _Line:
    """One of the two lines: what is held, and how fast it goes."""

    clock: Callable[[], float]
    work: float = 0.0
    seconds: float = 0.0
    count: int = 0
    mark: float = 0.0  # the last time something ended, or came to an empty line
    _taken: float = PRIOR
    _said: float = PRIOR

    @property
    def pace(self) -> float:
        """Seconds taken for each that was predicted."""
        return self._taken / self._said

    def enter(self, share: Share) -> None:
        """Count a share in."""
        if not self.count:
            self.mark = self.clock()
        self.work += share.work
        self.seconds += share.seconds
        self.count += 1

    def leave(self, share: Share, outcome: Outcome) -> None:
        """Count a share out, and learn from it if its work was done."""
        now = self.clock()
        if outcome == "done":
            elapsed = now - self.mark
            kept = math.exp(-elapsed / MEMORY)
            self._taken, self._said = self._taken * kept + elapsed, self._said * kept + share.seconds
        if outcome != "dropped":  # of work that was stopped nobody knows how much was done
            self.mark = now
        self.count -= 1  # an empty line holds nothing, whatever sums of floats leave over
        self.work = max(0.0, self.work - share.work) if self.count else 0.0
        self.seconds = max(0.0, self.seconds - share.seconds) if self.count else 0.0


class Admission:
    """
    The budget of what waits and runs; safe for threads.

    Parameters
    ----------
    capacity : float
        Forward-equivalents.
    size : int
        Bytes of pictures and inputs.
    clock : callable
        Gives the time in seconds.
    """

    def __init__(self, capacity: float, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity, self._size = capacity, size
        self._lock = threading.Lock()
        self._light, self._heavy = _Line(clock), _Line(clock)
        self._bytes = 0

    @property
    def held(self) -> float:
        """The forward-equivalents that wait or run."""
        return self._light.work + self._heavy.work

    def check_room(self) -> None:
        """
        Tell early, before a request is read, that it would not be taken.

        Raises
        ------
        BusyError
            If not even the smallest request would be.
        """
        with self._lock:
            if (self.held and self.held + LEAST > self._capacity) or self._bytes >= self._size:
                raise self._refused(self._light, "the queue is full")

    def take(self, work: float, size: int, *, rate: float, heavy: bool, remaining: float) -> Share:
        """
        Count a request in, or refuse it.

        Parameters
        ----------
        work : float
            Forward-equivalents.
        size : int
            Bytes of its pictures and inputs.
        rate : float
            Forwards a second of its model.
        heavy : bool
            Whether it is run beside the cheap ones.
        remaining : float
            Seconds until its deadline.

        Returns
        -------
        Share
            To be given back.

        Raises
        ------
        BusyError
            If there is no room, or what waits before it cannot be done in time. A line that is empty takes any request
            that fits beside the other line; an empty server takes any.
        """
        share = Share(work, size, work / max(rate, 1e-9), heavy)
        with self._lock:
            line, other = (self._heavy, self._light) if heavy else (self._light, self._heavy)
            bound = self._capacity * (1 - FOR_CHEAP) if heavy else self._capacity
            if self.held and (self.held + work > self._capacity or (line.count and line.work + work > bound)):
                raise self._refused(line, "the queue is full")
            if self._bytes and self._bytes + size > self._size:
                raise self._refused(line if line.count else other, "the queue is full")
            if line.count and line.pace * (line.seconds + share.seconds) > SURE * remaining:
                raise self._refused(line, "what waits already takes longer than the request's timeout")
            line.enter(share)
            self._bytes += size
        return share

    def give_back(self, share: Share, outcome: Outcome) -> bool:
        """
        Count a request out.

        Parameters
        ----------
        share : Share
            What `take` gave.
        outcome : {"done", "stopped", "dropped"}
            What became of its work: all of it was done, some, or none. The pace is learnt from what was done.

        Returns
        -------
        bool
            False where it had been given back before; nothing happens then.
        """
        with self._lock:
            if not share._is_held:
                return False
            share._is_held = False
            (self._heavy if share.heavy else self._light).leave(share, outcome)
            self._bytes -= share.size
            return True

    def _refused(self, line: _Line, why: str) -> BusyError:
        """Return the refusal, with the time in which the line will have moved on; called under the lock."""
        seconds = max(SOONEST, line.pace * line.seconds)
        return BusyError(f"{why}: {self.held:.0f} forwards of work wait or run; try again in {seconds:.1f} s", seconds)
