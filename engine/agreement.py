"""
How far two heatmaps of one picture agree, as figures from -1 or 0 to 1.

In: two heatmaps (H, W) of the same picture and target, made in two ways (another precision, another provider, a
quantised model and its twin). Out: their cosine, the correlation of their ranks, and how much of their top regions they
share. Whether a difference matters to the model is told by `camrt.metrics.insertion` and `deletion`.

Two rules hold for all. A map without contrast says nothing: two of them agree entirely, one of them with any other map
not at all. Pixels of equal value keep their raster order, so that the maps' zeros are not shuffled.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import MethodError, ShapeError

__all__ = ["Agreement", "agreement", "cosine", "rank_correlation", "top_overlap"]

Heat = npt.NDArray[np.floating[Any]]


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
