"""
The gradient of MaxPool within ONNX Runtime's blocked layout, where the pool stands among convolutions.

In: image, maxima, cotangent and windows. Out: the cotangent of the image, or None where `camrt.export.vjp.pool` has to
do it. Taps are looked at in raster order, as there, in operators that keep the layout: a tap of all windows is picked by
a strided depthwise Conv of a one-hot kernel, where SpaceToDepth and Slice would leave it; ``[tap < maximum]`` is a steep
HardSigmoid of the difference, which is fused into that Conv; and what a tap takes is moved to its place by another such
Conv. Only windows that overlap gain: those apart need no moving, and comparing them outside reads less memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import numpy as np
import onnx_ir as ir

from .emit import Emit, described, dims
from .gate import complement, is_aligned, scale, step, stops_at
from .window import FAR, Window, interleave, spatial_slice

__all__ = ["can_pick", "picked", "to_first_maxima"]

BLOCKED = {"BatchNormalization", "Clip", "Conv", "MaxPool", "Relu"}  # what ONNX Runtime computes in its blocked layout


def to_first_maxima(e: Emit, x: ir.Value, y: ir.Value, g: ir.Value, window: Window) -> ir.Value | None:
    """
    Return the cotangent of `x`, whose maximum over `window` is `y`; None where it would not be exact or not be faster.

    Parameters
    ----------
    e : Emit
        Writes the nodes.
    x, y, g : onnx_ir.Value
        Image, maxima, and their cotangent.
    window : Window
        The geometry.

    Returns
    -------
    onnx_ir.Value or None
        `g` at the first element, in raster order, that equals the maximum of its window; zero elsewhere.
    """
    if x.dtype != ir.DataType.FLOAT or not (is_aligned(y) and can_pick(x, y, g, window) and _overlap(window)):
        return None
    sizes = [-(-n // s) for n, s in zip(window.sizes, window.strides, strict=True)]
    taps = list(product(*(range(k) for k in window.kernel)))
    negative = scale(e, y, -1.0, y)
    phases: dict[tuple[int, ...], ir.Value] = {}
    for offsets in taps:
        starts = [k * d - b for k, d, b in zip(offsets, window.dilations, window.begins, strict=True)]
        taken = g
        if offsets != taps[-1]:
            tap = picked(e, x, starts, window.strides, window.counts)
            lower = step(e, described(e.Add(negative, tap), y), 0.0, -1.0)
            taken, g = described(e.Mul(g, complement(e, lower)), y), described(e.Mul(g, lower), y)
        places = [divmod(start, s) for start, s in zip(starts, window.strides, strict=True)]
        shift, phase = [-q for q, _ in places], tuple(r for _, r in places)
        if any(shift) or sizes != list(window.counts):
            taken = picked(e, taken, shift, [1] * len(shift), sizes)
        phases[phase] = e.Add(taken, phases[phase]) if phase in phases else taken
    dx = interleave(e, phases, sizes, window.strides)
    ends = [n if n < size * s else FAR for n, size, s in zip(window.sizes, sizes, window.strides, strict=True)]
    return spatial_slice(e, dx, [0] * len(ends), ends)


def can_pick(x: ir.Value, y: ir.Value, g: ir.Value, window: Window) -> bool:
    """
    Return whether `x` is in the blocked layout, and zeros may stand for what lies outside of it.

    Every number must be finite. A maximum of zero or less does not matter where Relu follows the pool: no cotangent
    passes there.
    """
    source, channels = x.producer(), dims(y)[1]
    inside = source is not None and source.op_type in BLOCKED and isinstance(channels, int)
    padded = any(window.begins) or any(more > 0 for more in window.surplus)
    return inside and len(window.kernel) == 2 and prod(window.strides) > 1 and (not padded or stops_at(g, y))


def _overlap(window: Window) -> bool:
    """Return whether windows share elements, and each phase of the grid is met by some tap."""
    axes = list(zip(window.kernel, window.strides, window.dilations, strict=True))
    return all(len({k * d % s for k in range(n)}) == s for n, s, d in axes) and any(n > s for n, s, _ in axes)


def picked(
    e: Emit,
    x: ir.Value,
    starts: Sequence[int],
    strides: Sequence[int],
    counts: Sequence[int],
) -> ir.Value:
    """Return `counts` elements of `x` along each axis, one a stride from `starts` on; 0 outside of it."""
    _, channels, *sizes = (int(d) if isinstance(d, int) else 0 for d in dims(x))
    hot, kernel, begins, ends = [], [], [], []
    for n, start, s, count in zip(sizes, starts, strides, counts, strict=True):
        begin, at = max(0, -start), max(0, start)
        length = max(at + 1, n + begin - s * count + 1)  # so long that there are no more than `count` windows
        hot.append(at)
        kernel.append(length)
        begins.append(begin)
        ends.append(max(0, s * (count - 1) + length - n - begin))
    weights = np.zeros((channels, 1, *kernel), e.numpy_dtype(x))
    weights[:, :, hot[0], hot[1]] = 1
    return e.Conv(
        x,
        e.const(weights, "pick"),
        group=channels,
        strides=strides,
        pads=[*begins, *ends],
        kernel_shape=kernel,
    )
