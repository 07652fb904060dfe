"""
The rule table: one entry an operator, one verb to add it.

A rule says how the cotangents of a node's outputs become the cotangents of its inputs. It is a function of the
emitter, the node, and the cotangent of the first output (or of every output, for ``every_output`` rules), and returns
one value or None an input. None means that nothing flows: it differs from a zero tensor, which would cost work.
Broadcasting is undone by the sweep, so a rule registered with ``broadcasts=True`` returns cotangents of the output's
shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from .emit import Emit

__all__ = ["RULES", "Rule", "RuleFunction", "op_key", "vjp"]

RuleFunction = Callable[..., Sequence[ir.Value | None]]


@dataclass(frozen=True)
class Rule:
    """How one operator passes cotangents back."""

    function: RuleFunction
    broadcasts: bool = False
    every_output: bool = False

    def __call__(self, e: Emit, node: ir.Node, cotangents: Sequence[ir.Value | None]) -> Sequence[ir.Value | None]:
        """Return one cotangent or None for each input of `node`."""
        if self.every_output:
            return self.function(e, node, *cotangents)
        return self.function(e, node, cotangents[0])


RULES: dict[str, Rule] = {}


def vjp(
    *ops: str, broadcasts: bool = False, every_output: bool = False, table: dict[str, Rule] = RULES
) -> Callable[[RuleFunction], RuleFunction]:
    """
    Register the decorated function as the rule of `ops`; a second rule for one operator is an error.

    Parameters
    ----------
    *ops : str
        Operator types; those outside the default domain as ``"domain::Op"``.
    broadcasts : bool, default False
        The rule returns cotangents of the output's shape; the sweep sums them back to each input's.
    every_output : bool, default False
        The rule takes one cotangent (or None) an output in place of the first output's alone.
    table : dict, default RULES
        The table written to; other propagations keep tables of their own.

    Returns
    -------
    callable
        The decorator, which returns the function unchanged.

    Raises
    ------
    ValueError
        If an operator already has a rule in `table`.
    """

    def register(function: RuleFunction) -> RuleFunction:
        for op in ops:
            if op in table:
                raise ValueError(f"{op} already has a rule: {table[op].function.__name__}")
            table[op] = Rule(function, broadcasts, every_output)
        return function

    return register


def op_key(node: ir.Node) -> str:
    """Return the name under which `node`'s rule is looked up."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def missing(nodes: Sequence[ir.Node], rules: Mapping[str, Rule] = RULES) -> list[ir.Node]:
    """Return those of `nodes` that have no rule, in order."""
    return [node for node in nodes if op_key(node) not in rules]
