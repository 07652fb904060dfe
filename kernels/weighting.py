"""
The combination step of class activation maps: channels times weights, summed.

In go activations (N, K, h, w) and one weight a channel (N, K) or a cell (N, K, h, w); out comes one map an image
(N, h, w). It is equation 2 of Grad-CAM, with or without its ReLU.
"""

from __future__ import annotations

import numpy as np

from camrt.errors import ShapeError

from .array import Array, DType, computing_dtype, is_cupy, require_same_side
from .device import Gpu, Kernel

__all__ = ["weighted_sum"]

CELLS, SLICES = 32, 16  # a block's width and the number of channels it adds up at a time; weighting.cu has them too
WEIGHTED_SUM = Kernel("weighting", "weighted_sum", (CELLS, SLICES))


def weighted_sum(acts: Array, weights: Array, *, relu: bool = False) -> Array:
    """
    Sum the channels of `acts`, each multiplied by its weight.

    Parameters
    ----------
    acts : Array of float32 or float64, shape (N, K, h, w)
        Activations; float16 is computed in float32. Any memory layout.
    weights : Array, shape (N, K) or (N, K, h, w)
        One weight a channel, or one a cell; on the same side (host or device) as `acts`.
    relu : bool, default False
        Replace negative sums by zero. NaN stays NaN.

    Returns
    -------
    Array, shape (N, h, w)
        The raw maps, unit: that of `acts` times that of `weights`; float64 if either input is, else float32.

    Raises
    ------
    ShapeError
        If `weights` does not fit `acts`, or either is not a real floating array.

    Notes
    -----
    Cost: ``N*K*h*w`` multiplications; `acts` is read once. On the GPU one launch, no host synchronisation. The map of
    an image does not depend on the images beside it, to the bit.

    References
    ----------
    Selvaraju et al., "Grad-CAM", arXiv:1610.02391, equation 2. Element-wise weights: Jiang et al., "LayerCAM",
    IEEE Transactions on Image Processing 30 (2021).

    Examples
    --------
    >>> acts = np.array([[[[1.0, 2.0]], [[10.0, 0.0]]]])  # one image, two channels of 1 x 2 cells
    >>> weighted_sum(acts, np.array([[3.0, -1.0]]), relu=True)
    array([[[0., 6.]]])
    """
    dtype = computing_dtype("acts", acts, "(N, K, h, w)")
    weight_axes = "(N, K)" if getattr(weights, "ndim", 4) == 2 else "(N, K, h, w)"
    dtype = np.promote_types(dtype, computing_dtype("weights", weights, weight_axes))
    if weights.shape != acts.shape[: weights.ndim]:
        raise ShapeError(
            f"weights {weights.shape} do not fit acts {acts.shape}; give {acts.shape[:2]}, or {acts.shape} for one a cell"
        )
    require_same_side("acts", acts, "weights", weights)
    if is_cupy(acts):
        return _on_gpu(acts, weights, relu, dtype, Gpu.of(acts))
    return _on_numpy(np.ascontiguousarray(acts, dtype), np.ascontiguousarray(weights, dtype), relu)


def _on_numpy(acts: Array, weights: Array, relu: bool) -> Array:
    """Compute `weighted_sum` of contiguous arrays; image by image, so that BLAS never sees the batch."""
    n, k, h, w = acts.shape
    cells = acts.reshape(n, k, h * w)
    maps = np.empty((n, h * w), acts.dtype)
    with np.errstate(invalid="ignore", over="ignore"):  # infinity and NaN are results here, found by the caller
        for i in range(n):
            if weights.ndim == 2:
                np.matmul(weights[i], cells[i], out=maps[i])
            else:
                np.einsum("kz,kz->z", weights[i].reshape(k, h * w), cells[i], out=maps[i])
    if relu:
        np.maximum(maps, 0, out=maps)
    return maps.reshape(n, h, w)


def _on_gpu(acts: Array, weights: Array, relu: bool, dtype: DType, gpu: Gpu) -> Array:
    """Compute `weighted_sum` with the kernel of weighting.cu."""
    n, k, h, w = acts.shape
    maps = gpu.empty((n, h, w), dtype)
    arguments = (gpu.contiguous(acts, dtype), gpu.contiguous(weights, dtype), maps)
    n_tiles = -(-h * w // CELLS)
    gpu.launch(WEIGHTED_SUM, dtype, n * n_tiles, (*arguments, k, h * w, int(weights.ndim == 4), int(relu)))
    return maps
