"""
Which numbers of each tensor reach the logits, told from the graph alone.

A head that reads the class token leaves every other token of the last block without influence: their gradients are
zero by construction, whatever the weights. Walking back from the logits with one truth value a number finds them.
Operators that move numbers, mix along known axes, or multiply matrices are followed exactly; any other is taken to
need all of its input, so a number that is said not to reach the logits truly does not.

In: a graph with shapes. Out: a mask a tensor and a mask an edge, for one image; and for each tensor the next one that
everything passes on its way to the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from .backward import reads
from .shapes import BATCH
from .vjp.emit import constant, dims

__all__ = ["ALL", "Edge", "Mask", "bottlenecks", "chain", "reaching"]

Mask = np.ndarray[Any, np.dtype[np.bool_]]  # broadcasts to the tensor's shape for one image
Edge = tuple[ir.Node, int]  # a node and which of its inputs
Rule = Callable[[ir.Node, Mask], Sequence[Mask]]
ALL: Mask = np.ones((), bool)
_MAX_ELEMENTS = 2**24  # of a mask that is spelt out; larger tensors are taken to be needed whole


def reaching(graph: ir.Graph, logits: ir.Value) -> tuple[dict[ir.Value, Mask], dict[Edge, Mask]]:
    """
    Find what of each tensor reaches the logits.

    Parameters
    ----------
    graph : onnx_ir.Graph
        Topologically sorted, with shapes.
    logits : onnx_ir.Value
        Where to end.

    Returns
    -------
    values : dict of Value to ndarray of bool
        A mask that broadcasts to the tensor's shape for one image; tensors of which nothing reaches are absent.
    edges : dict of (Node, int) to ndarray of bool
        The same for what passes through one input of one node.

    Notes
    -----
    Cost: nothing for tensors needed whole, which are nearly all; one pass over the numbers of the others.
    """
    values: dict[ir.Value, Mask] = {logits: ALL}
    edges: dict[Edge, Mask] = {}
    for node in reversed(graph):
        masks = _back(node, values)
        for index, mask in enumerate(masks):
            value = node.inputs[index]
            if value is None or value.is_initializer() or not mask.any():
                continue
            edges[node, index] = mask = ALL if mask.all() else mask
            values[value] = mask if value not in values else _union(values[value], mask)
        if masks:
            inner = set(reads(node)) - set(node.inputs)  # of graphs inside it
            values.update(dict.fromkeys(inner, ALL))
    return values, edges


def bottlenecks(graph: ir.Graph, logits: ir.Value, alive: Callable[[ir.Value, Edge], bool]) -> dict[ir.Value, ir.Value]:
    """
    Return for each tensor the next one that every living path to the logits passes.

    Parameters
    ----------
    graph : onnx_ir.Graph
        Topologically sorted.
    logits : onnx_ir.Value
        Where paths end.
    alive : callable
        Tells whether a path may go from a value through an edge.

    Returns
    -------
    dict of Value to Value
        Its immediate post-dominator (Cooper, Harvey and Kennedy 2001, "A simple, fast dominance algorithm"); tensors
        without a living path are absent.
    """
    following: dict[ir.Value, ir.Value] = {}
    depth = {logits: 0}
    made = [value for node in graph for value in node.outputs]
    for value in reversed([*graph.inputs, *made]):
        if value is logits:
            continue
        meet = None
        for use in value.uses():
            if not alive(value, (use.node, use.idx)):
                continue
            for after in use.node.outputs:
                if after in depth:
                    meet = after if meet is None else _meet(meet, after, following, depth)
        if meet is not None:
            following[value], depth[value] = meet, depth[meet] + 1
    return following


def chain(value: ir.Value, following: Mapping[ir.Value, ir.Value]) -> Iterator[ir.Value]:
    """
    Yield the tensors that everything one tensor tells the logits passes.

    Parameters
    ----------
    value : onnx_ir.Value
        Where to start; left out itself.
    following : mapping of Value to Value
        As `bottlenecks` gives it.

    Yields
    ------
    onnx_ir.Value
        Each in turn, up to the logits.
    """
    while value in following:
        value = following[value]
        yield value


def _meet(a: ir.Value, b: ir.Value, following: dict[ir.Value, ir.Value], depth: dict[ir.Value, int]) -> ir.Value:
    """Return where the ways of two tensors first meet."""
    while a is not b:
        a, b = (following[a], b) if depth[a] > depth[b] else (a, following[b])
    return a


# masks -----------------------------------------------------------------------------------------------------------


def _sizes(value: ir.Value | None) -> tuple[int, ...] | None:
    """Return the shape of a tensor for one image, or None where it is unknown or too large to be spelt out."""
    if value is None or value.shape is None:
        return None
    sizes = [d if isinstance(d, int) else _times(d) for d in dims(value)]
    return tuple(sizes) if 0 < int(np.prod(sizes, dtype=object)) <= _MAX_ELEMENTS else None


def _times(dim: str) -> int:
    """Return k of a dimension ``k*N``, and 0 of one that follows the batch in some other way."""
    factor = dim.removesuffix(BATCH).removesuffix("*") or "1"
    return int(factor) if dim.endswith(BATCH) and factor.isdigit() else 0


def _union(a: Mask, b: Mask) -> Mask:
    """Return what either mask has; everything stays everything."""
    return ALL if a.ndim == 0 or b.ndim == 0 else np.asarray(a | b)


def _unbroadcast(mask: Mask, sizes: tuple[int, ...]) -> Mask:
    """Return what of an operand of shape `sizes` a mask over the broadcast result asks for."""
    mask = np.asarray(mask.any(axis=tuple(range(max(0, mask.ndim - len(sizes))))))
    shared = sizes[len(sizes) - mask.ndim :]
    lone = tuple(i for i, size in enumerate(shared) if size == 1)
    return np.asarray(mask.any(axis=lone, keepdims=True))


def _back(node: ir.Node, values: dict[ir.Value, Mask]) -> Sequence[Mask]:
    """Return a mask for each input of a node from the masks of its outputs."""
    masks = [values.get(value) for value in node.outputs]
    if all(mask is None for mask in masks) or node.op_type in _NO_FLOW:
        return ()
    whole = [ALL] * len(node.inputs)
    if len(masks) > 1:
        return [_of_split(node, masks), *whole[1:]] if node.op_type == "Split" else whole
    (mask,) = masks
    rule = _RULES.get(node.op_type)
    shapes = [_sizes(value) for value in (*node.inputs[:1], *node.outputs)]
    if mask is None or (mask.ndim == 0 and node.op_type not in _NARROWS) or rule is None or None in shapes:
        return whole
    return rule(node, mask)


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    """Return a shape that is known."""
    sizes = _sizes(value)
    if sizes is None:
        raise AssertionError("checked by the caller")
    return sizes


def _elementwise(node: ir.Node, mask: Mask) -> Sequence[Mask]:
    """Each number of the result needs the operands' numbers of the same place."""
    sizes = [_sizes(value) for value in node.inputs]
    return [ALL if s is None else _unbroadcast(mask, s) for s in sizes]


def _moved(node: ir.Node, mask: Mask) -> Sequence[Mask]:
    """Numbers only change places: follow their indices through the operator."""
    before, after = _shape(node.inputs[0]), _shape(node.outputs[0])
    places = _MOVED[node.op_type](node, np.arange(int(np.prod(before))).reshape(before), after)
    if places is None:
        return [ALL] * len(node.inputs)
    needed = np.zeros(int(np.prod(before)), bool)
    needed[places[np.broadcast_to(mask, places.shape)]] = True
    return [needed.reshape(before), *[ALL] * (len(node.inputs) - 1)]


def _concat(node: ir.Node, mask: Mask) -> Sequence[Mask]:
    """Each operand is a stretch of the result."""
    shapes = [_sizes(value) for value in node.inputs]
    full = np.broadcast_to(mask, _shape(node.outputs[0]))
    axis, start, parts = node.attributes["axis"].as_int(), 0, []
    for sizes in shapes:
        if sizes is None:
            return [ALL] * len(node.inputs)
        parts.append(np.take(full, range(start, start + sizes[axis]), axis))
        start += sizes[axis]
    return parts


def _of_split(node: ir.Node, masks: Sequence[Mask | None]) -> Mask:
    """Put the masks of the parts together."""
    shapes = [_sizes(value) for value in node.outputs]
    parts = []
    for mask, sizes in zip(masks, shapes, strict=True):
        if sizes is None:
            return ALL
        parts.append(np.zeros(sizes, bool) if mask is None else np.broadcast_to(mask, sizes))
    return np.concatenate(parts, node.attributes.get_int("axis", 0))


def _matmul(node: ir.Node, mask: Mask) -> Sequence[Mask]:
    """A row of the result needs that row of the left matrix; a column, that column of the right one."""
    left, right = (_sizes(value) for value in node.inputs)
    if left is None or right is None or len(left) < 2 or len(right) < 2:
        return [ALL, ALL]
    full = np.broadcast_to(mask, _shape(node.outputs[0]))
    rows, columns = np.asarray(full.any(-1, keepdims=True)), np.asarray(full.any(-2, keepdims=True))
    return [_unbroadcast(rows, (*left[:-1], 1)), _unbroadcast(columns, (*right[:-2], 1, right[-1]))]


def _gemm(node: ir.Node, mask: Mask) -> Sequence[Mask]:
    """As for MatMul, with the left matrix perhaps transposed."""
    rows = np.asarray(np.broadcast_to(mask, _shape(node.outputs[0])).any(-1, keepdims=True))
    return [rows.T if node.attributes.get_int("transA", 0) else rows, *[ALL] * (len(node.inputs) - 1)]


def _along(node: ir.Node, mask: Mask) -> Sequence[Mask]:
    """A result needs all numbers along the axes that are mixed."""
    rank = len(_shape(node.inputs[0]))
    axis = node.attributes.get_int("axis", -1)
    axes = range(axis % rank, rank) if node.op_type in ("LayerNormalization", "RMSNormalization") else [axis % rank]
    mixed = np.asarray(np.broadcast_to(mask, _shape(node.outputs[0])).any(axis=tuple(axes), keepdims=True))
    return [mixed, *[ALL] * (len(node.inputs) - 1)]


def _reduced(node: ir.Node, mask: Mask) -> Sequence[Mask]:
    """A sum needs all its terms, one of several sums only its own."""
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if axes is None:
        return [ALL] * len(node.inputs)
    full = np.broadcast_to(mask, _shape(node.outputs[0]))
    if not node.attributes.get_int("keepdims", 1):
        rank = len(_shape(node.inputs[0]))
        full = np.expand_dims(full, tuple(int(a) % rank for a in axes))
    return [full, ALL]


_ELEMENTWISE = (
    "Add Sub Mul Div Pow Min Max Sum Mean Where Clip Relu Sigmoid HardSigmoid HardSwish Swish Tanh Erf Gelu Elu Selu Celu Softplus "
    "Softsign LeakyRelu PRelu Mish Exp Log Sqrt Reciprocal Neg Abs Cast CastLike Identity Dropout "
    "BatchNormalization QuantizeLinear DequantizeLinear Sin Cos Floor Ceil Round Sign ThresholdedRelu Shrink"
)
_REDUCTIONS = "ReduceMean ReduceSum ReduceMax ReduceMin ReduceL1 ReduceL2 ReduceLogSumExp ReduceProd ReduceSumSquare"


def _slice(node: ir.Node, places: Any, _: tuple[int, ...]) -> Any:
    """Apply Slice."""
    given = [constant(value) for value in node.inputs[1:]]
    bounds = [part.tolist() for part in given if part is not None]
    if len(bounds) < len(given) or len(bounds) < 2:
        return None
    count = len(bounds[0])
    starts, ends, axes, steps = (bounds + [list(range(count)), [1] * count][len(bounds) - 2 :])[:4]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = places.shape[axis]
        past_first = step < 0 and end < -size  # backwards to the very first, which Python's slices write as None
        taken = slice(start, None if past_first else end, step)
        places = places[(*[slice(None)] * (axis % places.ndim), taken)]
    return places


def _gather(node: ir.Node, places: Any, _: tuple[int, ...]) -> Any:
    """Apply Gather."""
    taken = constant(node.inputs[1])
    return None if taken is None else np.take(places, taken, node.attributes.get_int("axis", 0))


def _transpose(node: ir.Node, places: Any, _: tuple[int, ...]) -> Any:
    """Apply Transpose."""
    return places.transpose(node.attributes["perm"].as_ints() if "perm" in node.attributes else None)


def _reshape(_: ir.Node, places: Any, after: tuple[int, ...]) -> Any:
    """Apply Reshape and its kin."""
    return places.reshape(after) if places.size == int(np.prod(after)) else None


def _expand(_: ir.Node, places: Any, after: tuple[int, ...]) -> Any:
    """Apply Expand."""
    return np.broadcast_to(places, after)


_MOVED: dict[str, Callable[[ir.Node, Any, tuple[int, ...]], Any]] = {
    "Slice": _slice,
    "Gather": _gather,
    "Transpose": _transpose,
    "Expand": _expand,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
}
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(_MOVED, _moved),
    **dict.fromkeys(_REDUCTIONS.split(), _reduced),
    **dict.fromkeys(("Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization"), _along),
    "Concat": _concat,
    "MatMul": _matmul,
    "Gemm": _gemm,
}
_DISCRETE = "Shape Size ArgMax ArgMin NonZero Equal Greater GreaterOrEqual Less LessOrEqual Not And Or Xor IsNaN IsInf"
_NO_FLOW = frozenset(_DISCRETE.split())
_NARROWS = {"Slice", "Gather"}  # need a part of their input even where all of their output is needed
