"""
What a rule may ask about a node before anything runs: constant inputs, sizes, axes, element types.

A question that only a run can answer is a `MissingRuleError` that names the node; what is wanted is said by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from camrt.errors import MissingRuleError

from .emit import Dim, Emit, constant

__all__ = ["axis_of", "given", "integers", "is_float", "nothing", "optional_input", "refuse", "size_of"]


def refuse(node: ir.Node, reason: str) -> MissingRuleError:
    """Return the error that says why `node` has no gradient."""
    return MissingRuleError(f"{node.op_type} at node {node.name!r} has no gradient rule for this case: {reason}")


def nothing(e: Emit, node: ir.Node, g: ir.Value) -> Sequence[ir.Value | None]:
    """Pass nothing back: the result is piecewise constant, or does not depend on the inputs' values."""
    return (None,) * len(node.inputs)


def given(node: ir.Node, index: int = 0) -> ir.Value:
    """Return the input at `index`, which must be there."""
    value = optional_input(node, index)
    if value is None:
        raise refuse(node, f"its input {index} is absent")
    return value


def optional_input(node: ir.Node, index: int) -> ir.Value | None:
    """Return the input at `index`, None where it is absent."""
    return node.inputs[index] if index < len(node.inputs) else None


def is_float(value: ir.Value) -> bool:
    """Return whether `value` holds floating-point numbers."""
    return value.dtype is not None and value.dtype.is_floating_point()


def integers(node: ir.Node, index: int, title: str) -> list[int] | None:
    """Return the constant integers of input `index`, None where it is absent; `title` names it in the error."""
    value = optional_input(node, index)
    if value is None:
        return None
    array = constant(value)
    if array is None:
        raise refuse(node, f"its {title} are computed at run time ({value.name!r}); constants are needed")
    return [int(i) for i in np.ravel(array)]


def axis_of(node: ir.Node, rank: int, default: int = 0) -> int:
    """Return the attribute `axis`, counted from the front."""
    return node.attributes.get_int("axis", default) % max(rank, 1)


def size_of(node: ir.Node, shape: Sequence[Dim], axis: int) -> int:
    """Return the static length of `shape` along `axis`."""
    size = shape[axis]
    if not isinstance(size, int):
        raise refuse(node, f"the length of axis {axis} is {size!r}; a static one is needed")
    return size
