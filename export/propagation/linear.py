"""What relevance and DeepLIFT share: a node again with other operands, its transpose, and division that is guarded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from ..vjp import RULES
from ..vjp.emit import Emit, described
from ..vjp.table import op_key

__all__ = ["again", "back", "guarded", "quotient"]

NEGLIGIBLE = 1e-6  # of the sum of its terms' sizes: what is left of them is rounding


def again(e: Emit, node: ir.Node, inputs: Sequence[ir.Value | None], **attributes: Any) -> ir.Value:
    """
    Emit a node once more with other operands.

    Parameters
    ----------
    e : Emit
        Receives the node.
    node : onnx_ir.Node
        The pattern; its attributes are kept.
    inputs : sequence of Value or None
        Operands of the shapes that `node` has.
    **attributes
        Replace the node's own.

    Returns
    -------
    Value
        The first output; its producer is the new node.
    """
    made = e.node(op_key(node), inputs, {**node.attributes, **attributes}, outputs=len(node.outputs))
    for new, old in zip(made, node.outputs, strict=True):
        described(new, old)
    return made[0]


def back(e: Emit, value: ir.Value, g: ir.Value, index: int = 0) -> ir.Value:
    """
    Carry a cotangent from a value to one operand of its node by the gradient's rule.

    Parameters
    ----------
    e : Emit
        Receives the nodes.
    value : Value
        The first output of a node.
    g : Value
        The cotangent there.
    index : int
        Which operand.

    Returns
    -------
    Value
        The cotangent of the operand.
    """
    node = value.producer()
    assert node is not None
    cotangents = [g, *[None] * (len(node.outputs) - 1)]
    found = RULES[op_key(node)](e, node, cotangents)[index]
    operand = node.inputs[index]
    assert found is not None
    assert operand is not None
    return described(found, operand)


def quotient(e: Emit, above: ir.Value, below: ir.Value, scale: ir.Value | None = None) -> ir.Value:
    """
    Divide, and give 0 where nothing is left to divide by.

    Parameters
    ----------
    e : Emit
        Receives the nodes.
    above, below : Value
        Of one shape.
    scale : Value, optional
        The size of the terms that `below` is a sum of; a sum of at most `NEGLIGIBLE` of it counts as 0. Without it,
        `below` has terms of one sign, and only 0 counts.

    Returns
    -------
    Value
        ``above / below``, or 0.
    """
    zero = e.scalar(0.0, below)
    return guarded(e, above, below, zero if scale is None else e.Mul(scale, e.scalar(NEGLIGIBLE, scale)), zero)


def guarded(e: Emit, above: ir.Value, below: ir.Value, least: ir.Value, otherwise: ir.Value) -> ir.Value:
    """
    Divide where the divisor is large enough.

    Parameters
    ----------
    e : Emit
        Receives the nodes.
    above, below : Value
        Of one shape.
    least : Value
        The size that `below` has to exceed.
    otherwise : Value
        What stands where it does not.

    Returns
    -------
    Value
        ``above / below``, or `otherwise`.
    """
    enough = e.Greater(e.Abs(below), least)
    made = e.Where(enough, e.Div(above, e.Where(enough, below, e.scalar(1.0, below))), otherwise)
    return described(made, below)
