"""
A map before everything has been run: the most promising masks first, and a word on how far to trust it.

In: a `Budget`, and a callable that draws the map from what has been run so far. Out: the last map drawn, and what is known
of it. Masks are run in rounds, each twice as large as the one before, the maps of the largest spatial deviation first;
what one round has run the next one remembers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from .agreement import rank_correlation
from .errors import InputError
from .forwards import Forwards, Share

__all__ = ["Budget", "Drawn", "draw_in_rounds"]

Drawing = TypeVar("Drawing")
_FIRST = 1 / 16  # of the masks, in the first round


@dataclass(frozen=True)
class Budget:
    """
    What an explanation by masked forwards may cost; whichever limit comes first ends it.

    Attributes
    ----------
    forwards : int, optional
        Masked forwards, or edits of the layer, that the map of one target of one image is made of. Targets that ask for
        the same ones share them.
    seconds : float, optional
        Time for one image and all its targets; the first sixteenth of the masks is run in any case.
    stability : float, optional
        Spearman's rank correlation, in (0, 1], between the maps of two rounds; reached, no more are run.

    Raises
    ------
    InputError
        If no limit is given, or one is out of range.

    Examples
    --------
    >>> Budget(forwards=100).forwards
    100
    """

    forwards: int | None = None
    seconds: float | None = None
    stability: float | None = None

    def __post_init__(self) -> None:
        """Check the limits."""
        if self.forwards is self.seconds is self.stability is None:
            raise InputError("a budget needs forwards, seconds or stability; none was given")
        for name, low, high in (("forwards", 1, math.inf), ("seconds", 0, math.inf), ("stability", 0, 1)):
            value = getattr(self, name)
            good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if value is not None and not (good and low <= value <= high and value > 0):
                most = f" and at most {high}" if high < math.inf else ""
                raise InputError(f"{name} of a budget must be a number above 0{most}; got {value!r}")


@dataclass(frozen=True)
class Drawn(Generic[Drawing]):
    """
    A map under a budget.

    Attributes
    ----------
    drawing : Drawing
        The last map drawn.
    complete : bool
        Whether everything was run; the map is then the exact one.
    forwards : ndarray of int64, shape (N,)
        How many masked forwards, or edits of the layer, each image's map is made of.
    stability : ndarray of float64, shape (N,), or None
        Rank correlation with the map of the round before, 1 for a map that is complete; None after one round.
    """

    drawing: Drawing
    complete: bool
    forwards: npt.NDArray[np.int64]
    stability: npt.NDArray[np.float64] | None


def draw_in_rounds(
    draw: Callable[[], Drawing],
    maps_of: Callable[[Drawing], npt.NDArray[np.floating[Any]]],
    forwards: Forwards,
    budget: Budget,
    expected: int,
) -> Drawn[Drawing]:
    """
    Draw a map again and again until the budget ends it.

    Parameters
    ----------
    draw : callable
        Draws the map from what `forwards` may run, and has run.
    maps_of : callable
        Takes what was drawn, returns maps (N, H, W) to be compared.
    forwards : Forwards
        Where masks are run; it has to remember.
    budget : Budget
        When to stop.
    expected : int
        Masked forwards that the exact map takes for one image.

    Returns
    -------
    Drawn
        The last map.

    Notes
    -----
    Cost: the masks run, each once, and one drawing a round: at most ``log2(16) + 1`` rounds.
    """
    until = math.inf if budget.seconds is None else forwards.started + budget.seconds
    late = (
        forwards.used is not None and time.monotonic() >= until
    )  # other targets took the time; what they ran is known
    limit = math.inf if budget.forwards is None else math.floor(budget.forwards)
    most = min(1.0, limit / max(1, expected))
    part = most if late or budget.seconds is budget.stability is None else min(most, _FIRST)
    forwards.used = [set() for _ in range(forwards.images)]
    last: Drawing | None = None
    stability: npt.NDArray[np.float64] | None = None
    before = 0
    while True:
        forwards.share = Share(part, until if late or last is not None else math.inf, limit)
        forwards.complete = True
        drawing = draw()
        counts = np.array([len(keys) for keys in forwards.used])
        if last is not None and counts.sum() > before:  # a round of nothing new says nothing
            pairs = zip(maps_of(last), maps_of(drawing), strict=True)
            stability = np.array([rank_correlation(one, other) for one, other in pairs])
        last, before = drawing, int(counts.sum())
        stable = budget.stability is not None and stability is not None and bool(stability.min() >= budget.stability)
        if forwards.complete or part >= most or stable or time.monotonic() >= until:
            if forwards.complete:
                stability = np.ones(len(maps_of(drawing)))
            return Drawn(drawing, forwards.complete, counts, stability)
        part = min(most, 2 * part)
