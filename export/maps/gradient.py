"""
Methods of activations and gradients, inside the graph.

One small function a method. In: the emitter, activations (N, K, h, w), and their gradient of the same shape, or
(N, K, 1, 1) where it is the same at every position, as before global average pooling. Out: the signed raw map (N, h, w),
before ReLU and scaling; with it the method's flags, where it has any.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import onnx_ir as ir

from ..vjp.emit import Emit, described, dims
from .finish import resized, scaled
from .table import Drawn, in_graph
from .weighting import combined, is_uniform, total, weighted

__all__ = [
    "cam",
    "elementwisecam",
    "fullgrad",
    "gradcam",
    "gradcampp",
    "hirescam",
    "layercam",
    "legrad",
    "liftcam",
    "xgradcam",
]

CANCELS = 4e-6  # of gradcampp's denominator: a millionth of its two terms, which both have size 2 where they cancel


@in_graph("relevancecam", "official", target="against_all", way="relevance", relu=False)
@in_graph("finercam", "official", target="contrast")
@in_graph("gradcam", "paper", direct=True)
def gradcam(e: Emit, acts: ir.Value, grads: ir.Value) -> ir.Value:
    """
    Sum over k of mean(G_k) A_k (Selvaraju 2017, eqs. 1-2).

    Finer-CAM is the same of another target, Relevance-CAM of relevance in place of gradients.
    """
    return weighted(e, acts, grads if is_uniform(grads) else e.ReduceMean(grads, e.const([2, 3]), keepdims=1))


@in_graph("hirescam", "official", direct=True)
def hirescam(e: Emit, acts: ir.Value, grads: ir.Value) -> ir.Value:
    """Sum over k of G_k A_k, element by element (Draelos and Carin 2020)."""
    return combined(e, acts, grads, is_uniform(grads))


@in_graph("elementwisecam", "pytorch-grad-cam", direct=True)
def elementwisecam(e: Emit, acts: ir.Value, grads: ir.Value) -> ir.Value:
    """Sum over k of ReLU(G_k A_k) (pytorch-grad-cam)."""
    return e.ReduceSum(e.Relu(e.Mul(grads, acts)), e.const([1]), keepdims=0)


@in_graph("layercam", "official", assumes_positive=True, fuse="layercam", direct=True)
def layercam(e: Emit, acts: ir.Value, grads: ir.Value) -> ir.Value:
    """Sum over k of ReLU(G_k) A_k (Jiang 2021)."""
    return combined(e, acts, e.Relu(grads), is_uniform(grads))


@in_graph("refinecam", "official", assumes_positive=True, fuse="product")
@in_graph("gradcampp", "paper", assumes_positive=True, direct=True)
def gradcampp(e: Emit, acts: ir.Value, grads: ir.Value) -> ir.Value:
    """w_k = sum over g > 0 of g / (2 + g sum(A_k)), cells whose denominator cancels left out (Chattopadhay 2018, eq. 19)."""
    positive = e.Relu(grads)
    denominator = e.Add(e.Mul(positive, total(e, acts)), e.scalar(2, acts))
    cancels = e.LessOrEqual(e.Abs(denominator), e.scalar(CANCELS, acts))
    ratio = e.Div(positive, e.Where(cancels, e.scalar(float("inf"), acts), denominator))
    if not is_uniform(grads):
        return weighted(e, acts, total(e, ratio))
    _, _, h, w = dims(acts)
    return weighted(e, acts, e.Mul(ratio, e.scalar(int(h) * int(w), acts)))


@in_graph("xgradcam", "paper", assumes_positive=True, direct=True)
def xgradcam(e: Emit, acts: ir.Value, grads: ir.Value) -> Drawn:
    """w_k = sum(G_k A_k) / sum(A_k), channels whose sum cancels skipped and counted (Fu 2020)."""
    summed = total(e, acts)
    skipped = e.LessOrEqual(e.Abs(summed), e.Mul(total(e, e.Abs(acts)), e.scalar(1e-6, acts)))
    if is_uniform(grads):
        weights = e.Where(skipped, e.scalar(0, acts), grads)
    else:
        weights = e.Div(total(e, e.Mul(grads, acts)), e.Where(skipped, e.scalar(float("inf"), acts), summed))
    count = e.ReduceSum(e.Cast(skipped, to=int(ir.DataType.INT64)), e.const([1, 2, 3]), keepdims=0)
    return weighted(e, acts, weights), {"skipped_channels": count}


@in_graph("fullgrad", "official", needs=("full", "size"), at_image=True, relu=False)
def fullgrad(e: Emit, full: Sequence[ir.Value], size: tuple[int, int]) -> ir.Value:
    """Sum of psi(x dT/dx) and psi(b dT/dz); psi: absolute value, min-max of the tensor, resize (Srinivas 2019, eq. 6)."""
    return reduce(e.Add, [_scaled_whole(e, term, size) for term in full])


@in_graph("legrad", "official", needs=("attention",))
def legrad(e: Emit, attention: ir.Value) -> ir.Value:
    """Sum over blocks of the mean over heads and queries of ReLU(d s^l / d A^l) (Bousselham 2024)."""
    return e.ReduceSum(attention, e.const([1]), keepdims=0)


def _scaled_whole(e: Emit, term: ir.Value, size: tuple[int, int]) -> ir.Value:
    """Scale a tensor (N, C, h, w) as a whole, add its channels, and resize between centres of the corner cells."""
    n, c, h, w = dims(term)
    flat = described(e.Reshape(e.Abs(term), e.const([-1, int(c) * int(h), int(w)])), term)
    flat.shape = ir.Shape([n, int(c) * int(h), w])
    unit, _ = scaled(e, flat)
    planes = e.Reshape(unit, e.const([-1, int(c), int(h), int(w)]))
    plane = described(e.ReduceSum(planes, e.const([1]), keepdims=0), term)
    plane.shape = ir.Shape([n, h, w])
    return resized(e, plane, size, corners=True)


@in_graph("liftcam", "official", way="lift")
def liftcam(e: Emit, acts: ir.Value, multipliers: ir.Value) -> ir.Value:
    """w_k = sum over cells of DeepLIFT's contributions m_k A_k against activations of zero (Jung and Oh 2021)."""
    shares = e.Mul(multipliers, total(e, acts)) if is_uniform(multipliers) else total(e, e.Mul(multipliers, acts))
    return weighted(e, acts, shares)


@in_graph("cam", "official", relu=False, linear_head=True)
def cam(e: Emit, acts: ir.Value, grads: ir.Value) -> ir.Value:
    """Sum over k of W_ck A_k (Zhou 2016, eq. 2); behind global average pooling W_ck is the sum over cells of G_k."""
    _, _, h, w = dims(acts)
    return weighted(e, acts, e.Mul(grads, e.scalar(int(h) * int(w), acts)) if is_uniform(grads) else total(e, grads))
