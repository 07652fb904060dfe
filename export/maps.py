"""
Methods inside the graph: a layer's activations and gradients become its raw map as ordinary nodes.

One small function a method, for the definitions that need nothing but A and G of one layer. A program that ends in the
raw map hands (h, w) numbers an image to the caller instead of 2 K (h, w), and its reductions run in ONNX Runtime. The
NumPy form in `camrt.methods` is the specification; a test holds the two together.

In: the emitter, activations (N, K, h, w), and their gradient of the same shape, or (N, K, 1, 1) where it is the same at
every position, as before global average pooling. Out: the signed raw map (N, h, w), before ReLU and scaling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from .vjp.emit import Emit, dims

__all__ = ["ASSUMES_POSITIVE", "MAPS", "MapFunction", "finished", "in_graph", "is_signed"]

CANCELS = 4e-6  # of gradcampp's denominator: a millionth of its two terms, which both have size 2 where they cancel
MapFunction = Callable[[Emit, ir.Value, ir.Value], ir.Value]
MAPS: dict[str, MapFunction] = {}
ASSUMES_POSITIVE: set[str] = set()  # methods that need A >= 0: their programs also tell where it is not


def in_graph(method: str, *, assumes_positive: bool = False) -> Callable[[MapFunction], MapFunction]:
    """
    Register the decorated function as a method's map.

    Parameters
    ----------
    method : str
        The method's id; the function is the form of its default variant.
    assumes_positive : bool, default False
        Whether the program also tells which images have negative activations.

    Returns
    -------
    callable
        The decorator, which returns the function unchanged.
    """

    def register(function: MapFunction) -> MapFunction:
        MAPS[method] = function
        if assumes_positive:
            ASSUMES_POSITIVE.add(method)
        return function

    return register


def is_signed(e: Emit, acts: ir.Value) -> ir.Value:
    """
    Tell which images have a negative activation.

    Parameters
    ----------
    e : Emit
        Receives the nodes.
    acts : onnx_ir.Value
        Activations (N, K, h, w).

    Returns
    -------
    onnx_ir.Value
        Booleans (N,).
    """
    return e.Less(e.ReduceMin(acts, e.const([1, 2, 3]), keepdims=0), e.scalar(0, acts))


def finished(e: Emit, raw: ir.Value, size: tuple[int, int]) -> tuple[ir.Value, ir.Value]:
    """
    Take a raw map to a heatmap: ReLU, bilinear resize with half-pixel centres, min-max.

    The resize is a matrix product on either side, which ONNX Runtime does in a quarter of the time of its ``Resize``.

    Parameters
    ----------
    e : Emit
        Receives the nodes.
    raw : onnx_ir.Value
        Signed maps (N, h, w).
    size : tuple of int
        ``(H, W)``.

    Returns
    -------
    heat : onnx_ir.Value
        In [0, 1], (N, H, W); all zero where degenerate.
    degenerate : onnx_ir.Value
        Booleans (N,): ``max - min <= 1e-6 max(abs(max), abs(min))``.
    """
    _, h, w = dims(raw)
    dtype, spatial = e.numpy_dtype(raw), e.const([1, 2])
    rows, columns = _samples(int(h), size[0]).astype(dtype), _samples(int(w), size[1]).T.astype(dtype)
    large = e.MatMul(e.const(rows), e.MatMul(e.Relu(raw), e.const(columns)))
    low, high = e.ReduceMin(large, spatial, keepdims=1), e.ReduceMax(large, spatial, keepdims=1)
    span = e.Sub(high, low)
    size_of = e.Max(e.Abs(low), e.Abs(high))
    is_flat = e.LessOrEqual(span, e.Mul(size_of, e.scalar(1e-12 if dtype == np.float64 else 1e-6, raw)))
    shifted = e.Sub(large, e.Where(is_flat, high, low))  # a constant map has nothing above its largest value
    heat = e.Relu(e.Div(shifted, e.Where(is_flat, e.scalar(1, raw), span)))
    return heat, e.Reshape(is_flat, e.const([-1]))


def _samples(n: int, m: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the (m, n) matrix that samples n cells at m half-pixel centres, the border repeated."""
    matrix = np.zeros((m, n))
    for t in range(m):
        place = min(max((2 * t + 1) * n - m, 0), 2 * m * (n - 1))  # in units of a 2m-th of a cell: exact
        cell, rest = divmod(place, 2 * m)
        matrix[t, cell] += 1 - rest / (2 * m)
        if rest:
            matrix[t, cell + 1] += rest / (2 * m)
    return matrix


def _weighted(e: Emit, acts: ir.Value, weights: ir.Value) -> ir.Value:
    """Return the sum over K of weights (N, K, 1, 1) times activations, as one matrix product an image."""
    _, k, h, w = dims(acts)
    flat = e.Reshape(acts, e.const([-1, int(k), int(h) * int(w)]))
    product = e.MatMul(e.Reshape(weights, e.const([-1, 1, int(k)])), flat)
    return e.Reshape(product, e.const([-1, int(h), int(w)]))


def _is_uniform(grads: ir.Value) -> bool:
    """Tell a gradient that is the same at every position, given as (N, K, 1, 1)."""
    return dims(grads)[2:] == (1, 1)


def _combined(e: Emit, acts: ir.Value, weights: ir.Value, is_uniform: bool) -> ir.Value:
    """Return the sum over K of element-wise weights times activations; uniform weights make it a matrix product."""
    return _weighted(e, acts, weights) if is_uniform else e.ReduceSum(e.Mul(weights, acts), e.const([1]), keepdims=0)


@in_graph("gradcam")
def gradcam(e: Emit, acts: ir.Value, grads: ir.Value) -> ir.Value:
    """Sum over k of mean(G_k) A_k (Selvaraju 2017, eqs. 1-2)."""
    return _weighted(e, acts, grads if _is_uniform(grads) else e.ReduceMean(grads, e.const([2, 3]), keepdims=1))


@in_graph("hirescam")
def hirescam(e: Emit, acts: ir.Value, grads: ir.Value) -> ir.Value:
    """Sum over k of G_k A_k, element by element (Draelos and Carin 2020)."""
    return _combined(e, acts, grads, _is_uniform(grads))


@in_graph("elementwisecam")
def elementwisecam(e: Emit, acts: ir.Value, grads: ir.Value) -> ir.Value:
    """Sum over k of ReLU(G_k A_k) (pytorch-grad-cam)."""
    return e.ReduceSum(e.Relu(e.Mul(grads, acts)), e.const([1]), keepdims=0)


@in_graph("layercam", assumes_positive=True)
def layercam(e: Emit, acts: ir.Value, grads: ir.Value) -> ir.Value:
    """Sum over k of ReLU(G_k) A_k (Jiang 2021)."""
    return _combined(e, acts, e.Relu(grads), _is_uniform(grads))


@in_graph("gradcampp", assumes_positive=True)
def gradcampp(e: Emit, acts: ir.Value, grads: ir.Value) -> ir.Value:
    """w_k = sum over g > 0 of g / (2 + g sum(A_k)), cells whose denominator cancels left out (Chattopadhay 2018, eq. 19)."""
    positive = e.Relu(grads)
    denominator = e.Add(e.Mul(positive, e.ReduceSum(acts, e.const([2, 3]), keepdims=1)), e.scalar(2, acts))
    cancels = e.LessOrEqual(e.Abs(denominator), e.scalar(CANCELS, acts))
    ratio = e.Div(positive, e.Where(cancels, e.scalar(float("inf"), acts), denominator))
    if not _is_uniform(grads):
        return _weighted(e, acts, e.ReduceSum(ratio, e.const([2, 3]), keepdims=1))
    _, _, h, w = dims(acts)
    return _weighted(e, acts, e.Mul(ratio, e.scalar(int(h) * int(w), acts)))
