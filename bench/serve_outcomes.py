"""
What became of requests: when they were due, sent and answered, and how; and what that says.

In: what a load generator saw. Out: plain numbers. Pure functions, so that the figures they make can be tested without a
server. Standard library and NumPy.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["BROKEN", "KINDS", "Outcome", "arrivals", "counted", "drift", "goodput", "kind_of", "quantile", "slope"]

BROKEN = 0  # in place of a status: the connection ended without an answer
KINDS = ("answered", "wrong", "refused", "unready", "late", "faulty", "broken")


@dataclass(frozen=True)
class Outcome:
    """
    One request.

    Attributes
    ----------
    due, sent, done : float
        Seconds since the load began: when it should have been sent, when it was, and when its answer was complete.
    status : int
        The answer's, or `BROKEN`.
    retry_after : bool
        The answer says when to come again.
    version : str
        Which version of the model answered, where the answer says so.
    right : bool
        The answer is what it should be; true where nobody looked.
    """

    due: float
    sent: float
    done: float
    status: int
    retry_after: bool = False
    version: str = ""
    right: bool = True

    @property
    def latency(self) -> float:
        """Seconds from when it was due: a load generator that falls behind does not hide a slow server."""
        return self.done - self.due

    @property
    def service(self) -> float:
        """Seconds from when it was sent."""
        return self.done - self.sent


def kind_of(outcome: Outcome) -> str:
    """
    Say what became of a request.

    Parameters
    ----------
    outcome : Outcome
        The request.

    Returns
    -------
    str
        One of `KINDS`: answered as it should be; answered wrong; refused with 429 and a time to come again; 503 with
        such a time; 504; any other status; or no answer.

    Examples
    --------
    >>> kind_of(Outcome(0.0, 0.0, 0.1, 200)), kind_of(Outcome(0.0, 0.0, 0.1, 429)), kind_of(Outcome(0.0, 0.0, 0.1, 504))
    ('answered', 'faulty', 'late')
    """
    if outcome.status == BROKEN:
        return "broken"
    if outcome.status == 200:
        return "answered" if outcome.right else "wrong"
    if outcome.status in (429, 503) and outcome.retry_after:
        return "refused" if outcome.status == 429 else "unready"
    return "late" if outcome.status == 504 else "faulty"


def counted(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """
    Count the kinds.

    Parameters
    ----------
    outcomes : sequence of Outcome
        The requests.

    Returns
    -------
    dict of str to int
        Every kind, also those that did not happen.
    """
    found = Counter(map(kind_of, outcomes))
    return {kind: found[kind] for kind in KINDS}


def arrivals(rate: float, seconds: float, seed: int = 0) -> list[float]:
    """
    Draw when requests come that know nothing of each other: a Poisson process.

    Parameters
    ----------
    rate : float
        Requests a second.
    seconds : float
        How long they keep coming.
    seed : int
        The same seed gives the same times.

    Returns
    -------
    list of float
        Seconds from the beginning, rising, all below `seconds`.

    Raises
    ------
    ValueError
        If rate or seconds are not positive.
    """
    if rate <= 0 or seconds <= 0:
        raise ValueError(f"requests come at a positive rate for a positive time; {rate} and {seconds} came")
    drawn = random.Random(seed)
    times: list[float] = []
    at = drawn.expovariate(rate)
    while at < seconds:
        times.append(at)
        at += drawn.expovariate(rate)
    return times


def quantile(values: Sequence[float], share: float) -> float:
    """
    Return a quantile.

    Parameters
    ----------
    values : sequence of float
        Whatever was measured.
    share : float
        0.5 for the median, 0.99 for p99.

    Returns
    -------
    float
        Interpolated between neighbours; NaN of nothing.
    """
    return float(np.quantile(values, share)) if len(values) else float("nan")


def goodput(outcomes: Sequence[Outcome], seconds: float) -> float:
    """
    Return how many right answers a second came while the load lasted.

    Parameters
    ----------
    outcomes : sequence of Outcome
        The requests.
    seconds : float
        How long the load lasted; what was answered later does not count.

    Returns
    -------
    float
        Answers a second.
    """
    return sum(outcome.done <= seconds for outcome in outcomes if kind_of(outcome) == "answered") / seconds


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """
    Return how fast something grows: the line of least squares.

    Parameters
    ----------
    times, values : sequence of float
        Where it was looked at, and what was seen; at least two of each.

    Returns
    -------
    float
        Of `values`' unit for each of `times`' unit.

    Raises
    ------
    ValueError
        If there are fewer than two, or not as many of each.
    """
    if len(times) != len(values) or len(times) < 2:
        raise ValueError(f"a line needs two points or more; {len(times)} times and {len(values)} values came")
    return float(np.polyfit(np.asarray(times) - times[0], values, 1)[0])


def drift(outcomes: Sequence[Outcome], share: float, seconds: float) -> float:
    """
    Compare a quantile of the latency in the last third with that in the first.

    Parameters
    ----------
    outcomes : sequence of Outcome
        The requests; those that were not answered are left out.
    share : float
        The quantile.
    seconds : float
        How long the load lasted.

    Returns
    -------
    float
        0.1 where the last third is a tenth slower; NaN where a third is empty.
    """
    answered = [outcome for outcome in outcomes if kind_of(outcome) == "answered"]
    first = [outcome.latency for outcome in answered if outcome.due < seconds / 3]
    last = [outcome.latency for outcome in answered if outcome.due >= seconds * 2 / 3]
    return quantile(last, share) / quantile(first, share) - 1
