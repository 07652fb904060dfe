"""
The input gradient of a 2-D Conv of constant weights, from convolutions alone.

ONNX Runtime computes ConvTranspose outside the blocked layout of its convolutions, and adds its columns up on one
thread. These forms hold the same sums; each was measured against ConvTranspose on the shapes it is chosen for.

===========  ==================================================================  ================================
form         what it does                                                        chosen for
===========  ==================================================================  ================================
stuffed      zeros between the elements of g, then one Conv of stride 1          depthwise kernels, and 1x1
together     one Conv with channels for the phases of blocks of the input        few input channels: a stem
apart        one Conv for each phase of the input's grid                         dense kernels of stride 2
===========  ==================================================================  ================================

Phases (Shi 2016): input position i = s q + a meets output o = q + u through kernel offset k = a + p - s u, so the
gradient at phase a is a correlation of g with the taps k that belong to it.

References
----------
Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?", arXiv:1609.07009.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from .emit import Emit, dims
from .window import FAR, Window, extend, interleave, repeat, spatial_slice

__all__ = ["correlated", "without_transpose"]

Array = np.ndarray[Any, Any]

BLOCK = 16  # channels that the widest registers hold; fewer are computed as so many, and below it nothing is gained
ALONE = 1.35  # a product costs so much more where a convolution has one block of output channels: nothing is read twice
BLOCKS = (2, 4)  # sides of the blocks whose phases are computed together
APART = 4  # phases; patches of 4x4 and more are one product whose columns do not overlap


def correlated(
    e: Emit, g: ir.Value, w: Array, window: Window, groups: int, ends: Sequence[int] | None = None
) -> ir.Value:
    """Return the input gradient at stride 1: correlate `g`, padded by extent - 1 - pad, with the kernels turned."""
    m, c, *kernel = w.shape
    turned = np.flip(w, tuple(range(2, w.ndim))).reshape(groups, m // groups, c, *kernel).swapaxes(1, 2)
    turned = turned.reshape(groups * c, m // groups, *kernel)
    begins = [w - 1 - p for w, p in zip(window.extents, window.begins, strict=True)]
    if ends is None:
        ends = [w - 1 - p for w, p in zip(window.extents, window.ends, strict=True)]
    return _conv(e, g, turned, "flipped", begins, ends, group=groups, dilations=window.dilations)


def without_transpose(e: Emit, g: ir.Value, w: Array, window: Window, groups: int) -> ir.Value | None:
    """
    Return the input gradient of a 2-D Conv by the form of the table that fits it, or None where none does.

    Parameters
    ----------
    e : Emit
        Writes the nodes.
    g : onnx_ir.Value
        The cotangent of the output; its shape is known.
    w : ndarray
        The weights, (M, C / groups, kh, kw).
    window : Window
        The geometry.
    groups : int
        As in ONNX.

    Returns
    -------
    onnx_ir.Value or None
        The cotangent of the input. None at stride 1, where `correlated` is best, unless input channels are few.
    """
    if len(window.kernel) != 2 or min(window.sizes) < 0:
        return None
    close = max(window.dilations) == 1 and all(k >= s for k, s in zip(window.kernel, window.strides, strict=True))
    if groups == 1 and len(w) >= BLOCK and close and _few(w, window):
        return _together(e, g, w, window, min(BLOCKS, key=partial(_work, w, window)))
    if prod(window.strides) == 1:
        return None
    if prod(window.kernel) == 1:
        made = correlated(e, g, w, window.along(()), groups)
        made.shape = ir.Shape([dims(g)[0], w.shape[1] * groups, *window.counts])
        return extend(e, _stuffed(e, made, window), [-b for b in window.begins], _missing(window))
    if w.shape[:2] == (groups, 1):
        return correlated(e, _stuffed(e, g, window), w, window, groups, _missing(window))
    if groups == 1 and min(w.shape[:2]) >= BLOCK and close and prod(window.strides) <= APART:
        return _apart(e, g, w, window)
    return None


def _few(w: Array, window: Window) -> bool:
    """Return whether the phases of a 2x2 block, at strides up to 2, fit into one block of channels, and save work."""
    return 4 * w.shape[1] <= BLOCK and max(window.strides) <= 2 and min(window.kernel) > 1


def _work(w: Array, window: Window, side: int) -> float:
    """Return the products that `_together` takes for an element of its input, by blocks of `side` x `side`."""
    reach = [-(-(k + side - s) // s) for k, s in zip(window.kernel, window.strides, strict=True)]
    channels = side * side * w.shape[1]
    return float(prod(reach) * -(-channels // BLOCK) * BLOCK / side**2 * (1 if channels > BLOCK else ALONE))


def _conv(
    e: Emit, g: ir.Value, w: Array, name: str, begins: Sequence[int], ends: Sequence[int], **attributes: object
) -> ir.Value:
    """Convolve `g`, padded or cropped, with constant weights."""
    g = extend(e, g, [min(0, p) for p in begins], [min(0, p) for p in ends])
    pads = [max(0, p) for p in (*begins, *ends)]
    return e.Conv(g, e.const(w, name), pads=pads, kernel_shape=w.shape[2:], **attributes)


def _missing(window: Window) -> list[int]:
    """Return how many positions the input has beyond those that `_stuffed` gives, counted from its first pad."""
    rows = zip(window.sizes, window.begins, window.strides, window.counts, strict=True)
    return [n + b - s * o for n, b, s, o in rows]


def _stuffed(e: Emit, g: ir.Value, window: Window) -> ir.Value:
    """
    Return g with stride - 1 zeros after each element: every element repeated, times a mask.

    The mask has the full shape, made of one channel by a Conv: the blocked layout multiplies equal shapes only.
    """
    batch, channels, *_ = dims(g)
    sizes = [o * s for o, s in zip(window.counts, window.strides, strict=True)]
    wide = repeat(e, g, window.strides)
    first = np.zeros((1, 1, *sizes), e.numpy_dtype(g))
    first[:, :, :: window.strides[0], :: window.strides[1]] = 1
    shape = e.Concat(e.batch_of(g), e.const([1, 1, 1]), axis=0)
    mask = e.Conv(
        e.Expand(e.const(first, "first"), shape), e.const(np.ones((int(channels), 1, 1, 1), first.dtype), "channels")
    )
    wide.shape = mask.shape = ir.Shape([batch, channels, *sizes])
    return e.Mul(wide, mask)


def _taps(window: Window, phase: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Return, for each axis, the pairs (u, k) that make up one phase of the input's grid."""
    rows = zip(phase, window.kernel, window.strides, window.begins, strict=True)
    return [[(u, a + p - s * u) for u in range(-((k - 1 - a - p) // s), (a + p) // s + 1)] for a, k, s, p in rows]


def _chosen(w: Array, taps: Sequence[Sequence[tuple[int, int]]]) -> Array:
    """Return the weights of some kernel offsets, in the order of the outputs they come from."""
    rows, columns = ([k for _, k in axis] for axis in taps)
    return np.asarray(w[:, :, rows][:, :, :, columns])


def _apart(e: Emit, g: ir.Value, w: Array, window: Window) -> ir.Value:
    """Return the gradient woven from one Conv a phase."""
    sizes = [-(-n // s) for n, s in zip(window.sizes, window.strides, strict=True)]
    parts = {}
    for phase in product(*(range(s) for s in window.strides)):
        taps = _taps(window, phase)
        begins = [-axis[0][0] for axis in taps]
        ends = [n - o + axis[-1][0] for n, o, axis in zip(sizes, window.counts, taps, strict=True)]
        kernel = _chosen(w, taps).swapaxes(0, 1)
        parts[phase] = _conv(e, g, kernel, "phase", begins, ends)
    return _cropped(e, interleave(e, parts, sizes, window.strides), sizes, window)


def _together(e: Emit, g: ir.Value, w: Array, window: Window, side: int) -> ir.Value:
    """Return the gradient woven from one Conv whose output channels are the phases of blocks, columns outermost."""
    channels, sizes = w.shape[1], [-(-n // side) for n in window.sizes]
    block = replace(window, strides=(side, side))
    phases = list(product(range(side), range(side)))
    taps = {phase: _taps(window, phase) for phase in phases}
    firsts = [min(axes[i][0][0] for axes in taps.values()) for i in range(2)]
    lasts = [max(axes[i][-1][0] for axes in taps.values()) for i in range(2)]
    extents = [last - first + 1 for first, last in zip(firsts, lasts, strict=True)]
    kernel = np.zeros((side, side, channels, len(w), *extents), w.dtype)
    for row, column in phases:
        for (u, i), (v, j) in product(*taps[row, column]):
            kernel[column, row, :, :, u - firsts[0], v - firsts[1]] = w[:, :, i, j].T
    steps = [side // s for s in window.strides]
    rows = zip(sizes, steps, window.counts, lasts, strict=True)
    ends = [(n - 1) * step - (o - 1) + last for n, step, o, last in rows]
    merged = kernel.reshape(-1, len(w), *extents)
    made = _conv(e, g, merged, "phases", [-first for first in firsts], ends, strides=steps)
    columns = e.node("Split", [made, e.const([side * channels] * side)], {"axis": 1}, side)
    h, wide = sizes[0], sizes[1] * side
    lines = e.Concat(*(e.Unsqueeze(column, e.const([4])) for column in columns), axis=4)
    lines = e.Transpose(e.Reshape(lines, e.const([0, side, channels, h, wide])), perm=[0, 2, 3, 1, 4])
    return _cropped(e, e.Reshape(lines, e.const([0, channels, h * side, wide])), sizes, block)


def _cropped(e: Emit, dx: ir.Value, sizes: Sequence[int], window: Window) -> ir.Value:
    """Crop what was woven from phases of `sizes` to the input's size."""
    rows = zip(window.sizes, sizes, window.strides, strict=True)
    return spatial_slice(e, dx, [0, 0], [n if n < size * s else FAR for n, size, s in rows])
