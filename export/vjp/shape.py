"""
Gradient rules of what moves, repeats, joins or cuts without changing a value.

Sizes, axes and pads must be constants; dimensions that a rule need not count may be symbolic.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from .along import Spot, place, untake
from .emit import Dim, Emit, dims
from .fixed import is_fixed, require_fixed
from .known import axis_of, given, integers, is_float, nothing, optional_input, refuse, size_of
from .table import vjp

Cotangents = Sequence[ir.Value | None]

vjp("Constant", "ConstantOfShape", "EyeLike", "Shape", "Size")(nothing)


@vjp("Range")
def range_(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = start + delta i  =>  nothing, from constants; how many numbers there are decides the shape."""
    if is_float(node.outputs[0]):
        require_fixed(node, node.inputs, "bounds")
    return None, None, None


@vjp("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshaped(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x in another shape  =>  dx = g in the shape of x."""
    return (e.reshape_like(g, given(node)), *(None,) * (len(node.inputs) - 1))


@vjp("Transpose")
def transpose(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x, axes in the order perm  =>  dx = g, axes in the inverse order."""
    rank = len(dims(given(node)))
    perm = list(node.attributes.get_ints("perm", tuple(reversed(range(rank)))))
    return (e.Transpose(g, perm=[perm.index(axis) for axis in range(rank)]),)


@vjp("Expand", broadcasts=True)
def expand(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x broadcast  =>  dx = g, summed back by the sweep."""
    return g, None


@vjp("Tile")
def tile(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = copies of x side by side  =>  dx = the sum of g over the copies."""
    for axis, count in enumerate(integers(node, 1, "repeats") or []):
        if count > 1:
            g = e.Sum(*e.node("Split", [g], {"axis": axis, "num_outputs": count}, outputs=count))
    return g, None


@vjp("Concat")
def concat(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = a and b side by side  =>  da, db = the parts of g; constant parts get none."""
    parts = [given(node, i) for i in range(len(node.inputs))]
    axis = axis_of(node, len(dims(parts[0])))
    lengths = [dims(part)[axis] for part in parts]
    if len(parts) == 1:
        return (g,)
    moving = [i for i, part in enumerate(parts) if not is_fixed(part)]
    if len(moving) == 1 and all(isinstance(length, int) for length in lengths):
        start = sum(int(length) for length in lengths[: moving[0]])
        ends = [start + int(lengths[moving[0]])]
        piece = e.Slice(g, e.const([start], "starts"), e.const(ends, "ends"), e.const([axis], "axes"))
        return tuple(piece if i == moving[0] else None for i in range(len(parts)))
    return tuple(e.node("Split", [g, _lengths(e, parts, axis)], {"axis": axis}, outputs=len(parts)))


def _lengths(e: Emit, parts: Sequence[ir.Value], axis: int) -> ir.Value:
    """Return the lengths of `parts` along `axis`: a constant where they are static, read at run time otherwise."""
    lengths = [dims(part)[axis] for part in parts]
    if all(isinstance(length, int) for length in lengths):
        return e.const([int(length) for length in lengths], "split")
    return e.Concat(*(e.Shape(part, start=axis, end=axis + 1) for part in parts), axis=0)


@vjp("Split", every_output=True)
def split(e: Emit, node: ir.Node, *cotangents: ir.Value | None) -> Cotangents:
    """a, b, ... = parts of x  =>  dx = da, db, ... side by side, zeros for a part that nothing reaches."""
    x = given(node)
    shape = dims(x)
    axis = axis_of(node, len(shape))
    reached = [i for i, g in enumerate(cotangents) if g is not None]
    first, last = reached[0], reached[-1]
    pieces = [
        _zeros_like(e, part) if g is None else g
        for part, g in zip(node.outputs[first : last + 1], cotangents[first : last + 1], strict=True)
    ]
    joined = pieces[0] if len(pieces) == 1 else e.Concat(*pieces, axis=axis)
    rest = (None,) * (len(node.inputs) - 1)
    if len(reached) == len(cotangents) or last - first + 1 == len(cotangents):
        return joined, *rest
    lengths = [size_of(node, dims(part), axis) for part in node.outputs]
    inner = [*shape[:axis], sum(lengths[first : last + 1]), *shape[axis + 1 :]]
    spot = Spot(sum(lengths[:first]), 1, sum(lengths))
    return place(e, joined, inner, {axis: spot}, node), *rest


def _zeros_like(e: Emit, value: ir.Value) -> ir.Value:
    """Return zeros in the shape of `value`."""
    zero = np.zeros(1, e.numpy_dtype(value))
    return e.ConstantOfShape(e.shape_of(value), value=ir.tensor(zero))


@vjp("Slice")
def slice_(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x[start:end:step]  =>  dx = zeros with g at these positions."""
    shape = dims(given(node))
    starts, ends = integers(node, 1, "starts") or [], integers(node, 2, "ends") or []
    axes = integers(node, 3, "axes") or list(range(len(starts)))
    steps = integers(node, 4, "steps") or [1] * len(starts)
    spots = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step == 1 and start == 0 and end >= np.iinfo(np.int32).max:
            continue
        axis %= len(shape)
        size = size_of(node, shape, axis)
        spots[axis] = Spot(range(size)[start:end:step].start, step, size)
    return place(e, g, dims(node.outputs[0]), spots, node), *(None,) * (len(node.inputs) - 1)


@vjp("Pad")
def pad(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = x within a border  =>  dx = g cut to x, and added to it what the border repeats of x."""
    shape = dims(given(node))
    pads, axes = integers(node, 1, "pads") or [], integers(node, 3, "axes") or list(range(len(shape)))
    mode = node.attributes.get_string("mode", "constant")
    borders = {axis % len(shape): (pads[i], pads[len(axes) + i]) for i, axis in enumerate(axes)}
    borders = {axis: border for axis, border in borders.items() if any(border)}
    rest = (None,) * (len(node.inputs) - 1)
    if mode == "constant":
        if not is_fixed(optional_input(node, 2)):
            raise refuse(node, "the value that fills its border is computed")
        return _cut(e, g, len(shape), borders), *rest
    if min((n for border in borders.values() for n in border), default=0) < 0:
        raise refuse(node, f"negative pads in mode {mode!r}")
    current: list[Dim] = list(dims(node.outputs[0]))
    for axis, border in borders.items():
        size = size_of(node, shape, axis)
        index = np.pad(np.arange(size), border, mode=mode)  # type: ignore[call-overload]
        g = untake(e, g, current, axis, index, size, node)
        current[axis] = size
    return g, *rest


def _cut(e: Emit, g: ir.Value, rank: int, borders: dict[int, tuple[int, int]]) -> ir.Value:
    """Remove positive borders and put back zeros for negative ones."""
    cut = [axis for axis, border in borders.items() if max(border) > 0]
    if cut:
        starts = [max(borders[axis][0], 0) for axis in cut]
        ends = [-borders[axis][1] if borders[axis][1] > 0 else np.iinfo(np.int64).max for axis in cut]
        g = e.Slice(g, e.const(starts, "starts"), e.const(ends, "ends"), e.const(cut, "axes"))
    back = [max(-borders.get(axis, (0, 0))[end], 0) for end in (0, 1) for axis in range(rank)]
    return e.Pad(g, e.const(back, "pads")) if any(back) else g


@vjp("DepthToSpace")
def depth_to_space(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = channels of x as b x b pixels  =>  dx = SpaceToDepth(g), channels reordered for mode CRD."""
    block = node.attributes.get_int("blocksize", 1)
    dx = e.SpaceToDepth(g, blocksize=block)
    if node.attributes.get_string("mode", "DCR") == "CRD":
        channels = size_of(node, dims(given(node)), 1)
        order = np.arange(channels).reshape(block * block, -1).T.ravel()
        dx = e.Gather(dx, e.const(order, "channels"), axis=1)
    return (dx,)


@vjp("SpaceToDepth")
def space_to_depth(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = b x b pixels of x as channels  =>  dx = DepthToSpace(g)."""
    mode = node.attributes.get_string("mode", "DCR")
    return (e.DepthToSpace(g, blocksize=node.attributes.get_int("blocksize", 1), mode=mode),)


@vjp("Trilu")
def triangle(e: Emit, node: ir.Node, g: ir.Value) -> Cotangents:
    """y = the upper or lower triangle of x  =>  dx = that of g."""
    rest = node.inputs[1:]
    return e.Trilu(g, *rest, upper=node.attributes.get_int("upper", 1)), *(None,) * len(rest)
