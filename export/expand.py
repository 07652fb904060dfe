"""
Operators that have no gradient rule but that ONNX defines by others: their bodies take their places.

In: a model at the opset the rules are written for. Out: the same function of its inputs, written in operators with
rules.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx
import onnx.inliner

from camrt.errors import ModelError

from .vjp import RULES

__all__ = ["expand", "expandable"]

_KEEP = {"DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear"}  # their bodies round: no gradient in them


def _version(proto: onnx.ModelProto) -> int:
    """Return the version of the default operator set."""
    return next(int(o.version) for o in proto.opset_import if o.domain in ("", "ai.onnx"))


def expandable(proto: onnx.ModelProto) -> list[tuple[str, str]]:
    """
    Return the operators of a model that have no gradient rule of their own but are defined by a function body.

    Parameters
    ----------
    proto : onnx.ModelProto
        Its main graph is looked at.

    Returns
    -------
    list of tuple of str
        Domain and operator, sorted.
    """
    version = _version(proto)
    chosen = set()
    used = {node.op_type for node in proto.graph.node if node.domain in ("", "ai.onnx")}
    for op in used - set(RULES) - _KEEP:
        if not onnx.defs.has(op, version, ""):
            continue
        schema = onnx.defs.get_schema(op, version, "")
        if schema.has_function or schema.has_context_dependent_function:  # type: ignore[attr-defined]
            chosen.add(("", op))
    return sorted(chosen)


def expand(proto: onnx.ModelProto) -> onnx.ModelProto:
    """
    Put the bodies of the operators that `expandable` names in their places.

    Parameters
    ----------
    proto : onnx.ModelProto
        With element types inferred; changed in place.

    Returns
    -------
    onnx.ModelProto
        The given model where there is nothing to open.

    Raises
    ------
    ModelError
        If onnx cannot write a body out.
    """
    chosen = expandable(proto)
    if not chosen:
        return proto
    _spell_out_defaults(proto, {op for _, op in chosen})
    declared = {value.name for value in proto.graph.input}
    for tensor in proto.graph.initializer:  # the inliner asks inputs alone for element types
        if tensor.name not in declared:
            proto.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("", 1, None))  # for inputs left out: any type
    try:
        opened = onnx.inliner.inline_selected_functions(proto, chosen, inline_schema_functions=True)
    except RuntimeError as error:
        named = ", ".join(repr(node.name) for node in proto.graph.node if ("", node.op_type) in chosen)
        raise ModelError(
            f"{' and '.join(op for _, op in chosen)} at node {named} cannot be written out in other operators "
            f"({' '.join(str(error).split())[-80:]}): export the model without it"
        ) from error
    known = [value for value in opened.graph.value_info if value.name]
    del opened.graph.value_info[:]
    opened.graph.value_info.extend(known)
    return expand(onnx.shape_inference.infer_shapes(opened)) if expandable(opened) else opened


def _spell_out_defaults(proto: onnx.ModelProto, ops: Collection[str]) -> None:
    """Write down the attributes that nodes leave at their default: the inliner hands on those that are there alone."""
    version = _version(proto)
    for node in proto.graph.node:
        if node.op_type in ops and node.domain in ("", "ai.onnx"):
            given = {attribute.name for attribute in node.attribute}
            schema = onnx.defs.get_schema(node.op_type, version, "")
            defaults = [a.default_value for a in schema.attributes.values() if a.name not in given]
            node.attribute.extend(value for value in defaults if value.name)
