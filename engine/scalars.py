"""
The scalars that can be explained, and the cotangent of each.

With s the logits, p their softmax and e_c the unit vector of class c:

==============  ==========================================  =====================
target          T                                           cotangent dT/ds
==============  ==========================================  =====================
Logit           s_c                                         e_c
LogProbability  log p_c                                     e_c - p
Probability     p_c                                         p_c (e_c - p)
Rest            s_c + log p_c                               2 e_c - p
Contrast        s_c - mean of s_d over the other classes    e_c - mean of e_d
Vector          v . s                                       v
==============  ==========================================  =====================

Rest is pytorch-grad-cam's ``ClassifierOutputReST``; Contrast against the best other class is the margin. The objects
may name classes by label, or leave them open; `camrt.targets` settles both before `value` or `cotangent` is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import TargetError

__all__ = [
    "Class",
    "Contrast",
    "LogProbability",
    "Logit",
    "Probability",
    "Rest",
    "Scores",
    "Target",
    "Vector",
    "settled",
    "softmax",
]

Class = int | str | None
Scores = npt.NDArray[np.float64]  # the logits of one image, (C,)


@dataclass(frozen=True)
class Logit:
    """
    The score of a class before softmax; the usual target.

    Attributes
    ----------
    index : int, str or None
        The class, its label, or None for the class each image is predicted to be.
    """

    index: Class = None

    def value(self, scores: Scores) -> float:
        """Return s_c."""
        return float(scores[settled(self.index)])

    def cotangent(self, scores: Scores) -> Scores:
        """Return e_c."""
        return _unit(self.index, scores)


@dataclass(frozen=True)
class Probability:
    """
    The softmax probability of a class.

    Where a class is nearly certain its gradient vanishes: the map becomes small, and constant in float32 when the
    others share less than about 1e-38. `LogProbability` has the same direction and does not fade there.

    Attributes
    ----------
    index : int, str or None
        The class, its label, or None for the predicted one.
    """

    index: Class = None

    def value(self, scores: Scores) -> float:
        """Return p_c."""
        return float(softmax(scores)[settled(self.index)])

    def cotangent(self, scores: Scores) -> Scores:
        """Return p_c (e_c - p)."""
        return _away_from_probabilities(self.index, scores) * self.value(scores)


@dataclass(frozen=True)
class LogProbability:
    """
    The logarithm of the softmax probability of a class.

    Attributes
    ----------
    index : int, str or None
        The class, its label, or None for the predicted one.
    """

    index: Class = None

    def value(self, scores: Scores) -> float:
        """Return log p_c."""
        return float(scores[settled(self.index)] - scores.max() - np.log(np.exp(scores - scores.max()).sum()))

    def cotangent(self, scores: Scores) -> Scores:
        """Return e_c - p."""
        return _away_from_probabilities(self.index, scores)


@dataclass(frozen=True)
class Rest:
    """
    The score of a class plus its log-probability: the class for itself and against the rest.

    Attributes
    ----------
    index : int, str or None
        The class, its label, or None for the predicted one.

    References
    ----------
    pytorch-grad-cam, ``ClassifierOutputReST``.
    """

    index: Class = None

    def value(self, scores: Scores) -> float:
        """Return s_c + log p_c."""
        return Logit(self.index).value(scores) + LogProbability(self.index).value(scores)

    def cotangent(self, scores: Scores) -> Scores:
        """Return 2 e_c - p."""
        return _unit(self.index, scores) + _away_from_probabilities(self.index, scores)


@dataclass(frozen=True)
class Contrast:
    """
    What speaks for one class rather than others.

    Where a predicted class meets itself among the others, target and gradient are zero and the map is degenerate.

    Attributes
    ----------
    index : int, str or None
        The class, its label, or None for the predicted one.
    against : int, str, sequence of those, or None
        The other classes; None for the best other class of each image (the margin).
    """

    index: Class = None
    against: Class | Sequence[int | str] = None

    def value(self, scores: Scores) -> float:
        """Return s_c minus the mean of the others' scores."""
        return float(scores[settled(self.index)] - scores[self.others()].mean())

    def cotangent(self, scores: Scores) -> Scores:
        """Return e_c minus the mean of the others' unit vectors."""
        seed = _unit(self.index, scores)
        others = self.others()
        np.subtract.at(seed, others, 1 / len(others))
        return seed

    def others(self) -> list[int]:
        """Return the indices of the other classes, once they are known."""
        if self.against is None or isinstance(self.against, int | str):
            return [settled(self.against)]
        return [settled(one) for one in self.against]


@dataclass(frozen=True, eq=False)
class Vector:
    """
    Any linear function of the logits: T = v . s.

    Attributes
    ----------
    seed : array_like, shape (C,)
        The cotangent v at the logits; finite.

    Raises
    ------
    TargetError
        If it is not a finite vector.
    """

    seed: npt.ArrayLike

    def __post_init__(self) -> None:
        try:
            vector = np.array(self.seed, np.float64)
        except (TypeError, ValueError) as error:
            raise TargetError(f"a vector target needs numbers, one a class; got {type(self.seed).__name__}") from error
        if vector.ndim != 1 or not np.isfinite(vector).all():
            raise TargetError(f"a vector target needs finite numbers of shape (C,); got shape {vector.shape}")
        vector.setflags(write=False)
        object.__setattr__(self, "seed", vector)

    def value(self, scores: Scores) -> float:
        """Return v . s."""
        return float(np.asarray(self.seed) @ scores)

    def cotangent(self, scores: Scores) -> Scores:
        """Return v."""
        del scores
        return np.array(self.seed, np.float64)


Target = Logit | Probability | LogProbability | Rest | Contrast | Vector


def softmax(scores: npt.ArrayLike) -> Scores:
    """
    Return probabilities over the last axis, in float64.

    Parameters
    ----------
    scores : array_like, shape (..., C)
        Logits.

    Returns
    -------
    ndarray of float64, shape (..., C)
        Summing to 1.
    """
    logits = np.asarray(scores, np.float64)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    shares: Scores = powers / powers.sum(-1, keepdims=True)
    return shares


def settled(index: Class) -> int:
    """
    Return a class that is an index by now.

    Parameters
    ----------
    index : int, str or None
        A target's class.

    Returns
    -------
    int
        The same, if it is an index.

    Raises
    ------
    TargetError
        If it is still a label, or open.
    """
    if not isinstance(index, int):
        raise TargetError(f"class {index!r} is not settled yet; pass the target through parse and pin first")
    return index


def _unit(index: Class, scores: Scores) -> Scores:
    """Return e_c."""
    unit = np.zeros_like(scores)
    unit[settled(index)] = 1
    return unit


def _away_from_probabilities(index: Class, scores: Scores) -> Scores:
    """Return e_c - p, its c-th entry as the sum of the other probabilities, which keeps digits when p_c is near 1."""
    seed = -softmax(scores)
    seed[settled(index)] = 0
    seed[settled(index)] = -seed.sum()
    return seed
