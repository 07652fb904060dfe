"""
Methods built on a leading principal component, inside the graph.

A graph of standard operators has no eigenvalue solver, so the leading eigenvector is left over by squaring: with
eigenvalues 0 <= ... <= l2 <= l1, the matrix to the power 2^s holds l2 in the proportion (l2 / l1)^(2^s). Twenty squarings
tell eigenvalues apart that differ by a 50,000th, a sixtieth of what the methods flag as a tie; all of it is in double
precision, as in the NumPy form.

In: the emitter, activations and gradients (N, K, h, w). Out: the signed raw map (N, h, w), with the sign that METHODS rules.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..vjp.emit import Emit, dims
from .table import in_graph

__all__ = ["eigencam", "eigengradcam", "kpcacam"]

SQUARINGS = 20
SIGN_BAND = 0.999  # entries within a thousandth of the largest count as largest: rounding cannot turn a sign
CELLS = [1, 2]
DOUBLE = ir.DataType.DOUBLE


@in_graph("eigencam", "paper", needs=("acts",))
def eigencam(e: Emit, acts: ir.Value) -> ir.Value:
    """Cells projected on the first right singular vector, turned towards the sum over k of A_k (Muhammad 2020)."""
    maps = _leading(e, acts, center=False)
    along = e.ReduceSum(e.Mul(maps, e.ReduceSum(acts, e.const([1]), keepdims=0)), e.const(CELLS), keepdims=1)
    return _turned(e, maps, e.Less(along, e.scalar(0, along)))


@in_graph("eigengradcam", "centred")
def eigengradcam(e: Emit, acts: ir.Value, grads: ir.Value) -> ir.Value:
    """Cells of G_k A_k, each k centred, projected on the first axis; the largest magnitude positive."""
    product = e.Mul(grads, acts)
    product.shape = acts.shape
    return _upright(e, _leading(e, product, center=True))


@in_graph("kpcacam", "pytorch-grad-cam", needs=("acts",))
def kpcacam(e: Emit, acts: ir.Value) -> ir.Value:
    """First component of the centred matrix tanh(<a, b> / K + 1) over pairs of cells (Karmani 2024)."""
    _, k, h, w = (int(d) if isinstance(d, int) else 0 for d in dims(acts))
    channels = _channels(e, acts, center=True)
    inner = e.MatMul(e.Transpose(channels, perm=[0, 2, 1]), channels)
    matrix = e.Tanh(e.Add(e.Mul(inner, e.scalar(1 / k, inner)), e.scalar(1, inner)))
    noise = e.Mul(e.ReduceMax(e.Abs(matrix), e.const(CELLS), keepdims=1), e.scalar(1e-13 * h * w, matrix))
    columns, rows = (e.ReduceMean(matrix, e.const([axis]), keepdims=1) for axis in (1, 2))
    centred = e.Add(e.Sub(e.Sub(matrix, columns), rows), e.ReduceMean(columns, e.const([2]), keepdims=1))
    bound = e.ReduceL2(centred, e.const(CELLS), keepdims=1)  # no eigenvalue is larger: adding it leaves none negative
    vector = _top(e, e.Add(centred, e.Mul(bound, e.const(np.eye(h * w)))), h * w)
    value = _quadratic(e, vector, centred)
    root = e.Sqrt(e.Where(e.Greater(value, noise), value, e.scalar(0, value)))
    return _upright(e, _as_maps(e, e.Mul(root, vector), acts))


def _leading(e: Emit, tensor: ir.Value, *, center: bool) -> ir.Value:
    """Return what `camrt.kernels.leading_component` gives: (N, K, h, w) -> (N, h, w)."""
    _, k, h, w = (int(d) if isinstance(d, int) else 0 for d in dims(tensor))
    plain = _channels(e, tensor, center=False)
    energy = e.ReduceSumSquare(plain, e.const(CELLS), keepdims=1)
    channels = _channels(e, tensor, center=True) if center else plain
    turned = e.Transpose(channels, perm=[0, 2, 1])
    by_cells = h * w <= k
    gram = e.MatMul(turned, channels) if by_cells else e.MatMul(channels, turned)
    vector = _top(e, gram, min(k, h * w))
    value = e.Sqrt(e.Relu(_quadratic(e, vector, gram)))
    found = e.Mul(value, vector) if by_cells else e.MatMul(vector, channels)
    smallest = 1e-12 if tensor.dtype == DOUBLE else 1e-6
    is_nothing = e.LessOrEqual(value, e.Mul(e.Sqrt(energy), e.scalar(smallest, energy)))
    return _as_maps(e, e.Where(is_nothing, e.scalar(0, found), _signed(e, found, h * w)), tensor)


def _channels(e: Emit, tensor: ir.Value, *, center: bool) -> ir.Value:
    """Return (N, K, h, w) as (N, K, Z) in double precision, each channel less its mean if asked."""
    _, k, h, w = (int(d) if isinstance(d, int) else 0 for d in dims(tensor))
    channels = e.Reshape(e.Cast(tensor, to=int(DOUBLE)), e.const([-1, k, h * w]))
    return e.Sub(channels, e.ReduceMean(channels, e.const([2]), keepdims=1)) if center else channels


def _top(e: Emit, matrix: ir.Value, n: int) -> ir.Value:
    """Return the leading eigenvector (N, 1, n) of matrices (N, n, n) without negative eigenvalues."""
    diagonal, axes = e.const(np.eye(n)), e.const(CELLS)
    power = _over(e, matrix, e.ReduceSum(e.Mul(matrix, diagonal), axes, keepdims=1))
    for _ in range(SQUARINGS):  # the trace of the square is the sum of the squares
        power = _over(e, e.MatMul(power, power), e.ReduceSumSquare(power, axes, keepdims=1))
    largest = e.ArgMax(e.ReduceSum(e.Mul(power, diagonal), e.const([2]), keepdims=0), axis=1, keepdims=1)
    picked = e.Cast(e.Equal(e.const(list(range(n))), largest), to=int(DOUBLE))
    column = _unit(e, e.MatMul(e.Reshape(picked, e.const([-1, 1, n])), power))
    return _unit(e, e.MatMul(column, matrix))  # once more with the matrix itself: takes the rounding of squaring out


def _unit(e: Emit, vector: ir.Value) -> ir.Value:
    """Scale vectors (N, 1, n) to length 1; zero stays zero."""
    return _over(e, vector, e.ReduceL2(vector, e.const([2]), keepdims=1))


def _over(e: Emit, value: ir.Value, divisor: ir.Value) -> ir.Value:
    """Divide, by 1 where the divisor is zero."""
    return e.Div(value, e.Where(e.Equal(divisor, e.scalar(0, divisor)), e.scalar(1, divisor), divisor))


def _quadratic(e: Emit, vector: ir.Value, matrix: ir.Value) -> ir.Value:
    """Return v M v' as (N, 1, 1)."""
    return e.ReduceSum(e.Mul(e.MatMul(vector, matrix), vector), e.const([2]), keepdims=1)


def _signed(e: Emit, found: ir.Value, n: int) -> ir.Value:
    """Turn (N, 1, Z) so that the first entry of (nearly) the largest magnitude is positive."""
    size, axis = e.Abs(found), e.const([2])
    bound = e.Mul(e.ReduceMax(size, axis, keepdims=1), e.scalar(SIGN_BAND, size))
    first = e.ArgMax(e.Cast(e.GreaterOrEqual(size, bound), to=int(ir.DataType.INT32)), axis=2, keepdims=1)
    entry = e.Where(e.Equal(e.const(list(range(n))), first), found, e.scalar(0, found))
    entry = e.ReduceSum(entry, axis, keepdims=1)
    return _turned(e, found, e.Less(entry, e.scalar(0, entry)))


def _as_maps(e: Emit, flat: ir.Value, like: ir.Value) -> ir.Value:
    """Return (N, 1, Z) as (N, h, w) of the element type of `like`."""
    _, _, h, w = (int(d) if isinstance(d, int) else 0 for d in dims(like))
    return e.Cast(e.Reshape(flat, e.const([-1, h, w])), to=int(like.dtype or DOUBLE))


def _upright(e: Emit, maps: ir.Value) -> ir.Value:
    """Turn maps whose smallest value is further from zero than their largest."""
    low, high = (e.Abs(e.node(op, [maps, e.const(CELLS)], {"keepdims": 1})[0]) for op in ("ReduceMin", "ReduceMax"))
    return _turned(e, maps, e.Greater(low, high))


def _turned(e: Emit, value: ir.Value, is_wrong: ir.Value) -> ir.Value:
    """Negate where wrong."""
    return e.Where(is_wrong, e.Neg(value), value)
