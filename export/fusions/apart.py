"""
The walk through a model that finds fused operators, and puts what they stand for in their place.

In: a model as read. Out: the same with ONNX Runtime's operators under ONNX Runtime's domain (`standard_names`), and then
without those of `camrt.export.fusions.FUSIONS` (`take_apart`); the given one where there is nothing to do.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from camrt.errors import MissingRuleError, ModelError

from ..vjp.emit import Emit, element_type
from ..vjp.table import op_key
from .table import CONTRIB, FUSIONS, refused

__all__ = ["is_fused", "standard_names", "take_apart"]

_BLOCKED = {"com.microsoft.nchwc", "com.ms.internal.nhwc"}  # the layouts of one machine's kernels
_UNKNOWN = {
    "LayerNormalization": 17,
    "SimplifiedLayerNormalization": 10**6,
}  # default-domain names: ONNX's from here on


def standard_names(proto: onnx.ModelProto) -> onnx.ModelProto:
    """
    Move ONNX Runtime's operators that pass for ONNX's own to its domain, which the model is made to import.

    Parameters
    ----------
    proto : onnx.ModelProto
        As read; left as it is.

    Returns
    -------
    onnx.ModelProto
        The given one where there is nothing to move.
    """
    is_named = CONTRIB in {o.domain for o in proto.opset_import}
    if not _strays(proto) and (is_named or all(node.domain != CONTRIB for node in proto.graph.node)):
        return proto
    moved = onnx.ModelProto()
    moved.CopyFrom(proto)
    for node in _strays(moved):
        node.domain = CONTRIB
    if not is_named:  # onnxruntime.transformers may leave it out, and ONNX Runtime does not mind
        moved.opset_import.append(onnx.helper.make_opsetid(CONTRIB, 1))
    return moved


def is_fused(proto: onnx.ModelProto) -> bool:
    """
    Tell whether `take_apart` has something to do or to refuse.

    Parameters
    ----------
    proto : onnx.ModelProto
        Its main graph is looked at.

    Returns
    -------
    bool
        Whether it holds an operator of `FUSIONS` or of a layout that is refused.
    """
    return any(node.domain in _BLOCKED or _key(node) in FUSIONS for node in proto.graph.node)


def take_apart(proto: onnx.ModelProto) -> onnx.ModelProto:
    """
    Write ONNX Runtime's fused operators in ONNX's.

    Parameters
    ----------
    proto : onnx.ModelProto
        A checked model at any opset, as `standard_names` gives it, rehearsed; left as it is.

    Returns
    -------
    onnx.ModelProto
        The given one where nothing is fused.

    Raises
    ------
    ModelError
        If the model is laid out for the machine it was optimised on.
    MissingRuleError
        If a fused operator is used in a way that is not covered.
    """
    if not is_fused(proto):
        return proto
    for node in proto.graph.node:
        if node.domain in _BLOCKED:
            raise ModelError(
                f"node {node.name!r} ({node.domain}::{node.op_type}) holds its weights in the layout of the machine the "
                "model was optimised on: save it at the level ORT_ENABLE_EXTENDED, or give the model it was made from"
            )
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    graph = model.graph
    for index, node in enumerate(list(graph)):
        if op_key(node) in FUSIONS:
            e = Emit(graph, node.name or f"{node.op_type}_{index}")
            try:
                made = FUSIONS[op_key(node)](e, node)
                if made is not None:
                    _replace(graph, node, made)
            except MissingRuleError:
                raise
            except (ValueError, IndexError, KeyError) as error:
                raise refused(node, " ".join(str(error).split())[:160]) from error
            continue
        held = {name: attribute.value for name, attribute in node.attributes.items()}
        kind = element_type(node.op_type, node.inputs, held) if node.domain == "" else None
        for value in node.outputs:  # lost after an operator that ONNX's inference does not know
            if value.dtype is None and kind is not None:
                value.dtype = kind
    passes.TopologicalSortPass()(model)
    used = {node.domain for node in ir.traversal.RecursiveGraphIterator(graph)}
    for domain in [d for d in model.opset_imports if d and d not in used]:
        del model.opset_imports[domain]
    return ir.to_proto(model)


def _strays(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes under ONNX's names that ONNX does not know at the model's opset."""
    version = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    nodes = [node for node in proto.graph.node if node.domain in ("", "ai.onnx")]
    return [node for node in nodes if version < _UNKNOWN.get(node.op_type, 0)]


def _key(node: onnx.NodeProto) -> str:
    """Return the name a node's function is looked up by, as `op_key`."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def _replace(graph: ir.Graph, node: ir.Node, made: Sequence[ir.Value | None]) -> None:
    """Put `made` in the place of a node's outputs, under their names."""
    for old, new in zip(node.outputs, made, strict=False):
        name = old.name
        if new is None:
            if list(old.uses()) or old in graph.outputs:
                raise refused(node, f"its output {name!r} is used")
            continue
        new.shape = old.shape if new.shape is None else new.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        old.name, new.name = f"{name}__fused", name
    graph.remove(node, safe=True)
