"""
How the class's probability changes when only what the map shows is left: average drop, increase and gain, and win.

In: the clean picture's scores and those of the picture times the map. Out: one number an image. With Y the probability
of the class on the picture and O on what is left of it,

    drop = max(0, Y - O) / Y        increase = 1 if O > Y else 0        gain = max(0, O - Y) / (1 - Y)

all from logarithms, so that a Y of 1e-30 or of 1 - 1e-30 counts as exactly as any other. Chattopadhay et al. 2018
(Grad-CAM++), arXiv:1710.11063, section 4.1; the gain is Zhang et al. 2024 (Opti-CAM), arXiv:2301.07002.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ShapeError
from .case import Array, Case, Scores
from .changes import Change, Clean, Masked, Order, Substrate, swapped
from .model import Judged
from .plain import judged
from .table import Field, Metric, register

__all__ = ["average_drop", "average_gain", "average_increase", "win"]

Floats = npt.NDArray[np.float64]
HIDDEN = Substrate("hidden")


def average_drop(
    model: Judged,
    x: Array,
    heatmaps: Array,
    classes: Any = None,
    *,
    variant: str = "paper",
    mask_space: str = "normalised",
) -> Floats:
    """
    Return how much of the class's probability is lost when only what the map shows is left.

    ``max(0, Y - O) / Y``, in [0, 1], lower is better.

    Parameters
    ----------
    model : camrt.metrics.Model, camrt.Explainer or callable
        The classifier; a function takes inputs (M, ...) and gives logits (M, C).
    x : ndarray, shape (N, ...)
        The model's inputs, after preprocessing.
    heatmaps : ndarray, shape (N, H, W)
        Maps in [0, 1], from any library.
    classes : array of int, shape (N,), optional
        The classes the maps explain; the predictions where None.
    variant : {"paper", "score-cam", "raw-drop", "add"}
        "paper" multiplies the picture by the map. "score-cam" keeps the higher half of the map's pixels, ceil(H W / 2)
        of them, as they are and hides the others. "raw-drop" is ``max(0, Y - O)``, not divided. "add" hides what the
        map shows instead, O being the probability on the picture times 1 - map, and does not cut at zero: the drop in
        deletion, ``(Y - O) / Y`` in (-inf, 1], higher is better.
    mask_space : {"normalised", "raw"}, default "normalised"
        What hidden pixels show: zero after preprocessing, or black.

    Returns
    -------
    ndarray of float64, shape (N,)
        The drop of each image; papers print 100 times the mean.

    Raises
    ------
    ShapeError, NumericError
        If heatmaps have another size than the pictures, hold NaN or leave [0, 1], or logits are not finite.

    Notes
    -----
    Cost: two forwards an image, the picture and what is left of it. Nothing is added to the denominator: the quotient
    is one of logarithms. "paper" is used by Grad-CAM++, ADCC and ReciproCAM (on grey), Opti-CAM and CA-Stream (on
    black); the tables of Score-CAM mute half of the pixels and are not comparable. pytorch-grad-cam's
    ``DropInConfidence`` is "raw-drop", of the logit unless it is told to take a softmax; torch-cam and CA-Stream add a
    small number to Y. Where a class is given, ADCC's code still divides by the highest probability, not by that
    class's.

    References
    ----------
    Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063, section 4.1; Wang et al. 2020, Score-CAM, arXiv:1910.01279;
    Jung and Oh 2021, LIFT-CAM, arXiv:2102.05228 (drop in deletion).
    """
    found = judged(AVERAGE_DROP, model, x, heatmaps, classes, variant=variant, mask_space=mask_space)
    return found["average_drop"]


def average_increase(
    model: Judged,
    x: Array,
    heatmaps: Array,
    classes: Any = None,
    *,
    variant: str = "paper",
    mask_space: str = "normalised",
) -> Floats:
    """
    Return whether the class's probability rises when only what the map shows is left.

    1 where O > Y, strictly, else 0; higher is better. Also called the increase in confidence.

    Parameters
    ----------
    model : camrt.metrics.Model, camrt.Explainer or callable
        The classifier; a function takes inputs (M, ...) and gives logits (M, C).
    x : ndarray, shape (N, ...)
        The model's inputs, after preprocessing.
    heatmaps : ndarray, shape (N, H, W)
        Maps in [0, 1], from any library.
    classes : array of int, shape (N,), optional
        The classes the maps explain; the predictions where None.
    variant : {"paper", "score-cam"}
        "paper" multiplies the picture by the map, "score-cam" keeps the higher half of its pixels.
    mask_space : {"normalised", "raw"}, default "normalised"
        What hidden pixels show: zero after preprocessing, or black.

    Returns
    -------
    ndarray of float64, shape (N,)
        0 or 1; papers print 100 times the mean.

    Raises
    ------
    ShapeError, NumericError
        As `average_drop`.

    Notes
    -----
    Cost: two forwards an image. Grad-CAM++, ADCC, Opti-CAM and ReciproCAM print "paper", Score-CAM its own. It counts
    how often the probability rises and not how far, so that a map of nearly ones scores near chance; read it beside
    `average_gain`.

    References
    ----------
    Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063, section 4.1.
    """
    found = judged(AVERAGE_INCREASE, model, x, heatmaps, classes, variant=variant, mask_space=mask_space)
    return found["average_increase"]


def average_gain(
    model: Judged, x: Array, heatmaps: Array, classes: Any = None, *, mask_space: str = "normalised"
) -> Floats:
    """
    Return how much of the probability that was missing is won when only what the map shows is left.

    ``max(0, O - Y) / (1 - Y)``, in [0, 1], higher is better: the counterpart of `average_drop`.

    Parameters
    ----------
    model : camrt.metrics.Model, camrt.Explainer or callable
        The classifier; a function takes inputs (M, ...) and gives logits (M, C).
    x : ndarray, shape (N, ...)
        The model's inputs, after preprocessing.
    heatmaps : ndarray, shape (N, H, W)
        Maps in [0, 1], from any library.
    classes : array of int, shape (N,), optional
        The classes the maps explain; the predictions where None.
    mask_space : {"normalised", "raw"}, default "normalised"
        What hidden pixels show: zero after preprocessing, or black.

    Returns
    -------
    ndarray of float64, shape (N,)
        The gain of each image; papers print 100 times the mean. 0 where Y is 1.

    Raises
    ------
    ShapeError, NumericError
        As `average_drop`.

    Notes
    -----
    Cost: two forwards an image. Used by Opti-CAM and CA-Stream, on black. The logarithm of 1 - p comes from the other
    classes' logits, so that it is exact for a p near 1.

    References
    ----------
    Zhang et al. 2024, Opti-CAM, arXiv:2301.07002.
    """
    return judged(AVERAGE_GAIN, model, x, heatmaps, classes, mask_space=mask_space)["average_gain"]


def win(drops_a: Any, drops_b: Any) -> float:
    """
    Return the share of images on which one method drops less than another.

    In [0, 1], higher is better for the first. A tie counts for neither, so win(a, b) + win(b, a) is at most 1.

    Parameters
    ----------
    drops_a, drops_b : array of float, shape (N,)
        `average_drop` of two methods on the same images.

    Returns
    -------
    float
        The share; papers print 100 times it.

    Raises
    ------
    ShapeError
        If they are not two equally long, non-empty rows of numbers.

    Notes
    -----
    Cost: none beyond that of the drops. Printed by Grad-CAM++, whose pairs sum to 100: there no image was a tie, while
    here two methods that both lose nothing tie.

    References
    ----------
    Chattopadhay et al. 2018, Grad-CAM++, arXiv:1710.11063, section 4.1.

    Examples
    --------
    >>> win([0.1, 0.5, 0.0, 0.2], [0.2, 0.4, 0.0, 0.3])
    0.5
    """
    a, b = (np.asarray(drops, np.float64) for drops in (drops_a, drops_b))
    if a.ndim != 1 or a.shape != b.shape or not len(a) or np.isnan(a).any() or np.isnan(b).any():
        raise ShapeError(
            f"win compares two equally long rows of drops, without NaN; got shapes {a.shape} and {b.shape}: "
            "give average_drop of two methods on the same images"
        )
    return float((a < b).mean())


# what the table calls ---------------------------------------------------------------------------------------------


def changes(size: tuple[int, int], *, variant: str) -> tuple[Change, ...]:
    """
    Name the picture that is left.

    Parameters
    ----------
    size : tuple of int
        Height and width of the maps.
    variant : str
        Of any metric here.

    Returns
    -------
    tuple of Change
        One.
    """
    return (_left(size, variant),)


def drop_values(case: Case, *, variant: str) -> dict[str, Array]:
    """
    Return the drop of each image.

    Parameters
    ----------
    case : Case
        With scores of the clean picture and of what is left.
    variant : str
        As in `average_drop`.

    Returns
    -------
    dict of str to ndarray
        ``average_drop`` (N,).
    """
    return {"average_drop": _drop(*_pair(case, variant), variant)}


def increase_values(case: Case, *, variant: str) -> dict[str, Array]:
    """
    Return whether each image's probability rises.

    Parameters
    ----------
    case : Case
        With scores of the clean picture and of what is left.
    variant : str
        As in `average_increase`.

    Returns
    -------
    dict of str to ndarray
        ``average_increase`` (N,).
    """
    clean, left = _pair(case, variant)
    return {"average_increase": (_odds(left) > _odds(clean)).astype(np.float64)}


def gain_values(case: Case, *, variant: str) -> dict[str, Array]:
    """
    Return the gain of each image.

    Parameters
    ----------
    case : Case
        With scores of the clean picture and of what is left.
    variant : str
        The only one.

    Returns
    -------
    dict of str to ndarray
        ``average_gain`` (N,).
    """
    clean, left = _pair(case, variant)
    rose = _odds(left) > _odds(clean)  # never from a Y of 1, whose rest is -inf
    change = np.subtract(left.log_rest, clean.log_rest, out=np.zeros(len(rose)), where=rose)
    return {"average_gain": _one_less_exp(change)}


def win_values(case: Case, *, variant: str) -> dict[str, Array]:
    """
    Return what is compared image by image: the drop.

    Parameters
    ----------
    case : Case
        With scores of the clean picture and of what is left.
    variant : str
        The only one.

    Returns
    -------
    dict of str to ndarray
        ``win`` (N,), the drop.
    """
    return {"win": drop_values(case, variant=variant)["average_drop"]}


def _left(size: tuple[int, int], variant: str) -> Change:
    """Return the picture that is left, for any metric here."""
    if variant == "score-cam":
        pixels = size[0] * size[1]
        return swapped(Order(), -(-pixels // 2), pixels, pixels, HIDDEN)
    return Masked(HIDDEN, inverted=variant == "add")


def _pair(case: Case, variant: str) -> tuple[Scores, Scores]:
    """Return the scores of the picture and of what is left."""
    return case.scores[Clean()], case.scores[_left(case.size, variant)]


def _odds(scores: Scores) -> Floats:
    """
    Return log odds, (N,), +inf for a p of 1: strictly monotone in p, and exact at both ends.

    Whoever rises or falls is settled by them alone, so that rounding cannot let one image do both.
    """
    return scores.log_p - scores.log_rest


def _drop(clean: Scores, left: Scores, variant: str) -> Floats:
    """Return the drop, (N,)."""
    if variant == "raw-drop":
        return np.maximum(clean.p - left.p, 0.0)
    change = left.log_p - clean.log_p
    if variant == "add":
        with np.errstate(over="ignore"):  # a class that was all but impossible may rise beyond what a float holds
            return 0.0 - np.expm1(change)
    return _one_less_exp(np.where(_odds(left) < _odds(clean), change, 0.0))


def _one_less_exp(change: Floats) -> Floats:
    """Return ``max(0, 1 - exp(change))``, exact for small changes, (N,)."""
    return np.maximum(0.0 - np.expm1(change), 0.0)


def _fields(metric: str, better: Any, text: str) -> tuple[Field, ...]:
    return (Field(metric, better, 0, 1, text, percent=True),)


AVERAGE_DROP = register(
    Metric(
        id="average_drop",
        title="Average Drop",
        paper="arXiv:1710.11063",
        settings=(
            "paper: Grad-CAM++, ADCC and ReciproCAM on grey; Opti-CAM and CA-Stream on black (mask_space=raw). "
            "score-cam: Score-CAM's table. raw-drop: pytorch-grad-cam. add: LIFT-CAM's drop in deletion"
        ),
        fields=_fields("average_drop", "lower", "share of the class's probability lost under the map"),
        variants=("paper", "score-cam", "raw-drop", "add"),
        by_variant={
            "add": (
                Field(
                    "average_drop", "higher", -np.inf, 1, "share of the probability lost outside the map", percent=True
                ),
            )
        },
        values=drop_values,
        changes=changes,
        needs=("map", "scores"),
        aliases=("ad",),
    )
)
AVERAGE_INCREASE = register(
    Metric(
        id="average_increase",
        title="Average Increase",
        paper="arXiv:1710.11063",
        settings="paper: Grad-CAM++, ADCC, ReciproCAM, Opti-CAM. score-cam: Score-CAM's table",
        fields=_fields("average_increase", "higher", "share of images whose probability rises under the map"),
        variants=("paper", "score-cam"),
        values=increase_values,
        changes=changes,
        needs=("map", "scores"),
        aliases=("ai", "increase_in_confidence", "ic"),
    )
)
AVERAGE_GAIN = register(
    Metric(
        id="average_gain",
        title="Average Gain",
        paper="arXiv:2301.07002",
        settings="Opti-CAM and CA-Stream on black (mask_space=raw)",
        fields=_fields("average_gain", "higher", "share of the missing probability won under the map"),
        variants=("paper",),
        values=gain_values,
        changes=changes,
        needs=("map", "scores"),
        aliases=("ag",),
    )
)
WIN = register(
    Metric(
        id="win",
        title="Win",
        paper="arXiv:1710.11063",
        settings="Grad-CAM++, against Grad-CAM",
        fields=_fields("win", "higher", "share of images on which the probability drops less than another method's"),
        variants=("paper",),
        values=win_values,
        changes=changes,
        pairwise=True,
        needs=("map", "scores"),
    )
)
