"""Softmax and its logarithm; both read their output back, so their input need not be kept."""

from __future__ import annotations

import onnx_ir as ir

from .emit import Emit, dims
from .known import axis_of
from .table import vjp

__all__: list[str] = []


@vjp("Softmax")
def softmax(e: Emit, node: ir.Node, g: ir.Value) -> tuple[ir.Value | None, ...]:
    """y = exp x / sum exp x  =>  dx = y (g - sum g y)."""
    y = node.outputs[0]
    return (e.Mul(y, e.Sub(g, _sum(e, node, e.Mul(g, y)))),)


@vjp("LogSoftmax")
def log_softmax(e: Emit, node: ir.Node, g: ir.Value) -> tuple[ir.Value | None, ...]:
    """y = x - log sum exp x  =>  dx = g - exp(y) sum g."""
    return (e.Sub(g, e.Mul(e.Exp(node.outputs[0]), _sum(e, node, g))),)


def _sum(e: Emit, node: ir.Node, value: ir.Value) -> ir.Value:
    """Return the sum of `value` along the node's axis, kept as length 1."""
    axis = axis_of(node, len(dims(node.outputs[0])), default=-1)
    return e.ReduceSum(value, e.const([axis]), keepdims=1)
