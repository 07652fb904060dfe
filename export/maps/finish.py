"""
From raw maps to a heatmap inside the graph: ReLU, resize, min-max, and the fusion of several layers.

In: the emitter and signed maps (N, h, w). Out: a heatmap (N, H, W) in [0, 1], and which maps had no contrast. The NumPy
form is `camrt.pipeline` and `camrt.fuse`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import onnx_ir as ir

from ..vjp.emit import Emit, described, dims

__all__ = ["finished", "fused", "resized", "scaled"]


def finished(e: Emit, raw: ir.Value, size: tuple[int, int], *, relu: bool = True) -> tuple[ir.Value, ir.Value]:
    """
    Take a raw map to a heatmap: ReLU, bilinear resize with half-pixel centres, min-max.

    Parameters
    ----------
    e : Emit
        Receives the nodes.
    raw : onnx_ir.Value
        Signed maps (N, h, w).
    size : tuple of int
        ``(H, W)``.
    relu : bool, default True
        Whether negative parts are cut off.

    Returns
    -------
    heat : onnx_ir.Value
        In [0, 1], (N, H, W); all zero where degenerate.
    degenerate : onnx_ir.Value
        Booleans (N,): ``max - min <= 1e-6 max(abs(max), abs(min))``.
    """
    positive = described(e.Relu(raw), raw) if relu else raw
    return scaled(e, resized(e, positive, size), signed=not relu)


def resized(e: Emit, maps: ir.Value, size: tuple[int, int], *, corners: bool = False) -> ir.Value:
    """
    Resize bilinearly, with half-pixel centres and the border repeated.

    It is a matrix product on either side, which ONNX Runtime does in a quarter of the time of its ``Resize``.

    Parameters
    ----------
    e : Emit
        Receives the nodes.
    maps : onnx_ir.Value
        Maps (N, h, w).
    size : tuple of int
        ``(H, W)``.
    corners : bool, default False
        Let the centres of the corner cells meet instead of the edges of the grids.

    Returns
    -------
    onnx_ir.Value
        Maps (N, H, W); the given ones where they have that size.
    """
    n, h, w = dims(maps)
    if (h, w) == size:
        return maps
    dtype = e.numpy_dtype(maps)
    rows, columns = (_samples(int(n), m, corners).astype(dtype) for n, m in ((h, size[0]), (w, size[1])))
    large = e.MatMul(e.const(rows), e.MatMul(maps, e.const(columns.T)))
    large.shape = ir.Shape([n, *size])
    return large


def scaled(e: Emit, maps: ir.Value, *, signed: bool = False) -> tuple[ir.Value, ir.Value]:
    """
    Scale each map to [0, 1] by min-max, a constant one to zero.

    Parameters
    ----------
    e : Emit
        Receives the nodes.
    maps : onnx_ir.Value
        Maps (N, H, W).
    signed : bool, default False
        Whether they may be negative.

    Returns
    -------
    heat, degenerate : onnx_ir.Value
        As `finished` gives them.
    """
    spatial = e.const([1, 2])
    low, high = e.ReduceMin(maps, spatial, keepdims=1), e.ReduceMax(maps, spatial, keepdims=1)
    span, largest = e.Sub(high, low), e.Max(e.Abs(low), e.Abs(high)) if signed else high  # else 0 <= low <= high
    tolerance = 1e-12 if maps.dtype == ir.DataType.DOUBLE else 1e-6
    is_flat = e.LessOrEqual(span, e.Mul(largest, e.scalar(tolerance, maps)))
    heat = described(e.Div(e.Sub(maps, low), e.Where(is_flat, e.scalar(float("inf"), maps), span)), maps)
    return heat, e.Reshape(is_flat, e.const([-1]))


def fused(
    e: Emit, raws: Sequence[ir.Value], size: tuple[int, int], *, how: str, relu: bool = True
) -> tuple[ir.Value, ir.Value]:
    """
    Join the raw maps of several layers into one heatmap, as `camrt.fuse` does.

    Parameters
    ----------
    e : Emit
        Receives the nodes.
    raws : sequence of onnx_ir.Value
        Signed maps (N, h_l, w_l), the shallowest layer first.
    size : tuple of int
        ``(H, W)``.
    how : {"mean", "product", "layercam"}
        The fusion; without effect on one layer.
    relu : bool, default True
        Whether negative parts are cut off.

    Returns
    -------
    heat, degenerate : onnx_ir.Value
        As `finished` gives them.
    """
    if len(raws) == 1:
        return finished(e, raws[0], size, relu=relu)
    if how == "layercam":
        return finished(e, _lifted(e, raws), size, relu=relu)
    heats = [finished(e, raw, size, relu=relu)[0] for raw in raws]
    if how == "product":
        return scaled(e, described(reduce(e.Mul, heats), heats[0]))
    total = e.Div(reduce(e.Add, heats), e.scalar(len(heats), heats[0]))
    return scaled(e, described(total, heats[0]))


def _lifted(e: Emit, raws: Sequence[ir.Value]) -> ir.Value:
    """LayerCAM over layers: each map over its maximum, all but the last two through tanh(2 m), the largest of each cell."""
    grids = [dims(raw)[1:] for raw in raws]
    largest = max(int(h) for h, _ in grids), max(int(w) for _, w in grids)
    lifted = []
    for depth, raw in enumerate(raws):
        positive = e.Relu(raw)
        peak = e.ReduceMax(positive, e.const([1, 2]), keepdims=1)
        zero, one = e.scalar(0, raw), e.scalar(1, raw)
        unit = e.Div(positive, e.Where(e.Equal(peak, zero), one, peak))
        if depth < len(raws) - 2:
            unit = e.Tanh(e.Mul(unit, e.scalar(2, raw)))
        lifted.append(resized(e, described(unit, raw), largest))
    joined = e.Max(*lifted)
    return described(joined, lifted[0])


def _samples(n: int, m: int, corners: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the (m, n) matrix that samples n cells at m places, the border repeated."""
    matrix = np.zeros((m, n))
    unit = max(m - 1, 1) if corners else 2 * m  # places are counted in this fraction of a cell: exact
    for t in range(m):
        place = t * (n - 1) if corners else (2 * t + 1) * n - m
        cell, rest = divmod(min(max(place, 0), unit * (n - 1)), unit)
        matrix[t, cell] += 1 - rest / unit
        if rest:
            matrix[t, cell + 1] += rest / unit
    return matrix
