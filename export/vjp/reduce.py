"""
Gradient rules of reductions: the cotangent is spread over what was reduced, weighted by each element's share.

Elements that tie in ReduceMax or ReduceMin share the cotangent equally, as in PyTorch's amax and amin. ReduceL2 gives
0 where all elements are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .emit import Emit, dims
from .gate import sign
from .known import given, integers
from .table import vjp

Cotangents = Sequence[ir.Value | None]


@dataclass(frozen=True)
class _Reduction:
    """One reduction: its input, the reduced axes, the cotangent with these axes kept as 1, no cotangent for the rest."""

    node: ir.Node
    x: ir.Value
    axes: tuple[int, ...]
    g: ir.Value
    rest: tuple[None, ...]

    def result(self, e: Emit) -> ir.Value:
        """Return the result with the reduced axes kept as 1."""
        return _keep(e, self.node, self.axes, self.node.outputs[0])

    def spread(self, e: Emit, g: ir.Value) -> ir.Value:
        """Repeat `g` over the reduced axes, in the shape of x."""
        shape = dims(self.x)
        if not self.axes:
            return g
        g.shape = ir.Shape([1 if axis in self.axes else d for axis, d in enumerate(shape)])
        if any(isinstance(shape[axis], str) for axis in self.axes):
            return e.Expand(g, e.shape_of(self.x))
        target = [d if axis in self.axes and isinstance(d, int) else 1 for axis, d in enumerate(shape)]
        return e.Expand(g, e.const(target, "shape"))

    def per_element(self, e: Emit, g: ir.Value) -> ir.Value:
        """Divide `g` by the number of elements that make one result."""
        lengths = [dims(self.x)[axis] for axis in self.axes]
        if all(isinstance(length, int) for length in lengths):
            return e.Mul(g, e.scalar(1 / np.prod([int(length) for length in lengths]), g))
        to = int(g.dtype or ir.DataType.FLOAT)
        return e.Mul(g, e.Div(e.Cast(e.Size(self.g), to=to), e.Cast(e.Size(self.x), to=to)))


def _read(e: Emit, node: ir.Node, g: ir.Value) -> _Reduction:
    """Read axes (input or attribute), keepdims and noop_with_empty_axes."""
    x = given(node)
    rank = len(dims(x))
    named = integers(node, 1, "axes")
    if named is None:
        named = list(node.attributes.get_ints("axes", ()))
    keeps_all = node.attributes.get_int("noop_with_empty_axes", 0)
    if not named and not keeps_all:
        named = list(range(rank))
    axes = tuple(sorted(axis % rank for axis in named))
    return _Reduction(node, x, axes, _keep(e, node, axes, g), (None,) * (len(node.inputs) - 1))


def _keep(e: Emit, node: ir.Node, axes: tuple[int, ...], value: ir.Value) -> ir.Value:
    """Give `value`, of the result's shape, the reduced axes back as 1 where `node` dropped them."""
    kept = node.attributes.get_int("keepdims", 1)
    if kept or not axes:
        return value
    return e.Unsqueeze(value, e.const(list(axes), "axes"))


@vjp("ReduceSum")
def reduce_sum(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = sum x  =>  dx = g."""
    r = _read(e, node, g)
    return r.spread(e, r.g), *r.rest


@vjp("ReduceMean")
def reduce_mean(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = sum x / n  =>  dx = g / n."""
    r = _read(e, node, g)
    return r.spread(e, r.per_element(e, r.g)), *r.rest


@vjp("ReduceMax", "ReduceMin")
def reduce_extreme(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = max x  =>  dx = g [x = y] / (how many tie)."""
    r = _read(e, node, g)
    hit = e.Cast(e.Equal(r.x, r.result(e)), to=int(g.dtype or ir.DataType.FLOAT))
    ties = e.ReduceSum(hit, e.const(list(r.axes), "axes"), keepdims=1, noop_with_empty_axes=1)
    return e.Mul(hit, e.Div(r.g, ties)), *r.rest


@vjp("ReduceProd")
def reduce_product(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = prod x  =>  dx = g times the product of the other elements: where one of them is 0, nothing."""
    r = _read(e, node, g)
    kind, axes = int(g.dtype or ir.DataType.FLOAT), e.const(list(r.axes), "axes")
    zero, one = e.scalar(0.0, g), e.scalar(1.0, g)
    is_zero = e.Equal(r.x, zero)
    safe, marks = e.Where(is_zero, one, r.x), e.Cast(is_zero, to=kind)
    product = e.ReduceProd(safe, axes, keepdims=1, noop_with_empty_axes=1)
    zeros = e.ReduceSum(marks, axes, keepdims=1, noop_with_empty_axes=1)
    others = e.Where(e.Equal(e.Sub(zeros, marks), zero), e.Div(product, safe), zero)
    return e.Mul(r.g, others), *r.rest


@vjp("ReduceL1")
def reduce_l1(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = sum |x|  =>  dx = g sign(x)."""
    r = _read(e, node, g)
    return e.Mul(r.g, sign(e, r.x)), *r.rest


@vjp("ReduceL2")
def reduce_l2(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = sqrt(sum x^2)  =>  dx = g x / y, 0 where y = 0."""
    r = _read(e, node, g)
    smallest = float(np.finfo(np.float32).tiny if g.dtype is None else g.dtype.tiny)
    return e.Mul(r.g, e.Div(r.x, e.Max(r.result(e), e.scalar(smallest, g)))), *r.rest


@vjp("ReduceLogSumExp")
def reduce_log_sum_exp(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = log sum exp(x)  =>  dx = g exp(x - y)."""
    r = _read(e, node, g)
    return e.Mul(r.g, e.Exp(e.Sub(r.x, r.result(e)))), *r.rest


@vjp("ReduceLogSum")
def reduce_log_sum(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = log sum x  =>  dx = g / sum x = g exp(-y)."""
    r = _read(e, node, g)
    return r.spread(e, e.Mul(r.g, e.Exp(e.Neg(r.result(e))))), *r.rest


@vjp("ReduceSumSquare")
def reduce_sum_square(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = sum x^2  =>  dx = 2 g x."""
    r = _read(e, node, g)
    return e.Mul(r.g, e.Add(r.x, r.x)), *r.rest
