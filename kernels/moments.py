"""
Sums and correlations over each map, in float64.

In go maps, one a row; out come a few numbers a row: the correlation with another map, the share inside a region, the
mean. A row does not depend on its neighbours, to the bit. NumPy's pairwise sums and the GPU's trees differ by roundings
of float64.
"""

from __future__ import annotations

from math import prod

import numpy as np

from camrt.errors import ShapeError

from .array import Array, DType, Scratch, computing_dtype, is_cupy, require_same_side, tolerance
from .device import Gpu, Kernel

__all__ = ["map_means", "pearson", "region_sums"]

THREADS = 256  # a map is one block; moments.cu has it too
PEARSON = Kernel("moments", "pearson", (THREADS,))
REGION_SUMS = Kernel("moments", "region_sums", (THREADS,))
MAP_MEANS = Kernel("moments", "map_means", (THREADS,))
KEPT_BYTES = 16 * 2**20  # two maps of 1024 x 1024 in float64
_SCRATCH = Scratch(KEPT_BYTES)


def pearson(a: Array, b: Array) -> tuple[Array, Array]:
    """
    Correlate each row of one array with the same row of another.

    Parameters
    ----------
    a, b : Array of float32 or float64, shape (B, ...)
        Any values, any memory layout, of one shape and side (host or device); the types may differ, float16 is taken.

    Returns
    -------
    r : Array of float64, shape (B,)
        Pearson's correlation over all values of the row, in [-1, 1]; 0 where either row is constant.
    constant : Array of bool, shape (B,)
        True where either row is constant, ``max - min <= 1e-6 * max(|max|, |min|)`` (1e-12 in float64), as in `min_max`.

    Raises
    ------
    ShapeError
        If the arrays are not of one shape (B, ...) and a real floating type.

    Notes
    -----
    A row that holds a NaN or an infinity correlates to NaN and does not count as constant. Rows are centred and divided
    by their span before anything is squared, so that nothing overflows.

    Cost: three reads of a row. On the GPU one launch, one block a row, no host synchronisation.

    References
    ----------
    K. Pearson, Notes on regression and inheritance in the case of two parents, 1895. Coherency is ``(r + 1) / 2``
    (Poppi et al. 2021, arXiv:2104.10252).

    Examples
    --------
    >>> a = np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
    >>> pearson(a, np.array([[1.0, 3.0, 5.0], [0.0, -1.0, 0.0], [0.0, 1.0, 2.0]]))
    (array([1., 0., 0.]), array([False, False,  True]))
    """
    u, v = _rows("a", a), _rows("b", b)
    require_same_side("a", a, "b", b)
    if a.shape != b.shape:
        raise ShapeError(f"a and b must be of one shape, got {a.shape} and {b.shape}")
    if is_cupy(a):
        return _pearson_on_gpu(u, v, Gpu.of(a))
    return _pearson_on_numpy(u, v)


def region_sums(maps: Array, regions: Array) -> tuple[Array, Array]:
    """
    Add up each map inside a region and altogether.

    Parameters
    ----------
    maps : Array of float32 or float64, shape (B, H, W)
        Any values; float16 is taken as well.
    regions : Array of bool or uint8, shape (B, H, W)
        Where not 0, a pixel is inside; on the side (host or device) of `maps`.

    Returns
    -------
    inside, total : Array of float64, shape (B,)
        Sums over the region and over the whole map; equal to the bit where the region is the whole map.

    Raises
    ------
    ShapeError
        If `maps` is not (B, H, W) of a real floating type, or `regions` are not as large and bool or uint8.

    Notes
    -----
    A NaN inside the region spoils both sums, one outside it the total alone.

    Cost: one read of maps and regions. On the GPU one launch, one block a map, no host synchronisation.

    Examples
    --------
    >>> region_sums(np.array([[[1.0, 2.0, 4.0]]]), np.array([[[True, False, True]]]))
    (array([5.]), array([7.]))
    """
    dtype = computing_dtype("maps", maps, "(B, H, W)")
    if regions.dtype.name not in ("bool", "uint8") or regions.shape != maps.shape:
        raise ShapeError(f"regions must be bool or uint8 {maps.shape}, got {regions.dtype} {regions.shape}")
    require_same_side("maps", maps, "regions", regions)
    if is_cupy(maps):
        return _regions_on_gpu(maps, regions, dtype, Gpu.of(maps))
    return _regions_on_numpy(maps, regions)


def map_means(maps: Array) -> Array:
    """
    Return the mean of each map.

    Parameters
    ----------
    maps : Array of float32 or float64, shape (B, H, W)
        Any values; float16 is taken as well.

    Returns
    -------
    Array of float64, shape (B,)
        Means over all pixels, in the unit of the maps, on the side (host or device) of `maps`.

    Raises
    ------
    ShapeError
        If `maps` is not (B, H, W) of a real floating type.

    Notes
    -----
    A NaN makes the mean of its map NaN. Cost: one read. On the GPU one launch, one block a map.

    Examples
    --------
    >>> map_means(np.array([[[0.0, 1.0]], [[1.0, 1.0]]]))
    array([0.5, 1. ])
    """
    dtype = computing_dtype("maps", maps, "(B, H, W)")
    if is_cupy(maps):
        gpu = Gpu.of(maps)
        means = gpu.empty((len(maps),), np.dtype(np.float64))
        n_pixels = prod(maps.shape[1:])
        gpu.launch(MAP_MEANS, dtype, len(maps), (gpu.contiguous(maps, dtype), means, n_pixels))
        return means
    return np.array([_sum(one) / one.size for one in maps], np.float64)


def _rows(name: str, array: Array) -> Array:
    """Return an argument of `pearson` as (B, values)."""
    rows = array.reshape(len(array), prod(array.shape[1:])) if getattr(array, "ndim", 0) > 2 else array
    computing_dtype(name, rows, "(B, ...)")
    return rows


def _sum(values: Array) -> float:
    """Add up values in float64; in one piece of memory the order depends on their number alone."""
    with np.errstate(invalid="ignore"):  # infinity - infinity is NaN, on purpose
        return float(np.ascontiguousarray(values, np.float64).reshape(-1).sum())


def _pearson_on_numpy(a: Array, b: Array) -> tuple[Array, Array]:
    """Compute `pearson` row by row."""
    r, constant = np.zeros(len(a)), np.zeros(len(a), bool)
    u, v = _SCRATCH.planes(2, a.shape[1:], np.dtype(np.float64))
    for row, pair in enumerate(zip(a, b, strict=True)):
        constant[row] = any(_centre(values, centred) for values, centred in zip(pair, (u, v), strict=True))
        if not constant[row]:
            across, *squares = (np.einsum("i,i->", *two) for two in ((u, v), (u, u), (v, v)))
            r[row] = across / np.sqrt(squares[0] * squares[1])
    return r.clip(-1, 1), constant


def _centre(values: Array, centred: Array) -> bool:
    """Write a row less its mean in units of its span, NaN where it is not finite; tell whether it is constant."""
    bound = tolerance(np.promote_types(values.dtype, np.float32))
    low, high = float(values.min()), float(values.max())
    span = high - low
    if not np.isfinite(span):
        centred.fill(np.nan)
        return False
    if span <= bound * max(abs(low), abs(high)):
        return True
    centred[:] = values
    if low != 0 or span != 1:  # as heatmaps have them
        centred -= low
        centred /= span
    centred -= _sum(centred) / centred.size
    return False


def _regions_on_numpy(maps: Array, regions: Array) -> tuple[Array, Array]:
    """Compute `region_sums` map by map."""
    inside = [_sum(np.where(region, one, 0)) for one, region in zip(maps, regions, strict=True)]
    return np.array(inside, np.float64), np.array([_sum(one) for one in maps], np.float64)


def _pearson_on_gpu(a: Array, b: Array, gpu: Gpu) -> tuple[Array, Array]:
    """Compute `pearson` with the kernel of moments.cu, in the wider of the two types."""
    n, n_values = a.shape
    narrow = np.dtype(np.float32)
    types = [np.promote_types(array.dtype, narrow) for array in (a, b)]
    dtype = np.promote_types(*types)
    r, constant = gpu.empty((n,), np.dtype(np.float64)), gpu.empty((n,), np.dtype(bool))
    arguments = (gpu.contiguous(a, dtype), gpu.contiguous(b, dtype), r, constant, n_values)
    gpu.launch(PEARSON, dtype, n, (*arguments, *(tolerance(kind) for kind in types)))
    return r, constant


def _regions_on_gpu(maps: Array, regions: Array, dtype: DType, gpu: Gpu) -> tuple[Array, Array]:
    """Compute `region_sums` with the kernel of moments.cu."""
    inside, total = gpu.empty((len(maps),), np.dtype(np.float64)), gpu.empty((len(maps),), np.dtype(np.float64))
    where = gpu.contiguous(regions, np.dtype(np.uint8))
    n_pixels = prod(maps.shape[1:])
    gpu.launch(REGION_SUMS, dtype, len(maps), (gpu.contiguous(maps, dtype), where, inside, total, n_pixels))
    return inside, total
