"""
Normalisations: by constants (BatchNormalization), by the input's own mean and deviation, by its norm, by neighbours.

Those with a mean and deviation share one formula: with xhat = (x - mean) r, r = 1 / sqrt(var + epsilon) and
h = g scale, dx = r (h - mean(h) - xhat mean(h xhat)). What the forward node computed is computed again in at least
float32: providers fuse the forward node, so nothing else of it can be had.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from .emit import Emit, constant, dims
from .fixed import require_fixed
from .gate import sign
from .known import axis_of, refuse, size_of
from .table import vjp

__all__: list[str] = []

NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _wide(e: Emit, value: ir.Value) -> ir.Value:
    """Return `value` in at least float32."""
    return e.Cast(value, to=int(ir.DataType.FLOAT)) if value.dtype in NARROW else value


def _as(e: Emit, value: ir.Value, like: ir.Value) -> ir.Value:
    """Return `value` in the element type of `like`."""
    return value if value.dtype == like.dtype or like.dtype is None else e.Cast(value, to=int(like.dtype))


def _operand(node: ir.Node, index: int) -> ir.Value:
    """Return an input that the operator requires."""
    value = node.inputs[index]
    assert value is not None
    return value


def _per_channel(e: Emit, vector: ir.Value, rank: int) -> ir.Value:
    """Return a vector (C,) as (1, C, 1, ...) of rank `rank`; made here where it is constant."""
    shape = [1, -1, *[1] * (rank - 2)]
    array = constant(vector)
    return e.Reshape(vector, e.const(shape)) if array is None else e.const(array.reshape(shape), "channels")


@vjp("BatchNormalization", every_output=True)
def batch_normalization(
    e: Emit, node: ir.Node, g: ir.Value | None, *others: ir.Value | None
) -> tuple[ir.Value | None, ...]:
    """y = (x - mean) scale / sqrt(var + epsilon) + bias, constant statistics => dx = g scale / sqrt(var + epsilon)."""
    if node.attributes.get_int("training_mode", 0) or g is None or any(o is not None for o in others):
        raise refuse(node, "it is in training mode; export the model in evaluation mode")
    require_fixed(node, node.inputs[1:], "statistics and scales")
    scale, var = _operand(node, 1), _operand(node, 4)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    arrays, rank = (constant(scale), constant(var)), len(dims(_operand(node, 0)))
    if arrays[0] is not None and arrays[1] is not None:
        factor = arrays[0].astype(np.float64) / np.sqrt(arrays[1].astype(np.float64) + epsilon)
        share = e.const(factor.reshape(1, -1, *[1] * (rank - 2)).astype(e.numpy_dtype(g)), "channels")
    else:
        wide = _wide(e, var)
        deviation = e.Sqrt(e.Add(wide, e.scalar(epsilon, wide)))
        share = _per_channel(e, _as(e, e.Div(_as(e, scale, wide), deviation), g), rank)
    return e.Mul(g, share), None, None, None, None


@vjp("LayerNormalization", every_output=True)
def layer_normalization(
    e: Emit, node: ir.Node, g: ir.Value | None, *others: ir.Value | None
) -> tuple[ir.Value | None, ...]:
    """y = xhat scale + bias over the axes from `axis` on; the formula above."""
    if g is None or any(o is not None for o in others):
        raise refuse(node, "its mean or deviation lies on the path to the logits")
    require_fixed(node, node.inputs[1:], "scale and bias")
    x, rank = _operand(node, 0), len(dims(_operand(node, 0)))
    axes = list(range(axis_of(node, rank, default=-1), rank))
    given = [value for value in node.outputs[1:] if value.name]  # absent outputs have no name
    known = given if len(given) == 2 else None
    h = e.Mul(_wide(e, g), _wide(e, _operand(node, 1)))
    dx = _centred(e, _wide(e, x), h, axes, node.attributes.get_float("epsilon", 1e-5), known)
    return _as(e, dx, x), *[None] * (len(node.inputs) - 1)


@vjp("InstanceNormalization")
def instance_normalization(e: Emit, node: ir.Node, g: ir.Value) -> tuple[ir.Value | None, ...]:
    """y = xhat scale + bias over the positions of each channel; the formula above."""
    require_fixed(node, node.inputs[1:], "scale and bias")
    x, rank = _operand(node, 0), len(dims(_operand(node, 0)))
    h = _wide(e, e.Mul(g, _per_channel(e, _operand(node, 1), rank)))
    dx = _centred(e, _wide(e, x), h, list(range(2, rank)), node.attributes.get_float("epsilon", 1e-5))
    return _as(e, dx, x), None, None


@vjp("GroupNormalization")
def group_normalization(e: Emit, node: ir.Node, g: ir.Value) -> tuple[ir.Value | None, ...]:
    """y = xhat scale + bias over each group of channels and its positions; the formula above."""
    require_fixed(node, node.inputs[1:], "scale and bias")
    x, scale = _operand(node, 0), _operand(node, 1)
    channels, groups = size_of(node, dims(x), 1), node.attributes.get_int("num_groups")
    if size_of(node, dims(scale), 0) != channels:  # before opset 21: one scale a group
        array = constant(scale)
        if array is None:
            raise refuse(node, "its scale a group is not a constant")
        scale = e.const(np.repeat(array, channels // groups), "scale")
    h = _wide(e, e.Mul(g, _per_channel(e, scale, len(dims(x)))))
    grouped = e.const([0, groups, -1])
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    dx = _centred(e, e.Reshape(_wide(e, x), grouped), e.Reshape(h, grouped), [2], epsilon)
    return _as(e, e.reshape_like(dx, x), x), None, None


def _centred(
    e: Emit,
    x: ir.Value,
    h: ir.Value,
    axes: Sequence[int],
    epsilon: float,
    known: Sequence[ir.Value] | None = None,
) -> ir.Value:
    """Return r (h - mean(h) - xhat mean(h xhat)); `known` may give the mean and r."""
    along = e.const(axes)
    if known is not None:
        mean, r = known
        xhat = e.Mul(e.Sub(x, _as(e, mean, x)), r := _as(e, r, x))
    else:
        centred = e.Sub(x, e.ReduceMean(x, along, keepdims=1))
        variance = e.ReduceMean(e.Mul(centred, centred), along, keepdims=1)
        r = _inverse_root(e, variance, epsilon)
        xhat = e.Mul(centred, r)
    shared = e.Mul(xhat, e.ReduceMean(e.Mul(h, xhat), along, keepdims=1))
    return e.Mul(e.Sub(e.Sub(h, e.ReduceMean(h, along, keepdims=1)), shared), r)


def _inverse_root(e: Emit, value: ir.Value, epsilon: float) -> ir.Value:
    """Return 1 / sqrt(value + epsilon)."""
    return e.Reciprocal(e.Sqrt(e.Add(value, e.scalar(epsilon, value))))


@vjp("RMSNormalization")
def rms_normalization(e: Emit, node: ir.Node, g: ir.Value) -> tuple[ir.Value | None, ...]:
    """y = xhat scale, xhat = x r, r = 1 / sqrt(mean(x^2) + epsilon), h = g scale => dx = r (h - xhat mean(h xhat))."""
    require_fixed(node, node.inputs[1:], "scale")
    x, rank = _operand(node, 0), len(dims(_operand(node, 0)))
    along = e.const(list(range(axis_of(node, rank, default=-1), rank)))
    h, wide = e.Mul(_wide(e, g), _wide(e, _operand(node, 1))), _wide(e, x)
    square = e.ReduceMean(e.Mul(wide, wide), along, keepdims=1)
    r = _inverse_root(e, square, node.attributes.get_float("epsilon", 1e-5))
    xhat = e.Mul(wide, r)
    shared = e.Mul(xhat, e.ReduceMean(e.Mul(h, xhat), along, keepdims=1))
    return _as(e, e.Mul(e.Sub(h, shared), r), x), None


@vjp("LpNormalization")
def lp_normalization(e: Emit, node: ir.Node, g: ir.Value) -> tuple[ir.Value | None, ...]:
    """y = x / n, n = ||x||_p  =>  dx = (g - u sum(g y)) / n, u = y for p = 2, sign(x) for p = 1; zero where n is."""
    x, y, p = _operand(node, 0), node.outputs[0], node.attributes.get_int("p", 2)
    along = e.const([axis_of(node, len(dims(x)), default=-1)])
    n = e.ReduceL2(x, along, keepdims=1) if p == 2 else e.ReduceL1(x, along, keepdims=1)
    zero = e.scalar(0.0, n)
    inverse = e.Where(e.Greater(n, zero), e.Reciprocal(n), zero)
    shared = e.ReduceSum(e.Mul(g, y), along, keepdims=1)
    return (e.Mul(e.Sub(g, e.Mul(y if p == 2 else sign(e, x), shared)), inverse),)


@vjp("LRN")
def lrn(e: Emit, node: ir.Node, g: ir.Value) -> tuple[ir.Value | None, ...]:
    """
    y = x D^-beta, D = bias + alpha mean of x^2 over `size` neighbouring channels (zeros beyond the ends).

    dx = g D^-beta - 2 alpha beta x mean' of g x D^(-beta-1), where mean' looks at the mirrored neighbours.
    """
    x, size = _operand(node, 0), node.attributes.get_int("size")
    alpha, beta = node.attributes.get_float("alpha", 1e-4), node.attributes.get_float("beta", 0.75)
    before, after = (size - 1) // 2, size // 2
    wide, g = _wide(e, x), _wide(e, g)
    mean = _neighbours(e, node, e.Mul(wide, wide), before, after)
    d = e.Add(e.Mul(mean, e.scalar(alpha, mean)), e.scalar(node.attributes.get_float("bias", 1.0), mean))
    power = e.Mul(g, e.Pow(d, e.scalar(-beta, d)))
    back = e.Mul(wide, _neighbours(e, node, e.Div(e.Mul(power, wide), d), after, before))
    return (_as(e, e.Sub(power, e.Mul(back, e.scalar(2 * alpha * beta, back))), x),)


def _neighbours(e: Emit, node: ir.Node, value: ir.Value, before: int, after: int) -> ir.Value:
    """Return the mean over channels c - before, ..., c + after: an average pool over the channel axis."""
    x = _operand(node, 0)
    lines = e.Reshape(value, e.const([0, 1, size_of(node, dims(x), 1), -1]))
    pads = [before, 0, after, 0]
    mean = e.AveragePool(lines, kernel_shape=[before + after + 1, 1], pads=pads, count_include_pad=1)
    return e.reshape_like(mean, x)
