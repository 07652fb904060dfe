"""
Swapped pixels: what stands for a pixel once its turn has come, straight into a model's input buffer.

In go images, substrates (what is shown instead: a colour, a blurred image), ranks (the order in which a map takes the
pixels) and for each row the stretch of ranks to be replaced; out come the changed images in a buffer that the caller
keeps. Pixels are copied, never computed, so every type keeps its bits.
"""

from __future__ import annotations

import numpy as np

from camrt.errors import ShapeError

from .array import Array, Scratch, is_cupy, require_indices, require_same_side
from .device import Gpu, Kernel
from .masking import as_bytes, axis_steps, checked_buffer

__all__ = ["fill_swapped"]

THREADS = 256  # values a block; swapping.cu reads it from blockDim
KEPT_BYTES = 16 * 2**20  # per thread; a picture of 800 x 800 in float32
FILL_SWAPPED = Kernel("swapping", "fill_swapped", (THREADS,))


def fill_swapped(
    out: Array,
    images: Array,
    which: Array,
    ranks: Array,
    of: Array,
    start: Array,
    stop: Array,
    substrates: Array,
    channels_last: bool = False,
) -> None:
    """
    Write images with some of their pixels replaced into a buffer.

    Row b is ``images[which[b]]``, but ``substrates[which[b]]`` at the pixels where
    ``start[b] <= ranks[of[b]] < stop[b]``, in every channel.

    Parameters
    ----------
    out : Array of float16, float32, float64 or uint8, shape (B, C, H, W) or (B, H, W, C)
        Where the rows go, C-contiguous; it shares no memory with the others.
    images : Array, shape (N, C, H, W) or (N, H, W, C)
        The images, of the type of `out`.
    which : Array of int64, shape (B,)
        For each row, its image.
    ranks : Array of int32, shape (R, H, W)
        Orders, as `pixel_ranks` and `patch_ranks` give them.
    of : Array of int64, shape (B,)
        For each row, its order.
    start, stop : Array of int64, shape (B,)
        For each row, the ranks replaced, half-open; none where `start` is not below `stop`.
    substrates : Array, shape of `images`, any axis of which may be 1
        What is shown instead, of the type of `out`: a colour for all, or an image for each image.
    channels_last : bool, default False
        Whether `images`, `substrates` and `out` are (..., H, W, C).

    Raises
    ------
    ShapeError
        If shapes, types or sides do not fit each other, or `out` is not contiguous.
    InputError
        If an index lies outside its array (on the host alone).

    Notes
    -----
    Bits are blended, ``image ^ ((image ^ substrate) & mask)``: a row costs the same whatever the pattern of its pixels,
    0.07 ms at 3 x 224 x 224 in float32 (0.2 ms with the channels last), and a NaN stays the NaN it was. On the GPU one
    launch, a thread a value, no host synchronisation.

    Examples
    --------
    >>> out = np.empty((1, 1, 1, 4), np.float32)
    >>> ranks = np.array([[[2, 0, 3, 1]]], np.int32)
    >>> first, two, grey = np.array([0]), np.array([2]), np.zeros((1, 1, 1, 1), np.float32)
    >>> fill_swapped(out, np.full_like(out, 8), first, ranks, first, first, two, grey)
    >>> out
    array([[[[8., 0., 8., 0.]]]], dtype=float32)
    """
    checked_buffer(out, images)
    pixels = out.shape[1:3] if channels_last else out.shape[2:]
    if ranks.dtype != np.int32 or ranks.ndim != 3 or ranks.shape[1:] != pixels:
        raise ShapeError(f"ranks must be int32 (R, {pixels[0]}, {pixels[1]}), got {ranks.dtype} {ranks.shape}")
    sides = zip(substrates.shape, images.shape, strict=False)
    if substrates.dtype != out.dtype or substrates.ndim != 4 or any(side not in (1, whole) for side, whole in sides):
        raise ShapeError(
            f"substrates must be {out.dtype} and of the shape {images.shape} or 1 along an axis, "
            f"got {substrates.dtype} {substrates.shape}"
        )
    require_indices("which", which, len(out), len(images))
    require_indices("of", of, len(out), len(ranks))
    for name, bound in (("start", start), ("stop", stop)):
        if bound.shape != (len(out),) or bound.dtype != np.int64:
            raise ShapeError(f"{name} must be int64 ({len(out)},), one a row, got {bound.dtype} {bound.shape}")
    others = {"images": images, "which": which, "ranks": ranks, "of": of, "start": start, "stop": stop}
    for name, other in {**others, "substrates": substrates}.items():
        require_same_side("out", out, name, other)
    if is_cupy(out):
        _on_gpu(out, images, which, ranks, of, start, stop, substrates, channels_last, Gpu.of(out))
    else:
        _on_numpy(out, images, which, ranks, of, start, stop, substrates, channels_last)


_RANKS, _BITS = Scratch(KEPT_BYTES), Scratch(KEPT_BYTES)


def _on_numpy(
    out: Array,
    images: Array,
    which: Array,
    ranks: Array,
    of: Array,
    start: Array,
    stop: Array,
    substrates: Array,
    channels_last: bool,
) -> None:
    """Compute `fill_swapped` row by row and plane by plane, on the pixels' bits."""
    bits = np.dtype(f"u{out.dtype.itemsize}")
    targets, sources, shown = (
        np.moveaxis(array, -1, 1) if channels_last else array
        for array in (out.view(bits), images.view(bits), np.broadcast_to(substrates, images.shape).view(bits))
    )
    size = ranks.shape[1:]
    bounds = [np.clip(bound, 0, ranks[0].size).tolist() for bound in (start, stop)]
    ended, begun = _RANKS.planes(2, size, ranks.dtype)
    mask, *change = _BITS.planes(1 + sources.shape[1], size, bits)
    of_image = -1
    for row, (image, order, first, last) in enumerate(zip(which.tolist(), of.tolist(), *bounds, strict=True)):
        if image != of_image:  # the same for every row of an image
            for swap, source, other in zip(change, sources[image], shown[image], strict=True):
                np.bitwise_xor(source, other, out=swap)
            of_image = image
        np.subtract(ranks[order], last, out=ended)  # below 0 where the rank is below `stop`
        if first > 0:
            ended &= np.subtract(first - 1, ranks[order], out=begun)
        ended >>= 31  # the sign in every bit
        if bits.itemsize == ended.itemsize:
            mask = ended.view(bits)
        else:
            mask[:] = ended
        for source, swap, target in zip(sources[image], change, targets[row], strict=True):
            np.bitwise_xor(source, np.bitwise_and(swap, mask, out=target), out=target)


def _on_gpu(
    out: Array,
    images: Array,
    which: Array,
    ranks: Array,
    of: Array,
    start: Array,
    stop: Array,
    substrates: Array,
    channels_last: bool,
    gpu: Gpu,
) -> None:
    """Compute `fill_swapped` with the kernel of swapping.cu."""
    sides = list(out.shape[1:])
    channels = sides.pop() if channels_last else sides.pop(0)
    pixels = (as_bytes(gpu.contiguous(array, out.dtype)) for array in (images, substrates))
    rows = (gpu.contiguous(array, np.dtype(np.int64)) for array in (which, of, start, stop))
    arguments = (as_bytes(out), *pixels, gpu.contiguous(ranks, np.dtype(np.int32)), *rows)
    sizes = (int(out.size), out.dtype.itemsize, channels, *sides, int(channels_last))
    steps = axis_steps(substrates.shape, channels_last)
    gpu.launch(FILL_SWAPPED, np.dtype(np.float32), -(-int(out.size) // THREADS), (*arguments, *sizes, *steps))
