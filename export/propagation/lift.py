"""
DeepLIFT's rescale rule: multipliers that account for the difference of two runs, not for a slope.

Beside the run itself stands another from a reference. With D the difference of a tensor between both, each operator's
multipliers m fulfil ``D(output) = sum of m D(input)``, so contributions m D(input) sum to the change of the logits:

* linear operators: their gradient
* elementwise functions: ``D(y) / D(x)``, the derivative where D(x) is negligible (Shrikumar 2017, section 3.5.2)
* products of two tensors: the gradient at the mean of both runs, which is exact for a product
* max pooling: the rise above the reference belongs to the run's winner, the fall below the reference's maximum to the
  reference's winner
* softmax and normalisations by the input's own statistics have no rule

References
----------
Shrikumar et al. 2017, "Learning Important Features Through Propagating Activation Differences", arXiv:1704.02685.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import onnx_ir as ir

from ..backward import between
from ..vjp import RULES
from ..vjp.emit import Emit, described
from ..vjp.fixed import is_fixed, require_fixed
from ..vjp.known import given, nothing
from ..vjp.table import Rule, op_key
from .linear import NEGLIGIBLE, again, back, guarded, quotient

__all__ = ["lift_rules", "second_run"]

Twins = Mapping[ir.Value, ir.Value]
Multipliers = Sequence[ir.Value | None]

_LINEAR = (
    "Add AveragePool BatchNormalization Cast CastLike Concat DepthToSpace Dropout Expand Flatten Gather GlobalAveragePool "
    "Identity Mean Neg Pad ReduceMean ReduceSum Reshape Resize Slice SpaceToDepth Split Squeeze Sub Sum Tile Transpose Trilu "
    "Unsqueeze"
)
_PRODUCTS = "Conv ConvTranspose Einsum Gemm MatMul Mul"
_ELEMENTWISE = (
    "Abs Celu Clip Elu Erf Exp Gelu HardSigmoid HardSwish LeakyRelu Log Mish PRelu Pow Reciprocal Relu Selu Shrink Sigmoid "
    "Softplus Softsign Sqrt Swish Tanh ThresholdedRelu"
)
_POOLS = "GlobalMaxPool MaxPool"


def second_run(
    graph: ir.Graph, e: Emit, first: ir.Value, reference: ir.Value, last: ir.Value
) -> dict[ir.Value, ir.Value]:
    """
    Append the nodes that lead from a reference to the logits beside the run itself.

    Parameters
    ----------
    graph : onnx_ir.Graph
        Topologically sorted.
    e : Emit
        Receives the nodes.
    first : Value
        What differs between both runs.
    reference : Value
        Its value in the second run.
    last : Value
        Where the run ends.

    Returns
    -------
    dict of Value to Value
        Each tensor that differs, and what it is in the second run; all others are the same in both.
    """
    twins = {first: reference}
    for node in between(graph, [first], [last]):
        inputs = [None if value is None else twins.get(value, value) for value in node.inputs]
        made = again(e, node, inputs).producer()
        assert made is not None
        twins.update(zip(node.outputs, made.outputs, strict=True))
    return twins


def lift_rules(twins: Twins) -> dict[str, Rule]:
    """
    Return the rule table for one pair of runs.

    Parameters
    ----------
    twins : mapping of Value to Value
        As `second_run` gives it.

    Returns
    -------
    dict of str to Rule
        By `op_key`.
    """
    rules = {op: rule for op, rule in RULES.items() if rule.function is nothing}
    rules |= {op: RULES[op] for op in _LINEAR.split()}
    for function, ops in ((_product, _PRODUCTS), (_rescaled, _ELEMENTWISE), (_winners, _POOLS), (_divided, "Div")):
        rules |= {op: Rule(partial(function, twins), broadcasts=RULES[op].broadcasts) for op in ops.split()}
    return rules


def _product(twins: Twins, e: Emit, node: ir.Node, g: ir.Value) -> Multipliers:
    """y = a b  =>  D(y) = mean(b) D(a) + mean(a) D(b), with means over both runs."""
    inputs = [None if value is None else _mean(twins, e, value) for value in node.inputs]
    if all(new is old for new, old in zip(inputs, node.inputs, strict=True)):
        return RULES[op_key(node)](e, node, [g])
    made = again(e, node, inputs).producer()
    assert made is not None
    return RULES[op_key(node)](e, made, [g])


def _mean(twins: Twins, e: Emit, value: ir.Value) -> ir.Value:
    """Return the mean of a tensor over both runs."""
    if value not in twins:
        return value
    return described(e.Mul(e.Add(value, twins[value]), e.scalar(0.5, value)), value)


def _rescaled(twins: Twins, e: Emit, node: ir.Node, g: ir.Value) -> Multipliers:
    """y = f(x)  =>  g D(y) / D(x), or g f'(x) where D(x) is negligible."""
    require_fixed(node, node.inputs[1:], "parameters")
    x, y = given(node), node.outputs[0]
    change, least = _change(twins, e, x)
    slope = RULES[op_key(node)](e, node, [g])[0]
    assert slope is not None
    rise = e.Mul(g, described(e.Sub(y, twins[y]), y))
    return guarded(e, rise, change, least, slope), *[None] * (len(node.inputs) - 1)


def _change(twins: Twins, e: Emit, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return the difference of a tensor between both runs, and up to which size it is negligible."""
    size = e.Add(e.Abs(x), e.Abs(twins[x]))
    return described(e.Sub(x, twins[x]), x), described(e.Mul(size, e.scalar(NEGLIGIBLE, x)), x)


def _winners(twins: Twins, e: Emit, node: ir.Node, g: ir.Value) -> Multipliers:
    """
    y = max(x), reference y0 = max(x0): with top = max(y, y0), top - y0 goes to the winner of x, y - top to that of x0.

    At the winner of x, x - x0 is at least y - y0; at that of x0, at most: neither quotient divides by less. Of several
    winners the first counts; a reference of zero makes whole planes tie, and the sum holds whichever is taken.
    """
    x, y = given(node), node.outputs[0]
    twin = twins[y]
    top = described(e.Max(y, twin), y)
    risen = back(e, y, described(e.Mul(g, e.Sub(top, twin)), y))
    fallen = back(e, twin, described(e.Mul(g, e.Sub(y, top)), y))
    change, _ = _change(twins, e, x)
    return (quotient(e, described(e.Add(risen, fallen), x), change),)


def _divided(twins: Twins, e: Emit, node: ir.Node, g: ir.Value) -> Multipliers:
    """y = a / b  =>  D(y) = mean(1/b) D(a) - mean(a) / (b b0) D(b)."""
    a, b = given(node), given(node, 1)
    if b not in twins:
        return e.Div(g, b), None
    b0 = twins[b]
    inverse = e.Mul(e.Add(e.Reciprocal(b), e.Reciprocal(b0)), e.scalar(0.5, b))
    da = None if is_fixed(a) else e.Mul(g, inverse)
    return da, e.Neg(e.Div(e.Mul(g, _mean(twins, e, a)), e.Mul(b, b0)))
