"""
The arrays that are added to pictures or taken from them: noise, and random squares.

In: a `Shifted` change, a picture and its hash. Out: the array, without its sign. `camrt.metrics.filling` adds it to the
picture and `camrt.metrics.robustness` multiplies the map by it; both ask here, so that they speak of the same array.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..noise import standard_normal, uniform
from .changes import Shifted

__all__ = ["channel_mean", "shift_of"]

Array = npt.NDArray[Any]

KINDS = {"gaussian": 0, "uniform": 1, "square": 2}  # each has a stream of its own


def shift_of(
    change: Shifted,
    shape: tuple[int, ...],
    image: int,
    x: Array | None,
    *,
    channels_last: bool = False,
    out: Array | None = None,
) -> Array:
    """
    Return the array that a change adds to a picture, before its sign.

    Parameters
    ----------
    change : Shifted
        Kind, scale, seed and sample.
    shape : tuple of int
        Of the picture: (C, H, W), or (H, W, C) where channels come last.
    image : int
        The picture's content hash.
    x : ndarray of `shape` or None
        The picture, on the host; a "square" shows it, noise does not need it.
    channels_last : bool
        Which of the axes are rows and columns.
    out : ndarray of float32, C-contiguous, of `shape`, optional
        Where noise is written; a square is an array of its own.

    Returns
    -------
    ndarray of `shape`
        Noise is float32. A square has the type of `x`: what the picture shows in it, zero elsewhere.

    Notes
    -----
    It depends on the seed, the sample, the picture's hash and the kind alone. "gaussian" and "uniform" noise is drawn for
    every channel of every pixel. The square's side is drawn evenly from H/8 to H/2, both rounded down and 1 at least, then
    its place among all that lie wholly in the picture.

    Examples
    --------
    >>> x = np.ones((1, 8, 8))
    >>> square = shift_of(Shifted("square", seed=1), x.shape, 7, x)
    >>> int(square.sum()) in (1, 4, 9, 16)
    True
    """
    words = (change.seed, image, change.sample, KINDS[change.kind])
    if change.kind != "square":
        noise = (standard_normal if change.kind == "gaussian" else uniform)(shape, *words, out=out)
        noise *= np.float32(change.scale)
        return noise
    assert x is not None
    draw = np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
    height, width = shape[:2] if channels_last else shape[1:]
    side = int(draw.integers(max(1, height // 8), max(1, height // 2), endpoint=True))
    tall, wide = min(side, height), min(side, width)
    top = int(draw.integers(0, height - tall, endpoint=True))
    left = int(draw.integers(0, width - wide, endpoint=True))
    window = (slice(top, top + tall), slice(left, left + wide))
    place = window if channels_last else (slice(None), *window)
    square: Array = np.zeros(shape, x.dtype)
    square[place] = x[place]
    return square


def channel_mean(shift: Array, *, channels_last: bool = False) -> Array:
    """
    Return the mean of an array's channels: what is multiplied by a map that they share evenly.

    Parameters
    ----------
    shift : ndarray, shape (C, H, W) or (H, W, C)
        As `shift_of` returns it.
    channels_last : bool
        Whether channels come last.

    Returns
    -------
    ndarray, shape (H, W)
        In float32, or float64 where `shift` is.

    Examples
    --------
    >>> channel_mean(np.array([[[1, 2]], [[3, 6]]], np.uint8)).tolist()
    [[2.0, 4.0]]
    """
    mean: Array = shift.mean(-1 if channels_last else 0, dtype=np.result_type(shift, np.float32))
    return mean
