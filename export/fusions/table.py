"""
The table of fused operators, and what its rows are written with.

In: the emitter and a node. Out: what a row returns, the values in the place of the node's outputs, None for an output
that nothing may read; or None alone, which leaves the node as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from camrt.errors import MissingRuleError

from ..vjp.emit import Emit
from ..vjp.table import op_key

__all__ = ["CONTRIB", "FUSIONS", "fusion", "opset", "refused", "summed"]

Fusion = Callable[[Emit, ir.Node], Sequence[ir.Value | None] | None]

FUSIONS: dict[str, Fusion] = {}
CONTRIB = "com.microsoft"


def fusion(*ops: str, domain: str = CONTRIB) -> Callable[[Fusion], Fusion]:
    """
    Enter the decorated function in the table; where it returns None the node stays as it is.

    Parameters
    ----------
    *ops : str
        Names of operators.
    domain : str
        Theirs; empty for ONNX's own.

    Returns
    -------
    callable
        The decorator, which returns the function unchanged.
    """

    def _register(function: Fusion) -> Fusion:
        FUSIONS.update({f"{domain}::{op}" if domain else op: function for op in ops})
        return function

    return _register


def refused(node: ir.Node, reason: str) -> MissingRuleError:
    """
    Return the error that says why a fused operator cannot be taken apart.

    Parameters
    ----------
    node : onnx_ir.Node
        The operator.
    reason : str
        What about it is not covered.

    Returns
    -------
    MissingRuleError
        To be raised.
    """
    return MissingRuleError(
        f"{op_key(node)} at node {node.name!r} cannot be written in standard operators: {reason}; give the model it was "
        "optimised from"
    )


def opset(e: Emit) -> int:
    """
    Return the version of ONNX's operators that a graph is written in.

    Parameters
    ----------
    e : Emit
        Of the graph.

    Returns
    -------
    int
        The file's own.
    """
    return int(e.graph.opset_imports.get("", 0))


def summed(e: Emit, first: ir.Value | None, *others: ir.Value | None) -> ir.Value:
    """
    Return the sum of the values that are there.

    Parameters
    ----------
    e : Emit
        Receives the nodes.
    first, *others : onnx_ir.Value or None
        Operands, at least one of them there.

    Returns
    -------
    onnx_ir.Value
        One of them itself where it is alone.
    """
    total = first
    for value in others:
        total = value if total is None else total if value is None else e.Add(total, value)
    assert total is not None, "an operand is always there"
    return total
