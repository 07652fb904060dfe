"""
Fused activations: Gelu and its two approximations, with a bias or without.

In: the emitter and a node. Out: its output, as Gelu where the opset has it, else as the formula.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ..vjp.emit import Emit
from ..vjp.known import given
from .table import fusion, opset, summed


@fusion("Gelu", "BiasGelu")
def _gelu(e: Emit, node: ir.Node) -> Sequence[ir.Value]:
    """y = gelu(x), or of x + b."""
    return [_share_below(e, summed(e, *node.inputs))]


@fusion("FastGelu")
def _fast_gelu(e: Emit, node: ir.Node) -> Sequence[ir.Value]:
    """y = z (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))) / 2, z = x + b."""
    x = summed(e, *node.inputs)
    if opset(e) >= 20:
        return [e.Gelu(x, approximate="tanh")]
    k, c = np.sqrt(2 / np.pi), 0.044715
    inner = e.Mul(x, e.Add(e.Mul(e.Mul(x, x), e.scalar(k * c, x)), e.scalar(k, x)))
    return [e.Mul(e.Mul(x, e.scalar(0.5, x)), e.Add(e.Tanh(inner), e.scalar(1.0, x)))]


@fusion("QuickGelu")
def _quick_gelu(e: Emit, node: ir.Node) -> Sequence[ir.Value]:
    """y = x sigmoid(alpha x)."""
    x, alpha = given(node), node.attributes.get_float("alpha", 1.702)
    return [e.Mul(x, e.Sigmoid(x if alpha == 1 else e.Mul(x, e.scalar(alpha, x))))]


def _share_below(e: Emit, x: ir.Value) -> ir.Value:
    """Return x P(X <= x), X normal."""
    if opset(e) >= 20:
        return e.Gelu(x)
    below = e.Add(e.Erf(e.Mul(x, e.scalar(np.sqrt(0.5), x))), e.scalar(1.0, x))
    return e.Mul(e.Mul(x, e.scalar(0.5, x)), below)
