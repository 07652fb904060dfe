"""
Guided back-propagation: the gradient's rules, but a rectifier passes back positive cotangents only.

Springenberg et al. 2014, arXiv:1412.6806, section 3.4: a rectifier y = max(x, 0) passes back g where x > 0 and g > 0.
Relu, LeakyRelu and Clip to [0, 6] are the rectifiers here; every other operator keeps its gradient rule.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ..vjp import RULES
from ..vjp.emit import Emit, constant, described
from ..vjp.known import optional_input
from ..vjp.table import Rule, op_key

__all__ = ["GUIDED", "is_rectifier"]


def is_rectifier(node: ir.Node) -> bool:
    """
    Tell whether guided back-propagation changes what a node passes back.

    Parameters
    ----------
    node : onnx_ir.Node
        Any node.

    Returns
    -------
    bool
        True for Relu, LeakyRelu, and Clip between the constants 0 and 6.
    """
    op = op_key(node)
    if op != "Clip":
        return op in ("Relu", "LeakyRelu")
    bounds = [constant(optional_input(node, index)) for index in (1, 2)]
    return all(bound is not None and np.all(bound == b) for bound, b in zip(bounds, (0, 6), strict=True))


def _rectified(e: Emit, node: ir.Node, g: ir.Value) -> Sequence[ir.Value | None]:
    """dx = the gradient's rule of max(g, 0)."""
    if is_rectifier(node):
        g = described(e.Relu(g), g)
    return RULES[op_key(node)](e, node, [g])


GUIDED: dict[str, Rule] = {**RULES, **{op: Rule(_rectified) for op in ("Relu", "LeakyRelu", "Clip")}}
