"""
Adjoints of what picks, places or mixes along axes: Slice, Pad, Gather and Resize share them.

`place` puts a tensor into a larger one of zeros at evenly spaced positions; `untake` is the adjoint of
``np.take(x, index, axis)`` for a constant index, by the cheapest of four ways; `contract` multiplies one axis by a
matrix. Shapes may hold symbolic dimensions wherever no position is counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from .emit import Dim, Emit
from .known import refuse, size_of

__all__ = ["Spot", "contract", "place", "reshape", "untake"]

Array = np.ndarray[Any, Any]
FARTHEST = np.iinfo(np.int64).min  # Slice's "up to and with index 0" for negative steps
MOST_RUNS = 4  # so many Slice + Pad are cheaper than a product with a one-hot matrix


class Spot(NamedTuple):
    """Where the entries of one axis go: ``start + step * i`` of `size` positions."""

    start: int
    step: int
    size: int


def reshape(e: Emit, g: ir.Value, old: Sequence[Dim], new: Sequence[Dim], node: ir.Node) -> ir.Value:
    """Reshape `g` from `old` to `new`; a symbol is copied while both shapes agree from the front, one may be left."""
    if tuple(old) == tuple(new):
        return g
    agree = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    target = [d if isinstance(d, int) else 0 if i < agree else -1 for i, d in enumerate(new)]
    if target.count(-1) > 1:
        raise refuse(node, f"more than one dimension of {tuple(new)} is not static")
    return e.Reshape(g, e.const(target, "shape"))


def place(e: Emit, g: ir.Value, shape: Sequence[Dim], spots: Mapping[int, Spot], node: ir.Node) -> ir.Value:
    """Return zeros with `g`, of shape `shape`, at ``spots[axis]`` along each axis; everything else stays."""
    lengths = {axis: size_of(node, shape, axis) for axis in spots}
    backward = [axis for axis, spot in spots.items() if spot.step < 0 and lengths[axis] > 1]
    if backward:
        ones = [-1] * len(backward)
        ends = [FARTHEST] * len(backward)
        g = e.Slice(
            g, e.const(ones, "starts"), e.const(ends, "ends"), e.const(backward, "axes"), e.const(ones, "steps")
        )
    forward = {axis: _forward(spot, lengths[axis]) for axis, spot in spots.items()}
    wide = {axis: spot for axis, spot in forward.items() if spot.step > 1}
    if wide:
        g, forward = _interleave(e, g, shape, wide, node), {**forward, **{a: _coarse(s) for a, s in wide.items()}}
    before, after = [0] * len(shape), [0] * len(shape)
    for axis, spot in forward.items():
        before[axis] = spot.start
        after[axis] = spot.size - spot.start - lengths[axis] * (wide[axis].step if axis in wide else 1)
    crop = [axis for axis, pad in enumerate(after) if pad < 0]
    if crop:
        ends = [after[axis] for axis in crop]
        g = e.Slice(g, e.const([0] * len(crop), "starts"), e.const(ends, "ends"), e.const(crop, "axes"))
    pads = before + [max(pad, 0) for pad in after]
    return e.Pad(g, e.const(pads, "pads")) if any(pads) else g


def _forward(spot: Spot, length: int) -> Spot:
    """Return the positions of `spot` in increasing order, adjacent where there is one alone."""
    if spot.step < 0:
        spot = Spot(spot.start + (length - 1) * spot.step, -spot.step, spot.size)
    return spot if length > 1 else spot._replace(step=1)


def _coarse(spot: Spot) -> Spot:
    """Return what is left to shift after interleaving, which shifts by less than a step."""
    return spot._replace(start=spot.start // spot.step * spot.step)


def _interleave(e: Emit, g: ir.Value, shape: Sequence[Dim], wide: Mapping[int, Spot], node: ir.Node) -> ir.Value:
    """Widen each entry along the axes `wide` to `step` entries, all zero but that at ``start % step``."""
    inner = {axis: axis + 1 + sum(other < axis for other in wide) for axis in wide}
    g = e.Unsqueeze(g, e.const(sorted(inner.values()), "axes"))
    rank = len(shape) + len(wide)
    pads = [0] * 2 * rank
    for axis, spot in wide.items():
        pads[inner[axis]] = spot.start % spot.step
        pads[rank + inner[axis]] = spot.step - 1 - spot.start % spot.step
    g = e.Pad(g, e.const(pads, "pads"))
    merged = [d * wide[axis].step if axis in wide and isinstance(d, int) else d for axis, d in enumerate(shape)]
    first = min(wide)
    return reshape(e, g, [*shape[:first], -1], merged, node)


def untake(e: Emit, g: ir.Value, shape: Sequence[Dim], axis: int, index: Array, size: int, node: ir.Node) -> ir.Value:
    """
    Return the adjoint of taking `index` (one-dimensional) of `size` entries along `axis`; `shape` is that of `g`.

    Evenly spaced indices are placed; distinct ones are gathered back; a few runs (a border that is repeated or
    mirrored) are placed one by one and summed; anything else is a product with a one-hot matrix.
    """
    index = np.where(index < 0, index + size, index)
    runs = _runs(index)
    if len(runs) == 1 and (runs[0].step or len(index) == 1):
        return place(e, g, shape, {axis: runs[0]._replace(size=size)}, node)
    if len(np.unique(index)) == len(index):
        source = np.full(size, len(index))
        source[index] = np.arange(len(index))
        if size > len(index):  # the others read a zero put at the end
            g = place(e, g, shape, {axis: Spot(0, 1, len(index) + 1)}, node)
        return e.Gather(g, e.const(source, "indices"), axis=axis)
    if len(runs) > MOST_RUNS:
        one_hot = np.eye(size, dtype=Emit.numpy_dtype(g))[index]
        return contract(e, g, len(shape), axis, one_hot)
    return e.Sum(*_placed_runs(e, g, shape, axis, runs, size, node))


def _placed_runs(
    e: Emit, g: ir.Value, shape: Sequence[Dim], axis: int, runs: Sequence[Spot], size: int, node: ir.Node
) -> list[ir.Value]:
    """Return each run of `g` at its place among `size` entries; a run that repeats one index is summed."""
    placed, at = [], 0
    for run in runs:
        piece = e.Slice(g, e.const([at], "starts"), e.const([at + run.size], "ends"), e.const([axis], "axes"))
        if run.step == 0:
            piece = e.ReduceSum(piece, e.const([axis], "axes"), keepdims=1)
        length = run.size if run.step else 1
        part = [*shape[:axis], length, *shape[axis + 1 :]]
        placed.append(place(e, piece, part, {axis: Spot(run.start, run.step or 1, size)}, node))
        at += run.size
    return placed


def _runs(index: Array) -> list[Spot]:
    """Cut `index` into evenly spaced runs, greedily; `size` is a run's own length."""
    runs, at = [], 0
    while at < len(index):
        step = int(index[at + 1] - index[at]) if at + 1 < len(index) else 1
        end = at + 1
        while end < len(index) and index[end] - index[end - 1] == step:
            end += 1
        runs.append(Spot(int(index[at]), step, end - at))
        at = end
    return runs


def contract(e: Emit, g: ir.Value, rank: int, axis: int, matrix: Array | ir.Value) -> ir.Value:
    """Return the sum over axis `axis` of `g` with the rows of `matrix`, (length of the axis, new length)."""
    if axis == rank - 2:
        turned = e.const(matrix.T, "matrix") if isinstance(matrix, np.ndarray) else e.Transpose(matrix, perm=[1, 0])
        return e.MatMul(turned, g)
    right = e.const(matrix, "matrix") if isinstance(matrix, np.ndarray) else matrix
    if axis == rank - 1:
        return e.MatMul(g, right)
    order = [*range(axis), *range(axis + 1, rank), axis]
    back = [order.index(i) for i in range(rank)]
    return e.Transpose(e.MatMul(e.Transpose(g, perm=order), right), perm=back)
