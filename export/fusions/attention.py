"""
Fused attention, ONNX Runtime's two and ONNX's own: two products and a softmax, heads cut and joined around them.

In: the emitter and a node. Out: what its queries find; keys and values that are carried along are not given.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ..vjp.emit import Emit, constant, dims
from ..vjp.known import given, optional_input
from .table import fusion, opset, refused, summed


@fusion("Attention")
def _attention(e: Emit, node: ir.Node) -> Sequence[ir.Value | None]:
    """y = attention of the three parts of x W + b, each cut into heads; input 5 is added to the scores."""
    _none_of(node, (3, 4, 6), ("unidirectional", "do_rotary", "past_present_share_buffer"))
    x, heads = given(node), node.attributes.get_int("num_heads")
    weights, bias = constant(given(node, 1)), optional_input(node, 2)
    offsets = constant(bias)
    if weights is None or (bias is not None and offsets is None):
        raise refused(node, "its weights are computed")
    widths = node.attributes.get_ints("qkv_hidden_sizes", (weights.shape[1] // 3,) * 3)
    cuts = np.cumsum(widths)[:2]
    parts = []
    for i, (name, w) in enumerate(zip("qkv", np.split(weights, cuts, axis=1), strict=True)):
        part = e.MatMul(x, e.const(w, f"{name}_weight"))
        if offsets is not None:
            part = e.Add(part, e.const(np.split(offsets, cuts)[i], f"{name}_bias"))
        parts.append(_heads(e, part, heads, name == "k"))
    return [_attended(e, parts, optional_input(node, 5), _share(e, node, parts[0])), None]


@fusion("Attention", domain="")
def _standard_attention(e: Emit, node: ir.Node) -> Sequence[ir.Value | None] | None:
    """
    y = softmax(Q K^T scale + mask) V in its plainest form, as encoders use it; else None.

    ONNX's own definition, which other forms are left to, carries masks of zeros along.
    """
    values = [optional_input(node, i) for i in range(7)]
    is_set = ("is_causal", "softcap", "softmax_precision", "left_window_size", "right_window_size")
    if any(v is not None for v in values[4:]) or any(name in node.attributes and _value(node, name) for name in is_set):
        return None
    if any(output.name and (list(output.uses()) or output in e.graph.outputs) for output in node.outputs[1:]):
        return None
    (q, k, v), mask, heads = (given(node, i) for i in range(3)), values[3], node.attributes.get_int("q_num_heads", 0)
    if mask is not None and (opset(e) > 23 or mask.dtype is None or not mask.dtype.is_floating_point()):
        return None
    if heads and heads == node.attributes.get_int("kv_num_heads", 0):
        parts = [_heads(e, part, heads, part is k) for part in (q, k, v)]
    elif heads or any(part.shape is None or len(part.shape) != 4 for part in (q, k)) or dims(q)[1] != dims(k)[1]:
        return None
    else:
        parts = [q, e.Transpose(k, perm=[0, 1, 3, 2]), v]
    y = _attended(e, parts, mask, _share(e, node, parts[0]), joined=bool(heads))
    return [y, *[None] * (len(node.outputs) - 1)]


@fusion("MultiHeadAttention")
def _multi_head_attention(e: Emit, node: ir.Node) -> Sequence[ir.Value | None]:
    """y = attention of queries, keys and values (N, tokens, heads * width), a bias added to each."""
    _none_of(node, (4, 6, 7, 8, 9), ("unidirectional",))
    heads, bias = node.attributes.get_int("num_heads"), optional_input(node, 3)
    query, key, value = given(node), optional_input(node, 1), optional_input(node, 2)
    if key is None or value is None or any(v.shape is not None and len(v.shape) != 3 for v in (key, value)):
        raise refused(node, "its keys and values are packed in one, or cut into heads")
    offsets = [None] * 3 if bias is None else _thirds(node, bias, value)
    parts = [
        _heads(e, v if b is None else e.Add(v, e.const(b, "bias")), heads, i == 1)
        for i, (v, b) in enumerate(zip((query, key, value), offsets, strict=True))
    ]
    return [_attended(e, parts, optional_input(node, 5), _share(e, node, parts[0])), None, None]


def _none_of(node: ir.Node, inputs: Sequence[int] = (), attributes: Sequence[str] = ()) -> None:
    """Refuse inputs and attributes that are not covered."""
    for index in inputs:
        value = optional_input(node, index)
        if value is not None:
            raise refused(node, f"its input {index} ({value.name!r}) is given")
    for name in attributes:
        if node.attributes.get_int(name, 0):
            raise refused(node, f"its attribute {name} is set")


def _attended(
    e: Emit, parts: Sequence[ir.Value], bias: ir.Value | None, share: ir.Value, joined: bool = True
) -> ir.Value:
    """Return softmax(Q K^T share + bias) V of queries, keys and values (N, heads, tokens, width); heads joined again."""
    q, k, v = parts
    mixed = e.MatMul(e.Softmax(summed(e, e.MatMul(e.Mul(q, share), k), bias), axis=-1), v)
    return _shaped(e, e.Transpose(mixed, perm=[0, 2, 1, 3]), 0, 0, -1) if joined else mixed


def _heads(e: Emit, value: ir.Value, heads: int, is_key: bool) -> ir.Value:
    """Return (N, tokens, heads * width) as (N, heads, tokens, width), keys as (N, heads, width, tokens)."""
    return e.Transpose(_shaped(e, value, 0, 0, heads, -1), perm=[0, 2, 3, 1] if is_key else [0, 2, 1, 3])


def _share(e: Emit, node: ir.Node, q: ir.Value) -> ir.Value:
    """Return what products of queries (N, heads, tokens, width) and keys are multiplied by: 1 / sqrt(width) if not said."""
    scale = node.attributes.get_float("scale", 0.0)
    if scale:
        return e.scalar(scale, q)
    width = e.Cast(e.Gather(e.Shape(q), e.const(np.array(3), "place"), axis=0), to=int(q.dtype or ir.DataType.FLOAT))
    return e.Reciprocal(e.Sqrt(width))  # a constant as soon as shapes are known


def _thirds(node: ir.Node, bias: ir.Value, value: ir.Value) -> list[np.ndarray]:
    """Return the biases of queries, keys and values; those of values may have another width."""
    array = constant(bias)
    if array is None:
        raise refused(node, "its bias is computed")
    width = None if value.shape is None else value.shape[-1]
    last = width if isinstance(width, int) else len(array) // 3
    first = (len(array) - last) // 2
    return np.split(array, [first, 2 * first])


def _value(node: ir.Node, name: str) -> float:
    """Return a number that a node holds."""
    return float(node.attributes[name].value)


def _shaped(e: Emit, value: ir.Value, *shape: int) -> ir.Value:
    return e.Reshape(value, e.const(shape, "shape"))
