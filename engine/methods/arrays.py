"""
The one switch between NumPy and CuPy for the methods, and two questions asked of activations.

Methods take arrays of either kind and answer in the kind and the type they were given: float32 in production, float64
in golden tests. Only the functions here look at where an array lives.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from camrt.kernels import Array, is_cupy

__all__ = ["Array", "has_negative", "namespace", "planes", "total"]


def namespace(array: Array) -> Any:
    """
    Return the module whose functions fit an array.

    Parameters
    ----------
    array : ndarray
        A NumPy or CuPy array.

    Returns
    -------
    module
        `cupy` for an array on a CUDA device, `numpy` for any other.

    Examples
    --------
    >>> namespace(np.zeros(3)).__name__
    'numpy'
    """
    if is_cupy(array):
        import cupy

        return cupy
    return np


def has_negative(acts: Array) -> Array:
    """
    Tell which images have a negative activation.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.

    Returns
    -------
    ndarray of bool, shape (N,)
        True where a method that assumes ``A >= 0`` loses its justification.

    Notes
    -----
    Cost: one pass over `acts`.
    """
    signed: Array = acts.reshape(len(acts), -1).min(axis=1) < 0  # one long axis is several times as fast as three
    return signed


def planes(image: Array, size: tuple[int, int]) -> Array:
    """
    Return an array of the image's shape with its channels first.

    Parameters
    ----------
    image : ndarray, shape (N, C, H, W) or (N, H, W, C)
        The model's input, or anything of its shape.
    size : tuple of int
        ``(H, W)``.

    Returns
    -------
    ndarray, shape (N, C, H, W)
        A view.
    """
    return image if image.shape[2:] == size else image.transpose(0, 3, 1, 2)


def total(array: Array) -> Array:
    """
    Sum over positions and keep the axes.

    Parameters
    ----------
    array : ndarray of float, shape (N, K, h, w)
        Activations, gradients or a product of both.

    Returns
    -------
    ndarray of float, shape (N, K, 1, 1)
        The sum over h and w, ready to be combined with `array` again.

    Notes
    -----
    Cost: one pass. NumPy's ``sum`` over two short axes takes four times as long as its ``einsum``.
    """
    if is_cupy(array):
        on_device: Array = array.sum(axis=(2, 3), keepdims=True)
        return on_device
    summed: Array = np.einsum("nkhw->nk", array)[:, :, None, None]
    return summed
