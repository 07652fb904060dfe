"""
Models in half precision, made to compute in float32.

In: a model with float16 or bfloat16 numbers, as read. Out: its float32 twin, the same model with the same weights where
every number is float32. Weights widen without loss; what goes is the rounding between operators. ONNX Runtime's CPU has
few kernels of either type, and gradients below float16's 6e-8 would vanish, so all programs are built of the twin, and
the manifest says so (``model.precision``). The picture still arrives rounded to the type that the model takes.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .reading import graphs, tensors

__all__ = ["widen"]

_HALF = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}
_NAMES_A_TYPE = {"to", "dtype", "stash_type"}  # attributes of Cast, EyeLike, LayerNormalization ...


def widen(proto: onnx.ModelProto) -> str:
    """
    Turn a model in half precision into its float32 twin, in place.

    Parameters
    ----------
    proto : onnx.ModelProto
        With one free input, and functions inlined.

    Returns
    -------
    str
        ``"float16"`` or ``"bfloat16"``, the type that was widened; ``""`` where there was none.
    """
    every = list(graphs(proto.graph))
    types = [v.type.tensor_type for g in every for v in [*g.input, *g.output, *g.value_info]]
    casts = [a for g in every for node in g.node for a in node.attribute if a.name in _NAMES_A_TYPE]
    held = tensors(proto)
    found = {t.data_type for t in held} | {t.elem_type for t in types} | {a.i for a in casts}
    if not found & set(_HALF):
        return ""
    weights = {tensor.name for tensor in proto.graph.initializer}
    images = [(v, v.type.tensor_type.elem_type) for v in proto.graph.input if v.name not in weights]
    for tensor in held:
        if tensor.data_type in _HALF:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for attribute in casts:
        attribute.i = TensorProto.FLOAT if attribute.i in _HALF else attribute.i
    for kind in types:
        kind.elem_type = TensorProto.FLOAT if kind.elem_type in _HALF else kind.elem_type
    for value, kind in images:
        if kind in _HALF:
            _round(proto.graph, value, kind)
    return next(name for kind, name in _HALF.items() if kind in found)


def _round(graph: onnx.GraphProto, x: onnx.ValueInfoProto, kind: int) -> None:
    """Round what arrives at `x` to a type and widen it again; no Python array is bfloat16, so that arrives as float32."""
    rounded, wide = f"{x.name}__rounded", f"{x.name}__float32"
    for node in (node for g in graphs(graph) for node in g.node):
        for place, name in enumerate(node.input):
            if name == x.name:
                node.input[place] = wide
    casts = [helper.make_node("Cast", [rounded], [wide], f"camrt/{wide}", to=TensorProto.FLOAT)]
    if kind == TensorProto.FLOAT16:
        x.type.tensor_type.elem_type = kind
        casts[0].input[0] = x.name
    else:
        casts.insert(0, helper.make_node("Cast", [x.name], [rounded], f"camrt/{rounded}", to=kind))
    for node in reversed(casts):
        graph.node.insert(0, node)
