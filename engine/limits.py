"""
How long a request may take: a deadline, and an off switch that any thread may pull.

In: seconds, and a `Cancellation`. Out: `Limits`, which a run of the model is told about. Both stop work between runs and
inside them: ONNX Runtime looks at a run's terminate flag after every node.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from .errors import CamrtError, CancelledError, DeadlineError, InputError

__all__ = ["UNLIMITED", "Cancellation", "Limits"]


class Cancellation:
    """
    An off switch for requests; hand the same one to as many as should stop together.

    Examples
    --------
    >>> switch = Cancellation()
    >>> switch.cancelled
    False
    >>> switch.cancel()
    >>> switch.cancelled
    True
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may cancel while its own thread is in here
        self._cancelled = False
        self._limits: set[Limits] = set()

    @property
    def cancelled(self) -> bool:
        """Whether the switch was pulled; it stays so."""
        return self._cancelled

    def cancel(self) -> None:
        """Stop every request that holds this switch, now and later."""
        with self._lock:
            self._cancelled = True
            stopping = list(self._limits)
        for limits in stopping:
            limits.stop(_cancelled())

    def attach(self, limits: Limits) -> None:
        """
        Let a request be stopped by this switch.

        Parameters
        ----------
        limits : Limits
            The request's limits; stopped at once where the switch was pulled before.
        """
        with self._lock:
            self._limits.add(limits)
            cancelled = self._cancelled
        if cancelled:
            limits.stop(_cancelled())

    def detach(self, limits: Limits) -> None:
        """
        Forget a request that has ended.

        Parameters
        ----------
        limits : Limits
            What was attached.
        """
        with self._lock:
            self._limits.discard(limits)


class Limits:
    """
    One request's limits; a context manager that lasts as long as the request.

    Parameters
    ----------
    seconds : float, optional
        Time allowed, from entering the context.
    cancellation : Cancellation, optional
        The caller's off switch.

    Raises
    ------
    InputError
        If `seconds` is not a positive number, or `cancellation` is no `Cancellation`.
    """

    def __init__(self, seconds: float | None = None, cancellation: Cancellation | None = None) -> None:
        good = seconds is None or (isinstance(seconds, int | float) and math.isfinite(seconds) and seconds > 0)
        if not good or isinstance(seconds, bool):
            raise InputError(f"timeout must be a number of seconds above 0, or None; got {seconds!r}")
        if cancellation is not None and not isinstance(cancellation, Cancellation):
            raise InputError(f"cancel must be a camrt.Cancellation or None; got {type(cancellation).__name__}")
        self._seconds, self._cancellation = seconds, cancellation
        self._lock = threading.RLock()  # as above
        self._error: CamrtError | None = None
        self._watchers: dict[int, Callable[[], None]] = {}
        self._timer: threading.Timer | None = None

    @property
    def can_stop(self) -> bool:
        """Whether anything may stop the request at all."""
        return self._seconds is not None or self._cancellation is not None

    @property
    def stopped(self) -> bool:
        """Whether the request is to end."""
        return self._error is not None

    def __enter__(self) -> Self:
        """Start the clock, and listen to the switch."""
        if self._seconds is not None:
            late = DeadlineError(
                f"the request took longer than the {self._seconds:g} s it was allowed; allow more; methods of many "
                "masked forwards also take a budget, which gives what is ready in time"
            )
            self._timer = threading.Timer(self._seconds, self.stop, [late])
            self._timer.daemon = True
            self._timer.start()
        if self._cancellation is not None:
            self._cancellation.attach(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the clock, and let go of the switch."""
        if self._timer is not None:
            self._timer.cancel()
        if self._cancellation is not None:
            self._cancellation.detach(self)

    def stop(self, error: CamrtError) -> None:
        """
        End the request; the first reason counts.

        Parameters
        ----------
        error : CamrtError
            What the caller is told.
        """
        with self._lock:
            if self._error is not None:
                return
            self._error = error
            watchers = list(self._watchers.values())
        for call in watchers:
            call()

    def check(self) -> None:
        """
        Go on only if nothing has ended the request.

        Raises
        ------
        DeadlineError, CancelledError
            If the time is over, or the caller cancelled.
        """
        if self._error is not None:
            raise type(self._error)(*self._error.args)

    @contextmanager
    def watch(self, call: Callable[[], None]) -> Iterator[None]:
        """
        Be told when the request is to end.

        Parameters
        ----------
        call : callable
            Called at most once while the context lasts, from any thread; at once where the request has ended.

        Yields
        ------
        None
            Nothing.
        """
        if not self.can_stop:
            yield
            return
        with self._lock:
            self._watchers[id(call)] = call
            over = self._error is not None
        if over:
            call()
        try:
            yield
        finally:
            with self._lock:
                self._watchers.pop(id(call), None)

    @contextmanager
    def run_options(self, options: Any) -> Iterator[Any]:
        """
        Let one run of ONNX Runtime end when the request does.

        Parameters
        ----------
        options : onnxruntime.RunOptions
            The run's options; their terminate flag is set.

        Yields
        ------
        onnxruntime.RunOptions
            The same.
        """

        def _terminate() -> None:
            options.terminate = True

        with self.watch(_terminate):
            yield options


def _cancelled() -> CancelledError:
    """Return what a caller who cancelled is told."""
    return CancelledError("the request was cancelled by its caller")


UNLIMITED = Limits()
