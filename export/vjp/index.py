"""
Gradient rules of what reads or writes at indices.

Constant indices become Pad, Gather or a one-hot MatMul (`along.untake`): the class token of a vision transformer,
``Gather(axis=1, index 0)``, costs one Pad. Indices known only at run time (TopK) go through OneHot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from .along import contract, reshape, untake
from .emit import Dim, Emit, constant, dims
from .fixed import is_fixed
from .known import axis_of, given, nothing, refuse, size_of
from .table import vjp

Array = np.ndarray[Any, Any]
Cotangents = Sequence[ir.Value | None]

vjp("ArgMax", "ArgMin", "Hardmax", "NonZero")(nothing)


@vjp("Gather")
def gather(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x[..., index, ...]  =>  dx = g added up at the indices."""
    x, where = given(node), given(node, 1)
    if is_fixed(x):
        return None, None
    shape = dims(x)
    axis = axis_of(node, len(shape))
    size, picked = size_of(node, shape, axis), dims(where)
    index = constant(where)
    lengths = [d for d in picked if isinstance(d, int)]
    count: Dim = math.prod(lengths) if len(lengths) == len(picked) else "?"
    flat = [*shape[:axis], count, *shape[axis + 1 :]]
    if not picked:
        g = e.Unsqueeze(g, e.const([axis], "axes"))
    elif len(picked) > 1:
        g = reshape(e, g, dims(node.outputs[0]), flat, node)
    if index is not None:
        return untake(e, g, flat, axis, index.ravel(), size, node), None
    one_hot = _one_hot(e, e.Reshape(where, e.const([-1], "shape")), size, g, -1)
    return contract(e, g, len(flat), axis, one_hot), None


def _one_hot(e: Emit, index: ir.Value, size: int, like: ir.Value, axis: int) -> ir.Value:
    """Return a new axis of `size` entries at `axis`: 1 at the index, 0 elsewhere."""
    values = np.array([0, 1], e.numpy_dtype(like))
    return e.OneHot(index, e.const(np.array(size), "depth"), e.const(values, "off_on"), axis=axis)


@vjp("OneHot")
def one_hot(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = on at the index, off elsewhere, of values (off, on)  =>  d(on) = sum of g there, d(off) = the sum of the rest."""
    if is_fixed(node.inputs[2]):
        return None, None, None
    marks = e.const(np.array([0, 1], e.numpy_dtype(g)), "off_on")
    hot = e.OneHot(*node.inputs[:2], marks, axis=node.attributes.get_int("axis", -1))
    sums = [e.ReduceSum(value, keepdims=0) for value in (e.Sub(g, e.Mul(g, hot)), e.Mul(g, hot))]
    return None, None, e.Concat(*(e.Reshape(value, e.const([1], "shape")) for value in sums), axis=0)


@vjp("Compress")
def compress(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x where a constant condition holds along an axis  =>  dx = g there, 0 elsewhere."""
    x, condition = given(node), constant(given(node, 1))
    if condition is None:
        raise refuse(node, "its condition is computed at run time; a constant is needed")
    if "axis" not in node.attributes:
        shape: Sequence[Dim] = [math.prod(size_of(node, dims(x), axis) for axis in range(len(dims(x))))]
    else:
        shape = dims(x)
    axis, index = axis_of(node, len(shape)), np.flatnonzero(condition)
    taken = [*shape[:axis], len(index), *shape[axis + 1 :]]
    found = untake(e, g, taken, axis, index, size_of(node, shape, axis), node)
    return reshape(e, found, shape, dims(x), node), None


def _untake_elements(e: Emit, g: ir.Value, index: ir.Value, axis: int, size: int) -> ir.Value:
    """Return the adjoint of ``np.take_along_axis(x, index, axis)`` with `size` entries along `axis`."""
    hot = _one_hot(e, index, size, g, axis)  # (..., size, length of index, ...)
    spread = e.Mul(hot, e.Unsqueeze(g, e.const([axis], "axes")))
    return e.ReduceSum(spread, e.const([axis + 1], "axes"), keepdims=0)


@vjp("GatherElements")
def gather_elements(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y[i, j] = x[index[i, j], j]  =>  dx[k, j] = the sum of g[i, j] over i with index[i, j] = k."""
    x, index = given(node), given(node, 1)
    shape, picked = dims(x), dims(index)
    axis = axis_of(node, len(shape))
    dx = _untake_elements(e, g, index, axis, size_of(node, shape, axis))
    short = [i for i in range(len(shape)) if i != axis and shape[i] != picked[i]]
    if short:
        pads = [0] * 2 * len(shape)
        for i in short:
            pads[len(shape) + i] = size_of(node, shape, i) - size_of(node, picked, i)
        dx = e.Pad(dx, e.const(pads, "pads"))
    return dx, None


@vjp("TopK", every_output=True)
def top_k(e: Emit, node: ir.Node, g: ir.Value | None, g_indices: ir.Value | None = None) -> Cotangents:
    """y = the k largest of x, x[index]  =>  dx = g added up at the indices."""
    x = given(node)
    axis = axis_of(node, len(dims(x)), -1)
    if g is None:
        return None, None
    node.outputs[1].dtype = ir.DataType.INT64
    return _untake_elements(e, g, node.outputs[1], axis, size_of(node, dims(x), axis)), None


@vjp("GatherND")
def gather_nd(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x[indices] for constant tuples of indices  =>  dx = g added up at them."""
    x = given(node)
    shape = dims(x)
    index, lead = _tuples(node, shape)
    flat_in, rest = [index.size, *shape[len(lead) :]], shape[len(lead) :]
    flat = reshape(e, g, dims(node.outputs[0]), flat_in, node)
    found = untake(e, flat, flat_in, 0, index.ravel(), math.prod(lead), node)
    return reshape(e, found, [math.prod(lead), *rest], shape, node), None


def _tuples(node: ir.Node, shape: Sequence[Dim]) -> tuple[Array, list[int]]:
    """Return the tuples of indices of GatherND and ScatterND as positions in the merged leading axes, and these axes."""
    indices = constant(given(node, 1))
    if indices is None:
        raise refuse(node, "its indices are computed at run time; constants are needed")
    if node.attributes.get_int("batch_dims", 0):
        raise refuse(node, "batch_dims is not 0")
    lead = [size_of(node, shape, axis) for axis in range(indices.shape[-1])]
    return np.ravel_multi_index(tuple(np.moveaxis(indices % lead, -1, 0)), lead), lead


def _adds(node: ir.Node) -> bool:
    """Return whether a scatter adds to its data; what multiplies or compares is refused."""
    reduction = node.attributes.get_string("reduction", "none")
    if reduction not in ("none", "add"):
        raise refuse(node, f"reduction {reduction!r}")
    return reduction == "add"


@vjp("ScatterND")
def scatter_nd(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x with u at constant tuples of indices  =>  dx = g but 0 there (g, if u is added), du = g there."""
    x, where, updates = (given(node, i) for i in range(3))
    dx = g
    if not _adds(node) and not is_fixed(x):
        index, lead = _tuples(node, dims(x))
        kept = np.ones(math.prod(lead), e.numpy_dtype(g))
        kept[index.ravel()] = 0
        mask = kept.reshape(*lead, *[1] * (len(dims(x)) - len(lead)))
        dx = e.Mul(g, e.const(mask, "kept"))
    return dx, None, None if is_fixed(updates) else e.GatherND(g, where)


@vjp("ScatterElements")
def scatter_elements(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x with u at constant positions along an axis  =>  dx = g but 0 there (g, if u is added), du = g there."""
    x, where, updates = (given(node, i) for i in range(3))
    shape = dims(x)
    axis = axis_of(node, len(shape))
    dx = g
    if not _adds(node) and not is_fixed(x):
        index = constant(where)
        if index is None:
            raise refuse(node, "its indices are computed at run time; constants are needed")
        kept = np.ones([size_of(node, shape, i) for i in range(len(shape))], e.numpy_dtype(g))
        region = tuple(slice(None) if i == axis else slice(d) for i, d in enumerate(index.shape))
        np.put_along_axis(kept[region], index % shape[axis], 0, axis)
        dx = e.Mul(g, e.const(kept, "kept"))
    return dx, None, None if is_fixed(updates) else e.GatherElements(g, where, axis=axis)


@vjp("CumSum")
def cumulative_sum(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = the running sum of x  =>  dx = the running sum of g from the other end."""
    exclusive, reverse = (node.attributes.get_int(name, 0) for name in ("exclusive", "reverse"))
    return e.CumSum(g, given(node, 1), exclusive=exclusive, reverse=1 - reverse), None
