"""
Min-max scaling of each map to [0, 1], the last step of the pipeline.

In go maps (N, h, w); out come maps whose smallest value is exactly 0 and largest exactly 1, and a flag for each map
that is constant and therefore has no such scaling. No epsilon is added anywhere: whether a map is constant is asked
in relation to the map's own size.
"""

from __future__ import annotations

import numpy as np

from .array import Array, DType, computing_dtype, is_cupy, tolerance
from .device import Gpu, Kernel

__all__ = ["min_max"]

THREADS = 512  # a map is one block; scaling.cu has it too
MIN_MAX = Kernel("scaling", "min_max", (THREADS,))


def min_max(maps: Array, *, overwrite: bool = False) -> tuple[Array, Array]:
    """
    Scale each map to [0, 1] and flag the constant ones.

    A map is constant when ``max - min <= 1e-6 * max(|max|, |min|)`` (1e-12 in float64), which an all-zero map also
    is; it becomes the all-zero map.

    Parameters
    ----------
    maps : Array of float32 or float64, shape (N, h, w)
        Any values, any memory layout; float16 is computed in float32.
    overwrite : bool, default False
        Whether the result may take the memory of `maps`, where it fits: for a caller that needs them no more, a pass over
        fresh memory less.

    Returns
    -------
    scaled : Array, shape (N, h, w)
        ``(map - min) / (max - min)``, no unit, on the side (host or device) of `maps`; a new array unless `overwrite`.
    degenerate : Array of bool, shape (N,)
        True where the map was constant.

    Raises
    ------
    ShapeError
        If `maps` is not (N, h, w) of a real floating type.

    Notes
    -----
    Nothing is hidden: a map that holds a NaN or an infinity (or whose span exceeds its type's range) comes back with
    every value NaN and is not flagged as degenerate.

    Cost: `maps` is read twice. On the GPU one launch, one block a map, no host synchronisation.

    Examples
    --------
    >>> scaled, degenerate = min_max(np.array([[[-1.0, 0.0, 3.0]], [[5.0, 5.0, 5.0]]]))
    >>> scaled
    array([[[0.  , 0.25, 1.  ]],
    <BLANKLINE>
           [[0.  , 0.  , 0.  ]]])
    >>> degenerate
    array([False,  True])
    """
    dtype = computing_dtype("maps", maps, "(N, h, w)")
    if is_cupy(maps):
        return _on_gpu(maps, dtype, overwrite, Gpu.of(maps))
    whole = np.ascontiguousarray(maps, dtype)
    return _on_numpy(whole, whole if overwrite else np.empty_like(whole))


def _on_numpy(maps: Array, scaled: Array) -> tuple[Array, Array]:
    """Compute `min_max` of a contiguous array, into another or into itself."""
    flat = maps.reshape(len(maps), -1 if len(maps) else 1)
    low, high = flat.min(1), flat.max(1)
    with np.errstate(invalid="ignore", over="ignore"):  # the non-finite cases end as NaN, on purpose
        span = high - low
        constant = span <= maps.dtype.type(tolerance(maps.dtype)) * np.maximum(np.abs(low), np.abs(high))
        finite = np.isfinite(span)
        np.subtract(maps, low[:, None, None], out=scaled)
        scaled /= np.where(constant, 1, span)[:, None, None]
    degenerate: Array = constant & finite
    scaled[degenerate] = 0
    scaled[~finite] = np.nan
    return scaled, degenerate


def _on_gpu(maps: Array, dtype: DType, overwrite: bool, gpu: Gpu) -> tuple[Array, Array]:
    """Compute `min_max` with the kernel of scaling.cu."""
    n, h, w = maps.shape
    whole = gpu.contiguous(maps, dtype)
    scaled, degenerate = whole if overwrite else gpu.empty((n, h, w), dtype), gpu.empty((n,), np.dtype(bool))
    gpu.launch(MIN_MAX, dtype, n, (whole, scaled, degenerate, h * w, tolerance(dtype)))
    return scaled, degenerate
