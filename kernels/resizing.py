"""
Bilinear interpolation of maps to any size, larger or smaller.

In go maps (N, h, w) and a size (H, W); out come maps (N, H, W). Where an output pixel samples the map is a ratio of
integers, worked out exactly, so that NumPy and CUDA take the very same samples with the very same fractions::

    half_pixel   source = (target + 1/2) * n_in / n_out - 1/2        edges of the grids meet
    corners      source = target * (n_in - 1) / (n_out - 1)          centres of the corner cells meet

Interpolation is ``low + fraction * (high - low)``, along columns first: a constant map stays constant to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from operator import index
from typing import Literal, TypeAlias, get_args

import numpy as np

from camrt.errors import InputError, ShapeError

from .array import Array, DType, computing_dtype, is_cupy
from .device import Gpu, Kernel

__all__ = ["Align", "Samples", "checked_grid", "resize", "resize_plane"]

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
    size = checked_grid(size, align)
    if is_cupy(maps):
        return _on_gpu(maps, size, align, dtype, Gpu.of(maps))
    return _on_numpy(np.asarray(maps, dtype), size, align)


def checked_grid(size: tuple[int, int], align: Align) -> tuple[int, int]:
    """
    Check a size and a sampling grid.

    Parameters
    ----------
    size : tuple of int
        ``(H, W)`` in pixels.
    align : {"half_pixel", "corners"}
        The sampling grid.

    Returns
    -------
    tuple of int
        `size` as two Python integers.

    Raises
    ------
    ShapeError
        If `size` is not two integers of at least 1.
    InputError
        If `align` is unknown.
    """
    if align not in get_args(Align):
        raise InputError(f"align must be 'half_pixel' or 'corners', got {align!r}; PyTorch's default is 'half_pixel'")
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
    rows, columns = Samples.of(maps.shape[1:], size, align, maps.dtype)
    resized, spare = np.empty((len(maps), *size), maps.dtype), np.empty(size, maps.dtype)
    with np.errstate(invalid="ignore", over="ignore"):  # infinity - infinity is NaN, on purpose
        for values, target in zip(maps, resized, strict=True):
            resize_plane(target, spare, values, rows, columns)
    return resized


@dataclass(frozen=True, eq=False)
class Samples:
    """
    Where the targets of one axis sample the sources: ``low + fraction * (next - low)``.

    Attributes
    ----------
    low : Array of int64, shape (n_out,)
        The lower source of each target.
    fraction : Array of float, shape (n_out,)
        How far each target lies on the way to the next source.
    following : Array of int64, shape (n_in,)
        The next source of each source; the last has itself.
    """

    low: Array
    fraction: Array
    following: Array

    @classmethod
    def of(cls, before: tuple[int, ...], after: tuple[int, ...], align: Align, dtype: DType) -> tuple[Samples, Samples]:
        """
        Return the samples of rows and of columns.

        Parameters
        ----------
        before, after : tuple of int
            ``(h, w)`` and ``(H, W)``.
        align : {"half_pixel", "corners"}
            The sampling grid.
        dtype : dtype
            The type of the fractions.

        Returns
        -------
        tuple of Samples
            For rows and for columns.
        """
        rows, columns = (_samples(n_in, n_out, align, dtype) for n_in, n_out in zip(before, after, strict=True))
        return rows, columns


@lru_cache(maxsize=256)
def _samples(n_in: int, n_out: int, align: Align, dtype: DType) -> Samples:
    """Return the samples of one axis."""
    target = np.arange(n_out)
    if align == "corners":
        numerator, denominator = target * (n_in - 1), max(n_out - 1, 1)
    else:
        numerator, denominator = (2 * target + 1) * n_in - n_out, 2 * n_out
    low, rest = np.divmod(np.clip(numerator, 0, (n_in - 1) * denominator), denominator)
    found = Samples(low, rest.astype(dtype) / dtype.type(denominator), np.minimum(np.arange(1, n_in + 1), n_in - 1))
    for array in (found.low, found.fraction, found.following):
        array.flags.writeable = False
    return found


def resize_plane(out: Array, spare: Array, values: Array, rows: Samples, columns: Samples) -> None:
    """
    Resize one map on the host, into a plane that the caller keeps.

    Parameters
    ----------
    out, spare : Array, shape (H, W)
        Where the result goes, and a plane that is written over; both contiguous and of the type of `values`.
    values : Array, shape (h, w)
        The map.
    rows, columns : Samples
        Where the pixels sample it.
    """
    wide = values.take(columns.following, 1)
    wide -= values
    wide = wide.take(columns.low, 1)
    wide *= columns.fraction
    wide += values.take(columns.low, 1)  # (h, W)
    step = wide.take(rows.following, 0)
    step -= wide
    np.take(step, rows.low, 0, out, "clip")  # the other modes of take copy `out` first
    out *= rows.fraction[:, None]
    np.take(wide, rows.low, 0, spare, "clip")
    out += spare


def _on_gpu(maps: Array, size: tuple[int, int], align: Align, dtype: DType, gpu: Gpu) -> Array:
    """Compute `resize` with the kernel of resizing.cu."""
    n, h, w = maps.shape
    height, width = size
    resized = gpu.empty((n, height, width), dtype)
    n_blocks = -(-width // COLUMNS) * -(-height // ROWS) * -(-n // MAPS_A_BLOCK)
    arguments = (gpu.contiguous(maps, dtype), resized, n, h, w, height, width, int(align == "corners"))
    gpu.launch(RESIZE, dtype, n_blocks, arguments)
    return resized
