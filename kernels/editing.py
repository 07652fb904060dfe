"""
Edited activations, the rows that the tail of a network is run on: a channel wiped out, or one cell kept.

In go activations (N, K, h, w) and, for each row, which of them it edits and where; out come edited copies in a buffer
that the caller keeps. Nothing is summed, so both sides give the same bits.
"""

from __future__ import annotations

import numpy as np

from camrt.errors import ShapeError

from .array import Array, DType, computing_dtype, is_cupy, require_indices, require_same_side
from .device import Gpu, Kernel

__all__ = ["keep_cells", "wipe_channels"]

ELEMENTS = 256  # elements a block; editing.cu reads it from blockDim
WIPE_CHANNELS = Kernel("editing", "wipe_channels", (ELEMENTS,))
KEEP_CELLS = Kernel("editing", "keep_cells", (ELEMENTS,))
INT64 = np.dtype(np.int64)


def wipe_channels(out: Array, acts: Array, which: Array, channels: Array, values: Array) -> None:
    """
    Write copies of activations in which one channel has one value everywhere.

    Parameters
    ----------
    out : Array of float16, float32 or float64, shape (B, K, h, w)
        Where the rows go, C-contiguous.
    acts : Array, shape (N, K, h, w)
        The activations, of the type of `out`.
    which : Array of int64, shape (B,)
        For each row, which of the N it copies.
    channels : Array of int64, shape (B,)
        For each row, the channel.
    values : Array of float, shape (B,)
        For each row, what the channel becomes.

    Raises
    ------
    ShapeError
        If shapes, types or sides do not fit each other, or `out` is not contiguous.
    InputError
        If an index lies outside its array (on the host alone).

    Notes
    -----
    Cost: ``B*K*h*w`` copies. On the GPU one launch, no host synchronisation.

    References
    ----------
    Desai and Ramaswamy, "Ablation-CAM", WACV 2020, section 3: the score after a unit's activations are set to zero.

    Examples
    --------
    >>> acts, out = np.array([[[[1.0, 2.0]], [[3.0, 4.0]]]]), np.empty((1, 2, 1, 2))
    >>> wipe_channels(out, acts, np.array([0]), np.array([1]), np.array([0.0]))
    >>> out
    array([[[[1., 2.]],
    <BLANKLINE>
            [[0., 0.]]]])
    """
    dtype = _checked(out, acts, which, channels=channels, values=values)
    require_indices("channels", channels, len(out), acts.shape[1])
    if values.shape != out.shape[:1] or values.dtype.kind != "f":
        raise ShapeError(f"values must be float ({len(out)},), one a row, got {values.dtype} {values.shape}")
    if is_cupy(out):
        gpu = Gpu.of(out)
        rows = gpu.contiguous(which, INT64), gpu.contiguous(channels, INT64), gpu.contiguous(values, dtype)
        _launch(WIPE_CHANNELS, out, acts, dtype, rows, gpu)
        return
    values = np.asarray(values, dtype)
    with np.errstate(over="ignore"):  # a value too large for float16 is infinite, as it is on the GPU
        for target, image, channel, value in zip(out, which, channels, values, strict=True):
            target[:] = acts[image]
            target[channel] = value


def keep_cells(out: Array, acts: Array, which: Array, cells: Array, kernel: Array | None = None) -> None:
    """
    Write activations that are zero but for one cell, or for copies of it around it.

    With a kernel the eight neighbours do not keep what they had: each gets the vector of the cell itself, times the
    kernel's weight; what falls beyond the border is left out.

    Parameters
    ----------
    out : Array of float16, float32 or float64, shape (B, K, h, w)
        Where the rows go, C-contiguous.
    acts : Array, shape (N, K, h, w)
        The activations, of the type of `out`.
    which : Array of int64, shape (B,)
        For each row, which of the N it is made of.
    cells : Array of int64, shape (B,)
        For each row, the cell ``y*w + x``.
    kernel : Array of float, shape (3, 3), optional
        The weights of the neighbourhood; the cell alone, times one, where None.

    Raises
    ------
    ShapeError
        If shapes, types or sides do not fit each other, or `out` is not contiguous.
    InputError
        If an index lies outside its array (on the host alone).

    Notes
    -----
    Cost: ``B*K*h*w`` values written. On the GPU one launch, no host synchronisation.

    References
    ----------
    Byun and Lee, "Recipro-CAM", arXiv:2209.14074: spatial masks, with or without a Gaussian 3 x 3 kernel.

    Examples
    --------
    >>> acts, out = np.array([[[[1.0, 2.0, 4.0]]]]), np.empty((1, 1, 1, 3))
    >>> keep_cells(out, acts, np.array([0]), np.array([1]))
    >>> out
    array([[[[0., 2., 0.]]]])
    """
    dtype = _checked(out, acts, which, cells=cells, **({} if kernel is None else {"kernel": kernel}))
    require_indices("cells", cells, len(out), acts.shape[2] * acts.shape[3])
    if kernel is not None and (kernel.shape != (3, 3) or kernel.dtype.kind != "f"):
        raise ShapeError(f"kernel must be float (3, 3), got {kernel.dtype} {kernel.shape}")
    if is_cupy(out):
        gpu = Gpu.of(out)
        weights = gpu.empty((3, 3), dtype) if kernel is None else gpu.contiguous(kernel, dtype)
        rows = gpu.contiguous(which, INT64), gpu.contiguous(cells, INT64), weights
        _launch(KEEP_CELLS, out, acts, dtype, rows, gpu, int(kernel is not None))
        return
    _keep_on_numpy(out, acts, which, cells, None if kernel is None else np.asarray(kernel, dtype))


def _checked(out: Array, acts: Array, which: Array, **others: Array) -> DType:
    """Return the type to compute in, once the buffer fits the activations and all lie on one side."""
    dtype = computing_dtype("acts", acts, "(N, K, h, w)")
    if out.dtype != acts.dtype or out.shape[1:] != acts.shape[1:] or not out.flags.c_contiguous:
        raise ShapeError(
            f"out {out.dtype} {out.shape} does not fit acts {acts.dtype} {acts.shape}; "
            "give the same type, the same shape but for the first axis, and C order"
        )
    for name, other in ({"acts": acts, "which": which} | others).items():
        require_same_side("out", out, name, other)
    require_indices("which", which, len(out), len(acts))
    return dtype


def _keep_on_numpy(out: Array, acts: Array, which: Array, cells: Array, kernel: Array | None) -> None:
    """Compute `keep_cells` row by row."""
    h, w = acts.shape[2:]
    out[:] = 0
    for target, image, cell in zip(out, which, cells, strict=True):
        y, x = divmod(int(cell), w)
        vector = acts[image, :, y, x]
        if kernel is None:
            target[:, y, x] = vector
            continue
        top, left = max(y - 1, 0), max(x - 1, 0)
        weights = kernel[top - y + 1 : h - y + 1, left - x + 1 : w - x + 1]  # without what lies beyond the border
        with np.errstate(invalid="ignore", over="ignore"):  # infinity and NaN are results here, found by the caller
            target[:, top : y + 2, left : x + 2] = vector[:, None, None] * weights


def _launch(
    kernel: Kernel, out: Array, acts: Array, dtype: DType, rows: tuple[Array, ...], gpu: Gpu, *flags: int
) -> None:
    """Start one of the kernels of editing.cu, a thread an element; halves travel as bytes."""
    _, k, h, w = out.shape
    pixels = out.reshape(-1).view(np.uint8), gpu.contiguous(acts, out.dtype).reshape(-1).view(np.uint8)
    is_half = int(out.dtype == np.float16)
    gpu.launch(kernel, dtype, -(-out.size // ELEMENTS), (*pixels, *rows, out.size, k, h, w, is_half, *flags))
