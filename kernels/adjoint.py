"""
The way back from a mask of the image to the map it was made of: gradients of `resize` and of `min_max`.

In go gradients of some scalar T with respect to what `resize` or `min_max` gave; out come its gradients with respect to
what they were given. `resize` is linear, so its gradient is its transpose, ``<resize(a), b> = <a, resize_adjoint(b)>``.
`min_max` depends on every pixel, and twice on the two that are the smallest and the largest.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from camrt.errors import ShapeError

from .array import Array, DType, computing_dtype, is_cupy, require_same_side, tolerance
from .device import Gpu, Kernel
from .resizing import Align, checked_grid, resize

__all__ = ["min_max_gradient", "resize_adjoint"]

CELLS = 256  # results a block; adjoint.cu reads it from blockDim
THREADS = 512  # a map is one block; adjoint.cu has it too
RESIZE_ADJOINT_AXIS = Kernel("adjoint", "resize_adjoint_axis", (CELLS,))
MIN_MAX_GRADIENT = Kernel("adjoint", "min_max_gradient", (THREADS,))


def resize_adjoint(gradients: Array, size: tuple[int, int], *, align: Align = "half_pixel") -> Array:
    """
    Carry gradients at resized maps back to the maps, the transpose of `resize`.

    Parameters
    ----------
    gradients : Array of float32 or float64, shape (N, H, W)
        Gradient of a scalar with respect to ``resize(maps, (H, W), align=align)``; float16 is computed in float32.
    size : tuple of int
        ``(h, w)`` of the maps before they were resized, each at least 1.
    align : {"half_pixel", "corners"}, default "half_pixel"
        The sampling grid of that resize.

    Returns
    -------
    Array, shape (N, h, w)
        The gradient with respect to `maps`, same unit and side (host or device) as `gradients`; always a new array.

    Raises
    ------
    ShapeError
        If `gradients` is not (N, H, W) of a real floating type, or `size` is not two integers of at least 1.
    InputError
        If `align` is unknown.

    Notes
    -----
    Cost: on the host two products with the matrices of the resize along each axis. On the GPU two launches, no host
    synchronisation. A NaN stays visible: it spoils what it weighs on, on the host the whole map.

    References
    ----------
    The transpose of ONNX operator Resize-19, mode "linear".

    Examples
    --------
    >>> resize_adjoint(np.array([[[1.0, 10.0, 100.0, 1000.0]]]), (1, 2))  # weights 1, 3/4, 1/4, 0 and 0, 1/4, 3/4, 1
    array([[[  33.5, 1077.5]]])
    """
    dtype = computing_dtype("gradients", gradients, "(N, H, W)")
    size = checked_grid(size, align)
    if is_cupy(gradients):
        return _resize_adjoint_on_gpu(gradients, size, align, dtype, Gpu.of(gradients))
    return _resize_adjoint_on_numpy(np.ascontiguousarray(gradients, dtype), size, align)


def _resize_adjoint_on_numpy(gradients: Array, size: tuple[int, int], align: Align) -> Array:
    """Compute `resize_adjoint` map by map, so that BLAS never sees the batch."""
    rows = _matrix(size[0], gradients.shape[1], align, gradients.dtype).T  # (h, H)
    columns = _matrix(size[1], gradients.shape[2], align, gradients.dtype)  # (W, w)
    carried = np.empty((len(gradients), *size), gradients.dtype)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite stays visible
        for gradient, target in zip(gradients, carried, strict=True):
            np.matmul(rows @ gradient, columns, out=target)
    return carried


@lru_cache(maxsize=64)
def _matrix(n_in: int, n_out: int, align: Align, dtype: DType) -> Array:
    """Return the matrix (n_out, n_in) that a resize multiplies one axis by: what it makes of the unit vectors."""
    (matrix,) = resize(np.eye(n_in, dtype=dtype)[None], (n_out, n_in), align=align)
    matrix.flags.writeable = False
    return np.asarray(matrix)


def _resize_adjoint_on_gpu(gradients: Array, size: tuple[int, int], align: Align, dtype: DType, gpu: Gpu) -> Array:
    """Compute `resize_adjoint` with the kernel of adjoint.cu, along columns first."""
    n, height, width = gradients.shape
    h, w = size
    narrow, carried = gpu.empty((n, height, w), dtype), gpu.empty((n, h, w), dtype)
    for source, target, n_out, n_in, inner in (
        (gpu.contiguous(gradients, dtype), narrow, width, w, 1),
        (narrow, carried, height, h, w),
    ):
        n_values = int(target.size)
        arguments = (source, target, n_values, n_out, n_in, inner, int(align == "corners"))
        gpu.launch(RESIZE_ADJOINT_AXIS, dtype, -(-n_values // CELLS), arguments)
    return carried


def min_max_gradient(maps: Array, gradients: Array) -> Array:
    """
    Carry gradients at scaled maps back through `min_max`.

    With U a map, D = max U - min U, M = (U - min U) / D and Q = dT/dM,

        dT/dU = Q / D  -  [at the smallest pixel] sum(Q (1 - M)) / D  -  [at the largest pixel] sum(Q M) / D

    Parameters
    ----------
    maps : Array of float32 or float64, shape (N, h, w)
        The maps U that were scaled; float16 is computed in float32. Any memory layout.
    gradients : Array, shape (N, h, w)
        The gradients Q, on the same side (host or device) as `maps`.

    Returns
    -------
    Array, shape (N, h, w)
        The gradients with respect to `maps`; zero for a map that `min_max` calls constant, NaN throughout for one that
        is not finite. float64 if either input is, else float32; always a new array.

    Raises
    ------
    ShapeError
        If the shapes differ or either is not a real floating array (N, h, w).

    Notes
    -----
    Where several pixels are the smallest, or the largest, the first in raster order is the one: a subgradient.

    Cost: each input is read twice. On the GPU one launch, one block a map, no host synchronisation.

    References
    ----------
    Zhang et al. 2024, Opti-CAM, arXiv:2301.07002, masks an image by a map scaled so.

    Examples
    --------
    >>> min_max_gradient(np.array([[[1.0, 2.0, 3.0]]]), np.array([[[0.0, 1.0, 0.0]]]))
    array([[[-0.25,  0.5 , -0.25]]])
    """
    dtype = computing_dtype("maps", maps, "(N, h, w)")
    dtype = np.promote_types(dtype, computing_dtype("gradients", gradients, "(N, h, w)"))
    if maps.shape != gradients.shape:
        raise ShapeError(f"gradients {gradients.shape} do not fit maps {maps.shape}; give one value a pixel")
    require_same_side("maps", maps, "gradients", gradients)
    if is_cupy(maps):
        return _min_max_gradient_on_gpu(maps, gradients, dtype, Gpu.of(maps))
    return _min_max_gradient_on_numpy(np.ascontiguousarray(maps, dtype), np.ascontiguousarray(gradients, dtype))


def _min_max_gradient_on_numpy(maps: Array, gradients: Array) -> Array:
    """Compute `min_max_gradient` of contiguous arrays, map by map."""
    carried = np.empty_like(maps)
    with np.errstate(invalid="ignore", over="ignore"):  # the non-finite cases end as NaN, on purpose
        for values, slope, target in zip(
            *(array.reshape(len(array), -1 if len(array) else 1) for array in (maps, gradients, carried)), strict=True
        ):
            lowest, highest = int(values.argmin()), int(values.argmax())  # a NaN is both
            low, high = values[lowest], values[highest]
            span = high - low
            if not np.isfinite(span):
                target[:] = np.nan
            elif span <= tolerance(maps.dtype) * max(abs(low), abs(high)):
                target[:] = 0
            else:
                np.subtract(values, low, out=target)
                risen = np.dot(target, slope) / span  # sum(Q M)
                np.divide(slope, span, out=target)
                target[lowest] -= (slope.sum() - risen) / span
                target[highest] -= risen / span
    return carried


def _min_max_gradient_on_gpu(maps: Array, gradients: Array, dtype: DType, gpu: Gpu) -> Array:
    """Compute `min_max_gradient` with the kernel of adjoint.cu."""
    n, h, w = maps.shape
    carried = gpu.empty((n, h, w), dtype)
    arguments = (gpu.contiguous(maps, dtype), gpu.contiguous(gradients, dtype), carried, h * w, tolerance(dtype))
    gpu.launch(MIN_MAX_GRADIENT, dtype, n, arguments)
    return carried
