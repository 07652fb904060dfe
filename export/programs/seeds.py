"""
Seeds: the cotangent at the logits that a sweep starts from.

In: nothing (the caller feeds any vector), or class indices. Out: a tensor (N, C) of the logits' element type. Where it
is the one-hot row of a class, the head's product with it is read off its weights instead.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..vjp.emit import described, dims
from .draft import Draft

__all__ = ["seed_input", "take_rows", "target_seed"]


def seed_input(draft: Draft) -> ir.Value:
    """
    Declare the cotangent at the logits as an input.

    Parameters
    ----------
    draft : Draft
        Gets the input ``seed`` (N, C).

    Returns
    -------
    onnx_ir.Value
        The input.
    """
    return draft.new_input("seed", [draft.batch, draft.classes], draft.logits.dtype)


def target_seed(draft: Draft) -> ir.Value:
    """
    Turn class indices, -1 for the predicted one, into the cotangent of their logits inside the graph.

    Parameters
    ----------
    draft : Draft
        Gets the input ``target`` (N,) int64 and the output ``explained``, the classes meant.

    Returns
    -------
    onnx_ir.Value
        One-hot rows (N, C).
    """
    e = draft.emit
    target = draft.new_input("target", [draft.batch], ir.DataType.INT64)
    predicted = e.ArgMax(draft.scores, axis=1, keepdims=0)
    predicted.dtype = ir.DataType.INT64
    is_predicted = e.Less(target, e.const(np.zeros((), np.int64)))
    is_predicted.dtype = ir.DataType.BOOL
    chosen = e.Where(is_predicted, predicted, target)
    chosen.shape, chosen.dtype = ir.Shape([draft.batch]), ir.DataType.INT64
    draft.outputs["explained"] = chosen
    on_off = e.const(np.array([0, 1], e.numpy_dtype(draft.logits)))
    seed = e.OneHot(chosen, e.const(np.array(draft.classes, np.int64)), on_off, axis=1)
    return described(seed, draft.logits)


def take_rows(draft: Draft, seed: ir.Value, chosen: ir.Value) -> None:
    """
    Read one row of the head's weights a target instead of multiplying all of them by a one-hot seed.

    The product of a one-hot row and a matrix is that row of the matrix, to the bit, so ``Gather`` gives the same
    numbers; on a small network the product costs a tenth of the whole forward pass, all of it reading weights.

    Parameters
    ----------
    draft : Draft
        Swept already.
    seed : onnx_ir.Value
        As `target_seed` gives it.
    chosen : onnx_ir.Value
        The classes (N,) it stands for.
    """
    for use in list(seed.uses()):
        node, weights = use.node, use.node.inputs[1] if len(use.node.inputs) == 2 else None
        if use.idx != 0 or weights is None or not weights.is_initializer() or len(dims(weights)) != 2:
            continue
        turned = node.attributes.get_int("transB", 0)
        plain = (
            node.op_type == "Gemm"
            and node.attributes.get_float("alpha", 1.0) == 1
            and not node.attributes.get_int("transA", 0)
        )
        if not (plain or node.op_type == "MatMul"):
            continue
        rows = ir.node("Gather", [weights, chosen], {"axis": int(turned)}, name=f"{node.name}/rows")
        made = [rows]
        if turned:
            made.append(ir.node("Transpose", rows.outputs, {"perm": [1, 0]}, name=f"{node.name}/turned"))
        for new in made:
            new.outputs[0].name = f"{new.name}_output_0"
        draft.graph.insert_before(node, made)
        old = node.outputs[0]
        ir.convenience.replace_all_uses_with(old, described(made[-1].outputs[0], old))
        for name, value in draft.outputs.items():
            if value is old:
                draft.outputs[name] = made[-1].outputs[0]
