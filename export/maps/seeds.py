"""
Targets other than a class's logit, inside the graph.

In: logits (N, C) and the class explained. Out: what starts at the logits, (N, C), for a sweep to carry back to a layer.
The NumPy forms are `finer_seed` of `camrt.methods.finercam` and `contrastive` of `camrt.methods.relevancecam`.
"""

from __future__ import annotations

import onnx_ir as ir

from camrt.errors import MethodError

from ..vjp.emit import Emit, dims

__all__ = ["against_all", "contrast"]

RANKS = 3  # references: the three classes whose logits are nearest


def contrast(e: Emit, logits: ir.Value, target: ir.Value) -> ir.Value:
    """
    Return d T / d logits of ``T = s_c - sum of q_d s_d``, q the softmax over the reference logits.

    Parameters
    ----------
    e : Emit
        Receives the nodes.
    logits : onnx_ir.Value
        Scores s (N, C).
    target : onnx_ir.Value
        Classes c (N,), int64.

    Returns
    -------
    onnx_ir.Value
        1 at c and ``-q_d (1 + s_d - sum of q_j s_j)`` at the references, (N, C).

    Raises
    ------
    MethodError
        If there is no other class.

    References
    ----------
    Zhang et al. 2025, Finer-CAM, arXiv:2501.11309.
    """
    classes, double = int(dims(logits)[1]), int(ir.DataType.DOUBLE)
    kept = min(RANKS, classes - 1)
    if kept < 1:
        raise MethodError(f"finercam contrasts a class with others; this model has {classes} class")
    scores, chosen = e.Cast(logits, to=double), e.Unsqueeze(target, e.const([1]))
    is_chosen = _is_chosen(e, classes, target)
    distance = e.Abs(e.Sub(scores, e.GatherElements(scores, chosen, axis=1)))
    distance = e.Where(is_chosen, e.scalar(-1, distance), distance)  # the class itself comes first
    count = e.const([kept + 1])
    _, order = e.node("TopK", [distance, count], {"axis": 1, "largest": 0, "sorted": 1}, outputs=2)
    order.dtype = ir.DataType.INT64
    references = e.Slice(order, e.const([1]), e.const([kept + 1]), e.const([1]))
    found = e.GatherElements(scores, references, axis=1)
    odds = e.Softmax(found, axis=1)
    mean = e.ReduceSum(e.Mul(odds, found), e.const([1]), keepdims=1)
    share = e.Mul(odds, e.Add(e.Sub(found, mean), e.scalar(1, found)))
    seed = e.ScatterElements(e.Cast(is_chosen, to=double), references, e.Neg(share), axis=1)
    return e.CastLike(seed, logits)


def against_all(e: Emit, logits: ir.Value, target: ir.Value) -> ir.Value:
    """
    Return the relevance that Relevance-CAM starts from: 1 at the class, -1/C at all others.

    Parameters
    ----------
    e : Emit
        Receives the nodes.
    logits : onnx_ir.Value
        Scores (N, C); only their number and type matter.
    target : onnx_ir.Value
        Classes (N,), int64.

    Returns
    -------
    onnx_ir.Value
        Relevance of the logits, (N, C).

    References
    ----------
    Lee et al. 2021, Relevance-CAM, CVPR.
    """
    classes = int(dims(logits)[1])
    return e.Where(_is_chosen(e, classes, target), e.scalar(1, logits), e.scalar(-1 / classes, logits))


def _is_chosen(e: Emit, classes: int, target: ir.Value) -> ir.Value:
    """Tell each image's class among all; (N, C)."""
    return e.Equal(e.const(list(range(classes))), e.Unsqueeze(target, e.const([1])))
