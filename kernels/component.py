"""
The first principal component of a tensor's channels, found through a Gram matrix.

In goes a tensor (N, K, h, w), read image by image as the matrix M of Z = h*w cells by K channels; out comes the map
``S = M v1``, where v1 is the first right singular vector, and the two largest singular values, which tell how well
the first component is told apart. With the singular value decomposition ``M = sum of s_i u_i v_i'``:

* ``M M'`` (Z x Z) has the eigenpairs (s_i^2, u_i), and ``S = s_1 u_1``;
* ``M' M`` (K x K) has the eigenpairs (s_i^2, v_i), and ``S = M v_1``.

The smaller of the two is built, always in float64, because it squares the range of M. NumPy finds the eigenpairs with
LAPACK; the CUDA kernel by squaring the matrix until only the leading eigenvector is left, which needs no library.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .array import Array, DType, computing_dtype, is_cupy, tolerance
from .device import Gpu, Kernel

__all__ = ["leading_component"]

SIGN_BAND = 0.999  # entries within a thousandth of the largest count as largest, so that rounding cannot turn a sign

LANES, TILE, THREADS = 32, 16, 256  # component.cu has them too
CHANNEL_MOMENTS = Kernel("component", "channel_moments", (LANES,))
GRAM = Kernel("component", "gram", (TILE, TILE))
LEADING_PAIR = Kernel("component", "leading_pair", (THREADS,))
PROJECT = Kernel("component", "project", (THREADS,))


def leading_component(tensor: Array, *, center: bool) -> tuple[Array, Array]:
    """
    Project each image's cells on their first principal component.

    The sign of a component is arbitrary. Here the first cell whose magnitude is within a thousandth of the largest is
    positive; a method that wants another sign turns the map.

    Parameters
    ----------
    tensor : Array of float32 or float64, shape (N, K, h, w)
        Activations, or any other tensor of cells by channels; float16 is computed in float32. Any memory layout.
    center : bool
        Subtract each channel's mean over the cells first: principal component analysis instead of a plain singular
        value decomposition.

    Returns
    -------
    maps : Array, shape (N, h, w)
        ``M v1``, same unit and side (host or device) as `tensor`.
    values : Array, shape (N, 2)
        The two largest singular values of M, largest first; the second is 0 where M has one row or one column.

    Raises
    ------
    ShapeError
        If `tensor` is not (N, K, h, w) of a real floating type.

    Notes
    -----
    Where the first singular value is no more than 1e-6 (float64: 1e-12) of the uncentred tensor's Frobenius norm,
    nothing but rounding is left: map and values are zero. That is the case of zero input, and with `center` of
    channels that are constant. An image that holds a NaN or an infinity gets NaN throughout.

    The second value is exact to about 1e-8 of the first, the square root of float64's rounding.

    Cost: with m the smaller of K and Z, ``K*Z*m`` multiplications for the Gram matrix and about ``9*m**3`` for its
    eigenpairs, in float64. On the GPU four launches, no host synchronisation; the eigenpairs of an image are one
    block's work. The map of an image does not depend on the images beside it.

    References
    ----------
    Muhammad and Yeasin, "Eigen-CAM", arXiv:2008.00299: the projection ``O V1`` on the first right singular
    vector.

    Examples
    --------
    >>> tensor = np.array([[[[3.0, 0.0]], [[4.0, 0.0]]]])  # cells (3, 4) and (0, 0)
    >>> maps, values = leading_component(tensor, center=False)
    >>> maps.round(6), values.round(6)
    (array([[[5., 0.]]]), array([[5., 0.]]))
    """
    dtype = computing_dtype("tensor", tensor, "(N, K, h, w)")
    if is_cupy(tensor):
        return _on_gpu(tensor, center, dtype, Gpu.of(tensor))
    return _on_numpy(tensor, center, dtype)


def _on_numpy(tensor: Array, center: bool, dtype: DType) -> tuple[Array, Array]:
    """Compute `leading_component` image by image, which bounds the float64 copies to one image."""
    n, k, h, w = tensor.shape
    maps, values = np.empty((n, h * w), dtype), np.empty((n, 2), dtype)
    for i in range(n):
        channels = tensor[i].reshape(k, h * w).astype(np.float64, order="C")
        maps[i], values[i] = _leading(channels, center, tolerance(dtype))
    return maps.reshape(n, h, w), values


def _leading(channels: Array, center: bool, smallest: float) -> tuple[Array, Array]:
    """Return the projection (Z,) and the two largest singular values of one float64 matrix (K, Z), which it alters."""
    k, z = channels.shape
    energy = np.vdot(channels, channels)
    if not np.isfinite(energy):
        return np.full(z, np.nan), np.full(2, np.nan)
    if center:
        channels -= channels.mean(1, keepdims=True)
    squares, vectors = np.linalg.eigh(channels.T @ channels if z <= k else channels @ channels.T)
    values = np.zeros(2)
    values[: len(squares)] = np.sqrt(np.maximum(squares[-2:][::-1], 0))
    if values[0] <= smallest * np.sqrt(energy):
        return np.zeros(z), np.zeros(2)
    leading: np.ndarray[Any, np.dtype[np.float64]] = vectors[:, -1]
    projection = values[0] * leading if z <= k else leading @ channels
    return _signed(projection), values


def _signed(projection: Array) -> Array:
    """Turn `projection` so that its first entry of (nearly) the largest magnitude is positive."""
    size = np.abs(projection)
    first = np.argmax(size >= SIGN_BAND * size.max())
    return -projection if projection[first] < 0 else projection


def _on_gpu(tensor: Array, center: bool, dtype: DType, gpu: Gpu) -> tuple[Array, Array]:
    """Compute `leading_component` with the kernels of component.cu."""
    n, k, h, w = tensor.shape
    z = h * w
    side = min(k, z)
    wide = np.dtype(np.float64)
    tensor = gpu.contiguous(tensor, dtype)
    means, energies = gpu.empty((n, k), wide), gpu.empty((n, k), wide)
    grams, scratch = gpu.empty((n, side, side), wide), gpu.empty((n, 2, side, side), wide)
    vectors, squares = gpu.empty((n, 3, side), wide), gpu.empty((n, 2), wide)
    projections = gpu.empty((n, z), wide)
    maps, values = gpu.empty((n, h, w), dtype), gpu.empty((n, 2), dtype)

    gpu.launch(CHANNEL_MOMENTS, dtype, n * k, (tensor, means, energies, z, int(center)))
    gpu.launch(GRAM, dtype, n * (-(-side // TILE)) ** 2, (tensor, means, grams, k, z))
    gpu.launch(LEADING_PAIR, dtype, n, (grams, scratch, vectors, squares, side))
    arguments = (tensor, means, energies, vectors, squares, projections, maps, values, k, z)
    gpu.launch(PROJECT, dtype, n, (*arguments, tolerance(dtype), SIGN_BAND))
    return maps, values
