"""
Convolutions: the gradient of each with respect to its data input is a convolution of the other kind.

At stride 1 the gradient of Conv is again a Conv, with kernels flipped and input and output channels swapped: execution
providers run it with their best kernels, where ConvTranspose is up to four times slower on depthwise kernels. Beyond
stride 1 it is a ConvTranspose, always with symmetric pads (the CUDA provider drops others) and a Slice for what is
left; small strided depthwise kernels are faster as one Conv a phase, woven together (Shi 2016). Weights get no
gradient; they must not depend on the model's input.

References
----------
Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?", arXiv:1609.07009.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from .emit import Emit, constant, dims
from .fixed import require_fixed
from .table import vjp
from .window import FAR, Window, extend, interleave, read_window, spatial_slice, static_sizes

__all__ = ["transposed"]

Array = np.ndarray[Any, Any]


@vjp("Conv")
def conv(e: Emit, node: ir.Node, g: ir.Value) -> tuple[ir.Value | None, ...]:
    """y[o] = sum_k w[k] x[o s + k d - p]  =>  dx[i] = sum over all (o, k) that touch i of w[k]^T g[o]."""
    require_fixed(node, node.inputs[1:], "weights")
    weights = node.inputs[1]
    assert weights is not None
    window = read_window(node, [int(k) for k in dims(weights)[2:]], sized=False)
    groups = node.attributes.get_int("group", 1)
    array = constant(weights)
    if all(s == 1 for s in window.strides) and array is not None:
        dx = _flipped(e, g, array, window, groups)
    elif array is not None and array.shape[:2] == (groups, 1) and _weaves_faster(window):
        dx = _woven(e, g, array, window)
    else:
        dx = transposed(e, g, weights, window, groups)
    return dx, *[None] * (len(node.inputs) - 1)


def _flipped(e: Emit, g: ir.Value, w: Array, window: Window, groups: int) -> ir.Value:
    """Return the input gradient at stride 1: correlate `g`, padded by extent - 1 - pad, with the kernels turned."""
    m, c, *kernel = w.shape
    turned = np.flip(w, tuple(range(2, w.ndim))).reshape(groups, m // groups, c, *kernel).swapaxes(1, 2)
    turned = turned.reshape(groups * c, m // groups, *kernel)
    begins = [w - 1 - p for w, p in zip(window.extents, window.begins, strict=True)]
    ends = [w - 1 - p for w, p in zip(window.extents, window.ends, strict=True)]
    g = extend(e, g, [min(0, p) for p in begins], [min(0, p) for p in ends])
    pads = [max(0, p) for p in (*begins, *ends)]
    return e.Conv(
        g, e.const(turned, "flipped"), group=groups, dilations=window.dilations, pads=pads, kernel_shape=kernel
    )


def transposed(e: Emit, g: ir.Value, weights: ir.Value, window: Window, groups: int) -> ir.Value:
    """
    Return the input gradient by ConvTranspose with symmetric pads.

    Without pads it covers the padded input up to the last window's end: `begins` positions too many before the input,
    `surplus` too many after it (untouched input, a negative surplus, is made by output_padding, which is below the
    stride). The largest pad p that both sides allow is taken; the rest is sliced off.
    """
    pads, extra, starts, ends = [], [], [], []
    for size, stride, begin, surplus in zip(window.sizes, window.strides, window.begins, _surplus(window), strict=True):
        pad = min(begin, surplus + stride - 1)
        pads.append(pad)
        extra.append(max(0, pad - surplus))
        starts.append(begin - pad)
        ends.append(begin - pad + size if surplus > pad else FAR)
    dx = e.ConvTranspose(
        g,
        weights,
        group=groups,
        strides=window.strides,
        dilations=window.dilations,
        pads=[*pads, *pads],
        output_padding=extra,
        kernel_shape=window.kernel,
    )
    return spatial_slice(e, dx, starts, ends)


def _surplus(window: Window) -> tuple[int, ...]:
    """Return how far windows reach beyond the input; at stride 1 that is the end pad, whatever the size."""
    rows = zip(window.strides, window.surplus, window.ends, strict=True)
    return tuple(end if stride == 1 else surplus for stride, surplus, end in rows)


def _weaves_faster(window: Window) -> bool:
    """Return whether one Conv a phase measured faster than ConvTranspose: small grids, or more than 3x3 kernels."""
    possible = all(k >= s and d == 1 for k, s, d in zip(window.kernel, window.strides, window.dilations, strict=True))
    return possible and len(window.kernel) == 2 and (prod(window.counts) <= 28 * 28 or prod(window.kernel) > 9)


def _woven(e: Emit, g: ir.Value, w: Array, window: Window) -> ir.Value:
    """
    Return the input gradient of a depthwise Conv from one stride-1 Conv of `g` for each phase of the input's grid.

    Input position i = s q + a meets output o = q + u through kernel offset k = a + p - s u; per axis and phase a, those
    u with 0 <= k < kernel are first, ..., last.
    """
    sizes = [-(-n // s) for n, s in zip(window.sizes, window.strides, strict=True)]
    parts = {}
    for phase in product(*(range(s) for s in window.strides)):
        taps, begins, ends = [], [], []
        rows = zip(phase, sizes, window.counts, window.kernel, window.strides, window.begins, strict=True)
        for a, size, count, k, s, p in rows:
            first, last = -((k - 1 - a - p) // s), (a + p) // s
            taps.append([a + p - s * u for u in range(first, last + 1)])
            begins.append(-first)
            ends.append(size - count + last)
        cut = extend(e, g, [min(0, b) for b in begins], [min(0, b) for b in ends])
        kernel = e.const(w[:, :, *np.ix_(*taps)], "phase")
        pads = [max(0, p) for p in (*begins, *ends)]
        parts[phase] = e.Conv(cut, kernel, group=len(w), pads=pads, kernel_shape=[len(t) for t in taps])
    dx = interleave(e, parts, sizes, window.strides)
    ends = [n if n < size * s else FAR for n, size, s in zip(window.sizes, sizes, window.strides, strict=True)]
    return spatial_slice(e, dx, [0] * len(ends), ends)


@vjp("ConvTranspose")
def conv_transpose(e: Emit, node: ir.Node, g: ir.Value) -> tuple[ir.Value | None, ...]:
    """y = the transpose of Conv applied to x  =>  dx = that Conv of g, with the same weights, strides and pads."""
    require_fixed(node, node.inputs[1:], "weights")
    x, weights = node.inputs[0], node.inputs[1]
    assert x is not None and weights is not None
    kernel = [int(k) for k in dims(weights)[2:]]
    rank = len(kernel)
    strides = node.attributes.get_ints("strides", (1,) * rank)
    dilations = node.attributes.get_ints("dilations", (1,) * rank)
    extra = node.attributes.get_ints("output_padding", (0,) * rank)
    begins, ends = _transpose_pads(node, kernel, strides, dilations, extra)
    # output_padding of a stride or more would give windows that x has no element for
    ends = [end if more < s else end - more for end, more, s in zip(ends, extra, strides, strict=True)]
    g = extend(e, g, [min(0, p) for p in begins], [min(0, p) for p in ends])
    dx = e.Conv(
        g,
        weights,
        group=node.attributes.get_int("group", 1),
        strides=strides,
        dilations=dilations,
        pads=[max(0, p) for p in (*begins, *ends)],
        kernel_shape=kernel,
    )
    return dx, *[None] * (len(node.inputs) - 1)


def _transpose_pads(
    node: ir.Node,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    extra: Sequence[int],
) -> tuple[list[int], list[int]]:
    """Return the explicit pads of a ConvTranspose, `output_shape` and `auto_pad` resolved."""
    rank = len(kernel)
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    shape = node.attributes.get_ints("output_shape", None)
    if shape is None and not mode.startswith("SAME"):
        pads = [0] * 2 * rank if mode == "VALID" else list(node.attributes.get_ints("pads", [0] * 2 * rank))
        return pads[:rank], pads[rank:]
    sizes = static_sizes(node, rank)
    shape = [n * s for n, s in zip(sizes, strides, strict=True)] if shape is None else list(shape)[-rank:]
    rows = zip(sizes, kernel, strides, dilations, extra, shape, strict=True)
    total = [s * (n - 1) + more + d * (k - 1) + 1 - out for n, k, s, d, more, out in rows]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return (small, large) if mode == "SAME_UPPER" else (large, small)
