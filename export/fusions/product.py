"""
Fused convolutions and matrix products: an activation, a sum, a turn or a factor beside them.

In: the emitter and a node. Out: its output, as Conv, Gemm or MatMul and what stood beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ..vjp.emit import Emit, dims
from ..vjp.known import given, optional_input
from .table import fusion, opset, refused


@fusion("FusedConv")
def _fused_conv(e: Emit, node: ir.Node) -> Sequence[ir.Value]:
    """y = activation(conv(x, w, b) + z)."""
    y = e.node("Conv", node.inputs[:3], _kept(node, "activation", "activation_params"))[0]
    z = optional_input(node, 3)
    y = y if z is None else e.Add(y, z)
    return [_activated(e, node, y, node.attributes.get_floats("activation_params", ()))]


@fusion("FusedGemm")
def _fused_gemm(e: Emit, node: ir.Node) -> Sequence[ir.Value]:
    """y = activation(alpha A B + beta C)."""
    parameters = [f"activation_{name}" for name in ("alpha", "beta", "gamma")]
    y = e.node("Gemm", node.inputs, _kept(node, "activation", *parameters))[0]
    return [_activated(e, node, y, [node.attributes.get_float(name, 0.0) for name in parameters])]


@fusion("FusedMatMul", "TransposeMatMul")
def _fused_matmul(e: Emit, node: ir.Node) -> Sequence[ir.Value]:
    """y = alpha A B, their axes in another order first; by Einsum where the number of axes is not known."""
    factors, alpha = (given(node), given(node, 1)), node.attributes.get_float("alpha", 1.0)
    turns = [tuple(bool(node.attributes.get_int(f"trans{part}{name}", 0)) for part in ("", "Batch")) for name in "AB"]
    if all(v.shape is not None or not any(turn) for v, turn in zip(factors, turns, strict=True)):
        y = e.MatMul(*(_turned(e, v, *turn) if any(turn) else v for v, turn in zip(factors, turns, strict=True)))
    elif opset(e) < 12 or any(batch for _, batch in turns):
        raise refused(node, "the number of axes it turns is not known")
    else:
        left, right = ("ki" if turns[0][0] else "ik"), ("jk" if turns[1][0] else "kj")
        y = e.Einsum(*factors, equation=f"...{left},...{right}->...ij")
    return [y if alpha == 1 else e.Mul(y, e.scalar(alpha, y))]


def _activated(e: Emit, node: ir.Node, y: ir.Value, numbers: Sequence[float]) -> ir.Value:
    """Apply the activation that a node names; `numbers` are its parameters."""
    name = node.attributes.get_string("activation", "")
    if not name:
        return y
    if name in ("Relu", "Sigmoid", "Tanh"):
        return e.node(name, [y])[0]
    if name == "LeakyRelu":
        return e.LeakyRelu(y, alpha=numbers[0])
    if name == "HardSigmoid":
        return e.HardSigmoid(y, alpha=numbers[0], beta=numbers[1])
    if name == "Clip" and opset(e) >= 11:
        return e.Clip(y, e.scalar(numbers[0], y), e.scalar(numbers[1], y))
    if name == "Clip":
        return e.Clip(y, min=numbers[0], max=numbers[1])
    raise refused(node, f"its activation {name!r}")


def _turned(e: Emit, value: ir.Value, last: bool, batch: bool) -> ir.Value:
    """Swap the last two axes; move the first one behind the other batch axes before that."""
    rank = len(dims(value))
    if rank < 2:
        return value
    perm = [*range(1, rank - 1), 0, rank - 1] if batch else list(range(rank))
    return e.Transpose(value, perm=[*perm[:-2], perm[-1], perm[-2]] if last else perm)


def _kept(node: ir.Node, *but: str) -> dict[str, ir.Attr]:
    """Return the attributes of a node but those named."""
    return {name: attribute for name, attribute in node.attributes.items() if name not in but}
