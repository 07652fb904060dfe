"""
Contenders that take turns, and what their times say as ratios.

In: one callable a contender, giving the time of one turn. Out: times by round, and the spread of a ratio. A ratio is
always taken within one round, so that a slow spell of the machine hits both of its sides.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Spread", "contest", "ratios", "spread"]


@dataclass(frozen=True)
class Spread:
    """
    A figure over the rounds of a run.

    Attributes
    ----------
    median, low, lower, upper, high : float
        Median, minimum, first and third quartile, maximum.
    runs : int
        How many values they are made of.
    """

    median: float
    low: float
    lower: float
    upper: float
    high: float
    runs: int


def spread(values: Sequence[float]) -> Spread:
    """
    Summarise the values of a run.

    Parameters
    ----------
    values : sequence of float
        One a round; at least one.

    Returns
    -------
    Spread
        Quartiles are interpolated between neighbours, as NumPy does.

    Raises
    ------
    ValueError
        If there is no value.

    Examples
    --------
    >>> spread([4.0, 1.0, 2.0, 3.0, 5.0])
    Spread(median=3.0, low=1.0, lower=2.0, upper=4.0, high=5.0, runs=5)
    """
    if not values:
        raise ValueError("a spread needs at least one value, none came")
    floats = [float(value) for value in values]
    lower, median, upper = statistics.quantiles(floats, n=4, method="inclusive") if len(floats) > 1 else floats * 3
    return Spread(median, min(floats), lower, upper, max(floats), len(floats))


def contest(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """
    Let contenders take turns.

    Parameters
    ----------
    contenders : mapping of str to callable
        Each returns the seconds of one turn.
    rounds : int
        Turns each; the order is turned round after every round.

    Returns
    -------
    dict of str to list of float
        Seconds by round.

    Raises
    ------
    ValueError
        If `rounds` is below 1.
    """
    if rounds < 1:
        raise ValueError(f"a contest needs at least one round, {rounds} came")
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for _ in range(rounds):
        for name in order:
            times[name].append(contenders[name]())
        order.reverse()
    return times


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """
    Divide times round by round.

    Parameters
    ----------
    above, below : sequence of float
        Seconds of two contenders, one a round.

    Returns
    -------
    list of float
        ``above / below`` of each round.

    Raises
    ------
    ValueError
        If the numbers of rounds differ.

    Examples
    --------
    >>> ratios([3.0, 8.0], [1.0, 2.0])
    [3.0, 4.0]
    """
    if len(above) != len(below):
        raise ValueError(f"a ratio is taken within a round; {len(above)} and {len(below)} rounds came")
    return [a / b for a, b in zip(above, below, strict=True)]
