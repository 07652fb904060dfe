"""
How far two heatmaps of one picture agree: figures from -1 or 0 to 1, and what the model makes of the difference.

In: two heatmaps (H, W) of the same picture and target, made in two ways (another precision, another provider, a
quantised model and its twin). Out: their cosine, the correlation of their ranks, how much of their top regions they
share, and the areas under RISE's insertion and deletion curves, which tell whether a difference matters to the model.

Two rules hold for all. A map without contrast says nothing: two of them agree entirely, one of them with any other map
not at all. Pixels of equal value keep their raster order, so that the maps' zeros are not shuffled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import exp
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import MethodError, ShapeError

__all__ = ["Agreement", "agreement", "area", "blurred", "cosine", "curve", "rank_correlation", "top_overlap"]

Array = npt.NDArray[Any]
Heat = npt.NDArray[np.floating[Any]]

BLUR, SIGMA = 11, 5.0  # RISE's blur of the insertion start: a Gaussian of this width in a window of this side
ROWS = 28  # perturbed inputs made at a time: 17 MB of float32 at 224 x 224


@dataclass(frozen=True)
class Agreement:
    """
    How far two heatmaps agree.

    Attributes
    ----------
    cosine : float
        Of the maps as vectors, 0 to 1 for heatmaps.
    rank : float
        Spearman's rank correlation, -1 to 1.
    top10, top20 : float
        Intersection over union of the highest 10 and 20 % of the pixels.
    largest : float
        The largest difference at any pixel.
    """

    cosine: float
    rank: float
    top10: float
    top20: float
    largest: float

    def to_dict(self) -> dict[str, float]:
        """Return plain data for JSON."""
        return asdict(self)


def agreement(a: Heat, b: Heat) -> Agreement:
    """
    Compare two heatmaps.

    Parameters
    ----------
    a, b : ndarray of float, shape (H, W)
        Heatmaps of the same picture and target, finite.

    Returns
    -------
    Agreement
        Every figure that needs no model.

    Raises
    ------
    ShapeError
        If they are not two maps of one shape, or hold NaN or infinity.

    Notes
    -----
    Cost: two sorts; 10 ms at 224 x 224.

    Examples
    --------
    >>> agreement(np.eye(4), np.eye(4)).top10
    1.0
    """
    _check(a, b)
    largest = float(np.abs(np.subtract(a, b, dtype=np.float64)).max())
    return Agreement(cosine(a, b), rank_correlation(a, b), top_overlap(a, b, 0.1), top_overlap(a, b, 0.2), largest)


def cosine(a: Heat, b: Heat) -> float:
    """
    Return the cosine of the angle between two maps.

    Parameters
    ----------
    a, b : ndarray of float
        Maps of one shape.

    Returns
    -------
    float
        1 where both are zero, 0 where one is.

    Examples
    --------
    >>> round(cosine(np.array([1.0, 0]), np.array([1.0, 1])) ** 2, 12)
    0.5
    """
    _check(a, b)
    u, v = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    u, v = (w / max(float(np.abs(w).max()), np.finfo(np.float64).tiny) for w in (u, v))
    lengths = float(np.linalg.norm(u)), float(np.linalg.norm(v))
    if 0.0 in lengths:
        return float(lengths[0] == lengths[1])
    return float(u @ v / (lengths[0] * lengths[1]))


def rank_correlation(a: Heat, b: Heat) -> float:
    """
    Return Spearman's rank correlation: Pearson's of the ranks, equal values sharing the mean of theirs.

    Parameters
    ----------
    a, b : ndarray of float
        Maps of one shape.

    Returns
    -------
    float
        1 where neither has contrast, 0 where one has none.

    References
    ----------
    C. Spearman, The proof and measurement of association between two things, 1904.

    Examples
    --------
    >>> rank_correlation(np.array([1.0, 2, 3]), np.array([1.0, 10, 100]))
    1.0
    """
    _check(a, b)
    if (lone := _without_contrast(a, b)) is not None:
        return lone
    u, v = _ranks(a), _ranks(b)
    u, v = u - u.mean(), v - v.mean()
    return float(u @ v / np.sqrt((u @ u) * (v @ v)))


def top_overlap(a: Heat, b: Heat, share: float) -> float:
    """
    Return how much of their top regions two maps share, as intersection over union.

    Parameters
    ----------
    a, b : ndarray of float
        Maps of one shape.
    share : float
        The region is this share of all pixels, in (0, 1]; at least one pixel.

    Returns
    -------
    float
        1 where neither map has contrast, 0 where one has none.

    Raises
    ------
    MethodError
        If `share` is out of range.
    """
    if not 0 < share <= 1:
        raise MethodError(f"a top region is a share of the pixels in (0, 1]; got {share}")
    _check(a, b)
    if (lone := _without_contrast(a, b)) is not None:
        return lone
    n = max(1, int(share * a.size))
    both = len(np.intersect1d(_order(a)[:n], _order(b)[:n], assume_unique=True))
    return both / (2 * n - both)


def curve(
    probability: Callable[[Array], Array],
    start: Array,
    end: Array,
    heat: Heat,
    *,
    steps: int = 224,
    channels_last: bool = False,
) -> npt.NDArray[np.float64]:
    """
    Follow a probability while one input turns into another, the heatmap's highest pixels first.

    Deletion goes from the input to zeros, insertion from the blurred input to the input.

    Parameters
    ----------
    probability : callable
        ``probability(batch)`` gives the class's probability of every input of a batch, (n,).
    start, end : ndarray, shape (C, H, W)
        Inputs of the model; (H, W, C) where `channels_last`.
    heat : ndarray of float, shape (H, W)
        The heatmap.
    steps : int, default 224
        How many steps the pixels are changed in, each ``ceil(H * W / steps)`` of them.
    channels_last : bool, default False
        Where the channels of the input lie.

    Returns
    -------
    ndarray of float64, shape (steps + 1,)
        Probabilities from `start` to `end`; fewer where the steps do not divide the pixels.

    Raises
    ------
    MethodError
        If `steps` is below 1.
    ShapeError
        If the inputs and the heatmap do not fit each other.

    References
    ----------
    Petsiuk, Das & Saenko 2018 (arXiv:1806.07421), section 4.3.
    """
    if steps < 1:
        raise MethodError(f"steps must be at least 1; got {steps}")
    pixels = start.shape[:2] if channels_last else start.shape[1:]
    if start.shape != end.shape or pixels != heat.shape:
        raise ShapeError(f"two inputs of the heatmap's size {heat.shape} were wanted; got {start.shape}, {end.shape}")
    batches = _stages(start, end, heat, steps, channels_last)
    return np.concatenate([np.asarray(probability(batch), np.float64) for batch in batches])


def area(scores: npt.ArrayLike) -> float:
    """
    Return the area under a curve of equally spaced points, by trapezoids, its width being 1.

    Parameters
    ----------
    scores : array_like, shape (n + 1,)
        The points, two at least.

    Returns
    -------
    float
        ``(sum - first / 2 - last / 2) / n``.

    Raises
    ------
    ShapeError
        If there are fewer than two points.

    Examples
    --------
    >>> area([1, 0.5, 0])
    0.5
    """
    y = np.asarray(scores, np.float64)
    if y.ndim != 1 or len(y) < 2:
        raise ShapeError(f"a curve of at least two points was wanted; got shape {y.shape}")
    return float((y.sum() - (y[0] + y[-1]) / 2) / (len(y) - 1))


def blurred(x: Array, *, channels_last: bool = False) -> Array:
    """
    Blur an input as RISE does before inserting pixels: zeros lie around it.

    Parameters
    ----------
    x : ndarray, shape (C, H, W)
        An input of the model; (H, W, C) where `channels_last`.
    channels_last : bool, default False
        Where its channels lie.

    Returns
    -------
    ndarray, shape and type of `x`
        Whole numbers are rounded.

    References
    ----------
    Petsiuk, Das & Saenko 2018 (arXiv:1806.07421); window 11, sigma 5, as in the authors' code.
    """
    planes = np.moveaxis(x, -1, 0) if channels_last else x
    wide: Array = planes.astype(np.float64)
    for axis in (1, 2):
        wide = _along(wide, axis)
    if x.dtype.kind != "f":
        wide = np.rint(wide)
    return (np.moveaxis(wide, 0, -1) if channels_last else wide).astype(x.dtype)


def _check(a: Heat, b: Heat) -> None:
    """Refuse what are not two finite maps of one shape."""
    if a.shape != b.shape or not a.size:
        raise ShapeError(f"two maps of one shape were wanted; got {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ShapeError("maps to be compared must be finite; one holds NaN or infinity")


def _without_contrast(a: Heat, b: Heat) -> float | None:
    """Return what the figures are where a map is constant; None where neither is."""
    flat = a.min() == a.max(), b.min() == b.max()
    return float(all(flat)) if any(flat) else None


def _order(heat: Heat) -> npt.NDArray[np.int64]:
    """Return pixels from the highest to the lowest, equal ones in raster order."""
    return np.argsort(-heat.astype(np.float64).ravel(), kind="stable")


def _ranks(values: Heat) -> npt.NDArray[np.float64]:
    """Return each value's rank from 1, equal values sharing the mean of theirs."""
    _, group, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    last: npt.NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return last[group]


def _stages(start: Array, end: Array, heat: Heat, steps: int, channels_last: bool) -> Iterator[Array]:
    """Yield batches of inputs on the way from one to the other."""
    place = np.empty(heat.size, np.int64)
    place[_order(heat)] = np.arange(heat.size)
    block = -(-heat.size // steps)
    bounds = np.arange(0, heat.size + block, block)
    for first in range(0, len(bounds), ROWS):
        changed = place.reshape(heat.shape) < bounds[first : first + ROWS, None, None]  # (rows, H, W)
        yield np.where(changed[..., None] if channels_last else changed[:, None], end, start)


@lru_cache(maxsize=1)
def _window() -> tuple[float, ...]:
    """
    Return one axis of RISE's blur.

    The authors filter a single point in a window of 11 by a Gaussian cut at four sigma, which the window's edges
    reflect. So tap i adds up the Gaussian at every mirror image of the centre, and the taps sum to 1.
    """
    reach = int(4 * SIGMA + 0.5)
    gauss = {d: exp(-d * d / (2 * SIGMA * SIGMA)) for d in range(-reach, reach + 1)}
    total, centre, period = sum(gauss.values()), BLUR // 2, 2 * BLUR
    images = [centre + period * k for k in range(-3, 4)] + [-1 - centre + period * k for k in range(-3, 4)]
    return tuple(sum(gauss.get(image - i, 0.0) for image in images) / total for i in range(BLUR))


def _along(planes: Array, axis: int) -> Array:
    """Blur along one axis."""
    pad = [(BLUR // 2, BLUR // 2) if i == axis else (0, 0) for i in range(planes.ndim)]
    padded, n = np.pad(planes, pad), planes.shape[axis]
    parts = (w * np.take(padded, range(i, i + n), axis) for i, w in enumerate(_window()))
    blurred_along: Array = np.sum(list(parts), axis=0)
    return blurred_along
