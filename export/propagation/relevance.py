"""
Layer-wise relevance propagation with alpha 1 and beta 0, as Relevance-CAM uses it.

Each operator shares out the relevance R of its output among its inputs, in proportion to what each gave to it. Where
weights are involved only contributions of positive sign count (Bach et al. 2015, with alpha 1 and beta 0; for inputs
that are never negative this is the z+ rule of Montavon et al. 2017): with x = x+ + x- and w = w+ + w-,

    S = R / (x+ w+ + x- w-)        R_in = x+ (w+^T S) + x- (w-^T S)

Biases take no share, so relevance is conserved; in the second table the bias of a convolution is added to both terms of
the denominator, as the official code does (Lee 2021), and relevance leaks. Elementwise activations and constant scales
pass relevance unchanged. A sum is shared out in proportion to its terms, zero where they cancel. Products of two computed
tensors, softmax and normalisations by the input's own statistics have no rule.

References
----------
Bach et al. 2015, PLoS ONE 10(7) e0130140; Montavon et al. 2017, arXiv:1512.02479; Lee et al. 2021, Relevance-CAM, CVPR.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import onnx_ir as ir

from camrt.errors import MissingRuleError

from ..vjp import RULES
from ..vjp.emit import Emit, constant, described, dims
from ..vjp.fixed import is_fixed
from ..vjp.known import given, nothing, optional_input
from ..vjp.table import Rule, op_key
from .linear import again, back, quotient

__all__ = ["RELEVANCE", "RELEVANCE_BIAS"]

Shares = Sequence[ir.Value | None]

_PASSED = (
    "BatchNormalization Celu Clip Elu Gelu HardSigmoid HardSwish LeakyRelu Mish Neg PRelu Relu Selu Sigmoid Softplus Softsign "
    "Swish Tanh ThresholdedRelu"
)
_AS_GRADIENT = (  # operators that only move numbers, and maxima, whose winner takes all
    "Cast CastLike Concat DepthToSpace Dropout Expand Flatten Gather GlobalMaxPool Identity Max MaxPool Min Pad ReduceMax "
    "ReduceMin Reshape Slice SpaceToDepth Split Squeeze Tile Transpose Unsqueeze"
)
_KEEPS_SIGN = (
    "AveragePool Concat Dropout Flatten GlobalAveragePool GlobalMaxPool Identity MaxPool ReduceMean Reshape Transpose"
)


def never_negative(value: ir.Value) -> bool:
    """
    Tell a tensor that its operators keep from being negative.

    Parameters
    ----------
    value : onnx_ir.Value
        A tensor of the graph.

    Returns
    -------
    bool
        True behind a rectifier, whatever only moves or averages it in between.
    """
    waiting = [value]
    while waiting:
        node = waiting.pop().producer()
        op = "" if node is None else op_key(node)
        if node is not None and op in _KEEPS_SIGN.split():
            data = node.inputs if op == "Concat" else node.inputs[:1]
            waiting += [operand for operand in data if operand is not None]
        elif node is not None and op == "Clip":
            low = constant(optional_input(node, 1))
            if low is None or np.any(low < 0):
                return False
        elif op not in ("Relu", "Sigmoid", "HardSigmoid", "Softplus"):
            return False
    return True


def _passed(e: Emit, node: ir.Node, r: ir.Value) -> Shares:
    """R_in = R."""
    return r, *[None] * (len(node.inputs) - 1)


def _weighted(e: Emit, node: ir.Node, r: ir.Value, *, bias: bool) -> Shares:
    """S = R / (x+ w+ + x- w-), R_in = x+ (w+^T S) + x- (w-^T S); a bias of Conv twice in the denominator if `bias`."""
    place = 1 if is_fixed(node.inputs[0]) else 0
    x, w = given(node, place), constant(given(node, 1 - place))
    if w is None:
        raise MissingRuleError(
            f"{op_key(node)} at node {node.name!r} has no relevance rule: it multiplies two computed tensors; choose a "
            "layer behind it, or a gradient method"
        )
    if op_key(node) == "Gemm":
        w = (w * node.attributes.get_float("alpha", 1.0)).astype(w.dtype)
    positive = x if never_negative(x) else described(e.Relu(x), x)
    parts = [(positive, np.maximum(w, 0))]
    if positive is not x:
        parts.append((described(e.Sub(x, positive), x), np.minimum(w, 0)))
    plain = {"alpha": 1.0} if op_key(node) == "Gemm" else {}
    terms = []
    for part, sign in parts:
        operands = [part, e.const(sign, "sign")]
        terms.append(again(e, node, operands if place == 0 else operands[::-1], **plain))
    below, scale = terms[0] if len(terms) == 1 else e.Add(*terms), None
    given_bias = constant(optional_input(node, 2)) if op_key(node) == "Conv" and bias else None
    if given_bias is not None:
        twice = (2 * given_bias).reshape(1, -1, *[1] * (len(dims(x)) - 2))
        scale = described(e.Add(below, e.const(abs(twice))), r)
        below = e.Add(below, e.const(twice))
    s = quotient(e, r, described(below, r), scale)
    shares = [e.Mul(part, back(e, term, s, place)) for (part, _), term in zip(parts, terms, strict=True)]
    share = shares[0] if len(shares) == 1 else e.Add(*shares)
    outgoing: list[ir.Value | None] = [None] * len(node.inputs)
    outgoing[place] = share
    return outgoing


def _pooled(e: Emit, node: ir.Node, r: ir.Value) -> Shares:
    """R_in = x (pool^T (R / pool(x))); averages over the whole grid and sums take x+ for x."""
    x, rest = given(node), node.inputs[1:]
    if never_negative(x):
        average, scale = node.outputs[0], None
    elif op_key(node) == "AveragePool":
        average, scale = node.outputs[0], again(e, node, [described(e.Abs(x), x), *rest])
    else:
        x = described(e.Relu(x), x)
        average, scale = again(e, node, [x, *rest]), None
    share = e.Mul(x, back(e, average, quotient(e, r, average, scale)))
    return share, *[None] * len(rest)


def _summed(e: Emit, node: ir.Node, r: ir.Value) -> Shares:
    """R_i = R x_i / (x_1 + x_2 + ...), a subtracted term with its sign; constants take nothing."""
    moving = [value for value in node.inputs if not is_fixed(value)]
    if len(moving) == 1:
        return [None if is_fixed(value) else r for value in node.inputs]
    terms = [None if value is None or is_fixed(value) else value for value in node.inputs]
    if op_key(node) == "Sub":
        terms[1] = e.Neg(given(node, 1))
    present = [term for term in terms if term is not None]
    total = described(e.Sum(*present), r)
    scale = described(e.Sum(*[e.Abs(term) for term in present]), r)
    each = quotient(e, r, total, scale)
    return [None if term is None else e.Mul(term, each) for term in terms]


def _scaled(e: Emit, node: ir.Node, r: ir.Value) -> Shares:
    """R_in = R where all other factors are constant."""
    moving = [not is_fixed(value) for value in node.inputs]
    if sum(moving) != 1 or (op_key(node) == "Div" and moving[1]):
        raise MissingRuleError(
            f"{op_key(node)} at node {node.name!r} has no relevance rule: it joins two computed tensors; choose a layer "
            "behind it, or a gradient method"
        )
    return [r if moves else None for moves in moving]


def _table(*, bias: bool) -> dict[str, Rule]:
    """Return the rules, with or without biases in the denominators."""
    own = {
        **{op: Rule(partial(_weighted, bias=bias)) for op in ("Conv", "ConvTranspose", "Gemm", "MatMul")},
        **{op: Rule(_pooled) for op in ("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum")},
        **{op: Rule(_summed, broadcasts=True) for op in ("Add", "Sub", "Sum")},
        **{op: Rule(_scaled, broadcasts=True) for op in ("Mul", "Div")},
        **{op: Rule(_passed) for op in _PASSED.split()},
    }
    moved = {op: RULES[op] for op in _AS_GRADIENT.split()}
    return {**{op: rule for op, rule in RULES.items() if rule.function is nothing}, **moved, **own}


RELEVANCE: dict[str, Rule] = _table(bias=False)
RELEVANCE_BIAS: dict[str, Rule] = _table(bias=True)
