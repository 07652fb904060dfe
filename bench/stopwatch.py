"""
Time calls. Standard library only: the peers' interpreter imports it too.

In: a callable. Out: seconds a call.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

__all__ = ["burst_length", "time_calls"]

BURST = 0.4  # seconds a turn: long against a scheduler's slice (some ms), short against the drift of a machine
MOST = 25  # calls a turn; more do not steady a median


def time_calls(call: Callable[[], object], calls: int) -> list[float]:
    """
    Time some calls, one by one.

    Parameters
    ----------
    call : callable
        What is timed; its result is dropped.
    calls : int
        How often. From two on, another call goes before them untimed: caches and threads have gone cold while the
        other contenders had their turns.

    Returns
    -------
    list of float
        Seconds of each timed call.
    """
    if calls > 1:
        call()
    seconds = []
    for _ in range(calls):
        start = perf_counter()
        call()
        seconds.append(perf_counter() - start)
    return seconds


def burst_length(seconds: float) -> int:
    """
    Return how many calls make a turn.

    Parameters
    ----------
    seconds : float
        What one call takes, roughly.

    Returns
    -------
    int
        From 1 to `MOST`.

    Examples
    --------
    >>> burst_length(0.02), burst_length(3.0), burst_length(1e-6)
    (20, 1, 25)
    """
    return max(1, min(MOST, round(BURST / max(seconds, 1e-9))))
