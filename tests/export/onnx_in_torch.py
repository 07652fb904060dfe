"""
Evaluate a given ONNX model with torch tensors, so that torch's autograd differentiates any model, trained ones too.

In: a model as its exporter wrote it (opsets 7 to 23) and an image batch. Out: every tensor by name, or gradients.
Nothing of camrt is used, so this is an oracle that shares no code with what it judges. Written from the operator
specifications and from torch's; an operator that is not in the table is a KeyError that names it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import torch
from torch.nn import functional

__all__ = ["Oracle", "gradients", "run"]

Tensor = torch.Tensor
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Oracle:
    """What autograd says: scores (N, C), and gradients of each image's target score at layers and at the image."""

    logits: Array
    layers: dict[str, Array]
    image: Array


def gradients(
    model: onnx.ModelProto,
    x: Array,
    target: Sequence[int] | Array,
    layers: Sequence[str],
    logits: str,
    dtype: torch.dtype,
) -> Oracle:
    """
    Differentiate a model by autograd.

    Parameters
    ----------
    model : ModelProto
        Self-contained, with one input that is not an initializer.
    x : ndarray
        The image batch.
    target : sequence of int
        One class an image.
    layers : sequence of str
        Tensors whose gradients are wanted.
    logits : str
        The tensor of scores; its dimensions of size 1 are dropped.
    dtype : torch.dtype
        What everything is computed in.
    """
    image = torch.tensor(x, dtype=dtype, requires_grad=True)
    tensors = run(model, image)
    scores = tensors[logits].reshape(len(x), -1)
    chosen = scores[torch.arange(len(x)), torch.tensor(list(target))].sum()
    *found, at_image = torch.autograd.grad(chosen, [*(tensors[name] for name in layers), image])
    by_layer = {name: g.numpy() for name, g in zip(layers, found, strict=True)}
    return Oracle(scores.detach().numpy(), by_layer, at_image.numpy())


def run(model: onnx.ModelProto, x: Tensor) -> dict[str, Tensor]:
    """Evaluate `model` on the batch `x` in `x`'s floating type, and return every tensor by name."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    tensors = {t.name: _load(t, x.dtype) for t in model.graph.initializer}
    (image,) = [v.name for v in model.graph.input if v.name not in tensors]
    tensors[image] = x
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            raise KeyError(f"the interpreter has no {node.domain}::{node.op_type} (node {node.name!r})")
        inputs = [tensors[name] if name else None for name in node.input]
        attributes = {a.name: _attribute(a, x.dtype) for a in node.attribute}
        if node.op_type in _BY_OPSET:
            attributes["opset"] = opset
        if node.op_type == "Split":
            attributes["parts"] = len(node.output)
        result = OPERATORS[node.op_type](*inputs, **attributes)
        results = result if isinstance(result, (tuple, list)) else (result,)
        results = [r.to(x.dtype) if r.is_floating_point() else r for r in results]  # constants may come in another
        tensors.update(zip(node.output, results, strict=False))
    return tensors


def _load(proto: onnx.TensorProto, dtype: torch.dtype) -> Tensor:
    """Return a constant, floating ones in the type that is computed in."""
    tensor = torch.from_numpy(np.array(onnx.numpy_helper.to_array(proto)))
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _attribute(attribute: onnx.AttributeProto, dtype: torch.dtype) -> Any:
    """Return an attribute as Python data."""
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return _load(value, dtype)
    return value.decode() if isinstance(value, bytes) else value


def _ints(sizes: Tensor | Sequence[int]) -> list[int]:
    """Return sizes or axes that came as an attribute or as an input."""
    return [int(i) for i in (sizes.reshape(-1).tolist() if isinstance(sizes, Tensor) else sizes)]


# convolutions and pools ----------------------------------------------------------------------------------------------


def _pads(
    x: Tensor, kernel: Any, strides: Any, dilations: Any, pads: Any, auto_pad: str
) -> tuple[list[int], list[int]]:
    """Return explicit pads (begins, ends) of a window."""
    if auto_pad in ("NOTSET", "VALID"):
        pads = pads or [0, 0, 0, 0]
        return list(pads[:2]), list(pads[2:])
    begins, ends = [], []
    for size, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max(0, (math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size)
        pair = [total // 2, total - total // 2]
        begin, end = pair if auto_pad == "SAME_UPPER" else reversed(pair)
        begins.append(begin)
        ends.append(end)
    return begins, ends


def _padded(x: Tensor, begins: Sequence[int], ends: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad rows and columns."""
    return functional.pad(x, [begins[1], ends[1], begins[0], ends[0]], value=value)


def _conv(
    x: Tensor, w: Tensor, b: Tensor | None = None, *, kernel_shape: Any = None, strides: Any = None,
    dilations: Any = None, pads: Any = None, group: int = 1, auto_pad: str = "NOTSET",
) -> Tensor:  # fmt: skip
    strides, dilations = strides or [1, 1], dilations or [1, 1]
    begins, ends = _pads(x, w.shape[2:], strides, dilations, pads, auto_pad)
    return functional.conv2d(_padded(x, begins, ends), w, b, strides, 0, dilations, group)


def _max_pool(
    x: Tensor, *, kernel_shape: Any, strides: Any = None, dilations: Any = None, pads: Any = None, ceil_mode: int = 0,
    auto_pad: str = "NOTSET", storage_order: int = 0,
) -> Tensor:  # fmt: skip
    strides, dilations = strides or [1, 1], dilations or [1, 1]
    begins, ends = _pads(x, kernel_shape, strides, dilations, pads, auto_pad)
    if begins == ends and all(2 * p <= k for p, k in zip(begins, kernel_shape, strict=True)):
        return functional.max_pool2d(x, kernel_shape, strides, begins, dilations, bool(ceil_mode))
    assert not ceil_mode, "the interpreter takes ceil_mode with symmetric pads alone"
    return functional.max_pool2d(_padded(x, begins, ends, -math.inf), kernel_shape, strides, 0, dilations)


def _average_pool(
    x: Tensor, *, kernel_shape: Any, strides: Any = None, pads: Any = None, ceil_mode: int = 0,
    count_include_pad: int = 0, auto_pad: str = "NOTSET",
) -> Tensor:  # fmt: skip
    strides = strides or [1, 1]
    begins, ends = _pads(x, kernel_shape, strides, [1, 1], pads, auto_pad)
    if begins == ends and all(2 * p <= k for p, k in zip(begins, kernel_shape, strict=True)):
        return functional.avg_pool2d(x, kernel_shape, strides, begins, bool(ceil_mode), bool(count_include_pad))
    assert not ceil_mode, "the interpreter takes ceil_mode with symmetric pads alone"
    counts = _padded(torch.ones_like(x[:1, :1]), begins, ends, float(count_include_pad))
    means = functional.avg_pool2d(_padded(x, begins, ends), kernel_shape, strides)
    return means / functional.avg_pool2d(counts, kernel_shape, strides)


# linear algebra and normalisation ------------------------------------------------------------------------------------


def _gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    y = alpha * ((a.T if transA else a) @ (b.T if transB else b))
    return y if c is None else y + beta * c


def _batch_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, *, epsilon: float = 1e-5, momentum: float = 0.9,
    spatial: int = 1, training_mode: int = 0,
) -> Tensor:  # fmt: skip
    assert not training_mode, "the interpreter normalises by running statistics alone"
    return functional.batch_norm(x, mean, var, scale, bias, eps=epsilon)


def _layer_normalization(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    shape = x.shape[axis % x.ndim :]
    y = functional.layer_norm(x, shape, eps=epsilon) * scale
    return y if bias is None else y + bias


def _lrn(x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Tensor:
    assert size % 2, "torch centres an even window elsewhere"
    return functional.local_response_norm(x, size, alpha, beta, bias)


def _softmax(x: Tensor, *, opset: int, axis: int | None = None) -> Tensor:
    if opset >= 13:
        return torch.softmax(x, -1 if axis is None else axis)
    axis = (1 if axis is None else axis) % x.ndim
    return torch.softmax(x.reshape(*x.shape[:axis], -1), -1).reshape(x.shape)


def _attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, scale: float | None = None, is_causal: int = 0,
    q_num_heads: int = 0, kv_num_heads: int = 0, softcap: float = 0.0, softmax_precision: int = 0,
    qk_matmul_output_mode: int = 0,
) -> Tensor:  # fmt: skip
    assert q.ndim == 4 and mask is None and not is_causal and not softcap, "the interpreter knows plain attention"
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return torch.softmax(scores, -1) @ v


def _reduce(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make a reduction whose axes are an attribute or an input."""

    def reduce(
        x: Tensor, given: Tensor | None = None, *, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        chosen = _ints(given) if given is not None else list(axes or [])
        if not chosen and noop_with_empty_axes:
            return x
        return function(x, chosen or list(range(x.ndim)), bool(keepdims))

    return reduce


# shapes --------------------------------------------------------------------------------------------------------------


def _reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Tensor:
    sizes = _ints(shape)
    return x.reshape([x.shape[i] if d == 0 and not allowzero else d for i, d in enumerate(sizes)])


def _flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    return x.reshape(math.prod(x.shape[: axis % x.ndim if axis < 0 else axis]), -1)


def _transpose(x: Tensor, *, perm: Any = None) -> Tensor:
    return x.permute(list(reversed(range(x.ndim))) if perm is None else list(perm))


def _squeeze(x: Tensor, given: Tensor | None = None, *, axes: Any = None) -> Tensor:
    chosen = _ints(given) if given is not None else axes
    return x.squeeze() if chosen is None else x.squeeze([int(a) for a in chosen])


def _unsqueeze(x: Tensor, given: Tensor | None = None, *, axes: Any = None) -> Tensor:
    chosen = _ints(given) if given is not None else list(axes)
    rank = x.ndim + len(chosen)
    for axis in sorted(a % rank for a in chosen):
        x = x.unsqueeze(axis)
    return x


def _slice(x: Tensor, *given: Tensor | None, starts: Any = None, ends: Any = None, axes: Any = None) -> Tensor:
    first, last, along, steps = [*(None if g is None else _ints(g) for g in given), *[None] * (4 - len(given))]
    first, last, along = first or list(starts or []), last or list(ends or []), along or axes
    for i, (start, end) in enumerate(zip(first, last, strict=True)):
        axis, step = (i if along is None else int(along[i])), (1 if steps is None else steps[i])
        positions = list(range(x.shape[axis]))[slice(start, end if end > -(2**31) else None, step)]
        x = x.index_select(axis, torch.tensor(positions, dtype=torch.int64))
    return x


def _pad(
    x: Tensor, given: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None, *, pads: Any = None,
    mode: str = "constant",
) -> Tensor:  # fmt: skip
    sizes = _ints(given) if given is not None else list(pads)
    chosen = [a % x.ndim for a in (list(range(x.ndim)) if axes is None else _ints(axes))]
    by_axis = {a: (sizes[i], sizes[len(chosen) + i]) for i, a in enumerate(chosen)}
    assert mode == "constant", "the interpreter pads with a constant alone"
    flat = [p for axis in reversed(range(x.ndim)) for p in by_axis.get(axis, (0, 0))]
    return functional.pad(x, flat, value=0.0 if value is None else float(value))


def _gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    axis %= x.ndim
    index = indices.reshape(-1) % x.shape[axis]
    return x.index_select(axis, index).reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def _split(
    x: Tensor, given: Tensor | None = None, *, parts: int, axis: int = 0, split: Any = None, num_outputs: int = 0
) -> Any:
    sizes = _ints(given) if given is not None else split
    return torch.split(x, list(sizes) if sizes else math.ceil(x.shape[axis] / parts), axis)


def _shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


def _cast(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:
    """Cast; between floating types nothing happens, everything is computed in one."""
    dtype = torch.from_numpy(np.zeros(0, onnx.helper.tensor_dtype_to_np_dtype(to))).dtype
    if dtype.is_floating_point:
        return x if x.is_floating_point() else x.to(dtype)
    return x.to(dtype)


def _constant(
    *, value: Tensor | None = None, value_float: float = 0.0, value_int: int | None = None, value_ints: Any = None,
    value_floats: Any = None,
) -> Tensor:  # fmt: skip
    if value is not None:
        return value
    if value_ints is not None or value_int is not None:
        return torch.tensor(list(value_ints) if value_ints is not None else value_int, dtype=torch.int64)
    return torch.tensor(list(value_floats) if value_floats is not None else value_float)


def _constant_of_shape(shape: Tensor, *, value: Tensor | None = None) -> Tensor:
    filling = torch.zeros(1) if value is None else value
    return filling.reshape([1] * len(shape)).expand(_ints(shape))


def _div(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _mod(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


def _clip(
    x: Tensor,
    low: Tensor | None = None,
    high: Tensor | None = None,
    *,
    min: float | None = None,
    max: float | None = None,
) -> Tensor:
    return x.clamp(min if low is None else float(low), max if high is None else float(high))


OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": torch.add,
    "Attention": _attention,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda *xs, axis: torch.cat(xs, axis),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "Div": _div,
    "Dropout": lambda x, *_, ratio=0.5, seed=0: x,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Expand": lambda x, shape: x.expand(torch.broadcast_shapes(x.shape, _ints(shape))),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": lambda x, approximate="none": functional.gelu(x, approximate=approximate),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: (alpha * x + beta).clamp(0, 1),
    "HardSwish": functional.hardswish,
    "Identity": lambda x: x,
    "LayerNormalization": _layer_normalization,
    "LRN": _lrn,
    "MatMul": torch.matmul,
    "MaxPool": _max_pool,
    "Mod": _mod,
    "Mul": torch.mul,
    "Pad": _pad,
    "Pow": torch.pow,
    "Range": lambda start, limit, delta: torch.arange(start.item(), limit.item(), delta.item()),
    "ReduceL2": _reduce(lambda x, axes, keepdims: x.square().sum(axes, keepdims).sqrt()),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Relu": torch.relu,
    "LeakyRelu": lambda x, *, alpha=0.01: functional.leaky_relu(x, alpha),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": torch.sigmoid,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": torch.sqrt,
    "Squeeze": _squeeze,
    "Sub": torch.sub,
    "Sum": lambda *xs: sum(xs),
    "Tanh": torch.tanh,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": torch.where,
}
_BY_OPSET = {"Softmax"}  # what an attribute left out means depends on the version
