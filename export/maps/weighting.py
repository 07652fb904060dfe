"""
Activations and weights become a map, and what is asked of activations on the way.

In: the emitter, activations (N, K, h, w) and weights of their shape, or (N, K, 1, 1). Out: a map (N, h, w).
"""

from __future__ import annotations

import onnx_ir as ir

from ..vjp.emit import Emit, dims

__all__ = ["combined", "is_signed", "is_uniform", "total", "weighted"]


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


def weighted(e: Emit, acts: ir.Value, weights: ir.Value) -> ir.Value:
    """Return the sum over K of weights (N, K, 1, 1) times activations, as one matrix product an image."""
    _, k, h, w = dims(acts)
    flat = e.Reshape(acts, e.const([-1, int(k), int(h) * int(w)]))
    product = e.MatMul(e.Reshape(weights, e.const([-1, 1, int(k)])), flat)
    return e.Reshape(product, e.const([-1, int(h), int(w)]))


def is_uniform(grads: ir.Value) -> bool:
    """Tell a gradient that is the same at every position, given as (N, K, 1, 1)."""
    return dims(grads)[2:] == (1, 1)


def combined(e: Emit, acts: ir.Value, weights: ir.Value, is_uniform: bool) -> ir.Value:
    """Return the sum over K of element-wise weights times activations; uniform weights make it a matrix product."""
    return weighted(e, acts, weights) if is_uniform else e.ReduceSum(e.Mul(weights, acts), e.const([1]), keepdims=0)


def total(e: Emit, values: ir.Value) -> ir.Value:
    """Sum over positions; (N, K, h, w) -> (N, K, 1, 1)."""
    return e.ReduceSum(values, e.const([2, 3]), keepdims=1)
