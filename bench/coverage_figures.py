"""
How far gradients are off the ones of an oracle, image by image.

In: arrays with the images first. Out: one figure an image. Float32 gradients through many ReLUs and max pools have a
noise floor: a number that rounds to the other side of a kink switches a path, in torch as in ONNX Runtime. So errors
are bimodal; the limits below ask for the best picture's error and for every picture's direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = [
    "BEST",
    "COSINE",
    "FLOORS",
    "HALF_PARITY",
    "LAYER",
    "PARITY",
    "SLOPE",
    "canonical",
    "cosines",
    "errors",
    "full_shape",
]

Array = np.ndarray[Any, Any]

PARITY = 1e-4  # logits, relative to the largest: float32 sums of a few thousand terms in another order
HALF_PARITY = 2e-2  # the same where the given model rounds every tensor to float16's 11 bits
LAYER = 1e-4  # gradient at the default layer, every image; the best where kinks lie behind the layer, as in VGG's head
BEST = 1e-5  # gradient at the image, the best of several; or
FLOORS = 3.0  # this many times the best that float32 autograd itself reaches
COSINE = 0.999  # gradient at the image, and at a layer with kinks behind it, every image
SLOPE = 5e-2  # gradient at the layer against float32 differences, where autograd cannot be asked: kinks cost per cents


def full_shape(shape: Sequence[int | str], layout: str, images: int) -> tuple[int, ...]:
    """
    Return the shape of a layer's tensor for some images.

    Parameters
    ----------
    shape, layout
        The layer's, as in `camrt.export.manifest.Layer`; the batch is the first axis, or the second of ``tokens_first``.
    images : int
        How many.

    Returns
    -------
    tuple of int
        The shape.
    """
    batch = 1 if layout == "tokens_first" else 0
    return tuple(images if axis == batch else int(size) for axis, size in enumerate(shape))


def canonical(tensor: Array, layout: str, prefix: int, grid: Sequence[int]) -> Array:
    """
    Return a layer's tensor as programs give it.

    Parameters
    ----------
    tensor : ndarray
        As the model has it.
    layout, prefix, grid
        The layer's, as in `camrt.export.manifest.Layer`.

    Returns
    -------
    ndarray
        (N, K, h, w).
    """
    if layout == "nhwc":
        return tensor.transpose(0, 3, 1, 2)
    if layout == "tokens_first":
        tensor = tensor.transpose(1, 0, 2)
    if layout.startswith("tokens"):
        return tensor[:, prefix:].transpose(0, 2, 1).reshape(len(tensor), -1, *grid)
    return tensor


def errors(got: Array, want: Array) -> Array:
    """
    Return the largest error of each image, relative to its largest gradient.

    Parameters
    ----------
    got, want : ndarray
        Gradients, (N, ...).

    Returns
    -------
    ndarray
        (N,).

    Raises
    ------
    ValueError
        If shapes differ, a number is not finite, or a gradient vanishes, which would prove nothing.
    """
    if got.shape != want.shape:
        raise ValueError(f"gradients of shape {want.shape} were wanted, they are {got.shape}")
    if not np.isfinite(got).all() or not np.isfinite(want).all():
        raise ValueError("a gradient is NaN or infinite")
    axes = tuple(range(1, want.ndim))
    scale = np.abs(want).max(axes)
    if not (scale > 0).all():
        raise ValueError("a gradient that vanishes proves nothing")
    return np.asarray(np.abs(got - want).max(axes) / scale)


def cosines(got: Array, want: Array) -> Array:
    """
    Return the cosine between both gradients of each image.

    Parameters
    ----------
    got, want : ndarray
        Gradients, (N, ...).

    Returns
    -------
    ndarray
        (N,).
    """
    got, want = (a.reshape(len(a), -1).astype(np.float64) for a in (got, want))
    return np.asarray((got * want).sum(1) / np.sqrt((got**2).sum(1) * (want**2).sum(1)))
