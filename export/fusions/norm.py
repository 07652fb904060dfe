"""
Fused normalisations over the last axes: with the mean or without it, and with the sum that skips a block.

In: the emitter and a node. Out: the normalised tensor, as the operator where the opset has it, else as the formula; the
mean and the deviation, which only training reads, are not given.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ..vjp.emit import Emit, dims
from ..vjp.known import given, optional_input
from .table import fusion, opset, summed

_NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@fusion("LayerNormalization", "SimplifiedLayerNormalization")
def _layer_normalization(e: Emit, node: ir.Node) -> Sequence[ir.Value | None]:
    """y = (x - mean) / sqrt(variance + epsilon) scale + bias; without the mean where it is simplified."""
    epsilon, centred = node.attributes.get_float("epsilon", 1e-5), node.op_type == "LayerNormalization"
    return [_normalised(e, node, given(node), given(node, 1), optional_input(node, 2), epsilon, centred), None, None]


@fusion("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
def _skip_layer_normalization(e: Emit, node: ir.Node) -> Sequence[ir.Value | None]:
    """y = the normalised sum of x, what skipped a block, and a bias; the sum is the fourth output."""
    centred, epsilon = node.op_type == "SkipLayerNormalization", node.attributes.get_float("epsilon", 1e-12)
    beta = optional_input(node, 3) if centred else None
    total = summed(e, *node.inputs[:2], optional_input(node, 4 if centred else 3))
    return [_normalised(e, node, total, given(node, 2), beta, epsilon, centred), None, None, total]


def _normalised(
    e: Emit, node: ir.Node, x: ir.Value, scale: ir.Value, bias: ir.Value | None, epsilon: float, centred: bool
) -> ir.Value:
    """Return LayerNormalization over the axes from the node's `axis` on, or without the mean, by the operator if known."""
    axis = node.attributes.get_int("axis", -1)
    operator = ("LayerNormalization", 17) if centred else ("RMSNormalization", 23)
    if opset(e) >= operator[1]:
        inputs = [x, scale] if bias is None else [x, scale, bias]
        return e.node(operator[0], inputs, {"axis": axis, "epsilon": epsilon})[0]
    if axis >= 0:
        axis -= len(dims(x))
    axes, kind = list(range(axis, 0)), x.dtype
    wide = e.Cast(x, to=int(ir.DataType.FLOAT)) if kind in _NARROW else x
    if centred:
        wide = e.Sub(wide, _mean(e, wide, axes))
    variance = e.Add(_mean(e, e.Mul(wide, wide), axes), e.scalar(epsilon, wide))
    y = e.Div(wide, e.Sqrt(variance))
    y = e.Mul(e.Cast(y, to=int(kind)) if kind in _NARROW and kind is not None else y, scale)
    return y if bias is None else e.Add(y, bias)


def _mean(e: Emit, value: ir.Value, axes: Sequence[int]) -> ir.Value:
    if opset(e) >= 18:
        return e.ReduceMean(value, e.const(axes, "axes"), keepdims=1)
    return e.ReduceMean(value, axes=list(axes), keepdims=1)
