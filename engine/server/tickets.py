"""
A request that was taken: what is known of it, what it holds, and the answer it ends with.

::

    Lease, Ask --issue: time, price, targets, room--> Ticket --scheduler--> Answer, or what went wrong

A ticket's fields are the scheduler's, which changes them under its lock. When it is over, neither it nor an error that is
told keeps a model or an array alive.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .. import targets as target_table
from ..errors import DeadlineError
from ..explanation import Explanation
from ..image import Prepared
from ..limits import Cancellation
from ..targets import Target
from .admission import Admission, Share
from .asks import Ask, Wish
from .decoding import bytes_of, prepare_next
from .faults import BusyError, TooLargeError
from .observing import Observer, safely
from .pricing import Price, price
from .served import Lease, Served
from .settings import Settings

__all__ = ["Answer", "Run", "Ticket", "issue", "late", "lightened", "nobody"]


@dataclass(frozen=True, eq=False)
class Answer:
    """
    What a request gets.

    Attributes
    ----------
    explanation : Explanation or None
        None where scores alone were asked for.
    logits : ndarray of float32, shape (N, C)
        The model's scores.
    served : Served
        The model that answered.
    queue_seconds, decode_seconds, run_seconds : float
        Where the time went.
    batch : int
        Images in its run.
    """

    explanation: Explanation | None
    logits: npt.NDArray[np.float32]
    served: Served
    queue_seconds: float
    decode_seconds: float
    run_seconds: float
    batch: int


Done = Callable[[Answer | None, BaseException | None], None]


@dataclass(eq=False)
class Run:
    """One call of the engine: who shares it, how many still wait for it, whether runs beside it are due, its off switch."""

    tickets: list[Ticket]
    waiting: int
    is_beside: bool = False
    switch: Cancellation = field(default_factory=Cancellation)


@dataclass(eq=False)
class Ticket:
    """One request that was taken, for `Scheduler.cancel`; its fields are the scheduler's."""

    lease: Lease
    served: Served | None
    ask: Ask | None
    done: Done
    price: Price
    share: Share
    key: Hashable
    table: list[list[Target]]
    submitted: float
    until: float
    timeout: float
    count: int
    wish: Wish | None
    deadline: int = -1
    parts: list[Prepared] = field(default_factory=list)  # pictures that are decoded
    prepared: Prepared | None = None
    decode_seconds: float = 0.0
    run: Run | None = None
    is_over: bool = False  # what `done` is told is settled
    is_free: bool = False  # it holds nothing any more
    unsettled: int = 2  # `done` is still to be called; what it holds is still to be given back

    def prepare(self, settings: Settings, observer: Observer) -> bool:
        """
        Make the next of its pictures, or its whole array, the model's input.

        Parameters
        ----------
        settings : Settings
            How large pictures may be.
        observer : Observer
            Told how long it took in all.

        Returns
        -------
        bool
            Whether all of its images are ready; False where it is over.
        """
        ask, served = self.ask, self.served
        if ask is None or served is None:  # over
            return False
        begun = time.perf_counter()
        self.prepared = prepare_next(ask, self.parts, served.explainer.preprocess, settings)
        self.decode_seconds += time.perf_counter() - begun
        if self.prepared is None:
            return False
        self.ask, self.parts = None, []
        safely(observer.stage, "decode", self.decode_seconds)
        return True

    def let_go(self) -> None:
        """Keep nothing alive."""
        self.served = self.ask = self.prepared = self.run = None
        self.key, self.table, self.parts = None, [], []


def issue(lease: Lease, ask: Ask, done: Done, settings: Settings, admission: Admission, observer: Observer) -> Ticket:
    """
    Check and price a request, and count it in.

    Parameters
    ----------
    lease : Lease
        The model.
    ask : Ask
        What is wanted.
    done : callable
        Who is told how it ended.
    settings : Settings
        ``max_work``.
    admission : Admission
        Whose budgets it takes its share of.
    observer : Observer
        Told why, where it is refused.

    Returns
    -------
    Ticket
        It holds the lease, and its share from now on. Nothing of it is decoded yet.

    Raises
    ------
    BusyError
        If there is no room for its work, or it cannot be done in time.
    TooLargeError
        If it takes more work than one request may.
    InputError
        If a target, the method or the layer does not fit.
    DeadlineError
        If its time is over already.
    """
    now, until = time.monotonic(), ask.arrived + ask.timeout
    if now >= until:
        safely(observer.rejected, "deadline")
        raise late(ask.timeout)
    served = lease.served
    explainer = served.explainer
    try:
        priced = price(explainer, ask, most=settings.max_work)
    except TooLargeError:
        safely(observer.rejected, "too_large")
        raise
    classes, labels = explainer.manifest.classes, explainer.labels
    table = target_table.parse(ask.targets, n_images=ask.count, n_classes=classes, labels=labels)
    key = (served, None if ask.wish is None else ask.wish.key, len(table[0]))
    size = bytes_of(ask, explainer.preprocess)
    try:
        share = admission.take(priced.work, size, rate=served.rate, heavy=priced.heavy, remaining=until - now)
    except BusyError:
        safely(observer.rejected, "full")
        raise
    return Ticket(lease, served, ask, done, priced, share, key, table, now, until, ask.timeout, ask.count, ask.wish)


def nobody(answer: Answer | None, error: BaseException | None) -> None:
    """
    Tell nobody: what a ticket does that was told.

    Parameters
    ----------
    answer, error : object
        Dropped.
    """


def lightened(error: BaseException) -> BaseException:
    """
    Let an error keep nothing alive: arrays and models are to go with their run.

    Parameters
    ----------
    error : BaseException
        Caught, so that no frame of its traceback runs any more but the one that catches it.

    Returns
    -------
    BaseException
        The same; its traceback, and those of its causes, still name their lines.
    """
    part: BaseException | None = error
    while part is not None:
        traceback.clear_frames(part.__traceback__)
        part = part.__cause__ or part.__context__
    return error


def late(seconds: float) -> DeadlineError:
    """
    Say that the time is over.

    Parameters
    ----------
    seconds : float
        How much there was.

    Returns
    -------
    DeadlineError
        To be raised or told.
    """
    return DeadlineError(f"the request took longer than its timeout of {seconds:g} s; allow more, or ask for less")
