"""
Who runs when: cheap requests together, dear ones beside them, none after its deadline.

::

    submit --price, admit--> decode --> light line --several at once--> explain --parts--> done
                             (pool)  -> heavy line --one at a time----> explain ---------> done

No asyncio in here: a few threads, and callbacks. Requests whose method is about one run of the model wait in the light
line; those that can share a run do, and the run is cut up again afterwards. Where so many wait that runs are joined, a
spare lane runs some, too, and computes while others wait for the interpreter's lock. Those that take many forwards wait
in the heavy line and have threads of their own, on which the engine packs the forwards of all of them into shared chunks
(`camrt.planner`). Nothing waits for company unless the settings say so: a batch is what came while the last one ran.

A request ends once: with its answer, an error, at its deadline, or when whoever asked leaves. A run ends early when
nobody waits for it any more. What a request holds, its lease and its share of the budget, is given back when it has ended
and its run has too.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Literal

from ..errors import CancelledError
from .admission import Admission, Outcome
from .asks import Ask
from .deadlines import Deadlines
from .decoding import is_quick
from .faults import BusyError, UnreadyError
from .lines import Line
from .observing import Observer, safely
from .priority import give_way
from .running import answers_of, images_of, overflows
from .served import Lease
from .settings import Settings
from .tickets import Answer, Done, Run, Ticket, issue, late, lightened, nobody

__all__ = ["Scheduler"]

LATER = 5.0  # seconds until a server that stops may have a successor

Lane = Literal["light", "heavy", "spare"]

log = logging.getLogger("camrt.server")


class Scheduler:
    """
    Takes requests and has them run; safe for threads.

    Parameters
    ----------
    settings : Settings
        Its limits, lanes and batches.
    observer : Observer, optional
        Who is told.

    Attributes
    ----------
    taken : int
        How many requests were taken so far.
    """

    def __init__(self, settings: Settings, observer: Observer | None = None) -> None:
        self._settings = settings
        self._observer = observer or Observer()
        self._admission = Admission(settings.queue_work, settings.queue_bytes)
        self._deadlines = Deadlines()
        self._decoders = ThreadPoolExecutor(settings.decoders, "camrt-decoder", give_way)
        self.taken = 0  # requests so far
        self._lock = threading.Lock()  # of the lines, of every ticket's fields, and of what follows
        self._lines: dict[bool, Line[Ticket]] = {False: Line(), True: Line()}  # by `Price.heavy`
        self._ready = {lane: threading.Condition(self._lock) for lane in ("light", "heavy", "spare")}
        self._telling = threading.Lock()
        self._held: set[Ticket] = set()
        self._idle = threading.Condition(self._lock)
        self._is_draining = self._is_closed = False
        lanes = {"light": settings.light_lanes, "heavy": settings.heavy_lanes, "spare": settings.spare_lanes}
        self._threads = [
            threading.Thread(target=self._work, args=[lane], name=f"camrt-{lane}", daemon=True)
            for lane, count in lanes.items()
            for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()
        atexit.register(self.close)  # threads inside ONNX Runtime must not outlive the interpreter

    # what callers use -------------------------------------------------------------------------------------------------

    @property
    def held(self) -> float:
        """The forward-equivalents that wait or run."""
        return self._admission.held

    def check_room(self) -> None:
        """
        Tell early, before a request is read, that it would not be taken.

        Raises
        ------
        UnreadyError
            If the server is stopping.
        BusyError
            If the queue is full.
        """
        self._check_open()
        try:
            self._admission.check_room()
        except BusyError:
            safely(self._observer.rejected, "full")
            raise

    def submit(self, lease: Lease, ask: Ask, done: Done) -> Ticket:
        """
        Take a request, or refuse it at once.

        Parameters
        ----------
        lease : Lease
            The model. It is the scheduler's from now on, and released when the request is over, or refused.
        ask : Ask
            What is wanted.
        done : callable
            Called once with an `Answer` and None, or with None and what went wrong; from any thread, so it must be quick.

        Returns
        -------
        Ticket
            For `cancel`.

        Raises
        ------
        BusyError, UnreadyError
            If there is no room for its work, or the server is stopping.
        TooLargeError
            If it takes more work than one request may.
        InputError
            If a target, the method, the layer or a prepared input does not fit.
        DeadlineError
            If its time is over already.

        Notes
        -----
        Cost: does not wait. Prepared inputs of a few megabytes are checked and copied here.
        """
        try:
            return self._submitted(lease, ask, done)
        except BaseException:
            lease.release()
            raise

    def cancel(self, ticket: Ticket) -> None:
        """
        Do without an answer.

        Parameters
        ----------
        ticket : Ticket
            What `submit` gave. Where it waits it is dropped; its run ends when nobody else waits for it. Nothing happens
            where it is over.
        """
        where = "run" if ticket.run is not None else "queue"
        if self._end(ticket, None, CancelledError("the request was cancelled by its caller")):
            safely(self._observer.cancelled, where)

    def drain(self, seconds: float) -> bool:
        """
        Take nothing more, and wait for what is held.

        Parameters
        ----------
        seconds : float
            How long.

        Returns
        -------
        bool
            Whether nothing is held any more.
        """
        with self._lock:
            self._is_draining = True
            return self._idle.wait_for(lambda: not self._held, seconds)

    def close(self) -> None:
        """Take nothing more, end what is held with `UnreadyError`, and end all threads."""
        with self._lock:
            self._is_draining = self._is_closed = True
            held = list(self._held)
            for ready in self._ready.values():
                ready.notify_all()
        for ticket in held:
            self._end(ticket, None, _stopping())
        self._decoders.shutdown(cancel_futures=True)
        for thread in self._threads:
            thread.join()
        self._deadlines.close()
        atexit.unregister(self.close)

    # a request comes --------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        """Refuse everything where the server is stopping."""
        if self._is_draining:
            raise _stopping()

    def _submitted(self, lease: Lease, ask: Ask, done: Done) -> Ticket:
        """Check and price a request, count it in and send it on its way."""
        self._check_open()
        ticket = issue(lease, ask, done, self._settings, self._admission, self._observer)
        try:
            if is_quick(ask, lease.served.explainer.preprocess):
                ticket.prepare(self._settings, self._observer)
            self._enter(ticket)
        except BaseException:
            self._admission.give_back(ticket.share, "dropped")
            raise
        self._tell_work()
        return ticket

    def _enter(self, ticket: Ticket) -> None:
        """Hold a ticket from now on, until its deadline at most."""
        is_ready = ticket.prepared is not None
        with self._lock:
            self._check_open()
            self._held.add(ticket)
            self.taken += 1
            ticket.deadline = self._deadlines.add(ticket.until, partial(self._expire, ticket))
            if is_ready:
                self._put(ticket)
        if not is_ready:
            with suppress(RuntimeError):  # closed meanwhile, which ends the ticket
                self._decoders.submit(self._decode, ticket)

    def _decode(self, ticket: Ticket) -> None:
        """Prepare a ticket's images in a thread of the pool: one picture a turn, so that nobody waits for many of another's."""
        try:
            is_ready = ticket.prepare(self._settings, self._observer)
        except Exception as error:  # noqa: BLE001  whoever asked is told
            self._end(ticket, None, lightened(error))
            return
        if is_ready:
            with self._lock:
                if not ticket.is_over:
                    self._put(ticket)
        elif not ticket.is_over:
            with suppress(RuntimeError):
                self._decoders.submit(self._decode, ticket)

    def _put(self, ticket: Ticket) -> None:
        """Let a ticket wait for its run; called under the lock."""
        self._lines[ticket.price.heavy].put(ticket)
        self._ready["heavy" if ticket.price.heavy else "light"].notify()
        if self._settings.spare_lanes and self._overflows():
            self._ready["spare"].notify()

    def _overflows(self) -> bool:
        """Say whether a spare lane should run what waits in the light line; called under the lock."""
        line = self._lines[False]
        return len(line) > 0 and overflows(line.first, line.company(line.first), self._settings)

    # a request ends ---------------------------------------------------------------------------------------------------

    def _expire(self, ticket: Ticket) -> None:
        """End a ticket whose time is over."""
        was_waiting = ticket.run is None
        if self._end(ticket, None, late(ticket.timeout)) and was_waiting:
            safely(self._observer.rejected, "deadline")

    def _end(self, ticket: Ticket, answer: Answer | None, error: BaseException | None) -> bool:
        """End a ticket, unless it is over; what it holds is given back now, or when its run has ended."""
        with self._lock:
            if ticket.is_over:
                return False
            ticket.is_over = True
            self._lines[ticket.price.heavy].discard(ticket)
            run = ticket.run
            if run is not None:
                run.waiting -= 1
        if run is None:
            self._free(ticket, "dropped")
        elif run.waiting == 0:
            run.switch.cancel()
            for left in run.tickets:  # what is left of their work is next to nothing
                self._admission.give_back(left.share, "stopped")
            self._tell_work()
        self._tell(ticket, answer, error)
        return True

    def _free(self, ticket: Ticket, outcome: Outcome) -> None:
        """Give back what a ticket holds; a second time nothing happens."""
        with self._lock:
            if ticket.is_free:
                return
            ticket.is_free = True
        self._admission.give_back(ticket.share, outcome)
        self._deadlines.call_off(ticket.deadline)
        safely(ticket.lease.release)
        ticket.let_go()
        self._tell_work()
        self._settle(ticket)

    def _tell_work(self) -> None:
        """Tell what is held, one after the other, so that what is told last is true."""
        with self._telling:
            safely(self._observer.work, self.held)

    def _tell(self, ticket: Ticket, answer: Answer | None, error: BaseException | None) -> None:
        """Call a ticket's `done`; called once, without the lock."""
        done, ticket.done = ticket.done, nobody
        safely(done, answer, error)
        self._settle(ticket)

    def _settle(self, ticket: Ticket) -> None:
        """Hold a ticket no longer when it was told and has given back."""
        with self._lock:
            ticket.unsettled -= 1
            if not ticket.unsettled:
                self._held.discard(ticket)
                if not self._held:
                    self._idle.notify_all()

    # runs -------------------------------------------------------------------------------------------------------------

    def _work(self, lane: Lane) -> None:
        """Run what waits for a lane, until the scheduler is closed: the life of a thread."""
        give_way()
        while self._turn(lane):
            pass

    def _turn(self, lane: Lane) -> bool:
        """Wait for tickets and run them; nothing of them is kept while the next are waited for."""
        tickets = self._taken(lane)
        try:
            if tickets:
                self._run(tickets)
        except BaseException as error:
            log.exception("a run failed in a way that was not foreseen")
            for ticket in tickets:
                self._end(ticket, None, lightened(error))
                self._free(ticket, "stopped")
        return bool(tickets)

    def _taken(self, lane: Lane) -> list[Ticket]:
        """Take the tickets of the next run; none when the scheduler is closed."""
        heavy = lane == "heavy"
        line, ready = self._lines[heavy], self._ready[lane]
        with self._lock:
            while not self._is_closed:
                if not len(line) or (lane == "spare" and not self._overflows()):
                    ready.wait()
                    continue
                most = 1 if heavy else images_of(line.first, line.company(line.first), self._settings)
                delay = self._settings.delay - (time.monotonic() - line.first.submitted)
                if heavy or delay <= 0 or line.company(line.first) >= most:
                    return line.take(most)
                ready.wait(delay)
        return []

    def _run(self, tickets: list[Ticket]) -> None:
        """Run some tickets together; if that fails, each by itself, so that none spoils it for the others."""
        begun = time.monotonic()
        for ticket in tickets:
            if ticket.until <= begun:
                self._expire(ticket)
        with self._lock:
            live = [ticket for ticket in tickets if not ticket.is_over]
            run = Run(live, len(live), len(self._lines[False]) > 0 and not tickets[0].price.heavy)
            for ticket in live:
                ticket.run = run
        if not live:
            return
        try:
            answers = answers_of(run, begun, self._observer)
        except Exception as error:  # noqa: BLE001  whoever asked is told
            if len(live) == 1:
                self._end(live[0], None, lightened(error))
            for ticket in self._left(run):
                self._run([ticket])
            return
        with self._lock:
            ended = [(ticket, answer) for ticket, answer in zip(live, answers, strict=True) if not ticket.is_over]
            for ticket, _ in ended:
                ticket.is_over = True
        for ticket in live:
            self._free(ticket, "done")
        for ticket, answer in ended:
            self._tell(ticket, answer, None)

    def _left(self, run: Run) -> list[Ticket]:
        """Dissolve a run that failed: free those that are over, and return the others."""
        with self._lock:
            over = [ticket for ticket in run.tickets if ticket.is_over]
            rest = [ticket for ticket in run.tickets if not ticket.is_over]
            for ticket in rest:
                ticket.run = None
        for ticket in over:
            self._free(ticket, "stopped")
        return rest


def _stopping() -> UnreadyError:
    """Return what is told while the server stops."""
    return UnreadyError("the server is stopping", LATER)
