"""
Take apart what ONNX Runtime's optimiser fused: each operator of its own becomes the ONNX operators it stands for.

An optimised model that was saved (``SessionOptions.optimized_model_filepath``, or ``onnxruntime.transformers``) holds
operators of the domain ``com.microsoft`` and, under the default domain, some that ONNX does not know there. The table
`FUSIONS` has a function for each that image classifiers get, and for ONNX's own Attention: of the emitter and the node,
it returns the values that take the place of the node's outputs. What it emits is valid at the opset of the file and computes the same up to
rounding; what it does not cover is refused with its node.

In: a model as read. Out: the same, without these operators; other domains are left for who knows them.

References
----------
ONNX Runtime, docs/ContribOperators.md: what each operator computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from camrt.errors import MissingRuleError, ModelError

from .vjp.emit import Emit, constant, dims, element_type
from .vjp.known import given, optional_input
from .vjp.table import op_key

__all__ = ["FUSIONS", "is_fused", "standard_names", "take_apart"]

_Fusion = Callable[[Emit, ir.Node], Sequence[ir.Value | None] | None]

FUSIONS: dict[str, _Fusion] = {}
_CONTRIB = "com.microsoft"
_BLOCKED = {"com.microsoft.nchwc", "com.ms.internal.nhwc"}  # the layouts of one machine's kernels
_UNKNOWN = {
    "LayerNormalization": 17,
    "SimplifiedLayerNormalization": 10**6,
}  # default-domain names: ONNX's from here on
_NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _fusion(*ops: str, domain: str = _CONTRIB) -> Callable[[_Fusion], _Fusion]:
    """Enter the decorated function in the table; where it returns None the node stays as it is."""

    def register(function: _Fusion) -> _Fusion:
        FUSIONS.update({f"{domain}::{op}" if domain else op: function for op in ops})
        return function

    return register


def _strays(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes under ONNX's names that ONNX does not know at the model's opset."""
    version = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    nodes = [node for node in proto.graph.node if node.domain in ("", "ai.onnx")]
    return [node for node in nodes if version < _UNKNOWN.get(node.op_type, 0)]


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
    is_named = _CONTRIB in {o.domain for o in proto.opset_import}
    if not _strays(proto) and (is_named or all(node.domain != _CONTRIB for node in proto.graph.node)):
        return proto
    moved = onnx.ModelProto()
    moved.CopyFrom(proto)
    for node in _strays(moved):
        node.domain = _CONTRIB
    if not is_named:  # onnxruntime.transformers may leave it out, and ONNX Runtime does not mind
        moved.opset_import.append(onnx.helper.make_opsetid(_CONTRIB, 1))
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
                raise _refused(node, " ".join(str(error).split())[:160]) from error
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


def _key(node: onnx.NodeProto) -> str:
    """Return the name a node's function is looked up by, as `op_key`."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def _replace(graph: ir.Graph, node: ir.Node, made: Sequence[ir.Value | None]) -> None:
    """Put `made` in the place of a node's outputs, under their names."""
    for old, new in zip(node.outputs, made, strict=False):
        name = old.name
        if new is None:
            if list(old.uses()) or old in graph.outputs:
                raise _refused(node, f"its output {name!r} is used")
            continue
        new.shape = old.shape if new.shape is None else new.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        old.name, new.name = f"{name}__fused", name
    graph.remove(node, safe=True)


def _refused(node: ir.Node, reason: str) -> MissingRuleError:
    """Return the error that says why a fused operator cannot be taken apart."""
    return MissingRuleError(
        f"{op_key(node)} at node {node.name!r} cannot be written in standard operators: {reason}; give the model it was "
        "optimised from"
    )


def _opset(e: Emit) -> int:
    return int(e.graph.opset_imports.get("", 0))


def _none_of(node: ir.Node, inputs: Sequence[int] = (), attributes: Sequence[str] = ()) -> None:
    """Refuse inputs and attributes that are not covered."""
    for index in inputs:
        value = optional_input(node, index)
        if value is not None:
            raise _refused(node, f"its input {index} ({value.name!r}) is given")
    for name in attributes:
        if node.attributes.get_int(name, 0):
            raise _refused(node, f"its attribute {name} is set")


def _kept(node: ir.Node, *but: str) -> dict[str, ir.Attr]:
    """Return the attributes of a node but those named."""
    return {name: attribute for name, attribute in node.attributes.items() if name not in but}


def _shaped(e: Emit, value: ir.Value, *shape: int) -> ir.Value:
    return e.Reshape(value, e.const(shape, "shape"))


# convolutions and products ---------------------------------------------------------------------------------------


def _activated(e: Emit, node: ir.Node, y: ir.Value, numbers: Sequence[float]) -> ir.Value:
    """Apply the activation that a node names; `numbers` are its parameters."""
    name = node.attributes.get_string("activation", "")
    if not name:
        return y
    if name in ("Relu", "Sigmoid", "Tanh"):
        return e.node(name, [y])[0]
    if name == "LeakyRelu":
        return e.LeakyRelu(y, alpha=numbers[0])
    if name == "HardSigmoid":
        return e.HardSigmoid(y, alpha=numbers[0], beta=numbers[1])
    if name == "Clip" and _opset(e) >= 11:
        return e.Clip(y, e.scalar(numbers[0], y), e.scalar(numbers[1], y))
    if name == "Clip":
        return e.Clip(y, min=numbers[0], max=numbers[1])
    raise _refused(node, f"its activation {name!r}")


@_fusion("FusedConv")
def _fused_conv(e: Emit, node: ir.Node) -> Sequence[ir.Value]:
    """y = activation(conv(x, w, b) + z)."""
    y = e.node("Conv", node.inputs[:3], _kept(node, "activation", "activation_params"))[0]
    z = optional_input(node, 3)
    y = y if z is None else e.Add(y, z)
    return [_activated(e, node, y, node.attributes.get_floats("activation_params", ()))]


@_fusion("FusedGemm")
def _fused_gemm(e: Emit, node: ir.Node) -> Sequence[ir.Value]:
    """y = activation(alpha A B + beta C)."""
    parameters = [f"activation_{name}" for name in ("alpha", "beta", "gamma")]
    y = e.node("Gemm", node.inputs, _kept(node, "activation", *parameters))[0]
    return [_activated(e, node, y, [node.attributes.get_float(name, 0.0) for name in parameters])]


@_fusion("FusedMatMul", "TransposeMatMul")
def _fused_matmul(e: Emit, node: ir.Node) -> Sequence[ir.Value]:
    """y = alpha A B, their axes in another order first; by Einsum where the number of axes is not known."""
    factors, alpha = (given(node), given(node, 1)), node.attributes.get_float("alpha", 1.0)
    turns = [tuple(bool(node.attributes.get_int(f"trans{part}{name}", 0)) for part in ("", "Batch")) for name in "AB"]
    if all(v.shape is not None or not any(turn) for v, turn in zip(factors, turns, strict=True)):
        y = e.MatMul(*(_turned(e, v, *turn) if any(turn) else v for v, turn in zip(factors, turns, strict=True)))
    elif _opset(e) < 12 or any(batch for _, batch in turns):
        raise _refused(node, "the number of axes it turns is not known")
    else:
        left, right = ("ki" if turns[0][0] else "ik"), ("jk" if turns[1][0] else "kj")
        y = e.Einsum(*factors, equation=f"...{left},...{right}->...ij")
    return [y if alpha == 1 else e.Mul(y, e.scalar(alpha, y))]


def _turned(e: Emit, value: ir.Value, last: bool, batch: bool) -> ir.Value:
    """Swap the last two axes; move the first one behind the other batch axes before that."""
    rank = len(dims(value))
    if rank < 2:
        return value
    perm = [*range(1, rank - 1), 0, rank - 1] if batch else list(range(rank))
    return e.Transpose(value, perm=[*perm[:-2], perm[-1], perm[-2]] if last else perm)


# activations -----------------------------------------------------------------------------------------------------


def _share_below(e: Emit, x: ir.Value) -> ir.Value:
    """Return x P(X <= x), X normal."""
    if _opset(e) >= 20:
        return e.Gelu(x)
    below = e.Add(e.Erf(e.Mul(x, e.scalar(np.sqrt(0.5), x))), e.scalar(1.0, x))
    return e.Mul(e.Mul(x, e.scalar(0.5, x)), below)


@_fusion("Gelu", "BiasGelu")
def _gelu(e: Emit, node: ir.Node) -> Sequence[ir.Value]:
    """y = gelu(x), or of x + b."""
    return [_share_below(e, _sum(e, *node.inputs))]


@_fusion("FastGelu")
def _fast_gelu(e: Emit, node: ir.Node) -> Sequence[ir.Value]:
    """y = z (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))) / 2, z = x + b."""
    x = _sum(e, *node.inputs)
    if _opset(e) >= 20:
        return [e.Gelu(x, approximate="tanh")]
    k, c = np.sqrt(2 / np.pi), 0.044715
    inner = e.Mul(x, e.Add(e.Mul(e.Mul(x, x), e.scalar(k * c, x)), e.scalar(k, x)))
    return [e.Mul(e.Mul(x, e.scalar(0.5, x)), e.Add(e.Tanh(inner), e.scalar(1.0, x)))]


@_fusion("QuickGelu")
def _quick_gelu(e: Emit, node: ir.Node) -> Sequence[ir.Value]:
    """y = x sigmoid(alpha x)."""
    x, alpha = given(node), node.attributes.get_float("alpha", 1.702)
    return [e.Mul(x, e.Sigmoid(x if alpha == 1 else e.Mul(x, e.scalar(alpha, x))))]


def _sum(e: Emit, first: ir.Value | None, *others: ir.Value | None) -> ir.Value:
    """Return the sum of the values that are there."""
    total = first
    for value in others:
        total = value if total is None else total if value is None else e.Add(total, value)
    assert total is not None, "an operand is always there"
    return total


# normalisations --------------------------------------------------------------------------------------------------


def _mean(e: Emit, value: ir.Value, axes: Sequence[int]) -> ir.Value:
    if _opset(e) >= 18:
        return e.ReduceMean(value, e.const(axes, "axes"), keepdims=1)
    return e.ReduceMean(value, axes=list(axes), keepdims=1)


def _normalised(
    e: Emit, node: ir.Node, x: ir.Value, scale: ir.Value, bias: ir.Value | None, epsilon: float, centred: bool
) -> ir.Value:
    """Return LayerNormalization over the axes from the node's `axis` on, or without the mean, by the operator if known."""
    axis = node.attributes.get_int("axis", -1)
    operator = ("LayerNormalization", 17) if centred else ("RMSNormalization", 23)
    if _opset(e) >= operator[1]:
        inputs = [x, scale] if bias is None else [x, scale, bias]
        return e.node(operator[0], inputs, {"axis": axis, "epsilon": epsilon})[0]
    if axis >= 0:
        axis -= len(dims(x))
    axes, kind = list(range(axis, 0)), x.dtype
    wide = e.Cast(x, to=int(ir.DataType.FLOAT)) if kind in _NARROW else x
    if centred:
        wide = e.Sub(wide, _mean(e, wide, axes))
    variance = e.Add(_mean(e, e.Mul(wide, wide), axes), e.scalar(epsilon, wide))
    y = e.Div(wide, e.Sqrt(variance))
    y = e.Mul(e.Cast(y, to=int(kind)) if kind in _NARROW and kind is not None else y, scale)
    return y if bias is None else e.Add(y, bias)


@_fusion("LayerNormalization", "SimplifiedLayerNormalization")
def _layer_normalization(e: Emit, node: ir.Node) -> Sequence[ir.Value | None]:
    """y = (x - mean) / sqrt(variance + epsilon) scale + bias; without the mean where it is simplified."""
    epsilon, centred = node.attributes.get_float("epsilon", 1e-5), node.op_type == "LayerNormalization"
    return [_normalised(e, node, given(node), given(node, 1), optional_input(node, 2), epsilon, centred), None, None]


@_fusion("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
def _skip_layer_normalization(e: Emit, node: ir.Node) -> Sequence[ir.Value | None]:
    """y = the normalised sum of x, what skipped a block, and a bias; the sum is the fourth output."""
    centred, epsilon = node.op_type == "SkipLayerNormalization", node.attributes.get_float("epsilon", 1e-12)
    beta = optional_input(node, 3) if centred else None
    total = _sum(e, *node.inputs[:2], optional_input(node, 4 if centred else 3))
    return [_normalised(e, node, total, given(node, 2), beta, epsilon, centred), None, None, total]


# attention -------------------------------------------------------------------------------------------------------


def _attended(
    e: Emit, parts: Sequence[ir.Value], bias: ir.Value | None, share: ir.Value, joined: bool = True
) -> ir.Value:
    """Return softmax(Q K^T share + bias) V of queries, keys and values (N, heads, tokens, width); heads joined again."""
    q, k, v = parts
    mixed = e.MatMul(e.Softmax(_sum(e, e.MatMul(e.Mul(q, share), k), bias), axis=-1), v)
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


@_fusion("Attention")
def _attention(e: Emit, node: ir.Node) -> Sequence[ir.Value | None]:
    """y = attention of the three parts of x W + b, each cut into heads; input 5 is added to the scores."""
    _none_of(node, (3, 4, 6), ("unidirectional", "do_rotary", "past_present_share_buffer"))
    x, heads = given(node), node.attributes.get_int("num_heads")
    weights, bias = constant(given(node, 1)), optional_input(node, 2)
    offsets = constant(bias)
    if weights is None or (bias is not None and offsets is None):
        raise _refused(node, "its weights are computed")
    widths = node.attributes.get_ints("qkv_hidden_sizes", (weights.shape[1] // 3,) * 3)
    cuts = np.cumsum(widths)[:2]
    parts = []
    for i, (name, w) in enumerate(zip("qkv", np.split(weights, cuts, axis=1), strict=True)):
        part = e.MatMul(x, e.const(w, f"{name}_weight"))
        if offsets is not None:
            part = e.Add(part, e.const(np.split(offsets, cuts)[i], f"{name}_bias"))
        parts.append(_heads(e, part, heads, name == "k"))
    return [_attended(e, parts, optional_input(node, 5), _share(e, node, parts[0])), None]


@_fusion("Attention", domain="")
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
    if mask is not None and (_opset(e) > 23 or mask.dtype is None or not mask.dtype.is_floating_point()):
        return None
    if heads and heads == node.attributes.get_int("kv_num_heads", 0):
        parts = [_heads(e, part, heads, part is k) for part in (q, k, v)]
    elif heads or any(part.shape is None or len(part.shape) != 4 for part in (q, k)) or dims(q)[1] != dims(k)[1]:
        return None
    else:
        parts = [q, e.Transpose(k, perm=[0, 1, 3, 2]), v]
    y = _attended(e, parts, mask, _share(e, node, parts[0]), joined=bool(heads))
    return [y, *[None] * (len(node.outputs) - 1)]


def _value(node: ir.Node, name: str) -> float:
    """Return a number that a node holds."""
    return float(node.attributes[name].value)


@_fusion("MultiHeadAttention")
def _multi_head_attention(e: Emit, node: ir.Node) -> Sequence[ir.Value | None]:
    """y = attention of queries, keys and values (N, tokens, heads * width), a bias added to each."""
    _none_of(node, (4, 6, 7, 8, 9), ("unidirectional",))
    heads, bias = node.attributes.get_int("num_heads"), optional_input(node, 3)
    query, key, value = given(node), optional_input(node, 1), optional_input(node, 2)
    if key is None or value is None or any(v.shape is not None and len(v.shape) != 3 for v in (key, value)):
        raise _refused(node, "its keys and values are packed in one, or cut into heads")
    offsets = [None] * 3 if bias is None else _thirds(node, bias, value)
    parts = [
        _heads(e, v if b is None else e.Add(v, e.const(b, "bias")), heads, i == 1)
        for i, (v, b) in enumerate(zip((query, key, value), offsets, strict=True))
    ]
    return [_attended(e, parts, optional_input(node, 5), _share(e, node, parts[0])), None, None]


def _thirds(node: ir.Node, bias: ir.Value, value: ir.Value) -> list[np.ndarray]:
    """Return the biases of queries, keys and values; those of values may have another width."""
    array = constant(bias)
    if array is None:
        raise _refused(node, "its bias is computed")
    width = None if value.shape is None else value.shape[-1]
    last = width if isinstance(width, int) else len(array) // 3
    first = (len(array) - last) // 2
    return np.split(array, [first, 2 * first])
