"""
Where the loop meets the threads: one coroutine that waits for the scheduler, and for the client to leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from ..errors import CancelledError
from .asks import Ask
from .scheduler import Scheduler
from .served import Lease
from .tickets import Answer

__all__ = ["wait_for"]


async def wait_for(scheduler: Scheduler, lease: Lease, ask: Ask, gone: Callable[[], Awaitable[None]]) -> Answer:
    """
    Have a request answered.

    Parameters
    ----------
    scheduler : Scheduler
        Who runs it.
    lease : Lease
        The model; the scheduler's from now on.
    ask : Ask
        What is wanted.
    gone : callable
        Makes an awaitable that ends when the client has left.

    Returns
    -------
    Answer
        What to write.

    Raises
    ------
    CancelledError
        If the client has left. Nobody waits for the work any more; it is dropped, or its run ends.
    DeadlineError
        If the request's time is over, even if its run goes on for others.
    BusyError, UnreadyError, InputError, NumericError, ProviderError
        As `Scheduler.submit` and the engine raise them.

    Notes
    -----
    Cost: one hop from a thread to the loop, and one task that watches the client.
    """
    seat = _Seat()
    ticket = scheduler.submit(lease, ask, seat.hand_over)
    watch = asyncio.ensure_future(gone())
    watch.add_done_callback(seat.left)
    try:
        return await seat.answered
    finally:
        scheduler.cancel(ticket)
        watch.cancel()
        seat.leave()


class _Seat:
    """Where one coroutine waits; an error that is raised out of it leads back to nothing it holds."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.answered: asyncio.Future[Answer] = self._loop.create_future()

    def hand_over(self, answer: Answer | None, error: BaseException | None) -> None:
        """Bring the outcome to the loop; called by any thread."""
        with suppress(RuntimeError):  # the loop was closed: nobody waits
            self._loop.call_soon_threadsafe(self._settle, answer, error)

    def left(self, watch: asyncio.Future[None]) -> None:
        """End the wait, because the client has left."""
        if not watch.cancelled():
            watch.exception()  # a connection that fails is one that has ended
            self._settle(None, CancelledError("the client left before its answer was ready"))

    def leave(self) -> None:
        """Wait no longer."""
        if self.answered.done() and not self.answered.cancelled():
            self.answered.exception()  # nobody else may have looked at it
        self.answered = self._loop.create_future()
        self.answered.cancel()

    def _settle(self, answer: Answer | None, error: BaseException | None) -> None:
        """Take the first outcome."""
        if self.answered.done():
            return
        if answer is not None:
            self.answered.set_result(answer)
        else:
            self.answered.set_exception(error or AssertionError("a request ended without a word"))
