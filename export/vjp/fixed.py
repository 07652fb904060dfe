"""Which operands of a node are the same in every run: rules for weights and scales ask before they ignore them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from .known import refuse

__all__ = ["OF_SHAPES", "is_fixed", "require_fixed"]

OF_SHAPES = ("Shape", "Size")  # what they give changes with the batch at most, and no gradient passes them


def is_fixed(value: ir.Value | None) -> bool:
    """Return whether `value` is absent or computed from initializers and shapes alone, whatever the graph's inputs are."""
    waiting, seen = [value], set()
    while waiting:
        value = waiting.pop()
        if value is None or value in seen or value.const_value is not None:
            continue
        seen.add(value)
        producer = value.producer()
        if producer is not None and producer.op_type in OF_SHAPES:
            continue
        if producer is None or producer.op_type.startswith("Random"):
            return False
        waiting.extend(producer.inputs)
    return True


def require_fixed(node: ir.Node, values: Sequence[ir.Value | None], title: str) -> None:
    """Raise a MissingRuleError unless all `values`, called `title` in it, are fixed: their gradient would be lost."""
    for value in values:
        if value is not None and not is_fixed(value):
            raise refuse(node, f"its {title} {value.name!r} are computed from the model's input; constants are needed")
