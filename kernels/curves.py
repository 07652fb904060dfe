"""
The area under each of many curves, its width being 1.

In go curves (B, P), a score for each of P positions; out comes one area a curve. So a curve that stays at one score has
that score as its area, whatever the positions, and areas of curves with other positions compare.
"""

from __future__ import annotations

import numpy as np

from camrt.errors import InputError, ShapeError

from .array import Array, DType, computing_dtype, is_cupy, require_same_side
from .device import Gpu, Kernel

__all__ = ["areas"]

THREADS = 64  # curves a block; curves.cu reads it from blockDim
AREAS = Kernel("curves", "areas", (THREADS,))


def areas(curves: Array, positions: Array | None = None) -> Array:
    """
    Return the area under each curve by trapezoids, over positions scaled to the width 1.

    Parameters
    ----------
    curves : Array of float32 or float64, shape (B, P)
        The scores, two a curve at least; float16 is taken as well. Any memory layout.
    positions : Array of int or float, shape (P,) or (B, P), optional
        Where the scores lie, in any unit, such as pixels changed; not decreasing. Equally spaced where None.

    Returns
    -------
    Array of float64, shape (B,)
        ``sum((x[i+1] - x[i]) (y[i+1] + y[i]) / 2) / (x[P-1] - x[0])``, in the unit of the scores, on the side (host or
        device) of `curves`. Equally spaced, that is ``(sum(y) - y[0] / 2 - y[P-1] / 2) / (P - 1)``.

    Raises
    ------
    ShapeError
        If `curves` is not (B, P) of a real floating type with two scores at least, or `positions` do not fit.
    InputError
        If positions decrease or all are equal (on the host alone; a GPU's width of 0 makes the area NaN).

    Notes
    -----
    Sums are in float64, from the first trapezoid to the last. A NaN makes the area of its curve NaN.

    Cost: P additions a curve. On the GPU one launch, a thread a curve, no host synchronisation.

    References
    ----------
    Petsiuk, Das & Saenko 2018 (arXiv:1806.07421), section 4.3: the area under insertion and deletion curves.

    Examples
    --------
    >>> areas(np.array([[1.0, 0.5, 0.0], [1.0, 0.0, 0.0]]))
    array([0.5 , 0.25])
    >>> areas(np.array([[1.0, 0.0, 0.0]]), np.array([0, 3, 4]))
    array([0.375])
    """
    dtype = computing_dtype("curves", curves, "(B, P)")
    if curves.shape[1] < 2:
        raise ShapeError(f"curves (B, P) need two scores each at least, got {curves.shape}; one point spans no area")
    if positions is not None:
        if positions.dtype.kind not in "iuf" or positions.shape not in (curves.shape, curves.shape[1:]):
            raise ShapeError(
                f"positions must be numbers {curves.shape[1:]} or {curves.shape}, got {positions.dtype} {positions.shape}"
            )
        require_same_side("curves", curves, "positions", positions)
    if is_cupy(curves):
        return _on_gpu(curves, positions, dtype, Gpu.of(curves))
    return _on_numpy(np.asarray(curves, np.float64), None if positions is None else np.asarray(positions, np.float64))


def _on_numpy(curves: Array, positions: Array | None) -> Array:
    """Compute `areas` of curves in float64."""
    x = np.broadcast_to(np.arange(curves.shape[1], dtype=np.float64) if positions is None else positions, curves.shape)
    widths = np.diff(x)
    if not ((widths >= 0).all() and (x[:, -1] > x[:, 0]).all()):
        raise InputError("positions must not decrease and must span a width; sort them, and give two that differ")
    total, first = np.zeros(len(curves)), curves[:, 0]
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite stays visible
        for width, last in zip(widths.T, curves[:, 1:].T, strict=True):
            total += width * ((first + last) / 2)
            first = last
        total /= x[:, -1] - x[:, 0]
    return total


def _on_gpu(curves: Array, positions: Array | None, dtype: DType, gpu: Gpu) -> Array:
    """Compute `areas` with the kernel of curves.cu."""
    n, n_points = curves.shape
    total = gpu.empty((n,), np.dtype(np.float64))
    x = gpu.empty((1,), np.dtype(np.float64)) if positions is None else gpu.contiguous(positions, np.dtype(np.float64))
    kind = 0 if positions is None else positions.ndim
    gpu.launch(AREAS, dtype, -(-n // THREADS), (gpu.contiguous(curves, dtype), x, total, n, n_points, kind))
    return total
