"""
Bilinear interpolation of maps to any size, larger or smaller.

In go maps (N, h, w) and a size (H, W); out come maps (N, H, W). Where an output pixel samples the map is a ratio of
integers, worked out exactly, so that NumPy and CUDA take the very same samples with the very same fractions::

    half_pixel   source = (target + 1/2) * n_in / n_out - 1/2        edges of the grids meet
    corners      source = target * (n_in - 1) / (n_out - 1)          centres of the corner cells meet

Interpolation is ``low + fraction * (high - low)``, along columns first: a constant map stays constant to the bit.
"""

from __future__ import annotations

from functools import lru_cache
from operator import index
from typing import Literal, TypeAlias, get_args

import numpy as np

from camrt.errors import InputError, ShapeError

from .array import Array, DType, computing_dtype, is_cupy
from .device import Gpu, Kernel

__all__ = ["Align", "resize"]

Align: TypeAlias = Literal["half_pixel", "corners"]

COLUMNS, ROWS = 32, 8  # pixels a block; resizing.cu reads them from blockDim
MAPS_A_BLOCK = 16  # maps that share the coordinates a thread has worked out; resizing.cu has it too
RESIZE = Kernel("resizing", "resize", (COLUMNS, ROWS))


def resize(maps: Array, size: tuple[int, int], *, align: Align = "half_pixel") -> Array:
    """
    Resize maps with bilinear interpolation.

    Samples beyond the border repeat the border. There is no antialiasing: a smaller map is sampled, not averaged.

    Parameters
    ----------
    maps : Array of float32 or float64, shape (N, h, w)
        Any values, any memory layout; float16 is computed in float32.
    size : tuple of int
        Wanted ``(H, W)`` in pixels, each at least 1.
    align : {"half_pixel", "corners"}, default "half_pixel"
        The sampling grid: "half_pixel" is PyTorch's ``align_corners=False``, "corners" its ``align_corners=True``.

    Returns
    -------
    Array, shape (N, H, W)
        The resized maps, same unit and side (host or device) as `maps`; always a new array.

    Raises
    ------
    ShapeError
        If `maps` is not (N, h, w) of a real floating type, or `size` is not two integers of at least 1.
    InputError
        If `align` is unknown.

    Notes
    -----
    Cost: ``N*H*W`` interpolations, whatever the size of the input. On the GPU one launch, no host synchronisation.
    A NaN or infinity spoils the pixels that sample it, not the whole map.

    References
    ----------
    ONNX operator Resize-19, mode "linear", ``coordinate_transformation_mode`` "half_pixel" and "align_corners".

    Examples
    --------
    >>> resize(np.array([[[0.0, 4.0]]]), (1, 4))
    array([[[0., 1., 3., 4.]]])
    >>> resize(np.array([[[0.0, 3.0]]]), (1, 4), align="corners")
    array([[[0., 1., 2., 3.]]])
    """
    dtype = computing_dtype("maps", maps, "(N, h, w)")
    height, width = _checked_size(size)
    if align not in get_args(Align):
        raise InputError(f"align must be 'half_pixel' or 'corners', got {align!r}; PyTorch's default is 'half_pixel'")
    if is_cupy(maps):
        return _on_gpu(maps, (height, width), align, dtype, Gpu.of(maps))
    return _on_numpy(np.asarray(maps, dtype), (height, width), align)


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return `size` as two Python integers of at least 1."""
    try:
        height, width = (index(side) for side in size)
    except (TypeError, ValueError):
        raise ShapeError(
            f"size must be two integers (H, W), got {size!r}; give the target's height and width"
        ) from None
    if height < 1 or width < 1:
        raise ShapeError(f"size must be at least (1, 1), got {(height, width)}; give the target's height and width")
    return height, width


def _on_numpy(maps: Array, size: tuple[int, int], align: Align) -> Array:
    """Compute `resize` map by map, which keeps the work in the cache."""
    rows = _samples(maps.shape[1], size[0], align, maps.dtype)
    columns = _samples(maps.shape[2], size[1], align, maps.dtype)
    resized = np.empty((len(maps), *size), maps.dtype)
    with np.errstate(invalid="ignore", over="ignore"):  # infinity - infinity is NaN, on purpose
        for values, target in zip(maps, resized, strict=True):
            target[:] = _interpolate(_interpolate(values, *columns, axis=1), *rows, axis=0)
    return resized


@lru_cache(maxsize=256)
def _samples(n_in: int, n_out: int, align: Align, dtype: DType) -> tuple[Array, Array]:
    """Return for each of `n_out` targets the index of the lower source and the fraction of the way to the next."""
    target = np.arange(n_out)
    if align == "corners":
        numerator, denominator = target * (n_in - 1), max(n_out - 1, 1)
    else:
        numerator, denominator = (2 * target + 1) * n_in - n_out, 2 * n_out
    low, rest = np.divmod(np.clip(numerator, 0, (n_in - 1) * denominator), denominator)
    fraction = rest.astype(dtype) / dtype.type(denominator)
    low.flags.writeable = fraction.flags.writeable = False
    return low, fraction


def _interpolate(values: Array, low: Array, fraction: Array, *, axis: int) -> Array:
    """Return ``low + fraction * (high - low)`` along one axis of a map."""
    step = np.diff(values, axis=axis, append=values.take([-1], axis))
    result: Array = step.take(low, axis)
    result *= fraction if axis == 1 else fraction[:, None]
    result += values.take(low, axis)
    return result


def _on_gpu(maps: Array, size: tuple[int, int], align: Align, dtype: DType, gpu: Gpu) -> Array:
    """Compute `resize` with the kernel of resizing.cu."""
    n, h, w = maps.shape
    height, width = size
    resized = gpu.empty((n, height, width), dtype)
    n_blocks = -(-width // COLUMNS) * -(-height // ROWS) * -(-n // MAPS_A_BLOCK)
    arguments = (gpu.contiguous(maps, dtype), resized, n, h, w, height, width, int(align == "corners"))
    gpu.launch(RESIZE, dtype, n_blocks, arguments)
    return resized
