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
may name classes by label, or leave them open; `camrt.targets` settles both before `value` or `cotangent` are asked.
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
    "cotangent",
    "others",
    "settled",
    "softmax",
    "value",
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


@dataclass(frozen=True)
class Probability:
    """
    The softmax probability of a class.

    Its gradient is p_c times that of `LogProbability`, so the map is the same up to that factor; for a class so
    improbable that p_c is below float32's range (about 1e-38) nothing is left of it, while `LogProbability` keeps all.
    Where p_c is 1 to the last digit both vanish; `Logit` does not.

    Attributes
    ----------
    index : int, str or None
        The class, its label, or None for the predicted one.
    """

    index: Class = None


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
        """Check and copy the vector."""
        try:
            vector = np.array(self.seed, np.float64)
        except (TypeError, ValueError) as error:
            raise TargetError(f"a vector target needs numbers, one a class; got {type(self.seed).__name__}") from error
        if vector.ndim != 1 or not np.isfinite(vector).all():
            raise TargetError(f"a vector target needs finite numbers of shape (C,); got shape {vector.shape}")
        vector.setflags(write=False)
        object.__setattr__(self, "seed", vector)


Target = Logit | Probability | LogProbability | Rest | Contrast | Vector


def value(target: Target, scores: Scores) -> float:
    """
    Return the scalar T.

    Parameters
    ----------
    target : Target
        Its classes settled.
    scores : ndarray of float64, shape (C,)
        The logits of one image.

    Returns
    -------
    float
        T, in the unit of the logits or a probability.

    Raises
    ------
    TargetError
        If a class is still a label, or open.

    References
    ----------
    The table in this module's description.

    Examples
    --------
    >>> value(Contrast(0, 1), np.array([3.0, 1.0]))
    2.0
    """
    match target:
        case Vector(seed=seed):
            return float(np.asarray(seed) @ scores)
        case Contrast(index=index):
            return float(scores[settled(index)] - scores[others(target)].mean())
        case Logit(index=index):
            return float(scores[settled(index)])
        case Probability(index=index):
            return float(softmax(scores)[settled(index)])
        case LogProbability(index=index):
            return _log_probability(settled(index), scores)
        case Rest(index=index):
            return float(scores[settled(index)]) + _log_probability(settled(index), scores)


def cotangent(target: Target, scores: Scores) -> Scores:
    """
    Return dT/ds, the seed of a backward pass from the logits.

    Parameters
    ----------
    target : Target
        Its classes settled.
    scores : ndarray of float64, shape (C,)
        The logits s of one image.

    Returns
    -------
    ndarray of float64, shape (C,)
        A new array.

    Raises
    ------
    TargetError
        If a class is still a label, or open.

    References
    ----------
    The table in this module's description.

    Examples
    --------
    >>> cotangent(Probability(0), np.array([0.0, 0.0])).tolist()
    [0.25, -0.25]
    """
    if isinstance(target, Vector):
        return np.array(target.seed, np.float64)
    index = settled(target.index)
    unit = np.zeros_like(scores)
    unit[index] = 1  # e_c
    match target:
        case Logit():
            return unit
        case Contrast():
            against = others(target)
            np.subtract.at(unit, against, 1 / len(against))
            return unit
        case LogProbability():
            return _beyond(index, scores)
        case Probability():
            return _beyond(index, scores) * value(target, scores)
        case Rest():
            return unit + _beyond(index, scores)


def others(target: Contrast) -> list[int]:
    """
    Return the classes that a contrast is against.

    Parameters
    ----------
    target : Contrast
        Its classes settled.

    Returns
    -------
    list of int
        At least one class.

    Raises
    ------
    TargetError
        If a class is still a label, or open.
    """
    against = target.against
    return [settled(one) for one in ([against] if against is None or isinstance(against, int | str) else against)]


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


def _log_probability(index: int, scores: Scores) -> float:
    """Return log p_c without losing what exp would round away."""
    shifted = scores - scores.max()
    return float(shifted[index] - np.log(np.exp(shifted).sum()))


def _beyond(index: int, scores: Scores) -> Scores:
    """Return e_c - p, its c-th entry as the sum of the other probabilities, which keeps digits when p_c is near 1."""
    seed = -softmax(scores)
    seed[index] = 0
    seed[index] = -seed.sum()
    return seed
