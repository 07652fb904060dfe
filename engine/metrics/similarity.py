"""
How alike two maps are: by the order of their pixels, by their structure, by the directions of their edges.

In: two maps (H, W). Out: one number from -1 to 1, which is 1 for a map and itself. A map without contrast says nothing, so
its similarity to any map is 0; `camrt.agreement`, which asks whether two runs gave the same, calls two of them equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from camrt.kernels import gaussian_blur

from ..agreement import rank_correlation
from ..errors import ShapeError

__all__ = ["hog", "hog_similarity", "spearman", "structural"]

Array = npt.NDArray[Any]

WINDOW, SIGMA = 11, 1.5  # Wang's Gaussian: the window that holds 3.5 sigma to each side
CELL, BLOCK, DIRECTIONS, CLIP = 16, 3, 9, 0.2  # of the histograms; cells of 16 x 16 are the sanity checks' choice
NEGLIGIBLE = 1e-5  # beside a block's norm, in the descriptor's own definition: an empty block stays 0


def spearman(a: Array, b: Array) -> float:
    """
    Return Spearman's rank correlation.

    Parameters
    ----------
    a, b : ndarray of float
        Maps of one shape, of any sign.

    Returns
    -------
    float
        In [-1, 1]; 0 where one is constant. Equal values share the mean of their ranks.

    Raises
    ------
    ShapeError
        If they are not finite maps of one shape.

    Examples
    --------
    >>> spearman(np.arange(4.0), -np.arange(4.0)), spearman(np.ones(4), np.ones(4))
    (-1.0, 0.0)
    """
    return 0.0 if _flat(a) or _flat(b) else rank_correlation(a, b)


def structural(a: Array, b: Array) -> float:
    """
    Return the structural similarity of two maps in [0, 1], with Gaussian weights.

    ``(2 m m' + c)(2 s + d) / ((m^2 + m'^2 + c)(v + v' + d))`` at each pixel, m the weighted means, v the variances, s the
    covariance, c = 0.01^2, d = 0.03^2; then the mean over pixels.

    Parameters
    ----------
    a, b : ndarray of float, shape (H, W)
        Maps in [0, 1].

    Returns
    -------
    float
        In [-1, 1]; 0 where one is constant.

    Raises
    ------
    ShapeError
        If they are not maps of one shape.

    Notes
    -----
    The Gaussian has sigma 1.5 and a window of 11; pixels nearer than 5 to the border are left out of the mean, unless that
    leaves none. Variances are those of a sample, multiplied by 121 / 120. So are scikit-image's defaults, with
    ``gaussian_weights=True, data_range=1``; its old versions took a range of 2 for floats that said none.

    References
    ----------
    Wang, Bovik, Sheikh and Simoncelli 2004, Image Quality Assessment, section III.B.
    """
    u, v = _pair(a, b)
    if _flat(u) or _flat(v):
        return 0.0
    means = gaussian_blur(np.stack([u, v, u * u, v * v, u * v])[None], WINDOW, SIGMA)[0]
    sample = WINDOW**2 / (WINDOW**2 - 1)
    var_u, var_v, both = (sample * (means[k] - means[i] * means[j]) for k, i, j in ((2, 0, 0), (3, 1, 1), (4, 0, 1)))
    c, d = 0.01**2, 0.03**2
    above = (2 * means[0] * means[1] + c) * (2 * both + d)
    found = above / ((means[0] ** 2 + means[1] ** 2 + c) * (var_u + var_v + d))
    edge = WINDOW // 2
    inside = found[edge:-edge, edge:-edge]
    return float((inside if inside.size else found).mean())


def hog(heat: Array) -> Array:
    """
    Return histograms of oriented gradients.

    Parameters
    ----------
    heat : ndarray of float, shape (H, W)
        A map.

    Returns
    -------
    ndarray of float64, shape (R, S, 3, 3, 9)
        For each block of 3 x 3 cells, what its cells hold of gradients in nine directions of 20 degrees, without sign, as a
        vector of length at most 1.

    Notes
    -----
    Cells are squares of 16 pixels, or of a third of the shorter side where that is less; what is left over on the right and
    below counts nowhere. Gradients are central differences, 0 at the border. A block is scaled to the length 1, cut off at
    0.2 and scaled again (L2-Hys). So are scikit-image's, with ``pixels_per_cell=(16, 16)``.

    References
    ----------
    Dalal and Triggs 2005, Histograms of Oriented Gradients for Human Detection, section 6.
    """
    image = np.asarray(heat, np.float64)
    down, right = np.zeros_like(image), np.zeros_like(image)
    down[1:-1], right[:, 1:-1] = image[2:] - image[:-2], image[:, 2:] - image[:, :-2]
    side = max(1, min(CELL, min(image.shape) // BLOCK))
    rows, columns = (length // side for length in image.shape)
    angle = np.rad2deg(np.arctan2(down, right)) % 180
    which = (angle * (DIRECTIONS / 180)).astype(np.int64) % DIRECTIONS
    strong = np.where(which == np.arange(DIRECTIONS)[:, None, None], np.hypot(down, right), 0)
    cells = strong[:, : rows * side, : columns * side].reshape(DIRECTIONS, rows, side, columns, side).mean((2, 4))
    block = (min(BLOCK, rows), min(BLOCK, columns))
    blocks = np.lib.stride_tricks.sliding_window_view(cells, block, axis=(1, 2)).transpose(1, 2, 3, 4, 0)
    return _unit(np.minimum(_unit(blocks), CLIP))


def hog_similarity(a: Array, b: Array) -> float:
    """
    Return the rank correlation of two maps' histograms of oriented gradients.

    Parameters
    ----------
    a, b : ndarray of float, shape (H, W)
        Maps.

    Returns
    -------
    float
        In [-1, 1]; 0 where one is constant, or has no edge that any cell sees.

    Raises
    ------
    ShapeError
        If they are not finite maps of one shape.
    """
    u, v = _pair(a, b)
    return spearman(hog(u), hog(v))


def _unit(blocks: Array) -> Array:
    """Scale each block to the length 1."""
    scaled: Array = blocks / np.sqrt((blocks**2).sum((2, 3, 4), keepdims=True) + NEGLIGIBLE**2)
    return scaled


def _pair(a: Array, b: Array) -> tuple[Array, Array]:
    """Return two maps as float64."""
    if a.ndim != 2 or a.shape != b.shape or not a.size:
        raise ShapeError(f"two maps (H, W) of one shape were wanted; got {a.shape} and {b.shape}")
    return a.astype(np.float64), b.astype(np.float64)


def _flat(heat: Array) -> bool:
    """Tell a map without contrast."""
    return bool(heat.min() == heat.max())
