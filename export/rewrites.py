"""
The table of quantised operators: one entry an operator, the float operators that stand in its place.

Each entry is a function of the `Rewriter` and the given node and returns the values that take the place of the node's
outputs. An operator on integers is the float operator on the numbers they stand for, quantised again:
``rewriter.real`` reads an operand, ``rewriter.encoded`` writes a result. Layouts of operands are those of the ONNX
standard and of ONNX Runtime's contributed operators (docs/ContribOperators.md in its repository).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from .codes import Rewriter, refused
from .vjp.emit import constant
from .vjp.known import optional_input
from .vjp.table import op_key

__all__ = ["MOVES", "REWRITES", "carry", "is_quantised"]

_Rewrite = Callable[[Rewriter, ir.Node], Sequence[ir.Value]]

REWRITES: dict[str, _Rewrite] = {}
MOVES = {  # these move or choose integers without looking at what they stand for
    *("Concat", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity"),
    *("GlobalMaxPool", "Max", "MaxPool", "Min", "Pad", "ReduceMax", "ReduceMin", "Reshape", "Resize", "Slice"),
    *("SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
}
_WINDOWS = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides", "ceil_mode", "count_include_pad")
_ALL_OPERANDS = {"Concat", "Max", "Min"}  # the other movers move one operand; Where moves its last two
_CONTRIB = "com.microsoft"


def _rewrites(*ops: str, domains: Iterable[str] = ("",)) -> Callable[[_Rewrite], _Rewrite]:
    """Enter the decorated function in the table."""

    def register(function: _Rewrite) -> _Rewrite:
        for domain in domains:
            for op in ops:
                REWRITES[f"{domain}::{op}" if domain else op] = function
        return function

    return register


def _kept(node: ir.Node, *names: str) -> dict[str, Any]:
    """Return those of a node's attributes that the float operator takes too."""
    return {name: node.attributes[name] for name in names if name in node.attributes}


def _channels_first(r: Rewriter, node: ir.Node, value: ir.Value, run: Callable[[ir.Value], ir.Value]) -> ir.Value:
    """Apply an operator on (N, C, H, W) to a tensor whose channels the node has last, where it says so."""
    if not node.attributes.get_int("channels_last", 0):
        return run(value)
    return r.emit.Transpose(run(r.emit.Transpose(value, perm=[0, 3, 1, 2])), perm=[0, 2, 3, 1])


def carry(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """
    Move numbers as the given node moves integers.

    Parameters
    ----------
    r : Rewriter
        Writes the twin.
    node : onnx_ir.Node
        One of `MOVES`.

    Returns
    -------
    sequence of onnx_ir.Value
        In the place of the node's outputs, in the code of its first quantised operand.
    """
    places = [i for i, v in enumerate(node.inputs) if v is not None and v in r.codes]
    code = r.codes[node.inputs[places[0]]]  # type: ignore[index]
    if not code.is_whole and node.op_type != "Identity":
        raise refused(node, "it moves integers whose scales differ along an axis")
    operands = list(node.inputs)
    chosen = range(len(operands)) if node.op_type in _ALL_OPERANDS else (1, 2) if node.op_type == "Where" else (0,)
    if not set(places) <= set(chosen):
        raise refused(node, f"its operand {max(set(places) - set(chosen))} is quantised")
    for i in chosen:
        operands[i] = r.moved(node, operands[i], code)  # type: ignore[arg-type]
    if node.op_type == "Pad" and _mode(node) == "constant":
        q = optional_input(node, 2)
        filled = np.zeros((), code.dtype.numpy()) if q is None else constant(q)
        if filled is None:
            raise refused(node, "what it pads with is computed at run time")
        operands[2:3] = [r.emit.const(code.decode(filled.reshape(())).astype(code.scale.dtype))]
    made = r.emit.node(node.op_type, operands, dict(node.attributes), len(node.outputs))
    r.codes.update(dict.fromkeys(made, code))
    return made


def _mode(node: ir.Node) -> str:
    return str(node.attributes.get_string("mode", "constant"))


# between numbers and integers ------------------------------------------------------------------------------------


@_rewrites("QuantizeLinear", domains=("", _CONTRIB))
def _quantize(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """Cut off what no integer stands for."""
    x = node.inputs[0]
    if node.attributes.get_int("block_size", 0):
        raise refused(node, "it quantises in blocks at run time")
    wanted = ir.DataType(node.attributes.get_int("output_dtype", 0) or int(ir.DataType.UINT8))
    code = r.code(node, node.inputs[1], optional_input(node, 2), node.attributes.get_int("axis", 1), wanted)
    if x is None or x in r.codes:
        raise refused(node, "what it quantises is integers already")
    return [r.encoded(node, x, code)]


@_rewrites("DequantizeLinear", domains=("", _CONTRIB))
def _dequantize(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """Pass on the numbers, which are there already."""
    return [r.real(node, 0, node.attributes.get_int("axis", 1))]


@_rewrites("DynamicQuantizeLinear")
def _quantize_dynamically(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """
    Pass on the numbers, rounded, with scale 1 and zero point 0: the range is that of the numbers, so none is cut off.

    What follows multiplies by the scale and subtracts the zero point, which it reads here, so it computes the same.
    """
    if node.inputs[0] is None:
        raise refused(node, "its operand is absent")
    e = r.emit
    made = r.counts(e.Clip(node.inputs[0]))  # without bounds: a place for the rounding
    r.rounded[made] = None
    return [made, e.const(np.ones((), np.float32)), e.const(np.zeros((), np.uint8))]


@_rewrites("Cast")
def _cast(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """Read integers as numbers; numbers cast to 8 bits (a picture) stay as they are."""
    value, to = node.inputs[0], ir.DataType(node.attributes["to"].as_int())
    if value is None:
        raise refused(node, "its operand is absent")
    if value in r.codes:
        numbers = r.decode(node, value, None, None)
        return [r.emit.Cast(numbers, to=int(to)) if to.is_floating_point() else r.counts(numbers)]
    if to in (ir.DataType.UINT8, ir.DataType.INT8):
        return [r.counts(r.emit.Cast(value, to=int(ir.DataType.FLOAT)))]
    return r.emit.node("Cast", [value], dict(node.attributes))


# convolution and matrix product ----------------------------------------------------------------------------------


def _bias(r: Rewriter, node: ir.Node, place: int, *scales: Any) -> ir.Value | None:
    """Return int32 biases as numbers: their scale is the product of those of both operands."""
    bias = optional_input(node, place)
    if bias is None:
        return None
    scale = np.asarray(np.prod(np.broadcast_arrays(*scales), axis=0), np.float32)
    return r.decode(node, bias, r.emit.const(scale), None, axis=0)


def _scale(r: Rewriter, node: ir.Node, place: int) -> Any:
    return r.whole(node, place).scale


@_rewrites("QLinearConv", domains=("", _CONTRIB))
def _conv(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """Convolve; scales of the weights go along their first axis."""
    w = r.real(node, 3, axis=0)
    bias = _bias(r, node, 8, _scale(r, node, 1), _scale(r, node, 4))
    y = _channels_first(
        r,
        node,
        r.real(node, 0),
        lambda x: r.emit.Conv(x, w, *([] if bias is None else [bias]), **_kept(node, *_WINDOWS)),
    )
    return [r.encoded(node, y, r.whole(node, 6))]


@_rewrites("ConvInteger")
def _conv_integer(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """Convolve the integers less their zero points; the scales come later."""
    x = r.decode(node, node.inputs[0], None, optional_input(node, 2))
    w = r.decode(node, node.inputs[1], None, optional_input(node, 3), axis=0)
    return [r.counts(r.emit.Conv(x, w, **_kept(node, *_WINDOWS)))]


@_rewrites("QLinearMatMul", domains=("", _CONTRIB))
def _matmul(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """Multiply matrices; scales go along the rows of the first and the columns of the second."""
    y = r.emit.MatMul(r.real(node, 0, axis=-2), r.real(node, 3, axis=-1))
    return [r.encoded(node, y, r.whole(node, 6))]


@_rewrites("MatMulInteger")
def _matmul_integer(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """Multiply the integers less their zero points; the scales come later."""
    a = r.decode(node, node.inputs[0], None, optional_input(node, 2), axis=-2)
    b = r.decode(node, node.inputs[1], None, optional_input(node, 3), axis=-1)
    return [r.counts(r.emit.MatMul(a, b))]


@_rewrites("MatMulIntegerToFloat", domains=(_CONTRIB,))
def _matmul_to_float(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """A, B, their scales, their zero points, bias: multiply matrices and add the bias, which is float."""
    a = r.decode(node, node.inputs[0], node.inputs[2], optional_input(node, 4), axis=-2)
    b = r.decode(node, node.inputs[1], node.inputs[3], optional_input(node, 5), axis=-1)
    return [_plus(r, r.emit.MatMul(a, b), optional_input(node, 6))]


@_rewrites("DynamicQuantizeMatMul", domains=(_CONTRIB,))
def _matmul_dynamic(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """A in float, B, its scale and zero point, bias: multiply matrices and add the bias, which is float."""
    b = r.decode(node, node.inputs[1], node.inputs[2], optional_input(node, 3), axis=-1)
    a = r.emit.Clip(node.inputs[0])
    r.rounded[a] = None
    return [_plus(r, r.emit.MatMul(a, b), optional_input(node, 4))]


def _plus(r: Rewriter, value: ir.Value, bias: ir.Value | None) -> ir.Value:
    return value if bias is None else r.emit.Add(value, bias)


@_rewrites("QGemm", domains=(_CONTRIB,))
def _gemm(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """Multiply matrices and add int32 biases of scale alpha * a_scale * b_scale; without a last scale give float."""
    turned, alpha = node.attributes.get_int("transB", 0), node.attributes.get_float("alpha", 1.0)
    a, b = r.real(node, 0), r.real(node, 3, axis=0 if turned else 1)
    bias = _bias(r, node, 6, _scale(r, node, 1), _scale(r, node, 4), np.float32(alpha))
    y = r.emit.Gemm(a, b, *([] if bias is None else [bias]), **_kept(node, "alpha", "transA", "transB"))
    return [y if optional_input(node, 7) is None else r.encoded(node, y, r.whole(node, 7))]


@_rewrites("MatMulNBits", domains=(_CONTRIB,))
def _matmul_blocks(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """A in float, B of 2, 4 or 8 bits in blocks along its columns: unpack B and multiply matrices."""
    packed, scales, zeros, order, bias = (optional_input(node, i) for i in range(1, 6))
    if order is not None or packed is None or constant(packed) is None or constant(scales) is None:
        raise refused(node, "its weights are computed at run time, or reordered (g_idx)")
    k, n = node.attributes["K"].as_int(), node.attributes["N"].as_int()
    bits, block = node.attributes.get_int("bits", 4), node.attributes["block_size"].as_int()
    blocks = -(-k // block)
    q = _unpacked(constant(packed), bits, (n, blocks, block))
    zero: Any = np.float32(1 << bits - 1)
    if zeros is not None:
        held = constant(zeros)
        if held is None:
            raise refused(node, "its zero points are computed at run time")
        is_packed = held.dtype == np.uint8
        zero = _unpacked(held, bits, (n, -1))[:, :blocks] if is_packed else held.reshape(n, blocks)
        zero = zero.astype(np.float32)[..., None]
    scale = np.asarray(constant(scales), np.float32).reshape(n, blocks, 1)
    weights = ((q.astype(np.float32) - zero) * scale).reshape(n, -1)[:, :k].T
    numbers = r.emit.const(np.ascontiguousarray(weights.astype(r.emit.numpy_dtype(scales))))  # type: ignore[arg-type]
    return [_plus(r, r.emit.MatMul(node.inputs[0], numbers), bias)]


def _unpacked(packed: Any, bits: int, shape: tuple[int, ...]) -> Any:
    """Return the integers of `bits` bits that lie in bytes, the low ones first."""
    parts = [(packed >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, axis=-1).reshape(shape)


# element-wise, pooling and the rest ------------------------------------------------------------------------------


@_rewrites("QLinearAdd", "QLinearMul", domains=(_CONTRIB,))
def _arithmetic(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """Add or multiply."""
    y = r.emit.node(node.op_type.removeprefix("QLinear"), [r.real(node, 0), r.real(node, 3)])[0]
    return [r.encoded(node, y, r.whole(node, 6))]


@_rewrites("QLinearSigmoid", "QLinearLeakyRelu", domains=(_CONTRIB,))
def _activate(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """Apply an activation function."""
    y = r.emit.node(node.op_type.removeprefix("QLinear"), [r.real(node, 0)], _kept(node, "alpha"))[0]
    return [r.encoded(node, y, r.whole(node, 3))]


@_rewrites("QLinearSoftmax", domains=(_CONTRIB,))
def _softmax(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """Compare along one axis, or, before opset 13, along all axes from one on."""
    e, x = r.emit, r.real(node, 0)
    if node.attributes.get_int("opset", 13) >= 13:
        y = e.Softmax(x, axis=node.attributes.get_int("axis", -1))
    else:
        flat = e.Softmax(e.Flatten(x, axis=node.attributes.get_int("axis", 1)), axis=1)
        y = e.Reshape(flat, e.Shape(x))
    return [r.encoded(node, y, r.whole(node, 3))]


@_rewrites("QLinearAveragePool", "QLinearGlobalAveragePool", domains=(_CONTRIB,))
def _pool(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """Average windows, or whole grids."""
    op, kept = node.op_type.removeprefix("QLinear"), _kept(node, *_WINDOWS)
    y = _channels_first(r, node, r.real(node, 0), lambda x: r.emit.node(op, [x], kept)[0])
    return [r.encoded(node, y, r.whole(node, 3))]


@_rewrites("NhwcMaxPool", domains=(_CONTRIB,))
def _nhwc_max_pool(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """Take the largest integer of each window, channels last."""
    e, x = r.emit, node.inputs[0]
    if x not in r.codes:
        raise refused(node, "its operand is not quantised")
    first = e.MaxPool(e.Transpose(x, perm=[0, 3, 1, 2]), **_kept(node, *_WINDOWS))
    made = e.Transpose(first, perm=[0, 2, 3, 1])
    r.codes[made] = r.codes[x]
    return [made]


@_rewrites("QLinearConcat", domains=(_CONTRIB,))
def _concat(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """Scale and zero point of the result, then each operand with its own: put them side by side."""
    y = r.emit.Concat(*(r.real(node, i) for i in range(2, len(node.inputs), 3)), axis=node.attributes["axis"].as_int())
    return [r.encoded(node, y, r.whole(node, 0))]


@_rewrites("QLinearWhere", domains=(_CONTRIB,))
def _where(r: Rewriter, node: ir.Node) -> Sequence[ir.Value]:
    """A condition, and two operands to choose from."""
    y = r.emit.Where(node.inputs[0], r.real(node, 1), r.real(node, 4))
    return [r.encoded(node, y, r.whole(node, 7))]


def is_quantised(node: ir.Node) -> bool:
    """
    Tell an operator that computes with integers in the place of numbers.

    Parameters
    ----------
    node : onnx_ir.Node
        Of the given model.

    Returns
    -------
    bool
        True for the table's operators, Cast aside.
    """
    return op_key(node) in REWRITES and node.op_type != "Cast"
