"""
Convolutions: the gradient of each with respect to its data input is a convolution of the other kind.

At stride 1 the gradient of Conv is again a Conv, with kernels flipped and input and output channels swapped: execution
providers run it with their best kernels, where ConvTranspose is up to four times slower on depthwise kernels. Beyond
stride 1 `strided` has convolutions for what networks are made of; the rest is a ConvTranspose, always with symmetric
pads (the CUDA provider drops others) and a Slice for what is left. Weights get no gradient; they must not depend on
the model's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from .emit import Emit, constant, dims
from .fixed import require_fixed
from .known import integers, size_of
from .strided import correlated, without_transpose
from .table import vjp
from .window import FAR, Window, extend, read_window, spatial_slice, static_sizes

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
    dx = None
    if array is not None:
        dx = without_transpose(e, g, array, window, groups)
        if dx is None and all(s == 1 for s in window.strides):
            dx = correlated(e, g, array, window, groups)
    if dx is None:
        dx = transposed(e, g, weights, window, groups)
    return dx, *[None] * (len(node.inputs) - 1)


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


@vjp("Col2Im")
def col2im(e: Emit, node: ir.Node, g: ir.Value) -> tuple[ir.Value | None, ...]:
    """y = columns added up where their windows lie in an image  =>  dx = the windows of g, by one-hot kernels."""
    kernel = integers(node, 2, "block's shape") or []
    rank, taps = len(kernel), prod(kernel)
    channels = size_of(node, dims(node.outputs[0]), 1)
    pick = np.tile(np.eye(taps, dtype=e.numpy_dtype(g)).reshape(taps, 1, *kernel), (channels, *[1] * (rank + 1)))
    windows = e.Conv(
        g,
        e.const(pick, "taps"),
        group=channels,
        strides=node.attributes.get_ints("strides", (1,) * rank),
        dilations=node.attributes.get_ints("dilations", (1,) * rank),
        pads=node.attributes.get_ints("pads", (0,) * 2 * rank),
        kernel_shape=kernel,
    )
    return e.Reshape(windows, e.const([0, channels * taps, -1], "shape")), None, None


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
