"""
The box of a map, and the picture inside it, as the saliency metric of Dabkowski and Gal asks the model.

In: a heatmap, a picture. Out: the tight box of the map's largest part, and what the picture shows in it, as large as
the picture was. The box follows the code of CASME (zphang/saliency_investigation), which other papers took over.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .components import components

__all__ = ["above_mean", "crop_and_resize", "largest_box"]

Array = npt.NDArray[Any]
Box = tuple[int, int, int, int]

SHARPNESS = -0.75  # of the cubic kernel: OpenCV's INTER_CUBIC and PyTorch's bicubic; Keys' own choice is -0.5


def above_mean(heat: Array) -> npt.NDArray[np.bool_]:
    """
    Tell which pixels of each map exceed its mean.

    Parameters
    ----------
    heat : ndarray of float, shape (..., H, W)
        Maps.

    Returns
    -------
    ndarray of bool, shape (..., H, W)
        Nothing of a constant map, whatever the rounding of its mean.
    """
    mean = heat.mean((-2, -1), dtype=np.float64, keepdims=True)
    flat = heat.max((-2, -1), keepdims=True) == heat.min((-2, -1), keepdims=True)
    above: npt.NDArray[np.bool_] = (heat > mean) & ~flat
    return above


def largest_box(heat: Array) -> Box:
    """
    Return the tight box of the largest component of what exceeds the map's mean.

    Parameters
    ----------
    heat : ndarray of float, shape (H, W)
        A map, on the host.

    Returns
    -------
    tuple of int
        ``x0 y0 x1 y1``, half-open; the whole picture for a constant map.

    Notes
    -----
    Components are joined by 4 neighbours; the first in raster order where several are largest. The code of CASME ends its
    boxes one pixel earlier at the right and at the bottom, because it takes the last pixel's index for an open end.

    Examples
    --------
    >>> largest_box(np.array([[0, 0, 0], [0, 1, 1], [1, 0, 0.0]]))
    (1, 1, 3, 2)
    """
    found = components(above_mean(heat), 4)
    if not len(found.size):
        return 0, 0, heat.shape[1], heat.shape[0]
    x0, y0, x1, y1 = found.corners[found.size.argmax()].tolist()
    return x0, y0, x1, y1


def crop_and_resize(x: Array, box: Box, channels_last: bool = False) -> Array:
    """
    Cut a box out of a picture and resize it to the picture's size.

    Parameters
    ----------
    x : ndarray of float, shape (C, H, W) or (H, W, C)
        A picture, on the host.
    box : tuple of int
        ``x0 y0 x1 y1``, half-open, inside the picture.
    channels_last : bool
        Which of the two.

    Returns
    -------
    ndarray, as `x`
        The crop.

    Notes
    -----
    Cubic convolution with half-pixel centres, sharpness -0.75, borders repeated and no smoothing before shrinking: OpenCV's
    ``INTER_CUBIC``, which CASME's code uses, and PyTorch's ``bicubic``. Values may overshoot those of the crop. The whole
    picture comes back as it was.

    References
    ----------
    Keys 1981, Cubic convolution interpolation for digital image processing.
    """
    height, width = x.shape[:2] if channels_last else x.shape[1:]
    x0, y0, x1, y1 = box
    rows = _cubic(y1 - y0, height).astype(x.dtype)
    columns = _cubic(x1 - x0, width).astype(x.dtype)
    if channels_last:
        resized: Array = np.einsum("ih,hwc,jw->ijc", rows, x[y0:y1, x0:x1], columns, optimize=True)
        return resized
    crop: Array = rows @ x[:, y0:y1, x0:x1] @ columns.T
    return crop


def _cubic(source: int, target: int) -> npt.NDArray[np.float64]:
    """Return how much each of `source` samples weighs in each of `target` samples, (target, source)."""
    centre = (np.arange(target) + 0.5) * (source / target) - 0.5
    first = np.floor(centre).astype(int)
    weights = np.zeros((target, source))
    for offset in (-1, 0, 1, 2):
        far = np.abs(centre - first - offset)
        near = ((SHARPNESS + 2) * far - (SHARPNESS + 3)) * far**2 + 1
        away = SHARPNESS * (((far - 5) * far + 8) * far - 4)
        place = np.clip(first + offset, 0, source - 1)
        np.add.at(weights, (np.arange(target), place), np.where(far <= 1, near, np.where(far < 2, away, 0)))
    return weights
