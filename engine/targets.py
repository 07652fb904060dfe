"""
What is explained: from what a user writes to settled targets, their values, and the seeds that gradients start from.

A target in any form (nothing, a class, a label, an object, lists of those) goes in; out come target objects, one list
of T for each of N images, and for a column of them (the t-th target of every image) class indices, values and seeds.
One backward pass from the logits with the right seed gives every target of `camrt.scalars`, so one gradient program
serves them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import NumericError, TargetError
from .labels import find_label, is_known
from .scalars import (
    Class,
    Contrast,
    Logit,
    LogProbability,
    Probability,
    Rest,
    Scores,
    Target,
    Vector,
    cotangent,
    others,
    settled,
    softmax,
    value,
)

__all__ = [
    "Contrast",
    "LogProbability",
    "Logit",
    "Probability",
    "Rest",
    "Target",
    "Vector",
    "class_indices",
    "class_name",
    "describe",
    "parse",
    "pin",
    "seeds",
    "softmax",
    "values",
]

Column = Sequence[Target]

_KINDS: Mapping[str, Callable[[Class], Target]] = {
    "logit": Logit,
    "prob": Probability,
    "logprob": LogProbability,
    "rest": Rest,
    "margin": Contrast,
}


def parse(target: Any, *, n_images: int, n_classes: int, labels: Sequence[str] | None = None) -> list[list[Target]]:
    """
    Read what is to be explained, in any form a user may write it.

    Parameters
    ----------
    target : optional
        None or "predicted"; a class index; a label, or one of the synonyms in a label; a string such as ``"prob:281"``,
        ``"logprob:tabby"``, ``"rest:281"``, ``"margin:281"``, ``"logit:predicted"`` or ``"contrast:281-282"`` (the first
        against the second, where "predicted" stands for the best other class); a target object; a list of those, which
        are T targets for every image; N lists of T; or an integer array (T,) or (N, T).
    n_images : int
        N.
    n_classes : int
        C.
    labels : sequence of str, optional
        C class names.

    Returns
    -------
    list of list of Target
        N lists of T targets; labels have become indices, a predicted class is still None.

    Raises
    ------
    TargetError
        If a class is out of range, a label is unknown or ambiguous (near ones are named), or the lists do not fit N.

    Examples
    --------
    >>> parse(["cat", "prob:0"], n_images=1, n_classes=2, labels=["dog", "cat"])
    [[Logit(index=1), Probability(index=0)]]
    """
    names = labels or None
    if isinstance(target, np.ndarray):
        target = _from_array(target)
    if not isinstance(target, list | tuple):
        return [[_one(target, n_classes, names)] for _ in range(n_images)]
    if not target:
        raise TargetError("the list of targets is empty; give at least one, or None for the predicted class")
    nested = [isinstance(item, list | tuple | np.ndarray) for item in target]
    if not any(nested):
        shared = [_one(item, n_classes, names) for item in target]
        return [list(shared) for _ in range(n_images)]
    if not all(nested) or len(target) != n_images:
        raise TargetError(
            f"want one list of targets for each of {n_images} images, or one flat list for all; got {len(target)} "
            f"entries of which {sum(nested)} are lists"
        )
    rows = [[_one(item, n_classes, names) for item in row] for row in target]
    counts = {len(row) for row in rows}
    if len(counts) > 1 or 0 in counts:
        raise TargetError(f"every image needs the same number of targets, at least one; got {sorted(counts)}")
    return rows


def pin(column: Column, logits: npt.ArrayLike) -> list[Target]:
    """
    Fill in what depends on the scores: predicted classes and best other classes.

    Parameters
    ----------
    column : sequence of Target
        One target for each of N images.
    logits : array_like, shape (N, C)
        The model's scores of the clean images.

    Returns
    -------
    list of Target
        The same targets, each with its class; of equal scores the first class wins.

    Raises
    ------
    NumericError
        If a score is NaN or infinite.
    TargetError
        If the column has another length, a class is out of range, or one class has no other to contrast with.
    """
    return [_pinned(target, scores) for target, scores in zip(column, _scores(column, logits), strict=True)]


def class_indices(column: Column, logits: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """
    Return the class each target of a column is about.

    Parameters
    ----------
    column : sequence of Target
        One target for each of N images.
    logits : array_like, shape (N, C)
        The model's scores.

    Returns
    -------
    ndarray of int64, shape (N,)
        Predicted classes filled in; -1 for a `Vector`.

    Raises
    ------
    NumericError, TargetError
        As `pin`.
    """
    pinned = pin(column, logits)
    return np.array([-1 if isinstance(target, Vector) else settled(target.index) for target in pinned], np.int64)


def values(column: Column, logits: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """
    Return the scalar T of each image.

    Parameters
    ----------
    column : sequence of Target
        One target for each of N images.
    logits : array_like, shape (N, C)
        The model's scores.

    Returns
    -------
    ndarray of float32, shape (N,)
        Computed in float64.

    Raises
    ------
    NumericError, TargetError
        As `pin`.
    """
    found = [value(target, scores) for target, scores in _pairs(column, logits)]
    return np.array(found, np.float32)


def seeds(column: Column, logits: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """
    Return the cotangents dT/ds that gradient programs start from.

    Parameters
    ----------
    column : sequence of Target
        One target for each of N images.
    logits : array_like, shape (N, C)
        The model's scores.

    Returns
    -------
    ndarray of float32, shape (N, C)
        Computed in float64.

    Raises
    ------
    NumericError, TargetError
        As `pin`.

    References
    ----------
    The table in `camrt.scalars`.

    Examples
    --------
    >>> seeds([LogProbability(0)], [[0.0, 0.0]]).tolist()
    [[0.5, -0.5]]
    """
    found = [cotangent(target, scores) for target, scores in _pairs(column, logits)]
    return np.array(found, np.float32)


def describe(column: Column, logits: npt.ArrayLike, labels: Sequence[str] | None = None) -> tuple[str, ...]:
    """
    Say in words what each target of a column is.

    Parameters
    ----------
    column : sequence of Target
        One target for each of N images.
    logits : array_like, shape (N, C)
        The model's scores.
    labels : sequence of str, optional
        C class names; "class 3" and so on without them.

    Returns
    -------
    tuple of str
        The class's name for a logit; "p(cat)", "log p(cat)", "cat and the rest", "cat vs. dog" or "vector" for others.

    Raises
    ------
    NumericError, TargetError
        As `pin`.
    """
    return tuple(_words(target, labels or None) for target in pin(column, logits))


def class_name(index: int, labels: Sequence[str] | None) -> str:
    """
    Say a class in words.

    Parameters
    ----------
    index : int
        The class.
    labels : sequence of str or None
        Class names, if any are known.

    Returns
    -------
    str
        Its label, or "class 3".
    """
    return labels[index] if labels else f"class {index}"


def _one(item: Any, n_classes: int, labels: Sequence[str] | None) -> Target:
    """Read one target, and turn its labels into indices."""
    if isinstance(item, str):
        item = _from_text(item, n_classes, labels)
    if isinstance(item, Vector):
        size = np.asarray(item.seed).shape[0]
        if size != n_classes:
            raise TargetError(f"a vector target needs {n_classes} numbers, one a class; got {size}")
        return item
    if isinstance(item, Contrast):
        index, against = _index(item.index, n_classes, labels), _others(item.against, n_classes, labels)
        if n_classes < 2:
            raise TargetError("a contrast needs a second class; the model has one")
        if index is not None and against is not None and index in against:
            raise TargetError(f"class {index} cannot be contrasted with itself; give other classes")
        return Contrast(index, against)
    if isinstance(item, Logit | Probability | LogProbability | Rest):
        return replace(item, index=_index(item.index, n_classes, labels))
    return Logit(_index(item, n_classes, labels))


def _from_array(array: npt.NDArray[Any]) -> Any:
    """Return an array as nested lists."""
    if array.ndim > 2 or array.dtype.kind not in "iuUO":
        raise TargetError(
            f"an array of targets must hold class indices in shape (T,) or (N, T); got {array.dtype} {array.shape}"
        )
    return array.tolist()


def _from_text(text: str, n_classes: int, labels: Sequence[str] | None) -> Target:
    """Read a string: a label, a number, "predicted", or one of those behind a kind and a colon."""
    kind, colon, rest = text.partition(":")
    kind = kind.strip().lower()
    if not colon or (labels is not None and text in labels) or kind not in (*_KINDS, "contrast"):
        return Logit(_class(text))
    if kind != "contrast":
        return _KINDS[kind](_class(rest))
    cuts = [(rest[:i], rest[i + 1 :]) for i, letter in enumerate(rest) if letter == "-"]
    likely = [cut for cut in cuts if all(_class(side) is None or is_known(side, labels) for side in cut)]
    found: list[Target] = []
    failure = TargetError(f"want 'contrast:A-B', A against B; got {text!r}")
    for left, right in likely or cuts[-1:]:  # labels have hyphens too
        try:
            found.append(_one(Contrast(_class(left), _class(right)), n_classes, labels))
        except TargetError as error:
            failure = error
    if len(found) > 1:
        raise TargetError(f"{text!r} can be cut at more than one hyphen; give indices, 'contrast:281-282'")
    if not found:
        raise failure
    return found[0]


def _class(text: str) -> Class:
    """Return None for "predicted", otherwise the text."""
    return None if text.strip().lower() == "predicted" else text


def _index(item: Any, n_classes: int, labels: Sequence[str] | None) -> int | None:
    """Return a class index from an index, a label or None."""
    if item is None:
        return None
    if isinstance(item, str):
        item = find_label(item, labels, n_classes)
    if isinstance(item, bool | np.bool_) or not isinstance(item, int | np.integer):
        raise TargetError(
            f"a target must be a class index, a label, None or a target object; got {type(item).__name__} {item!r:.60}"
        )
    if not 0 <= item < n_classes:
        raise TargetError(f"class {item} is out of range; the model has {n_classes} classes, 0 to {n_classes - 1}")
    return int(item)


def _others(against: Any, n_classes: int, labels: Sequence[str] | None) -> tuple[int, ...] | None:
    """Return the classes a contrast is against, None for the best other class."""
    if against is None:
        return None
    several = against.tolist() if isinstance(against, np.ndarray) else against
    several = several if isinstance(several, list | tuple) else [several]
    if not several:
        raise TargetError("a contrast needs at least one other class, or None for the best; got an empty list")
    if any(one is None or (isinstance(one, str) and _class(one) is None) for one in several):
        raise TargetError("a contrast is against given classes, or None alone for the best other class")
    found = tuple(_index(one, n_classes, labels) for one in several)
    return tuple(index for index in found if index is not None)


def _scores(column: Column, logits: npt.ArrayLike) -> Scores:
    """Return the logits in float64, checked."""
    scores = np.asarray(logits, np.float64)
    if scores.ndim != 2 or len(scores) != len(column):
        raise TargetError(f"want logits of shape (N, C) for {len(column)} targets, one an image; got {scores.shape}")
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores).all(1))[0])
        raise NumericError(f"the model's scores of image {row} hold NaN or infinity; check its weights and the input")
    return scores


def _pairs(column: Column, logits: npt.ArrayLike) -> list[tuple[Target, Scores]]:
    """Return each image's target, filled in, with its scores."""
    scores = _scores(column, logits)
    return list(zip(pin(column, scores), scores, strict=True))


def _pinned(target: Target, scores: Scores) -> Target:
    """Fill in the predicted class, and the best other class of a contrast."""
    if isinstance(target, Vector):
        if len(np.asarray(target.seed)) != len(scores):
            raise TargetError(f"a vector target needs {len(scores)} numbers, one a class")
        return target
    index = int(scores.argmax()) if target.index is None else _index(target.index, len(scores), None)
    if not isinstance(target, Contrast):
        return replace(target, index=index)
    if target.against is None:
        if len(scores) < 2:
            raise TargetError("a contrast needs a second class; the model has one")
        rivals = scores.copy()
        rivals[settled(index)] = -math.inf
        return Contrast(index, (int(rivals.argmax()),))
    return Contrast(index, _others(target.against, len(scores), None))


def _words(target: Target, labels: Sequence[str] | None) -> str:
    """Return a settled target in words."""

    name = partial(class_name, labels=labels)

    match target:
        case Vector():
            return "vector"
        case Contrast():
            against = others(target)
            rival = name(against[0]) if len(against) == 1 else f"{len(against)} classes"
            return f"{name(settled(target.index))} vs. {rival}"
        case Probability():
            return f"p({name(settled(target.index))})"
        case LogProbability():
            return f"log p({name(settled(target.index))})"
        case Rest():
            return f"{name(settled(target.index))} and the rest"
        case _:
            return name(settled(target.index))
