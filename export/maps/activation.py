"""
Methods of activations alone, inside the graph: the same map for every class.

In: the emitter and activations (N, K, h, w). Out: the signed raw map (N, h, w), or a finished heatmap (N, H, W).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..vjp.emit import Emit
from .table import in_graph
from .weighting import weighted

__all__ = ["fakecam", "fem", "lafam"]


@in_graph("lafam", "paper", needs=("acts",), relu=False)
def lafam(e: Emit, acts: ir.Value) -> ir.Value:
    """Mean over k of A_k (Karjauv and Albayrak 2024)."""
    return e.ReduceMean(acts, e.const([1]), keepdims=0)


@in_graph("fem", "pytorch-grad-cam", needs=("acts",))
def fem(e: Emit, acts: ir.Value) -> ir.Value:
    """w_k = fraction of cells where A_k is above its mean by more than two standard deviations (Fuad 2020)."""
    spatial = e.const([2, 3])
    mean = e.ReduceMean(acts, spatial, keepdims=1)
    apart = e.Sub(acts, mean)
    deviation = e.Sqrt(e.ReduceMean(e.Mul(apart, apart), spatial, keepdims=1))
    stands_out = e.Greater(acts, e.Add(mean, e.Mul(deviation, e.scalar(2, acts))))
    return weighted(e, acts, e.ReduceMean(e.CastLike(stands_out, acts), spatial, keepdims=1))


@in_graph("fakecam", "pixel", needs=("acts", "size"), gives="heatmap")
def fakecam(e: Emit, acts: ir.Value, size: tuple[int, int]) -> ir.Value:
    """Ones but for the top-left pixel (Poppi 2021)."""
    heat = np.ones((1, *size), e.numpy_dtype(acts))
    heat[0, 0, 0] = 0
    return e.Expand(e.const(heat), e.Concat(e.Shape(acts, start=0, end=1), e.const([1, 1]), axis=0))
